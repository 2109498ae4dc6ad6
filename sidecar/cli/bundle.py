"""``tenantgate bundle``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def bundle() -> None:
    """Compile the registry to the bundle that OPA serves."""


@bundle.command()
@click.option("--export", "source", required=True, help="The export: a directory, or s3://BUCKET/PREFIX.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option(
    "--custom", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Your own deny rules, in Rego. [default: policies/custom of the clone]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(source: str, out: Path, custom: Path | None, *, as_json: bool) -> None:
    """Compile a full export of the registry to a base bundle.

    Nothing is written unless the whole export is there, undamaged, and every item that belongs to the registry is well-formed.
    The same export and policies give the same bytes.
    """
    import msgspec  # noqa: PLC0415 - not needed for --help
    from rich.console import Console  # noqa: PLC0415

    from sidecar.bundles.build import build_base  # noqa: PLC0415
    from sidecar.cli.progress import counting  # noqa: PLC0415
    from sidecar.registry.exports import Export  # noqa: PLC0415
    from sidecar.toolchain import check_rego, data_folder, find_opa  # noqa: PLC0415

    policies = data_folder("policies")
    if custom is None and (policies / "custom").is_dir():
        custom = policies / "custom"
    check_rego([policies / "tenantgate", *([custom] if custom else [])], find_opa(None))
    export = Export(source)
    with counting("Reading items", export.item_count) as progress:
        report = build_base(export, out, policies, custom, progress)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    console = Console(highlight=False, soft_wrap=True)
    read = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in report.read.items())
    console.print(f"Read {read}.")
    console.print(f"Compiled {report.tenants} tenants with {report.rules} rules to [bold]{out}[/bold].")
    if report.extensions:
        console.print(f"With the extensions {', '.join(report.extensions)}.")
    console.print(f"Revision {report.revision}, as of {report.as_of}.")
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


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Show what a bundle is, and what it holds."""
    import json  # noqa: PLC0415 - not needed for --help

    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from sidecar.bundles.bundle import plain, read_manifest  # noqa: PLC0415

    manifest, sizes = read_manifest(file)
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
