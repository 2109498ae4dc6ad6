"""``tenantgate bundle``: how the registry becomes what OPA serves, one module for each thing that is done."""

from __future__ import annotations

import click

from sidecar.cli.bundle.build import build
from sidecar.cli.bundle.inspect import inspect
from sidecar.cli.bundle.keygen import keygen
from sidecar.cli.bundle.serve import serve
from sidecar.cli.bundle.watch import watch
from sidecar.cli.options import OrderedGroup


@click.group(cls=OrderedGroup)
def bundle() -> None:
    """Compile the registry to the bundle that OPA serves."""


for command in (keygen, build, inspect, watch, serve):
    bundle.add_command(command)
