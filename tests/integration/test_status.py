"""What operators and health checkers get to see, as it changes."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sidecar.gen.tenantgate.v1.status_service_pb2 import Status, WatchStatusRequest
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from sidecar.toolchain import pinned_version
from tests.support import wire
from tests.support.fake_opa import ALLOW, FakeOpa, Query, decided, fake_opa, honest
from tests.support.processes import running_sidecar, sidecar_settings, wait_until
from tests.support.registries import AS_OF
from tests.support.wire import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SERVICE = "tenantgate.v1.AuthorizationService"


def _check(channel: grpc.Channel, service: str) -> str:
    answer = wire.health(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


class _Followed:
    """A stream that is read all the time; ``seen`` is what came so far, ``ended`` is set at its end."""

    def __init__(self, stream: Any) -> None:
        self.seen: list[Any] = []
        self.ended = threading.Event()
        self.error: grpc.RpcError | None = None
        self._stream = stream
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.seen.extend(self._stream)
        except grpc.RpcError as error:
            self.error = error
        self.ended.set()

    def cancel(self) -> None:
        self._stream.cancel()
        self._thread.join()


def _watch(channel: grpc.Channel) -> _Followed:
    return _Followed(StatusServiceStub(channel).WatchStatus(WatchStatusRequest()))


def _watch_health(channel: grpc.Channel, service: str = "") -> _Followed:
    return _Followed(wire.health(channel).Watch(health_pb2.HealthCheckRequest(service=service)))


@pytest.fixture
def turned(short_path: Path) -> Iterator[tuple[FakeOpa, grpc.Channel]]:
    """A sidecar whose OPA can be turned, by replacing its answers."""
    with fake_opa(short_path / "fake.sock") as opa:
        settings = sidecar_settings(short_path, None, opa__address=opa.address, limits__watchers=2)
        with running_sidecar(settings) as (_, channel):
            yield opa, channel


def _wrong(_query: Query) -> Iterable[bytes]:
    return [decided(ALLOW)]


# ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_sidecar_that_decides_is_healthy(sample: grpc.Channel, service: str) -> None:
    assert _check(sample, service) == "SERVING"


def test_the_health_of_a_service_that_there_is_not_is_not_found(sample: grpc.Channel) -> None:
    error: Any = wire.failure(lambda: _check(sample, "tenantgate.v1.NoSuchService"))

    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_sidecar_whose_opa_decides_wrongly_is_not_healthy(turned: tuple[FakeOpa, grpc.Channel], service: str) -> None:
    opa, channel = turned
    opa.answer = _wrong

    wait_until(lambda: _check(channel, service) == "NOT_SERVING")


@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_health_watcher_is_told_the_state_at_once_and_each_change_once(
    turned: tuple[FakeOpa, grpc.Channel], service: str
) -> None:
    opa, channel = turned
    watcher = _watch_health(channel, service)
    wait_until(lambda: len(watcher.seen) == 1)
    opa.answer = _wrong
    wait_until(lambda: len(watcher.seen) == 2)
    opa.answer = honest
    wait_until(lambda: len(watcher.seen) == 3)
    watcher.cancel()

    assert [answer.status for answer in watcher.seen] == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVING,
    ]


def test_a_health_watcher_is_not_told_of_another_problem_of_the_same_state(
    turned: tuple[FakeOpa, grpc.Channel],
) -> None:
    opa, channel = turned
    watcher = _watch_health(channel)
    wait_until(lambda: len(watcher.seen) == 1)
    opa.answer = _wrong
    wait_until(lambda: "does not exist" in wire.get_status(channel).problem)
    opa.answer = lambda _: [b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"]
    wait_until(lambda: "HTTP 500" in wire.get_status(channel).problem)
    opa.answer = honest
    wait_until(lambda: len(watcher.seen) >= 3)
    watcher.cancel()

    assert [answer.status for answer in watcher.seen] == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVING,
    ]


def test_health_watchers_are_told_and_let_go_when_the_sidecar_stops(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (sidecar, channel):
        watchers = [_watch_health(channel) for _ in range(3)]
        wait_until(lambda: all(watcher.seen for watcher in watchers))
        sidecar.stop()
        wait_until(lambda: all(watcher.ended.is_set() for watcher in watchers))

    assert {watcher.seen[-1].status for watcher in watchers} == {health_pb2.HealthCheckResponse.NOT_SERVING}
    assert [watcher.error for watcher in watchers] == [None] * 3


# ── reflection ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _reflect(channel: grpc.Channel, **question: Any) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=DEADLINE)
    return answer


def test_reflection_lists_the_services(sample: grpc.Channel) -> None:
    services = _reflect(sample, list_services="").list_services_response.service

    assert {service.name for service in services} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "tenantgate.v1.AuthorizationService",
        "tenantgate.v1.StatusService",
    }


@pytest.mark.parametrize("symbol", [SERVICE, "tenantgate.v1.StatusService", "tenantgate.v1.Decision"])
def test_reflection_describes(sample: grpc.Channel, symbol: str) -> None:
    assert _reflect(sample, file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto


# ── status ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_tells_what_is_served(sample: grpc.Channel) -> None:
    status = wire.get_status(sample)

    assert (status.serving, status.problem, status.identity_mode) == (True, "", "asserted")
    assert status.as_of.ToMicroseconds() == AS_OF
    assert not status.HasField("max_staleness")


def test_status_tells_about_an_embedded_opa(sample: grpc.Channel) -> None:
    opa = wire.get_status(sample).opa

    assert (opa.embedded, opa.version, opa.restarts) == (True, pinned_version(), 0)
    assert opa.address.startswith("unix:")
    os.kill(opa.pid, 0)  # it is a process


def test_status_tells_about_a_separate_opa(turned: tuple[FakeOpa, grpc.Channel]) -> None:
    separate, channel = turned
    opa = wire.get_status(channel).opa

    assert (opa.embedded, opa.address, opa.version, opa.pid) == (False, separate.address, "", 0)


def test_a_watcher_is_told_the_state_at_once(sample: grpc.Channel) -> None:
    watcher = _watch(sample)
    wait_until(lambda: watcher.seen)
    watcher.cancel()

    assert watcher.seen[0].status.revision == wire.get_status(sample).revision


def test_a_watcher_is_told_of_each_change(turned: tuple[FakeOpa, grpc.Channel]) -> None:
    opa, channel = turned
    watcher = _watch(channel)
    wait_until(lambda: len(watcher.seen) == 1)
    opa.answer = _wrong
    wait_until(lambda: len(watcher.seen) == 2)
    opa.answer = honest
    wait_until(lambda: len(watcher.seen) == 3)
    watcher.cancel()
    states: list[Status] = [response.status for response in watcher.seen]

    assert [state.serving for state in states] == [True, False, True]
    assert [bool(state.problem) for state in states] == [False, True, False]


def test_a_watcher_is_told_of_a_killed_opa_and_its_return(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel):
        watcher = _watch(channel)
        wait_until(lambda: watcher.seen)
        os.kill(watcher.seen[0].status.opa.pid, signal.SIGKILL)
        wait_until(lambda: any(not response.status.serving for response in watcher.seen))
        wait_until(lambda: watcher.seen[-1].status.serving)
        watcher.cancel()

    assert watcher.seen[-1].status.opa.restarts == 1


def test_a_watcher_too_many_is_refused(turned: tuple[FakeOpa, grpc.Channel]) -> None:
    _, channel = turned
    watchers = [_watch(channel) for _ in range(2)]
    wait_until(lambda: all(watcher.seen for watcher in watchers))
    third = _watch(channel)
    third.ended.wait()
    for watcher in watchers:
        watcher.cancel()

    assert third.error is not None
    assert wire.outcome(third.error) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "tenantgate")


def test_watchers_that_went_away_make_room(turned: tuple[FakeOpa, grpc.Channel]) -> None:
    _, channel = turned
    watchers = [_watch(channel) for _ in range(2)]
    wait_until(lambda: all(watcher.seen for watcher in watchers))
    for watcher in watchers:
        watcher.cancel()

    def admitted() -> bool:
        watcher = _watch(channel)
        wait_until(lambda: watcher.seen or watcher.ended.is_set())
        watcher.cancel()
        return bool(watcher.seen)

    wait_until(admitted)


def test_watchers_do_not_take_threads_from_decisions(short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock") as opa:
        settings = sidecar_settings(
            short_path, None, opa__address=opa.address, limits__threads=1, limits__in_flight=1, limits__watchers=4
        )
        with running_sidecar(settings) as (_, channel):
            watchers = [_watch(channel) for _ in range(4)]
            wait_until(lambda: all(watcher.seen for watcher in watchers))
            effect = wire.authorize(channel).effect
            for watcher in watchers:
                watcher.cancel()

    assert effect == 1


def test_watchers_are_let_go_when_the_sidecar_stops(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (sidecar, channel):
        watchers = [_watch(channel) for _ in range(3)]
        wait_until(lambda: all(watcher.seen for watcher in watchers))
        sidecar.stop()
        wait_until(lambda: all(watcher.ended.is_set() for watcher in watchers))

    assert [watcher.error for watcher in watchers] == [None] * 3
