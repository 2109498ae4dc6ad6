"""``tenantgate registry assign``, ``suspend`` and ``resume``: who has which access, from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.registry.options import (
    POLICIES,
    SHARED,
    USERS,
    json_option,
    locate,
    nothing,
    open_table,
    print_json,
    table_options,
    type_option,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.cli.registry.options import Place
    from sidecar.registry.edits import Item
    from sidecar.registry.items import Status
    from sidecar.registry.table import RegistryTable


@click.command(short_help="Give a user policies and roles.")
@click.argument("user")
@click.option("--tenant", required=True, help="The tenant that the user is in.")
@click.option("--policy", "policies", multiple=True, help="A policy for MEMBERS to assign. Repeatable.")
@click.option("--role", "roles", multiple=True, help="A role to give. Repeatable.")
@click.option("--remove", "remove", is_flag=True, help="Take these policies and roles away instead.")
@json_option
@table_options
def assign(
    user: str,
    tenant: str,
    policies: tuple[str, ...],
    roles: tuple[str, ...],
    place: Place,
    *,
    remove: bool,
    as_json: bool,
) -> None:
    """Give USER policies and roles in a tenant, or take them away.

    A membership that is not there is made. Exit status: 0 done, 1 there is no such tenant, policy or membership.
    """
    from sidecar.registry.edits import with_assignments  # noqa: PLC0415 - not needed for --help

    if remove and not policies and not roles:
        msg = "--remove needs --policy or --role; `remove user` removes the membership"
        raise click.UsageError(msg)
    at = (f"TENANT#{tenant}", f"{USERS}#{user}")

    def change(before: Item | None) -> Item | None:
        if remove and before is None:
            return None
        return with_assignments(before, at, policies, roles, remove=remove)

    with open_table(place) as table:
        if not remove:
            _check_assignable(table, tenant, policies)
        before, after = table.edit(*at, change)
    if after is None:
        nothing(f"{user!r} is not in tenant {tenant!r}")
    _tell(before, after, as_json=as_json)
    if after.get("status") == "SUSPENDED":
        warn(f"the membership of {user!r} is suspended; `tenantgate registry resume` ends that")


def _check_assignable(table: RegistryTable, tenant: str, policies: tuple[str, ...]) -> None:
    pk = f"TENANT#{tenant}"
    if table.get(pk, "TENANT") is None:
        nothing(f"table {table.name} has no tenant {tenant!r}")
    for policy in policies:
        item = table.get(pk, f"{POLICIES}#{policy}")
        if item is None:
            nothing(f"tenant {tenant!r} has no policy {policy!r}")
        if item.get("assignment") != "MEMBERS":
            warn(f"policy {policy!r} is for all members of tenant {tenant!r} anyway: its assignment is not MEMBERS")


_kind_argument = click.argument("kind", type=click.Choice(["tenant", "user", "agent", "tool"]))
_name_argument = click.argument("name", metavar="ID")
_tenant_option = click.option("--tenant", help="Whose it is; a tool without it is the one that is shared.")


@click.command(short_help="Shut off a tenant, user, agent or tool.")
@_kind_argument
@_name_argument
@_tenant_option
@type_option
@json_option
@table_options
def suspend(kind: str, name: str, tenant: str | None, resource_type: str, **options: Any) -> None:
    """Shut off a tenant, a user or agent of a tenant, or a tool: the kill switch.

    Sets `status`, again if others write the item at the same moment. A tool that is not catalogued is put into the catalogue.
    Exit status: 0 it is suspended, 1 there is no such item.
    """
    _set_status("SUSPENDED", kind, name, tenant, resource_type, **options)


@click.command(short_help="End a suspension.")
@_kind_argument
@_name_argument
@_tenant_option
@type_option
@json_option
@table_options
def resume(kind: str, name: str, tenant: str | None, resource_type: str, **options: Any) -> None:
    """End the suspension of a tenant, user, agent or tool.

    Exit status: 0 it is active, 1 there is no such item.
    """
    _set_status("ACTIVE", kind, name, tenant, resource_type, **options)


def _set_status(
    status: Status,
    kind: str,
    name: str,
    tenant: str | None,
    resource_type: str,
    *,
    place: Place,
    as_json: bool,
) -> None:
    pk, sk = locate(kind, name, tenant, resource_type)
    with open_table(place) as table:
        before, after = table.edit(pk, sk, _changing(table, pk, sk, status, create=kind == "tool"))
        if after is None:
            nothing(f"table {place.table} has no {pk} / {sk}{_ABSENT[kind] if status == 'SUSPENDED' else ''}")
        tenant_item = table.get(pk, "TENANT") if kind == "user" and status == "SUSPENDED" else None
    _tell(before, after, as_json=as_json)
    if tenant_item is not None and tenant_item.get("membership") == "OPTIONAL":
        warn(
            f"membership is OPTIONAL in tenant {tenant!r}, where a suspended one counts as none: {name!r} still has what "
            "needs no membership; a DENY rule for the user, or membership REQUIRED, ends that"
        )


_ABSENT = {
    "tenant": "",
    "user": "; in a tenant whose membership is OPTIONAL, deny the user by a rule",
    "agent": "; where a tenant lists no agents, deny the agent by a rule",
    "tool": "",
}
"""What else there is to do about something that has no item to suspend."""


def _changing(
    table: RegistryTable, pk: str, sk: str, status: Status, *, create: bool
) -> Callable[[Item | None], Item | None]:
    from sidecar.registry.edits import VERSION  # noqa: PLC0415 - not needed for --help

    def change(before: Item | None) -> Item | None:
        if before is not None:
            return None if before.get("status", "ACTIVE") == status else {**before, "status": status}
        if not create or status == "ACTIVE":
            return None
        # a tenant's own entry hides the shared one, so it must say what that says
        shared = table.get(SHARED, sk) or {}
        copied = {name: value for name, value in shared.items() if name != VERSION}
        return {**copied, "pk": pk, "sk": sk, "status": status}

    return change


def _tell(before: Item | None, after: Item, *, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.cli.registry.words import cells, ordered, plain_table  # noqa: PLC0415
    from sidecar.registry.edits import VERSION  # noqa: PLC0415

    if as_json:
        print_json(ordered(after))
        return
    outcome = "created" if before is None else "unchanged" if before[VERSION] == after[VERSION] else "changed"
    rows = plain_table()
    rows.add_row(*cells(outcome, f"{after['pk']} / {after['sk']}"))
    rows.add_row("status", *cells(str(after.get("status", "ACTIVE"))))
    for title, attribute in (("roles", "roles"), ("policies", "policyIds")):
        names: Any = after.get(attribute)
        if names:
            rows.add_row(title, *cells(", ".join(names)))
    rows.add_row("version", str(after[VERSION]))
    Console(highlight=False).print(rows)
