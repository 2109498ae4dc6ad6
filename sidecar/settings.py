"""The settings: every one with its meaning, unit and default; read once, from a file, the environment and flags, in this order.

A later source overrides an earlier one. In the environment, ``limits.in_flight`` is ``TENANTGATE_LIMITS__IN_FLIGHT``; as a flag,
``--set limits.in_flight=64``. Values are YAML. Nothing else reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta, Struct

from sidecar.errors import SettingsError
from sidecar.translate import DelegationSettings, Limits, PolicySettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENVIRONMENT_PREFIX = "TENANTGATE_"

# What Kubernetes adds to the environment where there is a Service named tenantgate.
_OF_KUBERNETES = re.compile(r"TENANTGATE_(SERVICE_(HOST|PORT)|PORT)(_|$)")


def _about(text: str, **bounds: Any) -> Meta:
    return Meta(description=text, **bounds)


_Positive = Annotated[float, Meta(gt=0)]


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A group of settings."""


class Listen(_Section, frozen=True):
    """Where the sidecar listens."""

    socket: Annotated[str | None, _about("Path of the Unix socket; null for none. In `state_dir` unless absolute")] = (
        "tenantgate.sock"
    )
    socket_mode: Annotated[
        str, _about("Permissions of the Unix socket, in octal and in quotes", pattern="^0?[0-7]{3}$")
    ] = "0660"
    tcp: Annotated[
        str | None, _about("HOST:PORT to listen on besides; null for none. Loopback only; port 0 picks one")
    ] = None


class IdentitySettings(_Section, frozen=True):
    """How the sidecar learns who is asking."""

    mode: Annotated[
        Literal["asserted"],
        _about("`asserted` takes identities from requests: for callers that have verified them"),
    ] = "asserted"
    tenant_header: Annotated[
        str,
        _about(
            "Metadata key that names the tenant once more; a mismatch denies", pattern="^[a-z0-9_.-]{1,128}(?<!-bin)$"
        ),
    ] = "x-tenant-id"


class Delegation(_Section, frozen=True):
    """How the chain of actors between subject and principal is checked."""

    check: Annotated[
        Literal["chain", "current"],
        _about("`chain` checks every actor; `current` the principal alone, as RFC 8693 section 4.1 has it"),
    ] = "chain"
    max_depth: Annotated[int, _about("Most earlier actors in a chain", ge=0, le=256)] = 8


class Scopes(_Section, frozen=True):
    """Which scopes grant which access to catalogued resources."""

    read: Annotated[tuple[str, ...], _about("Scopes that grant READ access")] = ("tools:read",)
    write: Annotated[tuple[str, ...], _about("Scopes that grant WRITE access, and READ with it")] = ("tools:write",)


class Opa(_Section, frozen=True):
    """The policy engine."""

    bundle: Annotated[
        str | None, _about("Bundle file that the embedded OPA loads once; null with `bundles.source` or `address`")
    ] = None
    address: Annotated[
        str | None, _about("A separate OPA to ask: `unix:PATH` or `http://HOST:PORT`; null to embed one")
    ] = None
    binary: Annotated[str | None, _about("OPA to run; null for the one in `.tools`, else on PATH")] = None
    timeout_seconds: Annotated[float, _about("Longest wait for an answer, seconds", gt=0)] = 1.0
    start_timeout_seconds: Annotated[float, _about("Longest wait for OPA at start, seconds", gt=0)] = 60.0
    connections: Annotated[int, _about("Connections kept open to OPA", ge=1)] = 32
    max_answer_bytes: Annotated[int, _about("Largest answer taken from OPA, bytes", ge=1024)] = 16 * 1024 * 1024


class Bundles(_Section, frozen=True):
    """Where bundles come from, and whose are accepted."""

    source: Annotated[
        str | None,
        _about(
            "Where `base.tar.gz` and `overlay.tar.gz` are published: a directory, `http(s)://...` or `s3://BUCKET/PREFIX`; "
            "null with `opa.bundle` or `opa.address`"
        ),
    ] = None
    keys: Annotated[
        tuple[str, ...],
        _about("Public keys, files in PEM, that bundles may be signed with; the id of each is its name without ending"),
    ] = ()
    accept_unsigned: Annotated[bool, _about("Accept bundles that nobody has signed; only without `keys`")] = False
    poll_seconds: Annotated[
        _Positive | None, _about("Time between looks at the source, seconds; null for 0.1 with a directory, else 1")
    ] = None
    long_poll_seconds: Annotated[
        int, _about("How long a server that can may hold a request until there is something new, seconds", ge=1, le=600)
    ] = 30
    token_file: Annotated[str | None, _about("File with the bearer token for an `http(s)://` source")] = None
    ca_file: Annotated[
        str | None, _about("Certificates, in PEM, that an `https://` source is checked against; null for the system's")
    ] = None


