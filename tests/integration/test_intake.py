"""How bundles reach OPA in a running sidecar: fresh, signed, and never backwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.timestamp_pb2 import Timestamp
from jwt.utils import base64url_encode
from moto.server import ThreadedMotoServer

from sidecar.bundle_endpoint import BundleEndpoint
from sidecar.cli import main
from sidecar.errors import StartError
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.status_service_pb2 import BundleStatus, WatchStatusRequest
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from sidecar.seal import canonical
from sidecar.server import Sidecar
from tests.support import wire
from tests.support.bundles import NOW, SECOND, Key, Publisher, pack, revision
from tests.support.fake_opa import ALLOW, PROBE_ANSWER, FakeOpa, Query, fake_opa, http
from tests.support.processes import OPA, REPOSITORY, running_sidecar, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sidecar.settings import Settings

TENANTGATE = Path(sys.executable).parent / "tenantgate"


@pytest.fixture
def publisher(sample_bundle: Path, short_path: Path) -> Publisher:
    """Publishes in a directory, and signs."""
    return Publisher(sample_bundle, short_path / "published", Key(short_path))


def _settings(publisher: Publisher, source: str | None = None, **overrides: Any) -> Settings:
    assert publisher.key is not None
    given = {
        "bundles__source": source or str(publisher.folder),
        "bundles__keys": [str(publisher.key.public)],
        # Not so often that a test would find by its own what it should be told.
        "lifecycle__probe_interval_seconds": 5.0,
    }
    return sidecar_settings(publisher.folder.parent / "state", None, **(given | overrides))


def _bundle(channel: grpc.Channel, name: str = "base") -> BundleStatus:
    (found,) = [bundle for bundle in wire.get_status(channel).bundles if bundle.name == name]
    return found


def _revision(channel: grpc.Channel) -> str:
    try:
        return wire.authorize(channel).revision
    except grpc.RpcError:
        return ""


def _comes(channel: grpc.Channel, wanted: str) -> None:
    wait_until(lambda: _revision(channel) == wanted)


def _comes_as_of(channel: grpc.Channel, seconds: int) -> None:
    """Wait for a registry by its moment, where the revision names a base and an overlay that were not made for each other."""
    wait_until(lambda: wire.authorize(channel).as_of.ToMicroseconds() == NOW + seconds * SECOND)


def _refused(channel: grpc.Channel, reason: str, kind: str = "base") -> BundleStatus:
    wait_until(lambda: _bundle(channel, kind).last_refusal.reason == reason)
    return _bundle(channel, kind)


# ── fresh ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_published_change_reaches_decisions(publisher: Publisher) -> None:
    first = publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        before = wire.authorize(channel)
        second = publisher.base(1, without="Tenant-A")
        _comes(channel, second)
        after = wire.authorize(channel)

    assert (before.revision, before.effect) == (first, 1)
    assert (after.effect, after.code) == (2, decision_pb2.DECISION_CODE_TENANT_UNKNOWN)


def test_an_overlay_reaches_decisions(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        assert wire.authorize(channel).effect == 1
        overlay = publisher.overlay(5, since=0, removed="Tenant-A")
        _comes(channel, overlay)

        assert wire.authorize(channel).code == decision_pb2.DECISION_CODE_TENANT_UNKNOWN


def test_a_watcher_hears_of_a_new_revision_soon(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(_settings(publisher, lifecycle__probe_interval_seconds=60)) as (_, channel):
        stream = StatusServiceStub(channel).WatchStatus(WatchStatusRequest(), timeout=wire.DEADLINE)
        next(stream)
        second = publisher.base(1)
        heard = next(r for r in stream if r.status.revision == second)
        stream.cancel()

    assert heard.status.serving


def test_status_tells_where_each_bundle_stands(publisher: Publisher) -> None:
    base = publisher.base(0)
    overlay = publisher.overlay(3, since=0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        wait_until(lambda: _bundle(channel, "base").active and _bundle(channel, "overlay").active)
        found = [_bundle(channel, "base"), _bundle(channel, "overlay")]

    assert [(b.revision, b.key_id, b.persisted, b.error, b.refused) for b in found] == [
        (base, "ours", False, "", 0),
        (overlay, "ours", False, "", 0),
    ]
    assert [b.as_of.ToMicroseconds() for b in found] == [NOW, NOW + 3 * SECOND]


def test_the_command_shows_where_each_bundle_stands(publisher: Publisher) -> None:
    base = publisher.base(0)
    with running_sidecar(_settings(publisher)) as (sidecar, channel):
        wait_until(lambda: _bundle(channel).active)
        good = _shown(sidecar)
        publisher.put("base", _unsigned(publisher))
        wait_until(lambda: _bundle(channel).error)
        bad = _shown(sidecar)

    assert f"base {base}, signed with ours " in good
    assert "overlay none" in good
    assert f"base {base}, signed with ours, 1 refused refused, UNSIGNED: it is not signed" in bad


def _shown(sidecar: Sidecar) -> str:
    ended = CliRunner().invoke(main, ["status", "--address", sidecar.addresses[0]], env={"COLUMNS": "300"})
    assert ended.exit_code == 0
    return " ".join(ended.stdout.split())


# ── base and overlay in either order ────────────────────────────────────────────────────────────────────────────────────


def test_an_overlay_waits_for_the_base_that_it_needs(publisher: Publisher) -> None:
    first = publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        overlay = publisher.overlay(7, since=5)
        wait_until(lambda: _bundle(channel, "overlay").held_revision == overlay)
        held = wire.authorize(channel).revision
        publisher.base(5)
        _comes(channel, overlay)
        after = _bundle(channel, "overlay")

    assert held == first
    assert (after.revision, after.held_revision) == (overlay, "")


def test_a_base_may_come_before_its_overlay(publisher: Publisher) -> None:
    publisher.base(0)
    publisher.overlay(2, since=0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        publisher.base(5)
        _comes_as_of(channel, 5)
        _comes(channel, publisher.overlay(7, since=5))


def test_an_overlay_alone_is_not_served(publisher: Publisher) -> None:
    publisher.overlay(2, since=0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        status = wire.get_status(channel)
        publisher.base(0)
        _comes(channel, revision(2, "o2"))

    assert not status.serving
    assert "base.tar.gz is not published" in status.problem


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _unsigned(publisher: Publisher) -> bytes:
    return pack(publisher.base_files(9))


def _foreign(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    return pack(files | {".signatures.json": Key(publisher.folder, "theirs").sign(files)})


def _impostor(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    (publisher.folder / "other").mkdir()
    return pack(files | {".signatures.json": Key(publisher.folder / "other", "ours").sign(files)})


def _no_algorithm(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    token = _token({"alg": "none", "kid": "ours"}, files)
    return pack(files | {".signatures.json": canonical({"signatures": [token]})})


def _token(header: dict[str, str], files: dict[str, bytes]) -> str:
    """Write a token that nobody has signed."""
    body = json.dumps({"files": [{"name": name, "hash": "", "algorithm": "SHA-256"} for name in files]})
    return ".".join(base64url_encode(part.encode()).decode() for part in (json.dumps(header), body, ""))


def _changed(publisher: Publisher) -> bytes:
    files = publisher.signed(publisher.base_files(9))
    data = files["registry/base/data.json"]
    return pack(files | {"registry/base/data.json": data.replace(b"ALLOW", b"DENY!", 1)})


def _added(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(9)) | {"tenantgate/more/more.rego": b"package tenantgate.more\n"})


def _missing(publisher: Publisher) -> bytes:
    files = publisher.signed(publisher.base_files(9))
    del files["tenantgate/mask/mask.rego"]
    return pack(files)


def _truncated(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(9)))[:-100]


def _bad_checksum(publisher: Publisher) -> bytes:
    body = bytearray(pack(publisher.signed(publisher.base_files(9))))
    body[-6] ^= 1
    return bytes(body)


def _not_gzip(_publisher: Publisher) -> bytes:
    return b"<html>502 Bad Gateway</html>"


def _empty(_publisher: Publisher) -> bytes:
    return b""


def _no_manifest(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    del files[".manifest"]
    return pack(publisher.signed(files))


def _no_zone(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    manifest = json.loads(files[".manifest"])
    manifest["metadata"]["as_of"] = manifest["metadata"]["as_of"].removesuffix("Z")
    return pack(publisher.signed(files | {".manifest": canonical(manifest)}))


def _overlay_as_base(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.overlay_files(9, 0)))


def _other_roots(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    manifest = json.loads(files[".manifest"]) | {"roots": [""]}
    return pack(publisher.signed(files | {".manifest": canonical(manifest)}))


def _older(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(3)))


def _of_the_same_moment(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(5, "other")))


_REFUSED: dict[str, tuple[Callable[[Publisher], bytes], str]] = {
    "unsigned": (_unsigned, "UNSIGNED"),
    "signed with a foreign key": (_foreign, "FOREIGN_KEY"),
    "signed with a foreign key that has our key's name": (_impostor, "FOREIGN_KEY"),
    "signed with no algorithm": (_no_algorithm, "FOREIGN_KEY"),
    "changed in one file": (_changed, "TAMPERED"),
    "with a file more": (_added, "TAMPERED"),
    "with a file less": (_missing, "TAMPERED"),
    "truncated": (_truncated, "DAMAGED"),
    "with a wrong checksum": (_bad_checksum, "DAMAGED"),
    "not gzip": (_not_gzip, "DAMAGED"),
    "empty": (_empty, "DAMAGED"),
    "without a manifest": (_no_manifest, "DAMAGED"),
    "of a moment without a zone": (_no_zone, "DAMAGED"),
    "an overlay": (_overlay_as_base, "WRONG_KIND"),
    "with other roots": (_other_roots, "WRONG_KIND"),
    "older": (_older, "ROLLED_BACK"),
    "another of the same moment": (_of_the_same_moment, "FORKED"),
}


@pytest.fixture(scope="module")
def serving(sample_bundle: Path) -> Iterator[tuple[Publisher, grpc.Channel, str]]:
    """A sidecar that serves a base as of second 5, whatever else is published."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        publisher = Publisher(sample_bundle, Path(folder) / "published", Key(Path(folder)))
        base = publisher.base(5)
        with running_sidecar(_settings(publisher)) as (_, channel):
            yield publisher, channel, base


