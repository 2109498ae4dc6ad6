"""How new the registry behind decisions is: never older than was served, and as new as a caller waits for."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from tests.support import wire
from tests.support.bundles import NOW, SECOND, Publisher, revision
from tests.support.fake_opa import ALLOW, PROBE_ANSWER, FakeOpa, Query, fake_opa, http
from tests.support.following import following
from tests.support.processes import running_sidecar, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sidecar.settings import Settings


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
    with running_sidecar(_beside(opa, short_path, cache__bytes=0)) as (_, channel):
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
    with running_sidecar(following(publisher, lifecycle__probe_interval_seconds=60)) as (_, channel):
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
    with running_sidecar(following(publisher)) as (_, channel):
        began = time.monotonic()
        error = wire.failure(lambda: wire.authorize(channel, wire.question(min_as_of=_moment(5)), timeout=0.6))
        took = time.monotonic() - began

    assert wire.outcome(error) == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_TOO_OLD", "tenantgate")
    assert took >= 0.4


def test_a_registry_from_the_future_is_not_waited_for(publisher: Publisher) -> None:
    publisher.base(0)
    future = Timestamp(seconds=int(time.time()) + 3600)
    with running_sidecar(following(publisher)) as (_, channel):
        began = time.monotonic()
        error = wire.failure(lambda: wire.authorize(channel, wire.question(min_as_of=future), timeout=10))
        took = time.monotonic() - began

    assert wire.error_info(error).reason == "REVISION_TOO_OLD"
    assert took < 5


def test_calls_that_wait_leave_threads_to_others(publisher: Publisher) -> None:
    publisher.base(0)
    settings = following(publisher, limits__threads=2, limits__waiting=1)
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
