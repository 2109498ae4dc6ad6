"""``tenantgate registry put``, ``import`` and ``remove``: items into the table, and out of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.registry.options import (
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
    from collections.abc import Sequence

    from sidecar.cli.registry.options import Place
    from sidecar.registry.edits import Edit, Item
    from sidecar.registry.table import RegistryTable

_dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would become of each item; write nothing.")


@click.command(short_help="Write items from YAML or JSON.")
@click.argument(
    "files",
    metavar="[FILE]...",
    nargs=-1,
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
)
@_dry_run_option
@json_option
@table_options
def put(files: tuple[Path, ...], **options: Any) -> None:
    """Write items, one or a list of them, from each FILE in YAML or JSON; from standard input if there is none, or `-`.

    All are checked before any is written; up to a hundred are written all or none. An item with the `version` that `show` gave
    is written only if it still has that version, and one without only if there is none of its key: what another author
    wrote meanwhile is never lost. Policy documents without pk and sk (policyId, tenantId, rules) are given theirs.
    """
    from sidecar.cli.registry.files import STDIN, read_files  # noqa: PLC0415 - not needed for --help

    _write(read_files(files or [STDIN]), replace=False, **options)


@click.command(name="import", short_help="Write a registry that is kept in files.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_dry_run_option
@json_option
@table_options
def import_(folder: Path, **options: Any) -> None:
    """Write the items of all *.yaml, *.yml and *.json files below DIR: a registry that is kept in files.

    Like `put`, but items without `version` take the place of the stored ones; those that are the same are not written. What is
    suspended in the table stays so, and what is in the table alone stays there.
    """
    from sidecar.cli.registry.files import find_files, read_files  # noqa: PLC0415 - not needed for --help

    _write(read_files(find_files(folder)), replace=True, **options)


def _write(
    sources: Sequence[tuple[str, Any]],
    place: Place,
    *,
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from sidecar.cli.progress import counting  # noqa: PLC0415 - not needed for --help
    from sidecar.registry import edits  # noqa: PLC0415

    if not sources:
        nothing("there are no items to write")
    wanted, warnings = edits.check(sources)
    for warning in warnings:
        warn(warning)
    with open_table(place) as table:
        stored = table.get_all([edits.key(item) for item in wanted])
        planned = edits.plan(wanted, stored, replace=replace)
        changes = [edits.Change(edit.item) for edit in planned if edit.outcome != "unchanged"]
        if changes and not dry_run:
            with counting("Writing items", len(changes)) as progress:
                table.write(changes, progress)
    _report(planned, dry_run=dry_run, as_json=as_json)


def _report(planned: Sequence[Edit], *, dry_run: bool, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.cli.registry.words import cells, headed_table  # noqa: PLC0415
    from sidecar.registry.edits import VERSION, key  # noqa: PLC0415

    rows = headed_table("", "outcome", "item", "version", "what")
    documents = []
    for edit in planned:
        pk, sk = key(edit.item)
        read: Any = edit.item.get(VERSION, 0)
        version = read if edit.outcome == "unchanged" else read + 1
        documents.append(
            {
                "pk": pk,
                "sk": sk,
                "outcome": edit.outcome,
                "version": version,
                "attributes": edit.attributes,
                "note": edit.note,
            }
        )
        about = "; ".join(filter(None, [", ".join(edit.attributes), edit.note]))
        rows.add_row(*cells(edit.outcome, f"{pk} / {sk}", str(version), about))
    if as_json:
        print_json(documents)
        return
    console = Console(highlight=False)
    console.print(rows)
    counts = Counter(edit.outcome for edit in planned)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("created", "changed", "unchanged"))
    console.print(f"{told}. A dry run: nothing was written." if dry_run else f"{told}.")


@click.command(short_help="Remove an item, or a whole tenant.")
@click.argument("kind", type=click.Choice(["tenant", "policy", "user", "agent", "tool"]))
@click.argument("name", metavar="ID")
@click.option("--tenant", help="Whose it is; a tool without it is the one that is shared.")
@type_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@table_options
def remove(
    kind: str,
    name: str,
    tenant: str | None,
    resource_type: str,
    place: Place,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove an item; of a tenant, all that belongs to it.

    Only if it is still as it was when it was read. Exit status: 0 removed, 1 there is none, or you said no.
    """
    from sidecar.cli.registry.words import ordered  # noqa: PLC0415 - not needed for --help
    from sidecar.registry.edits import Change, key  # noqa: PLC0415

    pk, sk = locate(kind, name, tenant, resource_type)
    with open_table(place) as table:
        found = _found(table, pk, sk)
        if not found:
            nothing(f"table {place.table} has no {pk} / {sk}")
        if kind == "policy":
            _warn_of_listings(table, pk, name)
        if not yes:
            click.confirm(f"Remove {_told(pk, sk, found)}?", abort=True, err=True)
        table.write([Change(item, remove=True) for item in found])
    if as_json:
        print_json([ordered(item) for item in found])
        return
    for item in found:
        click.echo(f"removed  {' / '.join(key(item))}")


def _found(table: RegistryTable, pk: str, sk: str) -> list[Item]:
    if sk != "TENANT":
        item = table.get(pk, sk)
        return [item] if item else []
    # the tenant item goes first: a tenant without one does not exist, whatever of it is left
    return sorted(table.partition(pk), key=lambda item: item["sk"] != "TENANT")


def _told(pk: str, sk: str, found: Sequence[Item]) -> str:
    if sk != "TENANT":
        return f"{pk} / {sk}"
    counts = Counter(str(item["sk"]).partition("#")[0] for item in found)
    return f"{pk} and all that belongs to it ({', '.join(f'{count} {kind}' for kind, count in counts.items())})"


def _warn_of_listings(table: RegistryTable, pk: str, policy: str) -> None:
    listing = [
        str(item["sk"]).partition("#")[2]
        for item in table.partition(pk)
        if str(item["sk"]).startswith("USER#") and policy in (item.get("policyIds") or ())
    ]
    if listing:
        warn(
            f"{len(listing)} memberships list this policy, such as {listing[0]!r}: `assign --remove --policy` ends that"
        )
