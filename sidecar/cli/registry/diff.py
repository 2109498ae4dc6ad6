"""``tenantgate registry diff``."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sidecar.registry.spool import Spool


@click.command(short_help="Tell what differs between two exports.")
@click.argument("before")
@click.argument("after")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each item that differs.")
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Tell which items differ between two full exports, tenant by tenant.

    BEFORE and AFTER are directories or s3://BUCKET/PREFIX. What items mean is compared: versions, and defaults that are spelled
    out, make no difference. Exit status: 0 they are the same, 1 they differ, 2 one cannot be read.
    """
    import msgspec  # noqa: PLC0415 - not needed for --help
    from rich.console import Console  # noqa: PLC0415

    from sidecar.cli.registry.words import difference  # noqa: PLC0415
    from sidecar.registry.compare import differences  # noqa: PLC0415
    from sidecar.registry.spool import Spool  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    counts: Counter[str] = Counter()
    tenant = None
    with Spool() as old, Spool() as new:
        for spool, source in ((old, before), (new, after)):
            _fill(spool, source)
        for found in differences(old, new):
            counts[found.change] += 1
            if as_json:
                click.echo(msgspec.json.encode(found).decode())
                continue
            if found.tenant != tenant:
                tenant = found.tenant
                counts["tenants"] += 1
                console.print(tenant, style="bold", markup=False)
            console.print(f"  {difference(found)}", style=_COLOURS[found.change], markup=False)
    if not as_json:
        told = ", ".join(f"{counts[change]} {change}" for change in _COLOURS if counts[change])
        console.print(f"{told}, in {counts['tenants']} tenants" if told else "no differences")
    sys.exit(1 if counts else 0)


_COLOURS = {"added": "green", "removed": "red", "changed": "yellow"}


def _fill(spool: Spool, source: str) -> None:
    from sidecar.cli.progress import counting  # noqa: PLC0415 - not needed for --help
    from sidecar.registry.exports import Export  # noqa: PLC0415

    export = Export(source)
    with counting(f"Reading {source}", export.item_count) as progress:
        spool.add(export.items(progress))
    spool.check()
    if spool.unknown:
        click.echo(
            f"warning: {source}: {spool.unknown} items of unknown kinds are not compared, such as {spool.examples[0]}",
            err=True,
        )
