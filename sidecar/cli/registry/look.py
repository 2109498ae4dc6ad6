"""``tenantgate registry show``, ``who`` and ``which``: what stands in the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.registry.options import (
    POLICIES,
    SHARED,
    USERS,
    json_option,
    nothing,
    open_table,
    print_json,
    table_options,
    type_option,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table

    from sidecar.cli.registry.options import Place
    from sidecar.registry import items
    from sidecar.registry.edits import Item


@click.command(short_help="Show all that belongs to a tenant.")
@click.argument("tenant")
@json_option
@table_options
def show(tenant: str, place: Place, *, as_json: bool) -> None:
    """Show all that belongs to TENANT, or to all tenants if it is SHARED.

    With --json, the items as they are stored: edit them and give them back to `put`. Exit status: 0 shown, 1 there is no such
    tenant.
    """
    with open_table(place) as table:
        found = table.partition(SHARED if tenant == SHARED else f"TENANT#{tenant}")
    if not found:
        nothing(f"table {place.table} has nothing of tenant {tenant!r}")
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.cli.registry.words import ordered  # noqa: PLC0415

    if as_json:
        print_json([ordered(item) for item in found])
        return
    console = Console(highlight=False)
    entries = _entries(found)
    console.print(_heading(tenant, entries))
    for rows in _tables(entries):
        if rows.row_count:
            console.print(rows)


@click.command(short_help="Show in which tenants a user is.")
@click.argument("user")
@json_option
@table_options
def who(user: str, place: Place, *, as_json: bool) -> None:
    """Show in which tenants USER is, and with which roles and policies.

    One query of the inverted index, which lags behind the table by some milliseconds. Exit status: 0 shown, 1 USER is in none.
    """
    with open_table(place) as table:
        found = table.holders(f"{USERS}#{user}")
    if not found:
        nothing(f"{user!r} is in no tenant of table {place.table}")
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.cli.registry.words import cells, headed_table, ordered  # noqa: PLC0415

    if as_json:
        print_json([ordered(item) for item in found])
        return
    rows = headed_table("", "tenant", "status", "roles", "policies", "version")
    for entry in _entries(found):
        member: Any = entry.record
        rows.add_row(
            *cells(entry.tenant, member.status, ", ".join(member.roles), ", ".join(member.policy_ids), _version(member))
        )
    Console(highlight=False).print(rows)


@click.command(short_help="Show whose rules are about a tool.")
@click.argument("resource", metavar="TOOL")
@type_option
@json_option
@table_options
def which(resource: str, resource_type: str, place: Place, *, as_json: bool) -> None:
    """Show which tenants' rules are about TOOL, an exact id: their effect, and what narrows them.

    Reads the whole table. Exit status: 0 shown, 1 no rule is about it.
    """
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.cli.progress import counting  # noqa: PLC0415
    from sidecar.cli.registry.words import cells, headed_table, narrowing  # noqa: PLC0415

    with (
        open_table(place) as table,
        counting("Reading items", table.count()) as progress,
    ):
        found = [*_concerned(_entries(table.scan(f"{POLICIES}#", progress)), resource_type, resource)]
    if not found:
        nothing(f"no rule in table {place.table} is about {resource_type} {resource!r}")
    found.sort(key=lambda row: (row[0], row[1].policy_id, row[2]))
    if as_json:
        print_json([_as_json(*row) for row in found])
        return
    rows = headed_table("", "tenant", "effect", "policy", "for", "rule", "resources", "narrowing")
    for tenant, policy, position, rule in found:
        resources = ", ".join(_matching(rule, resource))
        rows.add_row(
            *cells(tenant, rule.effect, policy.policy_id, policy.assignment, _rule_name(rule, position), resources),
            *cells(narrowing(rule)),
        )
    Console(highlight=False).print(rows)


_Row = tuple[str, "items.Policy", int, "items.Rule"]


def _concerned(entries: Iterable[items.Entry], resource_type: str, resource: str) -> Iterator[_Row]:
    for entry in entries:
        policy: Any = entry.record
        for position, rule in enumerate(policy.rules):
            if rule.resource_type == resource_type and _matching(rule, resource):
                yield entry.tenant, policy, position, rule


def _matching(rule: items.Rule, resource: str) -> list[str]:
    from sidecar.registry import globs  # noqa: PLC0415 - not needed for --help

    return [text for text in rule.resources if globs.matches(text, resource)]


def _rule_name(rule: items.Rule, position: int) -> str:
    from sidecar.registry.items import rule_name  # noqa: PLC0415 - not needed for --help

    return rule_name(rule, position)


def _as_json(tenant: str, policy: items.Policy, position: int, rule: items.Rule) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - not needed for --help

    return {
        "tenantId": tenant,
        "policyId": policy.policy_id,
        "assignment": policy.assignment,
        **msgspec.to_builtins(rule),
        "ruleId": _rule_name(rule, position),
    }


def _entries(found: Iterable[Item]) -> list[items.Entry]:
    """Read items, and warn of those that cannot be read: an answer without them must not look complete."""
    from sidecar.registry import items  # noqa: PLC0415 - not needed for --help

    entries = []
    for item in found:
        try:
            entry = items.parse(item)
        except items.MalformedItemError as fault:
            warn(f"passed over: {items.item_name(item)}: {fault}")
            continue
        if entry is None:
            warn(f"passed over: {items.item_name(item)}: is of an unknown kind")
        else:
            entries.append(entry)
    return entries


def _heading(tenant: str, entries: Iterable[items.Entry]) -> Table:
    from sidecar.cli.registry.words import cells, plain_table  # noqa: PLC0415 - not needed for --help

    rows = plain_table()
    if tenant == SHARED:
        rows.add_row("shared by all tenants", "")
        return rows
    rows.add_row("tenant", *cells(tenant))
    record: Any = next((entry.record for entry in entries if entry.kind == "TENANT"), None)
    if record is None:
        rows.add_row("status", "does not exist: it has no TENANT item, so nothing below has any effect")
        return rows
    rows.add_row("status", *cells(record.status))
    rows.add_row("membership", record.membership)
    if record.max_staleness_seconds:
        rows.add_row("maximum staleness", f"{record.max_staleness_seconds:g} s")
    if record.description:
        rows.add_row("description", *cells(record.description))
    rows.add_row("version", _version(record))
    return rows


def _tables(entries: Iterable[items.Entry]) -> list[Table]:
    from sidecar.cli.registry.words import cells, headed_table, narrowing, value  # noqa: PLC0415 - not needed for --help
    from sidecar.registry import items  # noqa: PLC0415

    policies = headed_table("Policies", "policy", "for", "rule", "effect", "type", "resources", "narrowing", "version")
    members = headed_table("Memberships", "user", "status", "roles", "policies", "attributes", "version")
    agents = headed_table("Agents", "agent", "status", "scopes", "version")
    resources = headed_table("Resources", "type", "resource", "status", "access", "attributes", "version")
    for entry in entries:
        match entry.record:
            case items.Policy() as policy:
                for position, rule in enumerate(policy.rules):
                    name = (policy.policy_id, policy.assignment, _version(policy)) if position == 0 else ("", "", "")
                    policies.add_row(
                        *cells(name[0], name[1], _rule_name(rule, position), rule.effect, rule.resource_type),
                        *cells(", ".join(rule.resources), narrowing(rule), name[2]),
                    )
                if not policy.rules:
                    policies.add_row(
                        *cells(policy.policy_id, policy.assignment, "no rules", *[""] * 4, _version(policy))
                    )
            case items.Membership() as member:
                attributes = value(member.attributes) if member.attributes else ""
                lists = (", ".join(member.roles), ", ".join(member.policy_ids))
                members.add_row(*cells(member.user_id, member.status, *lists, attributes, _version(member)))
            case items.Agent() as agent:
                agents.add_row(*cells(agent.agent_id, agent.status, ", ".join(agent.scopes), _version(agent)))
            case items.Resource() as resource:
                attributes = value(resource.attributes) if resource.attributes else ""
                resources.add_row(
                    *cells(resource.resource_type, resource.resource_id, resource.status, resource.access or ""),
                    *cells(attributes, _version(resource)),
                )
    return [policies, members, agents, resources]


def _version(record: Any) -> str:
    return str(record.version or 0)
