"""``tenantgate registry lint``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.registry.exports import Export
    from sidecar.registry.lint import Finding


@click.command(short_help="Tell what is odd in an export.")
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each finding.")
def lint(source: str, *, as_json: bool) -> None:
    """Tell what is odd in a full export of the registry, or cannot have been meant.

    SOURCE is a directory or s3://BUCKET/PREFIX. Exit status: 0 nothing found, 1 something, 2 SOURCE cannot be read.
    """
    import msgspec  # noqa: PLC0415 - not needed for --help
    from rich.console import Console  # noqa: PLC0415

    from sidecar.registry.exports import Export  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    found = 0
    for finding in _findings(Export(source)):
        found += 1
        if as_json:
            click.echo(msgspec.json.encode(finding).decode())
        else:
            colour = "red" if finding.severity == "error" else "yellow"
            console.print(f"[{colour}]{finding.severity:8}{finding.code}[/]", end=" ")
            console.print(finding.message, markup=False)
    if not as_json:
        console.print(f"{found or 'no'} findings")
    sys.exit(1 if found else 0)


def _findings(export: Export) -> Iterator[Finding]:
    from sidecar.cli.progress import counting  # noqa: PLC0415 - not needed for --help
    from sidecar.registry.lint import Catalogue, lint_malformed, lint_tenant  # noqa: PLC0415
    from sidecar.registry.spool import Spool  # noqa: PLC0415

    with Spool() as spool:
        with counting("Reading items", export.item_count) as progress:
            spool.add(export.items(progress))
        yield from lint_malformed(spool.faults, spool.attributes)
        shared = Catalogue(spool.shared())
        for tenant_id, records in spool.tenants():
            yield from lint_tenant(tenant_id, records, shared, export.as_of)
