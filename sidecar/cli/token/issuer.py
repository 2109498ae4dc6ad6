"""``tenantgate token issuer``: an issuer for development, and the settings that have its tokens believed."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = Path(".tenantgate/issuer")


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=FOLDER)
def issuer(folder: Path) -> None:
    """Make an issuer of tokens for development in DIR, if there is none, and print the settings that have its tokens believed.

    DIR is .tenantgate/issuer if it is left out. Whoever can read it can be anyone: nothing that matters must believe its tokens.

    For example: `tenantgate token issuer > settings.yaml`, then `tenantgate serve --config settings.yaml`.
    """
    import yaml  # noqa: PLC0415 - not needed for --help

    from sidecar.identity.development import DevelopmentIssuer  # noqa: PLC0415

    made = DevelopmentIssuer(folder)
    settings = {"identity": {"mode": "verified", "issuers": [made.settings()]}}
    click.echo(yaml.safe_dump(settings, sort_keys=False), nl=False)
    click.echo(f"`tenantgate token mint --issuer-dir {folder}` makes tokens of it, for development only", err=True)