@pytest.mark.parametrize(("make", "reason"), _REFUSED.values(), ids=_REFUSED)
def test_the_previous_revision_serves_on_after_a_base_that_is(
    make: Callable[[Publisher], bytes], reason: str, serving: tuple[Publisher, grpc.Channel, str]
) -> None:
    publisher, channel, base = serving
    before = _bundle(channel).refused
    publisher.put("base", make(publisher))
    wait_until(lambda: _bundle(channel).refused == before + 1)
    refused = _bundle(channel)
    decision = wire.authorize(channel)
    publisher.put("base", pack(publisher.signed(publisher.base_files(5))))
    wait_until(lambda: not _bundle(channel).error)

    assert (decision.revision, decision.effect) == (base, 1)
    assert refused.last_refusal.reason == reason
    assert (refused.last_refusal.file, refused.refusals[reason] > 0) == ("base.tar.gz", True)
    assert refused.error == f"refused, {reason}: {refused.last_refusal.message}"
    assert abs(refused.last_refusal.time.ToMicroseconds() - time.time_ns() // 1000) < 60 * SECOND


def test_any_byte_that_is_changed_is_noticed(serving: tuple[Publisher, grpc.Channel, str]) -> None:
    publisher, channel, base = serving
    good = pack(publisher.signed(publisher.base_files(5)))
    # not the last bytes before the checksum, some bits of which mean nothing
    for at in range(10, len(good) - 16, len(good) // 25):
        before = _bundle(channel).refused
        publisher.put("base", good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        wait_until(lambda before=before: _bundle(channel).refused > before)
    publisher.put("base", good)
    wait_until(lambda: not _bundle(channel).error)

    assert wire.authorize(channel).revision == base


def test_a_refused_file_is_counted_once(serving: tuple[Publisher, grpc.Channel, str]) -> None:
    publisher, channel, _ = serving
    before = _bundle(channel).refused
    publisher.put("base", b"one")
    wait_until(lambda: _bundle(channel).refused == before + 1)
    publisher.put("base", b"another")
    wait_until(lambda: "refused" in _bundle(channel).error and _bundle(channel).refused > before + 1)

    assert _bundle(channel).refused == before + 2


def test_an_older_overlay_is_refused(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        overlay = publisher.overlay(5, since=0, removed="Tenant-A")
        _comes(channel, overlay)
        publisher.overlay(4, since=0)
        _refused(channel, "ROLLED_BACK", "overlay")

        assert wire.authorize(channel).revision == overlay


def test_an_overlay_that_is_taken_away_is_kept(publisher: Publisher) -> None:
    publisher.base(0)
    overlay = publisher.overlay(5, since=0, removed="Tenant-A")
    with running_sidecar(_settings(publisher)) as (_, channel):
        _comes(channel, overlay)
        (publisher.folder / "overlay.tar.gz").unlink()
        _comes(channel, overlay)
        later = publisher.overlay(6, since=0, removed="Tenant-A")
        _comes(channel, later)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "directory"])
def test_what_is_no_file_is_no_bundle(make: Callable[[Path], None], publisher: Publisher) -> None:
    base = publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        (publisher.folder / "base.tar.gz").unlink()
        make(publisher.folder / "base.tar.gz")
        wait_until(lambda: _bundle(channel).error)

        assert wire.authorize(channel).revision == base


def test_opa_itself_refuses_what_nobody_has_signed(publisher: Publisher) -> None:
    base = publisher.base(0)
    with running_sidecar(_settings(publisher)) as (sidecar, channel):
        # as if the intake had let it through
        kept = publisher.folder.parent / "state" / "bundles" / "base.tar.gz"
        scratch = kept.with_name("scratch")
        scratch.write_bytes(pack(publisher.base_files(9)))
        scratch.replace(kept)
        sidecar._hand_on()
        wait_until(lambda: "OPA: " in _bundle(channel).error)

        assert "bundle missing .signatures.json file" in _bundle(channel).error
        assert wire.authorize(channel).revision == base


@pytest.mark.parametrize("rs256", [False, True], ids=["ES256", "RS256"])
def test_both_kinds_of_key_sign(rs256: bool, sample_bundle: Path, short_path: Path) -> None:  # noqa: FBT001 - a parameter
    publisher = Publisher(sample_bundle, short_path / "published", Key(short_path, "2026-11.k1", rs256=rs256))
    base = publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        assert wire.authorize(channel).revision == base
        assert _bundle(channel).key_id == "2026-11.k1"


def test_unsigned_bundles_are_accepted_where_the_settings_say_so(sample_bundle: Path, short_path: Path) -> None:
    publisher = Publisher(sample_bundle, short_path / "published", None)
    base = publisher.base(0)
    settings = sidecar_settings(
        short_path / "state", None, bundles__source=str(publisher.folder), bundles__accept_unsigned=True
    )
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == base
        _comes(channel, publisher.overlay(1, since=0))


# ── across restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_the_source_gone_a_restart_serves_what_was_taken_in_last(publisher: Publisher) -> None:
    publisher.base(0)
    overlay = publisher.overlay(5, since=0, removed="Tenant-A")
    with running_sidecar(_settings(publisher)) as (_, channel):
        _comes(channel, overlay)
    away = publisher.folder.rename(publisher.folder.with_name("away"))
    with running_sidecar(_settings(publisher)) as (_, channel):
        _comes(channel, overlay)
        kept = [_bundle(channel, "base"), _bundle(channel, "overlay")]
        away.rename(publisher.folder)
        wait_until(lambda: not _bundle(channel, "base").persisted and not _bundle(channel, "overlay").persisted)

        assert [(b.persisted, "no such directory" in b.error) for b in kept] == [(True, True)] * 2
        assert [_bundle(channel, name).error for name in ("base", "overlay")] == ["", ""]


def test_a_restart_does_not_take_in_an_older_base(publisher: Publisher) -> None:
    base = publisher.base(5)
    with running_sidecar(_settings(publisher)):
        pass
    publisher.base(4)
    with running_sidecar(_settings(publisher)) as (_, channel):
        refused = _refused(channel, "ROLLED_BACK")

        assert wire.authorize(channel).revision == base
        assert refused.persisted


def test_without_the_kept_file_an_older_base_is_refused_still(publisher: Publisher) -> None:
    publisher.base(5)
    with running_sidecar(_settings(publisher)):
        pass
    publisher.base(4)
    (publisher.folder.parent / "state" / "bundles" / "base.tar.gz").unlink()
    with running_sidecar(_settings(publisher)) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))
        status = wire.get_status(channel)

    assert wire.outcome(error) == (grpc.StatusCode.UNAVAILABLE, "POLICY_NOT_READY", "tenantgate")
    assert "ROLLED_BACK" in status.problem


