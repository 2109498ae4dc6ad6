"""``tenantgate registry init``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sidecar.cli.registry.options import json_option, open_table, print_json, table_options

if TYPE_CHECKING:
    from sidecar.cli.registry.options import Place


@click.command()
@json_option
@table_options
def init(place: Place, *, as_json: bool) -> None:
    """Make the table, or turn on what an existing one lacks.

    On-demand, with the inverted index, a stream of new and old images, point-in-time recovery and deletion protection. What is
    there already stays; a table of another form is refused.
    """
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    from sidecar.cli.registry.words import plain_table  # noqa: PLC0415

    with open_table(place) as table:
        parts = table.init()
    if as_json:
        print_json({"name": place.table, **parts})
        return
    rows = plain_table()
    for part, state in parts.items():
        rows.add_row(place.table if part == "table" else part, state)
    Console(highlight=False).print(rows)
