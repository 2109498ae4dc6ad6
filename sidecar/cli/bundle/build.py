"""``tenantgate bundle build``: an export becomes a base bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.bundle.options import recipe_options

if TYPE_CHECKING:
    from sidecar.bundles.build import Recipe

_SHOWN = 5


@click.command()
@click.option("--export", "source", required=True, help="The export: a directory, or s3://BUCKET/PREFIX.")
@click.option(
    "--incremental",
    "increments",
    multiple=True,
    metavar="SOURCE",
    help="An incremental export that goes on from it; may be repeated, in any order.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@recipe_options
@click.option("--dry-run", is_flag=True, help="Show what it would change, tenant by tenant, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(source: str, increments: tuple[str, ...], out: Path, recipe: Recipe, *, dry_run: bool, as_json: bool) -> None:
    """Compile a full export of the registry, and incremental ones on top of it, to a base bundle.

    Nothing is written unless the whole export is there, undamaged, and every item that belongs to the registry is well-formed.
    The same export and policies give the same bytes.
    """
    import dataclasses  # noqa: PLC0415 - not needed for --help

    import msgspec  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    from sidecar.bundles.build import build_base  # noqa: PLC0415
    from sidecar.cli.progress import counting  # noqa: PLC0415
    from sidecar.registry.incremental import open_exports  # noqa: PLC0415

    export = open_exports(source, increments)
    with counting("Reading items", export.item_count) as progress:
        report = build_base(export, out, dataclasses.replace(recipe, dry_run=dry_run), progress)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    console = Console(highlight=False, soft_wrap=True)
    read = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in report.read.items())
    console.print(f"Read {read}.")
    if report.changes:
        applied, ignored = report.changes.applied, report.changes.ignored
        console.print(f"Changed {applied} items by incremental exports; ignored {ignored} older or repeated records.")
    where = "and wrote nothing" if dry_run else f"to [bold]{out}[/bold]"
    console.print(f"Compiled {report.tenants} tenants with {report.rules} rules {where}.")
    for what in ("added", "removed", "changed"):
        tenants = getattr(report.difference, what, ())
        if tenants:
            rest = "" if dry_run or len(tenants) <= _SHOWN else ", ..."
            console.print(f"{len(tenants)} tenants {what}: {', '.join(tenants if dry_run else tenants[:_SHOWN])}{rest}")
    if report.extensions:
        console.print(f"With the extensions {', '.join(report.extensions)}.")
    console.print(f"Revision {report.revision}, as of {report.as_of}.")
    if report.forked:
        console.print(
            f"[yellow]{out} was revision {report.forked}, of the same moment: sidecars that took that in refuse this one as"
            " FORKED. Build from a newer export, or have `tenantgate bundle watch` make a base.[/]"
        )
    if report.tenantless:
        shown = ", ".join(report.tenantless[:5]) + (" ..." if len(report.tenantless) > 5 else "")  # noqa: PLR2004
        console.print(
            f"[yellow]{len(report.tenantless)} tenants have items but no TENANT item, and do not exist: {shown}[/]"
        )
    if report.unknown_items:
        console.print(
            f"[yellow]Passed over {report.unknown_items} items of unknown kinds: {'; '.join(report.unknown_examples)}[/]"
        )
    for attribute, count in report.unknown_attributes.items():
        console.print(f"[yellow]Ignored the attribute {attribute} of {count} items.[/]")