def test_a_kept_bundle_that_was_damaged_is_dropped(publisher: Publisher) -> None:
    base = publisher.base(5)
    with running_sidecar(_settings(publisher)):
        pass
    (publisher.folder.parent / "state" / "bundles" / "base.tar.gz").write_bytes(b"damaged")
    with running_sidecar(_settings(publisher)) as (_, channel):
        assert wire.authorize(channel).revision == base
        assert _bundle(channel).refusals["DAMAGED"] == 1


def test_a_bundle_signed_with_a_key_that_was_taken_away_is_dropped(publisher: Publisher, short_path: Path) -> None:
    publisher.base(5)
    with running_sidecar(_settings(publisher)):
        pass
    publisher.key = Key(short_path, "next")
    publisher.put("base", b"")
    with running_sidecar(_settings(publisher)) as (_, channel):
        assert not wire.get_status(channel).serving
        publisher.base(5)  # the same revision, signed anew
        wait_until(lambda: _bundle(channel).key_id == "next" and _bundle(channel).active)

        assert wire.authorize(channel).effect == 1


def test_marks_that_cannot_be_read_stop_the_start(publisher: Publisher) -> None:
    publisher.base(5)
    with running_sidecar(_settings(publisher)):
        pass
    (publisher.folder.parent / "state" / "bundles" / "marks.json").write_text("{")
    sidecar = Sidecar(_settings(publisher))
    with pytest.raises(StartError, match="removing it makes this sidecar forget which bundles it has taken in"):
        sidecar.start()