class Freshness(_Section, frozen=True):
    """How old the registry may be."""

    max_staleness_seconds: Annotated[
        _Positive | None,
        _about("Age of the registry from which on everything is POLICY_STALE, seconds; null for no bound"),
    ] = None


class LimitSettings(_Section, frozen=True):
    """What a caller may send, and how much at a time."""

    message_bytes: Annotated[int, _about("Largest request message, bytes", ge=1024)] = 4 * 1024 * 1024
    json_bytes: Annotated[int, _about("Largest arguments, context or properties, bytes on the wire", ge=1)] = 65536
    json_depth: Annotated[int, _about("Deepest nesting of arguments, context or properties, levels", ge=1, le=32)] = 32
    list_entries: Annotated[int, _about("Most roles, scopes, actors or obligation types, entries", ge=1)] = 256
    batch_items: Annotated[int, _about("Most items of a batch or tools of a list, entries", ge=1)] = 1000
    in_flight: Annotated[int, _about("Most calls worked on at a time; more are refused at once", ge=1)] = 256
    threads: Annotated[int, _about("Threads that work on calls", ge=1, le=256)] = 32
    waiting: Annotated[
        int, _about("Most calls that wait for the registry to reach their `min_as_of`; each holds a thread", ge=0)
    ] = 8
    watchers: Annotated[int, _about("Most WatchStatus calls at a time; each holds a thread besides", ge=1)] = 8
    default_deadline_seconds: Annotated[float, _about("Deadline of calls that come without one, seconds", gt=0)] = 2.0


class Lifecycle(_Section, frozen=True):
    """Start, health and stop."""

    probe_interval_seconds: Annotated[
        float, _about("Time between evaluations that readiness rests on, seconds", gt=0)
    ] = 1.0
    drain_seconds: Annotated[float, _about("Longest wait for calls in flight when stopping, seconds", ge=0)] = 5.0


class Log(_Section, frozen=True):
    """What is written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], _about("Least severe lines that are written")] = (
        "info"
    )
    format: Annotated[Literal["json", "text"], _about("`json` for machines, `text` for people")] = "json"
    access: Annotated[bool, _about("One line for each call")] = True
    opa_decisions: Annotated[bool, _about("One line for each decision of the embedded OPA, content masked")] = False


class Settings(_Section, frozen=True):
    """All settings."""

    state_dir: Annotated[
        str,
        _about("Directory for sockets, OPA's configuration and bundles taken in; made if missing, for the owner only"),
    ] = ".tenantgate"
    listen: Listen = Listen()
    identity: IdentitySettings = IdentitySettings()
    delegation: Delegation = Delegation()
    scopes: Scopes = Scopes()
    opa: Opa = Opa()
    bundles: Bundles = Bundles()
    freshness: Freshness = Freshness()
    limits: LimitSettings = LimitSettings()
    lifecycle: Lifecycle = Lifecycle()
    log: Log = Log()

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket to listen on."""
        return None if self.listen.socket is None else Path(self.state_dir) / self.listen.socket

    @property
    def policy(self) -> PolicySettings:
        """What the Rego needs to know of the settings."""
        granting = {"READ": (*self.scopes.read, *self.scopes.write), "WRITE": self.scopes.write}
        return PolicySettings(DelegationSettings(self.delegation.check, self.delegation.max_depth), granting)

    @property
    def request_limits(self) -> Limits:
        """What translation needs to know of the settings."""
        limits = self.limits
        return Limits(limits.batch_items, limits.json_depth, limits.json_bytes, limits.list_entries)


class Setting(Struct, frozen=True):
    """One setting, for documentation: its dotted name, meaning, default and value in force."""

    name: str
    about: str
    default: Any
    value: Any


