"""``tenantgate token``: who a token says is asking, and tokens for development, one module for each thing that is done."""

from __future__ import annotations

import click

from sidecar.cli.options import OrderedGroup
from sidecar.cli.token.check import check
from sidecar.cli.token.issuer import issuer
from sidecar.cli.token.mint import mint


@click.group(cls=OrderedGroup)
def token() -> None:
    """Make tokens for development, and see what a token proves."""


for command in (issuer, mint, check):
    token.add_command(command)
