"""``tenantgate bundle inspect``: what a bundle says about itself."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Show what a bundle is, and what it holds."""
    import json  # noqa: PLC0415 - not needed for --help

    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from sidecar.bundles.bundle import plain, read_manifest, read_sizes  # noqa: PLC0415

    manifest, sizes = read_manifest(file), read_sizes(file)
    if as_json:
        click.echo(json.dumps({**plain(manifest), "files": sizes}))
        return
    info = manifest.metadata
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("revision", manifest.revision)
    table.add_row("as of", info.as_of)
    table.add_row("source", info.source)
    table.add_row("compiler", f"{info.compiler}, layout {info.format}")
    table.add_row("roots", ", ".join(manifest.roots))
    table.add_row("extensions", ", ".join(info.extensions) or "none")
    for name, count in info.counts.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    for name, size in sizes.items():
        table.add_row(name, f"{size:,} bytes")
    Console(highlight=False).print(table)
