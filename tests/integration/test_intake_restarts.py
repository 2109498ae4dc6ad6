"""What is in force after OPA, the sidecar or the source went away, or after OPA refused what was published."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from sidecar.engine.intake import Intake
from sidecar.engine.sources import DirectorySource
from sidecar.errors import StartError
from sidecar.seal import public_keys
from sidecar.server import Sidecar
from tests.support import wire
from tests.support.bundles import Key, Publisher, pack, revision
from tests.support.following import bundle_status, comes, comes_as_of, following, refused_for, revision_of
from tests.support.processes import running_sidecar, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

TENANTGATE = Path(sys.executable).parent / "tenantgate"


def test_with_the_source_gone_a_restart_serves_what_was_taken_in_last(publisher: Publisher) -> None:
    publisher.base(0)
    overlay = publisher.overlay(5, since=0, removed="Tenant-A")
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, overlay)
    away = publisher.folder.rename(publisher.folder.with_name("away"))
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, overlay)
        kept = [bundle_status(channel, "base"), bundle_status(channel, "overlay")]
        away.rename(publisher.folder)
        wait_until(
            lambda: not bundle_status(channel, "base").persisted and not bundle_status(channel, "overlay").persisted
        )

        assert [(b.persisted, "no such directory" in b.error) for b in kept] == [(True, True)] * 2
        assert [bundle_status(channel, name).error for name in ("base", "overlay")] == ["", ""]


def test_a_restart_does_not_take_in_an_older_base(publisher: Publisher) -> None:
    base = publisher.base(5)
    with running_sidecar(following(publisher)):
        pass
    publisher.base(4)
    with running_sidecar(following(publisher)) as (_, channel):
        refused = refused_for(channel, "ROLLED_BACK")

        assert wire.authorize(channel).revision == base
        assert refused.persisted


def test_without_the_kept_file_an_older_base_is_refused_still(publisher: Publisher) -> None:
    publisher.base(5)
    with running_sidecar(following(publisher)):
        pass
    publisher.base(4)
    (publisher.folder.parent / "state" / "bundles" / "base.tar.gz").unlink()
    with running_sidecar(following(publisher)) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))
        status = wire.get_status(channel)

    assert wire.outcome(error) == (grpc.StatusCode.UNAVAILABLE, "POLICY_NOT_READY", "tenantgate")
    assert "ROLLED_BACK" in status.problem


def test_a_kept_bundle_that_was_damaged_is_dropped(publisher: Publisher) -> None:
    base = publisher.base(5)
    with running_sidecar(following(publisher)):
        pass
    (publisher.folder.parent / "state" / "bundles" / "base.tar.gz").write_bytes(b"damaged")
    with running_sidecar(following(publisher)) as (_, channel):
        assert wire.authorize(channel).revision == base
        assert bundle_status(channel).refusals["DAMAGED"] == 1


def test_a_bundle_signed_with_a_key_that_was_taken_away_is_dropped(publisher: Publisher, short_path: Path) -> None:
    publisher.base(5)
    with running_sidecar(following(publisher)):
        pass
    publisher.key = Key(short_path, "next")
    publisher.put("base", b"")
    with running_sidecar(following(publisher)) as (_, channel):
        assert not wire.get_status(channel).serving
        publisher.base(5)  # the same revision, signed anew
        wait_until(lambda: bundle_status(channel).key_id == "next" and bundle_status(channel).active)

        assert wire.authorize(channel).effect == 1


def test_marks_that_cannot_be_read_stop_the_start(publisher: Publisher) -> None:
    publisher.base(5)
    with running_sidecar(following(publisher)):
        pass
    (publisher.folder.parent / "state" / "bundles" / "marks.json").write_text("{")
    sidecar = Sidecar(following(publisher))
    with pytest.raises(StartError, match="removing it makes this sidecar forget which bundles it has taken in"):
        sidecar.start()


def test_a_killed_opa_gets_the_bundles_again(publisher: Publisher) -> None:
    publisher.base(0)
    overlay = publisher.overlay(5, since=0)
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, overlay)
        shutil.rmtree(publisher.folder)
        os.kill(wire.get_status(channel).opa.pid, signal.SIGKILL)
        wait_until(lambda: wire.get_status(channel).opa.restarts == 1)
        wait_until(lambda: wire.get_status(channel).serving)

        assert wire.authorize(channel).revision == overlay


def test_an_overlay_is_dropped_with_the_base_that_it_needs(publisher: Publisher) -> None:
    older, kept = _older_base(publisher)
    older.replace(kept)
    with running_sidecar(following(publisher)) as (_, channel):
        status = wire.get_status(channel)

    assert [bundle.revision for bundle in status.bundles] == [revision(0), ""]
    assert not status.serving
    assert "older than one that has been served" in status.problem


def test_an_overlay_shows_that_the_base_that_it_needs_was_in_force(publisher: Publisher) -> None:
    older, kept = _older_base(publisher)
    before = older.replace(kept.with_name("before-base.tar.gz"))  # as if it had not been gone from the disk
    assert publisher.key is not None
    intake = Intake(DirectorySource(publisher.folder, 1.0), kept.parent, public_keys([publisher.key.public]))
    intake.load()

    assert [state.sealed.revision for state in intake.states if state.sealed] == [revision(5), revision(7, "o7")]
    assert not before.exists()


def _older_base(publisher: Publisher) -> tuple[Path, Path]:
    """Have a base and an overlay taken in that needs it, with the source gone; give an older base, and where the base is kept."""
    publisher.base(5)
    overlay = publisher.overlay(7, since=5)
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, overlay)
    publisher.base(0)
    away = publisher.folder.rename(publisher.folder.with_name("away"))
    return away / "base.tar.gz", publisher.folder.with_name("state") / "bundles" / "base.tar.gz"


@pytest.mark.parametrize(("seconds", "offered"), [(-0.001, "base.tar.gz"), (0.001, "before-base.tar.gz")])
def test_a_complaint_that_comes_late_is_not_about_the_file_that_was_given_meanwhile(
    publisher: Publisher, seconds: float, offered: str
) -> None:
    kept = publisher.folder.with_name("bundles")
    kept.mkdir()
    for number, name in enumerate(("before-base.tar.gz", "base.tar.gz")):
        publisher.base(number)
        (publisher.folder / "base.tar.gz").rename(kept / name)
    assert publisher.key is not None
    intake = Intake(DirectorySource(publisher.folder, 1.0), kept, public_keys([publisher.key.public]))
    intake.load()
    digest, given = hashlib.sha256((kept / "base.tar.gz").read_bytes()).hexdigest(), datetime.now(UTC)
    complained = (given + timedelta(seconds=seconds)).isoformat()
    found = {"active_revision": revision(0), "message": "cannot be compiled", "last_request": complained}

    intake.note(json.dumps({"bundles": {"base": found}}).encode(), {"base.tar.gz": (digest, given)})

    assert intake.offered("base.tar.gz").name == offered


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
        "identity.mode": "asserted",
    }
    socket = f"unix:{short_path}/state/tenantgate.sock"
    publisher.base(0)
    overlay = publisher.overlay(5, since=0)
    with _process(settings) as process, grpc.insecure_channel(socket) as channel:
        wait_until(lambda: revision_of(channel) == overlay)
        process.kill()
        process.wait()
    publisher.base(-1)
    (publisher.folder / "overlay.tar.gz").unlink()
    with _process(settings), grpc.insecure_channel(socket) as channel:
        wait_until(lambda: revision_of(channel) == overlay)
        refused = refused_for(channel, "ROLLED_BACK")

    assert refused.persisted


# ── refused by OPA ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _broken(publisher: Publisher, seconds: int) -> str:
    """Publish a base that is signed, and that OPA cannot compile; give its revision."""
    files = publisher.base_files(seconds)
    files["tenantgate/mask/mask.rego"] = b"package tenantgate.mask\n\nmask contains undefined_function(1)\n"
    publisher.put("base", pack(publisher.signed(files)))
    return revision(seconds)


def _kill_opa(channel: grpc.Channel) -> None:
    opa = wire.get_status(channel).opa
    os.kill(opa.pid, signal.SIGKILL)
    wait_until(lambda: wire.get_status(channel).opa.restarts == opa.restarts + 1)


def test_what_opa_refuses_is_told_and_the_next_base_serves(publisher: Publisher) -> None:
    broken = _broken(publisher, 0)
    with running_sidecar(following(publisher)) as (_, channel):
        refused = refused_for(channel, "NOT_ACTIVATED")
        serving = wire.get_status(channel).serving
        comes(channel, publisher.base(1))
        wait_until(lambda: bundle_status(channel).active)  # OPA reports after it decides by it
        after = bundle_status(channel)

    assert not serving
    assert refused.error == (
        f"OPA: cannot activate {broken}: error(s) occurred while compiling module(s): "
        "tenantgate/mask/mask.rego:3: undefined function undefined_function"
    )
    assert (after.active, after.error, after.refusals["NOT_ACTIVATED"]) == (True, "", 1)


def test_opa_serves_on_after_a_restart_under_what_it_had_before_what_it_refuses(publisher: Publisher) -> None:
    good = publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, good)
        wait_until(lambda: bundle_status(channel).active)
        broken = _broken(publisher, 1)
        refused = refused_for(channel, "NOT_ACTIVATED")
        meanwhile = revision_of(channel)
        for _ in range(2):
            _kill_opa(channel)
            comes(channel, good)
        still = bundle_status(channel)
        comes(channel, publisher.base(2))
        wait_until(lambda: bundle_status(channel).active)
        after = bundle_status(channel)

    assert meanwhile == good
    assert refused.revision == broken
    assert not refused.active
    assert f"OPA: cannot activate {broken}: " in refused.error
    assert f"it is offered {good} again" in refused.error
    assert (still.error, still.refused) == (refused.error, 1)
    assert after.error == ""


def test_a_restarted_sidecar_serves_on_under_what_opa_had_before_what_it_refuses(publisher: Publisher) -> None:
    good = publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, good)
        wait_until(lambda: bundle_status(channel).active)
        broken = _broken(publisher, 1)
        refused_for(channel, "NOT_ACTIVATED")
    for _ in range(2):
        with running_sidecar(following(publisher)) as (_, channel):
            comes(channel, good)
            assert refused_for(channel, "NOT_ACTIVATED").revision == broken
    publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        refused_for(channel, "ROLLED_BACK")  # nor does it go back by itself
        comes(channel, good)
        comes(channel, publisher.base(2))
        assert not (publisher.folder.parent / "state" / "bundles" / "before-base.tar.gz").exists()


def test_a_broken_base_that_comes_while_the_sidecar_is_away_does_not_end_what_it_had(publisher: Publisher) -> None:
    good = publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, good)
    _broken(publisher, 1)
    with running_sidecar(following(publisher)) as (_, channel):
        refused_for(channel, "NOT_ACTIVATED")
        comes(channel, good)
        _kill_opa(channel)
        comes(channel, good)


def test_an_overlay_for_a_base_that_opa_refuses_waits_for_one_that_it_takes(publisher: Publisher) -> None:
    publisher.base(0)
    first = publisher.overlay(3, since=0)
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, first)
        wait_until(lambda: bundle_status(channel).active)
        _broken(publisher, 5)
        refused_for(channel, "NOT_ACTIVATED")
        second = publisher.overlay(7, since=5)
        wait_until(lambda: bundle_status(channel, "overlay").held_revision == second)
        _kill_opa(channel)
        comes(channel, first)
    with running_sidecar(following(publisher)) as (_, channel):
        wait_until(lambda: bundle_status(channel, "overlay").held_revision == second)
        comes(channel, first)
        publisher.base(6)
        comes_as_of(channel, 7)