def test_a_killed_opa_gets_the_bundles_again(publisher: Publisher) -> None:
    publisher.base(0)
    overlay = publisher.overlay(5, since=0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        _comes(channel, overlay)
        shutil.rmtree(publisher.folder)
        os.kill(wire.get_status(channel).opa.pid, signal.SIGKILL)
        wait_until(lambda: wire.get_status(channel).opa.restarts == 1)
        wait_until(lambda: wire.get_status(channel).serving)

        assert wire.authorize(channel).revision == overlay


def test_a_base_that_opa_cannot_activate_is_told_and_the_next_one_serves(publisher: Publisher) -> None:
    first = publisher.base(0)
    files = publisher.base_files(1)
    files["tenantgate/mask/mask.rego"] = b"package tenantgate.mask\n\nmask contains undefined_function(1)\n"
    with running_sidecar(_settings(publisher)) as (_, channel):
        publisher.put("base", pack(publisher.signed(files)))
        wait_until(lambda: "OPA: " in _bundle(channel).error)
        meanwhile = wire.authorize(channel).revision
    with running_sidecar(_settings(publisher)) as (_, channel):
        wait_until(lambda: "OPA: " in _bundle(channel).error)
        serving = wire.get_status(channel).serving
        _comes(channel, publisher.base(2))

    assert (meanwhile, serving) == (first, False)


@contextmanager
def _process(settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    process = subprocess.Popen([TENANTGATE, "serve", *flags], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_sidecar_comes_back_with_what_it_had(publisher: Publisher, short_path: Path) -> None:
    assert publisher.key is not None
    settings = {
        "state_dir": str(short_path / "state"),
        "bundles.source": str(publisher.folder),
        "bundles.keys": f"[{publisher.key.public}]",
    }
    socket = f"unix:{short_path}/state/tenantgate.sock"
    publisher.base(0)
    overlay = publisher.overlay(5, since=0)
    with _process(settings) as process, grpc.insecure_channel(socket) as channel:
        wait_until(lambda: _revision(channel) == overlay)
        process.kill()
        process.wait()
    publisher.base(-1)
    (publisher.folder / "overlay.tar.gz").unlink()
    with _process(settings), grpc.insecure_channel(socket) as channel:
        wait_until(lambda: _revision(channel) == overlay)
        refused = _refused(channel, "ROLLED_BACK")

    assert refused.persisted


# ── rollback below the intake ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def dated(short_path: Path) -> Iterator[tuple[FakeOpa, Callable[[int], None]]]:
    """A separate OPA, and what sets the second after ``NOW`` that its registry is of."""
    now = {"as_of": NOW, "revision": revision(0)}

    def answer(query: Query) -> Iterable[bytes]:
        decision = (PROBE_ANSWER if query.is_probe else ALLOW) | now
        return [http({"result": [decision]} if "batch" in query.path else {"result": decision})]

    def turn(seconds: int) -> None:
        now.update(as_of=NOW + seconds * SECOND, revision=revision(seconds))

    with fake_opa(short_path / "fake.sock", answer) as opa:
        yield opa, turn


def _beside(opa: FakeOpa, folder: Path, **overrides: Any) -> Settings:
    return sidecar_settings(folder, None, opa__address=opa.address, **overrides)


def test_an_older_registry_than_was_served_gives_no_decision(
    dated: tuple[FakeOpa, Callable[[int], None]], short_path: Path
) -> None:
    opa, turn = dated
    turn(5)
    with running_sidecar(_beside(opa, short_path)) as (_, channel):
        assert wire.authorize(channel).effect == 1
        turn(4)
        stub: Any = AuthorizationServiceStub(channel)
        error = wire.failure(lambda: wire.authorize(channel))
        batch = wire.failure(lambda: stub.BatchAuthorize(wire.batch("x"), timeout=20))
        wait_until(lambda: not wire.get_status(channel).serving)
        turn(5)
        wait_until(lambda: wire.get_status(channel).serving)
        assert wire.authorize(channel).effect == 1

    assert wire.outcome(error) == (grpc.StatusCode.UNAVAILABLE, "REVISION_ROLLED_BACK", "tenantgate")
    assert wire.error_info(batch).reason == "REVISION_ROLLED_BACK"


def test_an_older_registry_than_was_served_gives_no_decision_after_a_restart(
    dated: tuple[FakeOpa, Callable[[int], None]], short_path: Path
) -> None:
    opa, turn = dated
    turn(5)
    with running_sidecar(_beside(opa, short_path)) as (_, channel):
        wire.authorize(channel)
    turn(4)
    with running_sidecar(_beside(opa, short_path)) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))
        serving = wire.get_status(channel).serving

    assert wire.outcome(error) == (grpc.StatusCode.UNAVAILABLE, "REVISION_ROLLED_BACK", "tenantgate")
    assert not serving


# ── waiting for a change of one's own ───────────────────────────────────────────────────────────────────────────────────


def _moment(seconds: int) -> Timestamp:
    return Timestamp(seconds=(NOW // SECOND) + seconds)


def test_a_call_waits_for_the_registry_that_it_wants(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(_settings(publisher, lifecycle__probe_interval_seconds=60)) as (_, channel):
        answers: list[Any] = []
        caller = threading.Thread(
            target=lambda: answers.append(wire.authorize(channel, wire.question(min_as_of=_moment(5))))
        )
        caller.start()
        wait_until(_in_monitor)
        overlay = publisher.overlay(5, since=0)
        caller.join(wire.DEADLINE)

    assert [answer.revision for answer in answers] == [overlay]


def _in_monitor() -> bool:
    """Whether a call waits: some thread is in the function that it waits in."""
    for frame in sys._current_frames().values():
        walked = frame
        while walked is not None:
            if walked.f_code.co_name == "wait_for_as_of":
                return True
            walked = walked.f_back  # type: ignore[assignment]  # None at the end
    return False


def test_a_call_waits_for_a_separate_opa_too(dated: tuple[FakeOpa, Callable[[int], None]], short_path: Path) -> None:
    opa, turn = dated
    with running_sidecar(_beside(opa, short_path, lifecycle__probe_interval_seconds=60)) as (_, channel):
        answers: list[Any] = []
        caller = threading.Thread(
            target=lambda: answers.append(wire.authorize(channel, wire.question(min_as_of=_moment(5))))
        )
        caller.start()
        wait_until(_in_monitor)
        turn(5)
        caller.join(wire.DEADLINE)

    assert [answer.revision for answer in answers] == [revision(5)]


def test_a_call_that_waits_in_vain_is_told_so_before_its_deadline(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(_settings(publisher)) as (_, channel):
        began = time.monotonic()
        error = wire.failure(lambda: wire.authorize(channel, wire.question(min_as_of=_moment(5)), timeout=0.6))
        took = time.monotonic() - began

    assert wire.outcome(error) == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_TOO_OLD", "tenantgate")
    assert took >= 0.4


def test_a_registry_from_the_future_is_not_waited_for(publisher: Publisher) -> None:
    publisher.base(0)
    future = Timestamp(seconds=int(time.time()) + 3600)
    with running_sidecar(_settings(publisher)) as (_, channel):
        began = time.monotonic()
        error = wire.failure(lambda: wire.authorize(channel, wire.question(min_as_of=future), timeout=10))
        took = time.monotonic() - began

    assert wire.error_info(error).reason == "REVISION_TOO_OLD"
    assert took < 5


def test_calls_that_wait_leave_threads_to_others(publisher: Publisher) -> None:
    publisher.base(0)
    settings = _settings(publisher, limits__threads=2, limits__waiting=1)
    with running_sidecar(settings) as (sidecar, channel):
        waiter = threading.Thread(
            target=lambda: wire.failure(
                lambda: wire.authorize(channel, wire.question(min_as_of=_moment(5)), timeout=wire.DEADLINE)
            )
        )
        waiter.start()
        wait_until(_in_monitor)
        second = wire.failure(lambda: wire.authorize(channel, wire.question(min_as_of=_moment(5))))
        decided_meanwhile = wire.authorize(channel).effect
        sidecar.stop()
        waiter.join(wire.DEADLINE)

    assert wire.error_info(second).reason == "REVISION_TOO_OLD"
    assert decided_meanwhile == 1


# ── other sources ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _endpoint(publisher: Publisher, token: str | None = None, port: int = 0) -> Iterator[BundleEndpoint]:
    endpoint = BundleEndpoint(publisher.folder, port=port, token=token, watch=True)
    endpoint.start()
    try:
        yield endpoint
    finally:
        endpoint.stop()


def test_bundles_come_over_http_as_they_are_published(publisher: Publisher, short_path: Path) -> None:
    (short_path / "token").write_text("secret\n")
    publisher.base(0)
    with _endpoint(publisher, "secret") as endpoint:
        # What is not found by long polling would take longer than the test waits.
        settings = _settings(
            publisher, endpoint.url, bundles__token_file=str(short_path / "token"), bundles__poll_seconds=0.5
        )
        with running_sidecar(settings) as (_, channel):
            _comes(channel, publisher.base(1))
            _comes(channel, publisher.base(2))
            _comes(channel, publisher.overlay(4, since=2))


def test_a_wrong_token_is_told_in_status(publisher: Publisher, short_path: Path) -> None:
    (short_path / "token").write_text("guessed")
    publisher.base(0)
    with _endpoint(publisher, "secret") as endpoint:
        settings = _settings(publisher, endpoint.url, bundles__token_file=str(short_path / "token"))
        with running_sidecar(settings) as (_, channel):
            assert "HTTP status 401" in wire.get_status(channel).problem


def test_an_http_server_may_go_and_come_back(publisher: Publisher) -> None:
    base = publisher.base(0)
    with _endpoint(publisher) as endpoint:
        port = int(endpoint.url.rpartition(":")[2])
        settings = _settings(publisher, endpoint.url, bundles__poll_seconds=0.05)
        with running_sidecar(settings) as (_, channel):
            endpoint.stop()
            wait_until(lambda: _bundle(channel).error)
            assert wire.authorize(channel).revision == base
            second = publisher.base(1)
            with _endpoint(publisher, port=port):
                _comes(channel, second)


def test_a_server_without_long_polling_is_asked_again_and_again(publisher: Publisher) -> None:
    publisher.base(0)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(publisher.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().partition("(")[2].partition("/)")[0]
            with running_sidecar(_settings(publisher, url, bundles__poll_seconds=0.05)) as (_, channel):
                _comes(channel, publisher.base(1))
                _comes(channel, publisher.overlay(2, since=1))
        finally:
            server.kill()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A bucket named ``published``, as moto has it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="published")
    yield client
    client.close()
    server.stop()


def test_bundles_come_from_s3(publisher: Publisher, bucket: Any) -> None:
    def put(kind: str) -> None:
        bucket.put_object(Bucket="published", Key=f"registry/{kind}.tar.gz", Body=publisher.get(kind))

    first = publisher.base(0)
    put("base")
    settings = _settings(publisher, "s3://published/registry", bundles__poll_seconds=0.05)
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == first
        second = publisher.base(1)
        put("base")
        _comes(channel, second)
        overlay = publisher.overlay(2, since=1)
        put("overlay")
        _comes(channel, overlay)
        assert [_bundle(channel, name).error for name in ("base", "overlay")] == ["", ""]


# ── settings and start ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_any_bundle_it_starts_and_is_not_ready(publisher: Publisher) -> None:
    with running_sidecar(_settings(publisher)) as (_, channel):
        status = wire.get_status(channel)
        error = wire.failure(lambda: wire.authorize(channel))
        base = publisher.base(0)
        wait_until(lambda: _revision(channel) == base)

    assert not status.serving
    assert status.problem == "there is no base bundle: base.tar.gz is not published"
    assert wire.outcome(error) == (grpc.StatusCode.UNAVAILABLE, "POLICY_NOT_READY", "tenantgate")


def test_a_key_that_cannot_be_read_stops_the_start(publisher: Publisher, short_path: Path) -> None:
    sidecar = Sidecar(_settings(publisher, bundles__keys=[str(short_path / "none.pub")]))
    with pytest.raises(StartError, match=r"bundles\.keys: .*none\.pub: not a public key"):
        sidecar.start()


def test_one_file_is_verified_where_there_are_keys(publisher: Publisher) -> None:
    base = publisher.base(0)
    file = publisher.folder / "base.tar.gz"
    settings = _settings(publisher, bundles__source=None, opa__bundle=str(file))
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == base
    publisher.put("base", _unsigned(publisher))
    sidecar = Sidecar(settings)
    with pytest.raises(StartError, match=r"opa\.bundle: .*base\.tar\.gz: it is not signed"):
        sidecar.start()


def test_one_file_that_is_named_may_be_older(publisher: Publisher) -> None:
    file = publisher.folder / "base.tar.gz"
    settings = _settings(publisher, bundles__source=None, opa__bundle=str(file))
    publisher.base(5)
    with running_sidecar(settings) as (_, channel):
        wire.authorize(channel)
    older = publisher.base(4)
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == older


def test_stop_is_prompt_whatever_the_source_does(publisher: Publisher) -> None:
    publisher.base(0)
    with _endpoint(publisher) as endpoint:
        sidecar = Sidecar(_settings(publisher, endpoint.url))
        sidecar.start()
        began = time.monotonic()
        sidecar.stop()

    assert time.monotonic() - began < 3


# ── a separate OPA ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_opa_takes_the_configuration_of_a_separate_one(publisher: Publisher, short_path: Path) -> None:
    assert publisher.key is not None
    publisher.base(0)
    overlay = publisher.overlay(1, since=0)
    with _endpoint(publisher, "secret") as endpoint:
        values = {
            "BUNDLE_URL": endpoint.url,
            "BUNDLE_TOKEN": "secret",
            "BUNDLE_KEY": json.dumps(publisher.key.public.read_text())[1:-1],
            "PERSISTENCE_DIRECTORY": str(short_path / "persisted"),
        }
        command: list[str | Path] = [OPA, "run", "--server", "--addr", f"unix://{short_path}/own.sock"]
        command += ["--config-file", REPOSITORY / "opa" / "separate.yaml", "--skip-version-check"]
        opa = subprocess.Popen(command, env=os.environ | values, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            settings = sidecar_settings(short_path / "state", None, opa__address=f"unix:{short_path}/own.sock")
            with running_sidecar(settings) as (_, channel):
                wait_until(lambda: _revision(channel) == overlay)
                publisher.put("base", _unsigned(publisher))
                assert _revision(channel) == overlay
        finally:
            opa.kill()
            opa.wait()

    assert (short_path / "persisted").exists()