def load(file: Path | None, environment: Mapping[str, str] | None = None, flags: Sequence[str] = ()) -> Settings:
    """Read the settings from a YAML file, the environment and flags of the form ``NAME=VALUE``.

    Raises ``SettingsError``, naming the setting and where it came from.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read_file(file)
        _convert(tree, str(file))
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and not _OF_KUBERNETES.match(name):
            dotted = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _put(tree, dotted, text, f"environment variable {name}")
    for flag in flags:
        dotted, separator, text = flag.partition("=")
        if not separator:
            msg = f"--set {flag}: write NAME=VALUE"
            raise SettingsError(msg)
        _put(tree, dotted, text, f"--set {dotted}")
    settings = _convert(tree, "settings")
    _check(settings)
    return settings


def describe(settings: Settings) -> Iterator[Setting]:
    """Yield every setting, in the order of the documentation."""
    yield from _describe("", Settings, Settings(), settings)


def sections() -> dict[str, str]:
    """Give what each section is about, by its name."""
    return {f.name: (f.type.__doc__ or "").strip() for f in msgspec.structs.fields(Settings) if _is_section(f.type)}


def _describe(prefix: str, kind: type[Struct], default: Any, value: Any) -> Iterator[Setting]:
    hints = get_type_hints(kind, include_extras=True)
    for entry in msgspec.structs.fields(kind):
        of_default, of_value = getattr(default, entry.name), getattr(value, entry.name)
        if _is_section(entry.type):
            yield from _describe(f"{prefix}{entry.name}.", entry.type, of_default, of_value)
        else:
            meta = next(m for m in get_args(hints[entry.name]) if isinstance(m, Meta))
            yield Setting(prefix + entry.name, meta.description or "", of_default, of_value)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, _Section)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as fault:
        msg = f"{file}: cannot be read: {fault}"
        raise SettingsError(msg) from fault
    except yaml.YAMLError as fault:
        msg = f"{file}: not YAML: {fault}"
        raise SettingsError(msg) from fault
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        msg = f"{file}: must hold a mapping of settings"
        raise SettingsError(msg)
    return tree


def _put(tree: dict[str, Any], dotted: str, text: str, source: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        msg = f"{source}: {text!r} is not YAML: {fault}"
        raise SettingsError(msg) from fault
    *path, name = dotted.split(".")
    branch = tree
    for step in path:
        branch = branch.setdefault(step, {})
        if not isinstance(branch, dict):
            msg = f"{source}: {step} is not a section"
            raise SettingsError(msg)
    branch[name] = value
    _convert(tree, source)


def _convert(tree: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as fault:
        text, _, path = str(fault).partition(" - at `")
        name = path.removesuffix("`").removeprefix("$").removeprefix(".")
        text = text.replace("Object contains unknown field", "there is no setting")
        msg = f"{source}: {f'{name}: ' if name else ''}{text}; `tenantgate config` lists the settings"
        raise SettingsError(msg) from fault


def _check(settings: Settings) -> None:
    """Refuse what is well-typed and yet cannot be meant."""
    if settings.listen.socket is None and settings.listen.tcp is None:
        msg = "listen: socket and tcp are both null, so nobody could call"
        raise SettingsError(msg)
    if settings.listen.tcp is not None:
        host, _ = split_address(settings.listen.tcp)
        if not is_loopback(host):
            msg = (
                f"listen.tcp: {settings.listen.tcp} can be reached from other hosts, and identity.mode: asserted believes "
                "whoever calls; listen on 127.0.0.1 or on the Unix socket"
            )
            raise SettingsError(msg)
    _check_bundles(settings.opa, settings.bundles)


def _check_bundles(opa: Opa, bundles: Bundles) -> None:
    if opa.address is not None and (opa.bundle is not None or bundles.source is not None):
        given = "opa.bundle" if opa.bundle is not None else "bundles.source"
        msg = f"opa: with an address, OPA is configured with its bundle elsewhere; leave {given} null"
        raise SettingsError(msg)
    if bundles.source is None:
        return
    if opa.bundle is not None:
        msg = "bundles.source and opa.bundle are both set; leave opa.bundle null to follow the source"
        raise SettingsError(msg)
    if bundles.keys and bundles.accept_unsigned:
        msg = "bundles: with keys, a bundle that is not signed is refused; leave bundles.accept_unsigned false"
        raise SettingsError(msg)
    if not bundles.keys and not bundles.accept_unsigned:
        msg = (
            "bundles.keys: name the public keys that bundles from bundles.source are signed with (`tenantgate bundle keygen` "
            "makes a pair), or set bundles.accept_unsigned: true"
        )
        raise SettingsError(msg)
    scheme, separator, rest = bundles.source.partition("://")
    if separator and (scheme not in {"http", "https", "s3"} or not rest.strip("/")):
        msg = f"bundles.source: {bundles.source!r} is neither a directory nor http://..., https://... or s3://BUCKET/PREFIX"
        raise SettingsError(msg)


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT. Raises ``SettingsError``."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the last port
        msg = f"listen.tcp: {address!r} is not HOST:PORT"
        raise SettingsError(msg)
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this host can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
