"""``tenantgate token mint``: a token of the development issuer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.token.issuer import FOLDER

if TYPE_CHECKING:
    from sidecar.model import Actor


@click.command()
@click.option(
    "--issuer-dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=FOLDER,
    show_default=True,
    help="Directory of the issuer; `tenantgate token issuer` makes it.",
)
@click.option("--tenant", required=True, help="The tenant that it is for.")
@click.option("--subject", default="", help="The user for whom the agent acts.")
@click.option("--principal", default="", help="The agent that acts.")
@click.option("--scope", "scopes", multiple=True, help="A scope that is delegated; may be repeated.")
@click.option("--role", "roles", multiple=True, help="A role of the subject; may be repeated.")
@click.option(
    "--via",
    "delegation",
    multiple=True,
    metavar="AGENT[=SCOPES]",
    help="An earlier actor, with the scopes that it held, separated by commas; may be repeated, the outermost first.",
)
@click.option("--lifetime", default=3600.0, show_default=True, help="How long it is good for, seconds.")
@click.option("--audience", help="Whom it is meant for. [default: tenantgate]")
def mint(
    folder: Path,
    *,
    tenant: str,
    subject: str,
    principal: str,
    scopes: tuple[str, ...],
    roles: tuple[str, ...],
    delegation: tuple[str, ...],
    lifetime: float,
    audience: str | None,
) -> None:
    """Make a token that says who is asking, and print it.

    For example: `tenantgate token mint --tenant acme --subject alice --principal agent:order-bot --scope tools:read > alice.jwt`
    """
    from sidecar.errors import SettingsError  # noqa: PLC0415 - not needed for --help
    from sidecar.identity.development import KEY, DevelopmentIssuer  # noqa: PLC0415

    if not (folder / KEY).exists():
        msg = f"{folder}: there is no issuer; `tenantgate token issuer {folder}` makes one"
        raise SettingsError(msg)
    token = DevelopmentIssuer(folder).mint(
        tenant,
        subject,
        principal,
        scopes=scopes,
        roles=roles,
        delegation=[*map(_actor, delegation)],
        lifetime=lifetime,
        **({} if audience is None else {"aud": audience}),
    )
    click.echo(token)


def _actor(via: str) -> Actor:
    from msgspec import UNSET  # noqa: PLC0415 - not needed for --help

    from sidecar.model import Actor  # noqa: PLC0415

    agent, declares, scopes = via.partition("=")
    return Actor(agent, tuple(scope for scope in scopes.split(",") if scope) if declares else UNSET)
