"""What the commands that make bundles have in common: the Rego, and the key."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.bundles.build import Recipe
    from sidecar.bundles.signing import Signer


def recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what goes into a bundle besides the registry; the command gets them as one ``recipe``."""

    @wraps(command)
    def packed(
        *,
        custom: Path | None,
        key: Path | None,
        sign_command: str | None,
        public_key: Path | None,
        max_removals: int | None,
        **options: Any,
    ) -> None:
        command(recipe=_recipe(custom, _signer(key, sign_command, public_key), max_removals), **options)

    path = click.Path(path_type=Path, dir_okay=False, exists=True)
    for option in (
        click.option(
            "--max-removals",
            type=click.IntRange(0),
            help="Most tenants that a base may leave out. [default: ten, or a tenth if that is more, never all]",
        ),
        click.option("--public-key", type=path, help="The public key, in PEM, that --sign-command signs for."),
        click.option("--sign-command", metavar="COMMAND", help="Sign by a command, for a key that stays in a KMS."),
        click.option("--key", type=path, help="Private key, in PEM, to sign with; its id is the name of the file."),
        click.option(
            "--custom",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="Your own deny rules, in Rego. [default: policies/custom of the clone]",
        ),
    ):
        packed = option(packed)
    return packed


def _recipe(custom: Path | None, signer: Signer | None, max_removals: int | None) -> Recipe:
    from sidecar.bundles.build import Recipe  # noqa: PLC0415 - not needed for --help
    from sidecar.toolchain import check_rego, data_folder, find_opa  # noqa: PLC0415

    policies = data_folder("policies")
    if custom is None and (policies / "custom").is_dir():
        custom = policies / "custom"
    check_rego([policies / "tenantgate", *([custom] if custom else [])], find_opa(None))
    return Recipe(policies, custom, signer, max_removals)


def _signer(key: Path | None, sign_command: str | None, public_key: Path | None) -> Signer | None:
    from sidecar.bundles.signing import CommandSigner, FileSigner  # noqa: PLC0415 - not needed for --help

    if (sign_command is None) != (public_key is None):
        msg = "--sign-command and --public-key go together"
        raise click.UsageError(msg)
    if key is not None and sign_command is not None:
        msg = "--key and --sign-command: one of them signs"
        raise click.UsageError(msg)
    if sign_command is not None and public_key is not None:
        return CommandSigner(sign_command, public_key)
    return None if key is None else FileSigner(key)
