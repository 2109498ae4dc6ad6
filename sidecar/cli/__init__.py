"""The command ``tenantgate``: each command in a module of its own, imported when it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from sidecar.errors import TenantgateError

COMMANDS = {
    "serve": ("sidecar.cli.serve", "Run the sidecar next to the agent runtime."),
    "authorize": ("sidecar.cli.authorize", "Ask the sidecar one question."),
    "exchange": ("sidecar.cli.exchange", "Get AWS credentials for what a token may use."),
    "token": ("sidecar.cli.token", "Make tokens for development, and see what a token proves."),
    "status": ("sidecar.cli.status", "Show what state the sidecar is in."),
    "log": ("sidecar.cli.log", "Show what was decided: the decision log."),
    "config": ("sidecar.cli.config", "Show every setting, with its value in force."),
    "bundle": ("sidecar.cli.bundle", "Compile the registry to the bundle that OPA serves."),
    "registry": ("sidecar.cli.registry", "Look after the registry."),
    "iam": ("sidecar.cli.iam", "Write the IAM policies that keep tenants apart in AWS."),
}
"""The commands: the module that holds each, as an attribute of the command's name, and what it is for."""


class Commands(click.Group):
    """A group that imports its commands late, and ends with exit status 2 and one clear message when one fails."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's shape
        """List the commands in the order in which they are met."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's shape
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's shape
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TenantgateError as fault:
            click.echo(f"tenantgate: {fault}", err=True)
            sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tenantgate")
def main() -> None:
    """Decide every tool call of a multi-tenant agent runtime, outside the model."""
