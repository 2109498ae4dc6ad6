"""``tenantgate bundle keygen``: a pair of keys to sign bundles with."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--algorithm", type=click.Choice(["ES256", "RS256"]), default="ES256", show_default=True)
def keygen(name: Path, algorithm: str) -> None:
    """Make a pair of keys to sign bundles with: NAME.key, private, and NAME.pub.

    The last part of NAME is the id of the key. Sign with `--key NAME.key`; sidecars get NAME.pub. To rotate, give the sidecars
    both public keys, then sign with the new key, then take the old public key away.
    """
    from sidecar.bundles.signing import make_keys  # noqa: PLC0415 - not needed for --help

    private, public = name.with_name(f"{name.name}.key"), name.with_name(f"{name.name}.pub")
    make_keys(private, public, algorithm)
    click.echo(f"{private} signs, and stays with whoever publishes bundles; {public} goes to every sidecar")
