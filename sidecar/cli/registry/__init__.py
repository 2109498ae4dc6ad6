"""``tenantgate registry``: the commands for the policy author, one module for each thing that is done."""

from __future__ import annotations

import click

from sidecar.cli.options import OrderedGroup
from sidecar.cli.registry.access import assign, resume, suspend
from sidecar.cli.registry.diff import diff
from sidecar.cli.registry.edit import import_, put, remove
from sidecar.cli.registry.export import export
from sidecar.cli.registry.init import init
from sidecar.cli.registry.lint import lint
from sidecar.cli.registry.look import show, which, who


@click.group(cls=OrderedGroup)
def registry() -> None:
    """Look after the registry.

    `lint` and `diff` read exports; the others work on the table, live. Region, credentials and endpoint of the table are found
    as by any AWS SDK.
    """


for command in (init, show, who, which, put, import_, remove, assign, suspend, resume, export, lint, diff):
    registry.add_command(command)
