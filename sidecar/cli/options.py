"""Options that several commands have, and the client that they share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.errors import TenantgateError
from sidecar.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class OrderedGroup(click.Group):
    """A group that lists its commands in the order in which they are met."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's shape
        """List the commands."""
        return list(self.commands)


class CallError(TenantgateError):
    """Raised when the sidecar cannot be reached, or answers with an error."""


def settings_options(command: _Command) -> _Command:
    """Add the options that settings are read from."""
    command = click.option(
        "--set", "flags", metavar="NAME=VALUE", multiple=True, help="Override one setting, such as log.format=text."
    )(command)
    return click.option(
        "--config", type=click.Path(path_type=Path), help="YAML file with settings; `tenantgate config` shows them all."
    )(command)


def address_options(command: _Command) -> _Command:
    """Add the options that say where the sidecar is and how long to wait for it."""
    command = click.option("--timeout", default=5.0, show_default=True, help="Longest wait for the answer, seconds.")(
        command
    )
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for name, about in (
        ("--tls-key", "Your private key, in PEM."),
        ("--tls-cert", "Your certificate, in PEM, for a sidecar that is asked over TLS."),
        ("--tls-ca", "Certificates, in PEM, of the authorities of such a sidecar."),
    ):
        command = click.option(name, type=file, metavar="FILE", expose_value=False, callback=_keep, help=about)(command)
    return click.option(
        "--address", help="unix:PATH or HOST:PORT of the sidecar. [default: its socket in .tenantgate]"
    )(command)


def _keep(context: click.Context, parameter: click.Parameter, file: Path | None) -> None:
    """Keep the value of an option for ``connected``."""
    context.meta[f"{__name__}.{parameter.name}"] = file


def _credentials() -> grpc.ChannelCredentials | None:
    """Give what the options of the command in progress say of TLS. Raises ``CallError``."""
    import grpc  # noqa: PLC0415 - not needed for --help

    meta = click.get_current_context().meta
    files = [meta.get(f"{__name__}.{name}") for name in ("tls_ca", "tls_key", "tls_cert")]
    given = [file for file in files if file is not None]
    if not given:
        return None
    if len(given) < len(files):
        msg = "--tls-ca, --tls-cert and --tls-key go together"
        raise CallError(msg)
    try:
        return grpc.ssl_channel_credentials(*(file.read_bytes() for file in given))
    except OSError as fault:
        msg = f"{fault.filename}: cannot be read: {fault.strerror}"
        raise CallError(msg) from fault


def token_option(command: _Command) -> _Command:
    """Add the option that names the file with the token of who asks; the command gets the token itself, as ``token``."""
    return click.option(
        "--token-file",
        "token",
        metavar="FILE",
        type=click.Path(dir_okay=False, allow_dash=True),
        callback=read_token,
        help="File with the token that proves who asks; - for standard input.",
    )(command)


def read_token(_context: click.Context, _parameter: click.Parameter, file: str | None) -> str | None:
    """Read the token out of the file that an option or argument names; a callback of click."""
    if file is None:
        return None
    try:
        with click.open_file(file) as opened:
            token: str = opened.read().strip()
    except (OSError, UnicodeDecodeError) as fault:
        msg = f"{file}: cannot be read: {getattr(fault, 'strerror', None) or 'it is not text'}"
        raise click.BadParameter(msg) from fault
    # The metadata of a call holds nothing else, and what is wrong with a token is not for a screen.
    if not token.isascii() or not token.isprintable() or not token:
        msg = f"{file}: holds no token"
        raise click.BadParameter(msg)
    return token


def bearer(token: str | None) -> list[tuple[str, str]]:
    """Give the metadata of a call in which a token proves who asks."""
    return [] if token is None else [("authorization", f"Bearer {token}")]


def read_settings(config: Path | None, flags: tuple[str, ...]) -> Settings:
    """Read the settings as the options say."""
    return load(config, flags=flags)


@contextmanager
def connected(address: str | None) -> Iterator[grpc.Channel]:
    """Connect to the sidecar, and tell errors in words. Raises ``CallError``."""
    import grpc  # noqa: PLC0415 - not needed for --help
    from google.rpc import error_details_pb2  # noqa: PLC0415
    from grpc_status import rpc_status  # noqa: PLC0415

    target = address or f"unix:{load(None).socket_path}"
    credentials = _credentials()
    try:
        with (
            grpc.insecure_channel(target)
            if credentials is None
            else grpc.secure_channel(target, credentials) as channel
        ):
            yield channel
    except grpc.RpcError as fault:
        reason = ""
        status = rpc_status.from_call(fault)  # type: ignore[arg-type]  # errors of stubs are calls
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason = f" {info.reason}"
        msg = f"{target}: {fault.code().name}{reason}: {fault.details()}"
        if not reason and fault.code() == grpc.StatusCode.UNAVAILABLE:
            msg += "\nIs the sidecar running? `tenantgate serve` starts it; --address says where it is"
            if not target.startswith("unix:"):
                msg += ", and --tls-ca, --tls-cert and --tls-key are for one that speaks TLS"
        if not reason and fault.code() == grpc.StatusCode.UNIMPLEMENTED:
            msg += "\nThis sidecar does not offer it. Credentials are given where its setting credentials.role_arn names a role"
        raise CallError(msg) from fault
