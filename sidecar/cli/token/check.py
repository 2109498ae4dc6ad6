"""``tenantgate token check``: whether a token is believed, and who it says is asking."""

from __future__ import annotations

import sys
from contextlib import closing, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.options import read_settings, read_token, settings_options

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.identity.tokens import VerifiedToken


@click.command()
@click.argument(
    "token", metavar="[FILE]", type=click.Path(dir_okay=False, allow_dash=True), default="-", callback=read_token
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options
def check(token: str, config: Path | None, flags: tuple[str, ...], *, as_json: bool) -> None:
    """Check the token in FILE as the sidecar would, and show who it says is asking, and until when.

    FILE is standard input if it is left out, or -. A token is never an argument: other users could see it.

    Exit status: 0 it is believed, 1 it is not, 2 it cannot be checked.
    """
    from sidecar.errors import SettingsError, UnauthenticatedError  # noqa: PLC0415 - not needed for --help
    from sidecar.identity.tokens import TokenVerifier  # noqa: PLC0415

    settings = read_settings(config, flags).identity
    if not settings.issuers:
        msg = (
            "identity.issuers: there is none, so that no token is believed; --config names the settings of the sidecar"
        )
        raise SettingsError(msg)
    try:
        # the answer alone is on standard output: what the log tells goes elsewhere
        with redirect_stdout(sys.stderr), closing(TokenVerifier(settings)) as verifier:
            verified = verifier.verify(token)
    except UnauthenticatedError as refused:
        _show_refusal(refused.reason, str(refused), as_json=as_json)
        sys.exit(1)
    _show(verified, as_json=as_json)


def _show_refusal(reason: str, message: str, *, as_json: bool) -> None:
    import json  # noqa: PLC0415 - not needed for --help

    from rich.console import Console  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps({"reason": reason, "message": message}))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold red]refused[/] [bold]{reason}[/]")
    console.print(message, markup=False)


def _show(verified: VerifiedToken, *, as_json: bool) -> None:
    import json  # noqa: PLC0415 - not needed for --help
    import time  # noqa: PLC0415
    from datetime import UTC, datetime  # noqa: PLC0415

    from google.protobuf.duration_pb2 import Duration  # noqa: PLC0415
    from msgspec import to_builtins  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from sidecar.cli.words import age  # noqa: PLC0415

    said = to_builtins(verified.identity)
    until = f"{datetime.fromtimestamp(verified.expires_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if as_json:
        said["tenant"] = {"id": said["tenant"]["id"]}
        click.echo(json.dumps({"issuer": verified.issuer, "id": verified.id, "expires_at": until, **said}))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    left = Duration(seconds=max(0, int(verified.expires_at - time.time())))
    for name, value in {
        "tenant": said["tenant"]["id"],
        "principal": said["principal"]["id"] or "none, so that every call is IMPERSONATION",
        "subject": said["subject"]["id"] or "none",
        "delegation": ", ".join(map(_actor, said["delegation"])) or "none",
        "scopes": ", ".join(said["scopes"]) or "none",
        "roles": ", ".join(said["subject"]["roles"]) or "none",
        "properties": json.dumps(said["subject"]["properties"], ensure_ascii=False),
        "may act": ", ".join(said.get("may_act", [])),
        "issuer": verified.issuer,
        "id": verified.id,
        "until": f"{until}, {age(left)} from now",
    }.items():
        if value not in {"", "{}"}:
            table.add_row(name, Text(value))
    console = Console(highlight=False)
    console.print("[bold green]believed[/]")
    console.print(table)


def _actor(actor: dict[str, Any]) -> str:
    return f"{actor['id']} ({', '.join(actor['scopes'])})" if "scopes" in actor else actor["id"]
