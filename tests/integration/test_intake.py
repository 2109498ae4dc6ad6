"""How bundles reach OPA in a running sidecar: fresh, signed, and never backwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc
import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.errors import StartError
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.status_service_pb2 import WatchStatusRequest
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from sidecar.server import Sidecar
from tests.support import wire
from tests.support.bundles import NOW, SECOND, Publisher, pack, revision
from tests.support.following import bundle_status, comes, comes_as_of, following, published_at, revision_of
from tests.support.processes import running_sidecar, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_a_published_change_reaches_decisions(publisher: Publisher) -> None:
    first = publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        before = wire.authorize(channel)
        second = publisher.base(1, without="Tenant-A")
        comes(channel, second)
        after = wire.authorize(channel)

    assert (before.revision, before.effect) == (first, 1)
    assert (after.effect, after.code) == (2, decision_pb2.DECISION_CODE_TENANT_UNKNOWN)


def test_an_overlay_reaches_decisions(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        assert wire.authorize(channel).effect == 1
        overlay = publisher.overlay(5, since=0, removed="Tenant-A")
        comes(channel, overlay)

        assert wire.authorize(channel).code == decision_pb2.DECISION_CODE_TENANT_UNKNOWN


def test_a_watcher_hears_of_a_new_revision_soon(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher, lifecycle__probe_interval_seconds=60)) as (_, channel):
        stream = StatusServiceStub(channel).WatchStatus(WatchStatusRequest(), timeout=wire.DEADLINE)
        next(stream)
        second = publisher.base(1)
        heard = next(r for r in stream if r.status.revision == second)
        stream.cancel()

    assert heard.status.serving


def test_status_tells_where_each_bundle_stands(publisher: Publisher) -> None:
    base = publisher.base(0)
    overlay = publisher.overlay(3, since=0)
    with running_sidecar(following(publisher)) as (_, channel):
        wait_until(lambda: bundle_status(channel, "base").active and bundle_status(channel, "overlay").active)
        found = [bundle_status(channel, "base"), bundle_status(channel, "overlay")]

    assert [(b.revision, b.key_id, b.persisted, b.error, b.refused) for b in found] == [
        (base, "ours", False, "", 0),
        (overlay, "ours", False, "", 0),
    ]
    assert [b.as_of.ToMicroseconds() for b in found] == [NOW, NOW + 3 * SECOND]


def test_the_command_shows_where_each_bundle_stands(publisher: Publisher) -> None:
    base = publisher.base(0)
    with running_sidecar(following(publisher)) as (sidecar, channel):
        wait_until(lambda: bundle_status(channel).active)
        good = _shown(sidecar)
        publisher.put("base", pack(publisher.base_files(9)))
        wait_until(lambda: bundle_status(channel).error)
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
    with running_sidecar(following(publisher)) as (_, channel):
        overlay = publisher.overlay(7, since=5)
        wait_until(lambda: bundle_status(channel, "overlay").held_revision == overlay)
        held = wire.authorize(channel).revision
        publisher.base(5)
        comes(channel, overlay)
        after = bundle_status(channel, "overlay")

    assert held == first
    assert (after.revision, after.held_revision) == (overlay, "")


def test_a_base_may_come_before_its_overlay(publisher: Publisher) -> None:
    publisher.base(0)
    publisher.overlay(2, since=0)
    with running_sidecar(following(publisher)) as (_, channel):
        publisher.base(5)
        comes_as_of(channel, 5)
        comes(channel, publisher.overlay(7, since=5))


def test_an_overlay_alone_is_not_served(publisher: Publisher) -> None:
    publisher.overlay(2, since=0)
    with running_sidecar(following(publisher)) as (_, channel):
        status = wire.get_status(channel)
        publisher.base(0)
        comes(channel, revision(2, "o2"))

    assert not status.serving
    assert "base.tar.gz is not published" in status.problem


def test_an_overlay_that_is_taken_away_is_kept(publisher: Publisher) -> None:
    publisher.base(0)
    overlay = publisher.overlay(5, since=0, removed="Tenant-A")
    with running_sidecar(following(publisher)) as (_, channel):
        comes(channel, overlay)
        (publisher.folder / "overlay.tar.gz").unlink()
        comes(channel, overlay)
        later = publisher.overlay(6, since=0, removed="Tenant-A")
        comes(channel, later)


# ── settings and start ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_any_bundle_it_starts_and_is_not_ready(publisher: Publisher) -> None:
    with running_sidecar(following(publisher)) as (_, channel):
        status = wire.get_status(channel)
        error = wire.failure(lambda: wire.authorize(channel))
        base = publisher.base(0)
        wait_until(lambda: revision_of(channel) == base)

    assert not status.serving
    assert status.problem == "there is no base bundle: base.tar.gz is not published"
    assert wire.outcome(error) == (grpc.StatusCode.UNAVAILABLE, "POLICY_NOT_READY", "tenantgate")


def test_a_key_that_cannot_be_read_stops_the_start(publisher: Publisher, short_path: Path) -> None:
    sidecar = Sidecar(following(publisher, bundles__keys=[str(short_path / "none.pub")]))
    with pytest.raises(StartError, match=r"bundles\.keys: .*none\.pub: not a public key"):
        sidecar.start()


def test_one_file_is_verified_where_there_are_keys(publisher: Publisher) -> None:
    base = publisher.base(0)
    file = publisher.folder / "base.tar.gz"
    settings = following(publisher, bundles__source=None, opa__bundle=str(file))
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == base
    publisher.put("base", pack(publisher.base_files(9)))
    sidecar = Sidecar(settings)
    with pytest.raises(StartError, match=r"opa\.bundle: .*base\.tar\.gz: it is not signed"):
        sidecar.start()


def test_one_file_that_is_named_may_be_older(publisher: Publisher) -> None:
    file = publisher.folder / "base.tar.gz"
    settings = following(publisher, bundles__source=None, opa__bundle=str(file))
    publisher.base(5)
    with running_sidecar(settings) as (_, channel):
        wire.authorize(channel)
    older = publisher.base(4)
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == older


def test_stop_is_prompt_whatever_the_source_does(publisher: Publisher) -> None:
    publisher.base(0)
    with published_at(publisher) as endpoint:
        sidecar = Sidecar(following(publisher, endpoint.url))
        sidecar.start()
        began = time.monotonic()
        sidecar.stop()

    assert time.monotonic() - began < 3
