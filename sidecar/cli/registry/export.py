"""``tenantgate registry export``: the table becomes an export, which is what bundles are built from."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.registry.options import json_option, open_table, print_json, table_options

if TYPE_CHECKING:
    from sidecar.cli.registry.options import Place
    from sidecar.registry.table import RegistryTable
    from sidecar.registry.table_export import TableExport, Window

_INTERRUPTED = 130  # as a shell has it


class _Moment(click.ParamType[datetime]):
    """A moment in RFC 3339, with its time zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is not a moment such as 2026-11-24T00:00:00Z", param, ctx)
        return moment


@click.command()
@click.option("--to", "to", required=True, metavar="PLACE", help="s3://BUCKET/PREFIX; with --scan, a directory too.")
@click.option("--scan", is_flag=True, help="Read the table ourselves, where DynamoDB cannot export it.")
@click.option("--incremental-from", "begin", type=_Moment(), help="Export what was written from this moment on,")
@click.option("--incremental-to", "end", type=_Moment(), help="up to, but not at, this one.")
@json_option
@table_options
def export(place: Place, to: str, begin: datetime | None, end: datetime | None, *, scan: bool, as_json: bool) -> None:
    """Export the table, and print where the export is.

    DynamoDB exports the table to S3 as it is at this moment, or what was written to it in a time of 15 minutes to 24 hours; that
    takes minutes, costs no read capacity and needs point-in-time recovery. A scan reads the whole table now, and writes the same
    layout.
    """
    window = _window(begin, end)
    if scan and window:
        msg = "--scan reads the whole table; what was written in a window of time DynamoDB alone can tell"
        raise click.UsageError(msg)
    if not scan and not to.startswith("s3://"):
        msg = "--to: DynamoDB exports to s3://BUCKET/PREFIX; add --scan to write to a directory"
        raise click.UsageError(msg)
    with open_table(place) as table:
        exported = _scanned(table, to) if scan else _exported(table, to, window)
    if as_json:
        print_json({"location": exported.location, "arn": exported.arn or None, "items": exported.items})
        return
    click.echo(f"{exported.items:,} items", err=True)
    click.echo(exported.location)


def _window(begin: datetime | None, end: datetime | None) -> Window | None:
    from sidecar.registry.table_export import Window  # noqa: PLC0415 - not needed for --help

    if begin is None and end is None:
        return None
    if begin is None or end is None:
        msg = "--incremental-from and --incremental-to go together"
        raise click.UsageError(msg)
    window = Window(begin, end)
    if fault := window.fault():
        raise click.UsageError(fault)
    return window


def _scanned(table: RegistryTable, to: str) -> TableExport:
    from sidecar.cli.progress import counting  # noqa: PLC0415 - not needed for --help
    from sidecar.registry.table_export import scan_export  # noqa: PLC0415

    with counting("Reading items", table.count()) as progress:
        return scan_export(table.client, table.name, to, progress)


def _exported(table: RegistryTable, to: str, window: Window | None) -> TableExport:
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.registry.export_writer import split_s3  # noqa: PLC0415
    from sidecar.registry.table_export import follow_export, start_export  # noqa: PLC0415

    started = start_export(table.client, table.name, *split_s3(to), window)
    click.echo(f"DynamoDB exports {table.name} to {started.location}", err=True)
    try:
        with Console(stderr=True).status("Waiting for DynamoDB, which takes minutes") as status:
            return follow_export(
                table.client, table.name, started, lambda seen: status.update(f"{seen.status}, {seen.items:,} items")
            )
    except KeyboardInterrupt:
        command = f"aws dynamodb describe-export --export-arn {shlex.quote(started.arn)}"
        click.echo(f"The export goes on without this command. To look at it: {command}", err=True)
        sys.exit(_INTERRUPTED)
