"""How the sidecar starts, and how it refuses to: exit status 2 and a message that names the thing and the remedy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.errors import StartError
from sidecar.server import Sidecar
from sidecar.toolchain import pinned_version
from tests.support import wire
from tests.support.processes import OPA, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Callable

TENANTGATE = Path(sys.executable).parent / "tenantgate"


def _serve(*options: str) -> tuple[int, str]:
    """Run ``tenantgate serve`` in a process of its own to its end; give its exit status and what it says to people."""
    ended = subprocess.run([TENANTGATE, "serve", *options], capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, "\n".join(line for line in ended.stderr.splitlines() if not line.startswith("{"))


def _misread(*options: str) -> tuple[int, str]:
    """Run ``tenantgate serve`` with settings that cannot be read: it ends before anything is started."""
    ended = CliRunner().invoke(main, ["serve", *options])
    return ended.exit_code, ended.stderr


def _refusal(folder: Path, bundle: Path | None, **settings: object) -> str:
    """Start a sidecar that refuses to; give its reason. ``test_a_refusal_...`` hold what the command makes of it."""
    sidecar = Sidecar(sidecar_settings(folder, bundle, **settings))
    with pytest.raises(StartError) as refused:
        sidecar.start()
    assert not sidecar.addresses or not (folder / "tenantgate.sock").exists()
    return str(refused.value)


def _set(**values: object) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={value}")]


def _script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


# ── OPA ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _no_opa(folder: Path) -> Path:
    return folder / "nowhere" / "opa"


def _old_opa(folder: Path) -> Path:
    return _script(folder / "old-opa", "echo Version: 0.1.0")


def _unexecutable_opa(folder: Path) -> Path:
    return _script(folder / "plain-opa", "echo Version: 0.1.0", 0o644)


def _failing_opa(folder: Path) -> Path:
    return _script(folder / "failing-opa", "exit 3")


def _other_program(folder: Path) -> Path:
    return _script(folder / "other-opa", "echo hello")


_BAD_OPAS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (_no_opa, "no such file; `opa/install` installs OPA"),
    "of another version": (_old_opa, f"is OPA 0.1.0, the policies are tested with {pinned_version()}"),
    "not executable": (_unexecutable_opa, "cannot be run as OPA"),
    "failing": (_failing_opa, "cannot be run as OPA"),
    "another program": (_other_program, "does not tell its version as OPA does"),
}


@pytest.mark.parametrize(("make", "words"), _BAD_OPAS.values(), ids=_BAD_OPAS)
def test_it_does_not_start_with_an_opa_that_is(
    make: Callable[[Path], Path], words: str, sample_bundle: Path, short_path: Path
) -> None:
    binary = make(short_path)
    said = _refusal(short_path, sample_bundle, opa__binary=str(binary))

    assert str(binary) in said
    assert words in said


# ── the bundle ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_does_not_start_without_the_bundle_file(short_path: Path) -> None:
    said = _refusal(short_path, short_path / "missing.tar.gz")

    assert said == f"opa.bundle: {short_path}/missing.tar.gz: no such file; `tenantgate bundle build` makes one"


def test_it_does_not_start_without_bundle_and_address(short_path: Path) -> None:
    said = _refusal(short_path, None)

    assert "opa.bundle: name the bundle to serve" in said
    assert "opa.address" in said


def _text(path: Path, _bundle: Path) -> None:
    path.write_text("not a bundle")


def _truncated(path: Path, bundle: Path) -> None:
    path.write_bytes(bundle.read_bytes()[:-200])


def _empty(path: Path, _bundle: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [_text, _truncated, _empty], ids=["not a bundle", "truncated", "empty"])
def test_it_does_not_start_with_a_bundle_that_opa_cannot_load(
    make: Callable[[Path, Path], None], sample_bundle: Path, short_path: Path
) -> None:
    broken = short_path / "broken.tar.gz"
    make(broken, sample_bundle)
    said = _refusal(short_path, broken, opa__start_timeout_seconds=1)

    assert "OPA does not come up" in said
    assert "Bundle load failed" in said


# ── places that are taken ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_does_not_start_on_a_port_that_is_taken(sample_bundle: Path, short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = _refusal(short_path, sample_bundle, listen__tcp=address)

    assert f"listen.tcp: cannot listen on {address}; is it in use by another process?" in said


def test_it_does_not_start_on_the_socket_of_another_process(sample_bundle: Path, short_path: Path) -> None:
    path = short_path / "taken.sock"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        said = _refusal(short_path, sample_bundle, listen__socket=str(path))

    assert f"listen.socket: another process serves on {path}" in said
    assert path.exists()


def test_it_does_not_start_on_a_socket_of_another_kind(sample_bundle: Path, short_path: Path) -> None:
    path = short_path / "datagrams.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(str(path))
        said = _refusal(short_path, sample_bundle, listen__socket=str(path))

    assert f"listen.socket: another process serves on {path}" in said


def test_it_does_not_remove_a_file_to_make_room_for_its_socket(sample_bundle: Path, short_path: Path) -> None:
    path = short_path / "notes.txt"
    path.write_text("precious")
    said = _refusal(short_path, sample_bundle, listen__socket=str(path))

    assert f"listen.socket: {path} exists and is not a socket; remove it or choose another path" in said
    assert path.read_text() == "precious"


def test_it_does_not_start_in_the_state_dir_of_another_sidecar(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle)
    with running_sidecar(settings) as (_, channel):
        with pytest.raises(StartError) as refused:
            Sidecar(settings).start()
        said = str(refused.value)
        still_serves = wire.get_status(channel).serving

    assert f"state_dir: {short_path} is in use by process {os.getpid()}" in said
    assert still_serves


def test_a_stale_socket_is_removed(sample_bundle: Path, short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(short_path / "tenantgate.sock"))
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel):
        assert wire.get_status(channel).serving


def test_it_does_not_start_on_a_path_that_is_too_long_for_a_socket(sample_bundle: Path, short_path: Path) -> None:
    path = short_path / ("x" * 108)
    said = _refusal(short_path, sample_bundle, listen__socket=str(path))

    assert str(path) in said
    assert "is longer than the 107 bytes of a Unix socket's path" in said


def test_it_does_not_start_in_a_state_dir_that_is_too_long_for_sockets(sample_bundle: Path, short_path: Path) -> None:
    state = short_path / ("x" * 100)
    said = _refusal(state, sample_bundle, listen__socket="s")

    assert "choose a shorter state_dir" in said


def test_it_does_not_start_with_a_file_in_place_of_its_state_dir(sample_bundle: Path, short_path: Path) -> None:
    state = short_path / "state"
    state.touch()
    said = _refusal(state, sample_bundle)

    assert f"state_dir: {state} cannot be used" in said


def test_it_does_not_start_with_a_socket_in_a_directory_that_cannot_be_made(
    sample_bundle: Path, short_path: Path
) -> None:
    path = short_path / "missing" / "calls" / "tenantgate.sock"
    said = _refusal(short_path, sample_bundle, listen__socket=str(path))

    assert f"listen.socket: the directory of {path} cannot be made: No such file or directory" in said


def test_a_failed_start_leaves_nothing_that_hinders_the_next(sample_bundle: Path, short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _refusal(short_path, sample_bundle, listen__tcp=f"127.0.0.1:{taken.getsockname()[1]}")
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel):
        assert wire.get_status(channel).serving


def test_a_refusal_to_start_ends_with_status_2_and_one_message(short_path: Path) -> None:
    status, said = _serve(
        *_set(state_dir=short_path, opa__binary=short_path / "opa", opa__bundle=__file__, identity__mode="asserted")
    )

    assert status == 2
    assert said.startswith(f"tenantgate: opa.binary: {short_path}/opa: no such file")
    assert "Traceback" not in said


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_BAD_SETTINGS: dict[str, tuple[list[str], dict[str, str], list[str]]] = {
    "an unknown setting as a flag": (_set(opa__bundel="x"), {}, ["--set opa.bundel", "`bundel`", "tenantgate config"]),
    "an unknown section": (_set(opaa__bundle="x"), {}, ["--set opaa.bundle", "`opaa`"]),
    "an unknown setting in the environment": ([], {"TENANTGATE_LOGS": "x"}, ["variable TENANTGATE_LOGS", "`logs`"]),
    "a text for a number": (_set(limits__threads="many"), {}, ["limits.threads", "Expected `int`, got `str`"]),
    "a number out of range": (_set(limits__threads=0), {}, ["limits.threads", ">= 1"]),
    "a word that is none of the choices": (_set(log__level="loud"), {}, ["log.level", "'loud'"]),
    "a flag without a value": (["--set", "log.level"], {}, ["--set log.level: write NAME=VALUE"]),
    "bad YAML in a flag": (_set(log__level="[a"), {}, ["--set log.level", "is not YAML"]),
    "a setting below another": (_set(state_dir__x="y"), {}, ["--set state_dir.x"]),
    "no listener at all": (_set(listen__socket="null"), {}, ["listen: socket and tcp are both null"]),
    "an address without a port": (_set(listen__tcp="localhost"), {}, ["listen.tcp", "is not HOST:PORT"]),
    "a port that there is not": (_set(listen__tcp="127.0.0.1:70000"), {}, ["listen.tcp", "is not HOST:PORT"]),
    "all interfaces": (
        _set(listen__tcp="0.0.0.0:7000"),
        {},
        ["listen.tcp", "other hosts", "127.0.0.1", "tls.cert_file"],
    ),
    "metrics for all interfaces": (
        _set(listen__admin="0.0.0.0:7000"),
        {},
        ["listen.admin", "other hosts", "tls.cert_file"],
    ),
    "AuthZEN for all interfaces": (
        _set(authzen__listen="0.0.0.0:7000"),
        {},
        ["authzen.listen", "other hosts", "tls.cert_file"],
    ),
    "all interfaces, and identities that requests say": (
        _set(listen__tcp="0.0.0.0:7000", identity__mode="asserted"),
        {},
        ["listen.tcp", "other hosts", "tls.cert_file"],
    ),
    "a socket for everybody": (
        _set(listen__socket_mode="'0666'"),
        {},
        ["listen.socket_mode: 0666 is for everybody", "0660"],
    ),
    "a certificate and nobody who may connect": (
        _set(tls__cert_file="c", tls__key_file="k", tls__client_ca_file="ca"),
        {},
        ["tls.allowed_clients: is missing; set cert_file, key_file, client_ca_file, allowed_clients together"],
    ),
    "a certificate and no authority of clients": (
        _set(tls__cert_file="c", tls__key_file="k", tls__allowed_clients="[a.example]"),
        {},
        ["tls.client_ca_file: is missing"],
    ),
    "clients and no certificate": (_set(tls__allowed_clients="[a.example]"), {}, ["tls.cert_file: is missing"]),
    "all interfaces of IPv6": (_set(listen__tcp="'[::]:7000'"), {}, ["listen.tcp", "other hosts"]),
    "a name that may be anyone's": (_set(listen__tcp="sidecar.example:7000"), {}, ["listen.tcp", "other hosts"]),
    "both a bundle and an address": (
        ["--bundle", "b.tar.gz", *_set(opa__address="unix:x.sock")],
        {},
        ["opa: with an address", "leave opa.bundle null"],
    ),
    "both a source and an address": (
        _set(bundles__source="published", bundles__accept_unsigned="true", opa__address="unix:x.sock"),
        {},
        ["opa: with an address", "leave bundles.source null"],
    ),
    "both a source and a bundle": (
        ["--bundle", "b.tar.gz", *_set(bundles__source="published", bundles__keys="[k.pub]")],
        {},
        ["bundles.source and opa.bundle are both set"],
    ),
    "a source without keys": (
        _set(bundles__source="published"),
        {},
        ["bundles.keys", "bundle keygen", "bundles.accept_unsigned: true"],
    ),
    "keys and unsigned bundles": (
        _set(bundles__source="published", bundles__keys="[k.pub]", bundles__accept_unsigned="true"),
        {},
        ["with keys, a bundle that is not signed is refused"],
    ),
    "a source of an unknown kind": (
        _set(bundles__source="ftp://host/x", bundles__keys="[k.pub]"),
        {},
        ["bundles.source: 'ftp://host/x' is neither a directory nor"],
    ),
    "a bucket without a name": (
        _set(bundles__source="s3://", bundles__keys="[k.pub]"),
        {},
        ["bundles.source: 's3://' is neither a directory nor"],
    ),
    "a file that is missing": (["--config", "none.yaml"], {}, ["none.yaml: cannot be read"]),
}


@pytest.mark.parametrize(("options", "environment", "words"), _BAD_SETTINGS.values(), ids=_BAD_SETTINGS)
def test_it_does_not_start_with(
    options: list[str], environment: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, said = _misread(*options)

    assert status == 2
    assert [word for word in words if word not in said] == [], said


_BAD_FILES: dict[str, tuple[str, list[str]]] = {
    "bad YAML": ("listen: [", ["settings.yaml: not YAML"]),
    "a list": ("- a\n- b\n", ["settings.yaml: must hold a mapping of settings"]),
    "an unknown setting": ("log:\n  lvel: info\n", ["settings.yaml: log", "`lvel`"]),
    "an ill-typed setting": ("limits:\n  threads: [1]\n", ["settings.yaml: limits.threads", "Expected `int`"]),
    "a section that is none": ("log: info\n", ["settings.yaml: log", "Expected `object`"]),
}


@pytest.mark.parametrize(("text", "words"), _BAD_FILES.values(), ids=_BAD_FILES)
def test_it_does_not_start_with_a_settings_file_that_holds(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    status, said = _misread("--config", str(tmp_path / "settings.yaml"))

    assert status == 2
    assert [word for word in words if word not in said] == [], said


def test_a_refused_setting_is_one_message_and_no_stack() -> None:
    _, said = _misread(*_set(opa__bundel="x"))

    assert said.startswith("tenantgate: --set opa.bundel: ")
    assert "Traceback" not in said


# ── listeners ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_on_port_0_the_log_names_the_port_that_was_picked(sample_bundle: Path, short_path: Path) -> None:
    given = _set(state_dir=short_path, opa__binary=OPA, listen__tcp="127.0.0.1:0", identity__mode="asserted")
    options = ["--bundle", str(sample_bundle), *given]
    with subprocess.Popen([TENANTGATE, "serve", *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            events = map(json.loads, process.stderr)
            serving = next(event for event in events if event["event"] == "serving")
            address = next(a for a in serving["addresses"] if not a.startswith("unix:"))
            with grpc.insecure_channel(address) as channel:
                effect = wire.authorize(channel).effect
        finally:
            process.kill()

    assert address.startswith("127.0.0.1:")
    assert not address.endswith(":0")
    assert effect == 1


def test_tcp_and_socket_give_the_same_answer(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, listen__tcp="localhost:0")
    with running_sidecar(settings) as (sidecar, channel), grpc.insecure_channel(sidecar.addresses[0]) as tcp:
        assert wire.authorize(tcp).code == wire.authorize(channel).code


def test_without_a_socket_there_is_tcp_alone(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, listen__socket=None, listen__tcp="127.0.0.1:0")
    with running_sidecar(settings) as (sidecar, _), grpc.insecure_channel(sidecar.addresses[0]) as tcp:
        serving = wire.get_status(tcp).serving

    assert serving
    assert len(sidecar.addresses) == 1


def test_the_socket_has_the_permissions_that_the_setting_says(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, listen__socket_mode="0600")
    with running_sidecar(settings):
        mode = (short_path / "tenantgate.sock").stat().st_mode & 0o777

    assert mode == 0o600


def test_the_state_dir_is_for_its_owner_only(sample_bundle: Path, short_path: Path) -> None:
    state = short_path / "new" / "state"
    with running_sidecar(sidecar_settings(state, sample_bundle)):
        mode = state.stat().st_mode & 0o777

    assert mode == 0o700


def test_the_socket_is_gone_when_the_sidecar_has_stopped(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)):
        pass

    assert [path.name for path in short_path.iterdir() if path.is_socket()] == []
