"""What callers get to see when things fail: the right error, in time, and never an ALLOW that nobody decided."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from sidecar.engine.opa import OpaClient
from sidecar.errors import DeadlineExceededError, EngineUnavailableError
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from tests.support import wire
from tests.support.fake_opa import (
    ALLOW,
    DENY,
    PROBE_ANSWER,
    FakeOpa,
    HangUp,
    Query,
    after_probes,
    decided,
    fake_opa,
    honest,
    http,
)
from tests.support.processes import OPA, REPOSITORY, build_bundle, running_sidecar, sidecar_settings, wait_until
from tests.support.registries import DATA
from tests.support.wire import ADMIN_REFUND, DEADLINE, ORDER_LOOKUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.fake_opa import Answer

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "POLICY_ENGINE_UNAVAILABLE", "tenantgate")
NOT_READY = (grpc.StatusCode.UNAVAILABLE, "POLICY_NOT_READY", "tenantgate")
FAILED = (grpc.StatusCode.INTERNAL, "POLICY_EVALUATION_FAILED", "tenantgate")
MALFORMED = (grpc.StatusCode.INTERNAL, "POLICY_RESULT_MALFORMED", "tenantgate")


@contextmanager
def _sidecar_asking(answer: Answer, folder: Path, **settings: Any) -> Iterator[tuple[FakeOpa, grpc.Channel]]:
    """Run a sidecar whose OPA is a fake that answers the probe well and all else with ``answer``."""
    with fake_opa(folder / "fake.sock", after_probes(answer)) as opa:
        overrides = {"opa__address": opa.address, "opa__timeout_seconds": 0.3} | settings
        with running_sidecar(sidecar_settings(folder, None, **overrides)) as (_, channel):
            yield opa, channel


# ── an OPA that answers badly ───────────────────────────────────────────────────────────────────────────────────────────


def _hang_up(_query: Query) -> Iterator[bytes]:
    raise HangUp
    yield b""


def _hang_up_midway(_query: Query) -> Iterator[bytes]:
    yield decided(ALLOW)[:-5]
    raise HangUp


def _silent(query: Query) -> Iterator[bytes]:
    query.stopped.wait()
    yield b""


def _trickle(whole: bytes) -> Answer:
    """Answer byte by byte, each in time for a timeout that begins anew with each byte."""

    def answer(query: Query) -> Iterator[bytes]:
        for position in range(len(whole)):
            yield whole[position : position + 1]
            if query.stopped.wait(0.1):
                return

    return answer


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_HUGE = decided(ALLOW | {"reason": "x" * 100_000})

_BAD_ANSWERS: dict[str, tuple[tuple[grpc.StatusCode, str, str], Answer]] = {
    "closes without answering": (UNAVAILABLE, _hang_up),
    "closes in the middle of its answer": (UNAVAILABLE, _hang_up_midway),
    "does not speak HTTP": (UNAVAILABLE, lambda _: [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]),
    "speaks an unknown HTTP": (UNAVAILABLE, lambda _: [b"HTTP/9.9 200 OK\r\n\r\n"]),
    "claims a longer body than it sends": (UNAVAILABLE, lambda _: [http({"result": ALLOW}, length=5000)]),
    "claims a shorter body than it sends": (MALFORMED, lambda _: [http({"result": ALLOW}, length=50)]),
    "sends a broken chunk": (UNAVAILABLE, lambda _: [_CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"]),
    "sends headers without end": (UNAVAILABLE, lambda _: [b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200]),
    "sends an endless header": (UNAVAILABLE, lambda _: [b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000]),
    "trickles its answer": (UNAVAILABLE, _trickle(decided(ALLOW))),
    "trickles its headers": (UNAVAILABLE, _trickle(b"HTTP/1.1 200 OK\r\nX-Never-Ending: " + b"b" * 10_000)),
    "trickles chunks": (UNAVAILABLE, _trickle(_CHUNKED + b"1\r\n \r\n" * 1000)),
    "sends more than is taken": (MALFORMED, lambda _: [_HUGE]),
    "sends an empty body": (MALFORMED, lambda _: [http(b"")]),
    "sends no JSON": (MALFORMED, lambda _: [http(b"<html>ALLOW</html>")]),
    "sends invalid UTF-8": (MALFORMED, lambda _: [http(b'{"result": "\xff"}')]),
    "sends JSON nested without end": (MALFORMED, lambda _: [http(b'{"result": ' + b"[" * 50_000)]),
    "sends two answers at once": (MALFORMED, lambda _: [http(json.dumps({"result": ALLOW}).encode() * 2)]),
    "has no result": (NOT_READY, lambda _: [http({})]),
    "warns and has no result": (MALFORMED, lambda _: [http({"warning": {"code": "api_usage_warning"}})]),
    "says true": (MALFORMED, lambda _: [http({"result": True})]),
    "says ALLOW alone": (MALFORMED, lambda _: [http({"result": {"effect": "ALLOW"}})]),
    "contradicts itself": (MALFORMED, lambda _: [decided(ALLOW | {"code": "NO_MATCHING_RULE"})]),
    "adds a field": (MALFORMED, lambda _: [decided(ALLOW | {"allow": True})]),
    "redirects": (FAILED, lambda _: [http({"result": ALLOW}, 302, "Location: /elsewhere")]),
    "says no content": (FAILED, lambda _: [b"HTTP/1.1 204 No Content\r\n\r\n"]),
    "says created": (FAILED, lambda _: [http({"result": ALLOW}, 201)]),
    "reports an error": (FAILED, lambda _: [http({"code": "internal_error", "message": "secret"}, 500)]),
    "does not know the path": (FAILED, lambda _: [http({"code": "not_found"}, 404)]),
    "wants authentication": (FAILED, lambda _: [http({"result": ALLOW}, 401)]),
}


@pytest.mark.parametrize(("expected", "answer"), _BAD_ANSWERS.values(), ids=_BAD_ANSWERS)
def test_a_bad_answer_of_opa_is_an_error_and_never_a_decision(
    expected: tuple[grpc.StatusCode, str, str], answer: Answer, short_path: Path
) -> None:
    with _sidecar_asking(answer, short_path, opa__max_answer_bytes=65536) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))

    assert wire.outcome(error) == expected


def test_a_silent_opa_makes_the_sidecar_answer_unavailable(short_path: Path) -> None:
    with _sidecar_asking(_silent, short_path) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))

    assert wire.outcome(error) == UNAVAILABLE


def test_the_callers_deadline_counts_when_it_is_the_shorter(short_path: Path) -> None:
    with _sidecar_asking(_silent, short_path, opa__timeout_seconds=60) as (_, channel):
        error: Any = wire.failure(lambda: wire.authorize(channel, timeout=0.2))

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_call_without_a_deadline_gets_the_default_one_and_its_reason(short_path: Path) -> None:
    settings = {"opa__timeout_seconds": 60, "limits__default_deadline_seconds": 0.2}
    with _sidecar_asking(_silent, short_path, **settings) as (_, channel):
        error = wire.failure(lambda: AuthorizationServiceStub(channel).Authorize(wire.question()))

    assert wire.outcome(error) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "tenantgate")


def test_a_deadline_that_has_passed_is_not_taken_to_opa(short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock") as opa:
        client = OpaClient(opa.address, connections=1, timeout=60, max_answer_bytes=65536)
        with pytest.raises(DeadlineExceededError, match="before OPA was asked"):
            client.query("tenantgate/authorize/decision", b"{}", time.monotonic() - 1)
        client.close()

    assert not opa.queries


@pytest.mark.parametrize("method", ["BatchAuthorize", "FilterTools"])
def test_too_few_answers_to_a_list_are_none_at_all(method: str, short_path: Path) -> None:
    listing = {"revision": ALLOW["revision"], "as_of": ALLOW["as_of"], "tools": []}
    answers = {"BatchAuthorize": [ALLOW], "FilterTools": listing}
    request: Any = {"BatchAuthorize": wire.batch, "FilterTools": wire.tools}[method](ORDER_LOOKUP, ADMIN_REFUND)
    with _sidecar_asking(lambda _: [http({"result": answers[method]})], short_path) as (_, channel):
        call = getattr(AuthorizationServiceStub(channel), method)
        error = wire.failure(lambda: call(request, timeout=DEADLINE))

    assert wire.outcome(error) == MALFORMED


def test_what_opa_says_about_itself_does_not_reach_the_caller(short_path: Path) -> None:
    secret = {"code": "internal_error", "message": "eval_conflict_error: policies/custom/secret.rego:3"}
    with _sidecar_asking(lambda _: [http(secret, 500)], short_path) as (_, channel):
        error: Any = wire.failure(lambda: wire.authorize(channel))

    assert error.details() == "the policy could not be evaluated; no decision was made"


def test_a_kept_connection_that_opa_has_closed_is_replaced_without_the_caller_noticing(short_path: Path) -> None:
    def once_per_connection(query: Query) -> Iterator[bytes]:
        if query.number > 1:
            raise HangUp
        yield decided(DENY)

    with fake_opa(short_path / "fake.sock", once_per_connection) as opa:
        client = OpaClient(opa.address, connections=1, timeout=DEADLINE, max_answer_bytes=65536)
        body = json.dumps({"input": {"tenant": {"id": "T"}}}).encode()
        answers = [client.query("x", body, time.monotonic() + DEADLINE) for _ in range(3)]
        client.close()

    assert [status for status, _ in answers] == [200, 200, 200]


def test_an_opa_that_does_not_answer_is_not_asked_again_and_again(short_path: Path) -> None:
    with _sidecar_asking(_hang_up, short_path) as (opa, channel):
        wire.failure(lambda: wire.authorize(channel))

        assert len(opa.queries) == 2  # once more on a fresh connection, as the first may have been a dead one


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(short_path: Path) -> None:
    release = threading.Event()

    def late_then_deny(query: Query) -> Iterator[bytes]:
        if query.input["resource"]["id"] == ORDER_LOOKUP:
            wait_until(lambda: release.is_set() or query.stopped.is_set(), 60)
            yield decided(ALLOW)
        else:
            yield decided(DENY)

    with _sidecar_asking(late_then_deny, short_path, opa__connections=1) as (_, channel):
        wire.failure(lambda: wire.authorize(channel, wire.question(ORDER_LOOKUP)))
        release.set()
        decision = wire.authorize(channel, wire.question(ADMIN_REFUND))

    assert decision.effect == decision_pb2.EFFECT_DENY


def test_a_second_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(short_path: Path) -> None:
    def one_too_many(query: Query) -> Iterable[bytes]:
        return [decided(DENY) + decided(ALLOW) if query.number == 1 else decided(DENY)]

    with _sidecar_asking(one_too_many, short_path, opa__connections=1) as (_, channel):
        effects = [wire.authorize(channel).effect for _ in range(3)]

    assert effects == [decision_pb2.EFFECT_DENY] * 3


def test_readiness_is_lost_when_the_probe_is_answered_with_an_allow(short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock", lambda _: [decided(ALLOW)]) as opa:
        settings = sidecar_settings(short_path, None, opa__address=opa.address)
        with running_sidecar(settings) as (_, channel):
            status = wire.get_status(channel)

    assert not status.serving
    assert "a tenant that does not exist" in status.problem


def test_a_probe_that_is_answered_from_the_start_keeps_the_sidecar_serving(short_path: Path) -> None:
    with _sidecar_asking(honest, short_path) as (_, channel):
        status = wire.get_status(channel)

    assert (status.serving, status.problem, status.revision) == (True, "", PROBE_ANSWER["revision"])


# ── an OPA that is not there, or not yet ────────────────────────────────────────────────────────────────────────────────


def test_an_opa_that_is_not_there_is_unavailable(short_path: Path) -> None:
    settings = sidecar_settings(short_path, None, opa__address=f"unix:{short_path}/nobody.sock")
    with running_sidecar(settings) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))

    assert wire.outcome(error) == UNAVAILABLE


def test_an_opa_behind_tcp_that_is_not_there_is_unavailable(short_path: Path) -> None:
    settings = sidecar_settings(short_path, None, opa__address="http://127.0.0.1:1")
    with running_sidecar(settings) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))

    assert wire.outcome(error) == UNAVAILABLE


@pytest.fixture
def bare_opa(short_path: Path) -> Iterator[str]:
    """A real OPA without policies and data."""
    address = short_path / "bare.sock"
    process = subprocess.Popen([OPA, "run", "--server", "--addr", f"unix://{address}", "--log-level", "error"])
    try:
        wait_until(address.exists)
        yield f"unix:{address}"
    finally:
        process.terminate()
        process.wait()


def test_an_opa_without_policies_is_not_ready(bare_opa: str, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, None, opa__address=bare_opa)) as (_, channel):
        error = wire.failure(lambda: wire.authorize(channel))

    assert wire.outcome(error) == NOT_READY


def test_a_sidecar_in_front_of_an_opa_without_policies_says_so(bare_opa: str, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, None, opa__address=bare_opa)) as (_, channel):
        status = wire.get_status(channel)

    assert not status.serving
    assert "undefined" in status.problem


def test_an_opa_with_policies_and_no_registry_is_not_ready(short_path: Path) -> None:
    address = short_path / "half.sock"
    command: list[str | Path] = [OPA, "run", "--server", "--addr", f"unix://{address}", "--log-level", "error"]
    process = subprocess.Popen([*command, "--ignore", "*_test.rego", REPOSITORY / "policies" / "tenantgate"])
    try:
        wait_until(address.exists)
        settings = sidecar_settings(short_path, None, opa__address=f"unix:{address}")
        with running_sidecar(settings) as (_, channel):
            error = wire.failure(lambda: wire.authorize(channel))
    finally:
        process.terminate()
        process.wait()

    assert wire.outcome(error) == NOT_READY


# ── an embedded OPA that dies or hangs ──────────────────────────────────────────────────────────────────────────────────


class _HealthLog:
    """What a health watcher has seen so far."""

    def __init__(self, channel: grpc.Channel) -> None:
        request = health_pb2.HealthCheckRequest()
        self.seen: list[str] = []
        self._stream = wire.health(channel).Watch(request)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with suppress(grpc.RpcError):
            for answer in self._stream:
                self.seen.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def stop(self) -> None:
        self._stream.cancel()
        self._thread.join()


@contextmanager
def _watching_health(channel: grpc.Channel) -> Iterator[list[str]]:
    log = _HealthLog(channel)
    try:
        wait_until(lambda: log.seen)
        yield log.seen
    finally:
        log.stop()


def test_when_opa_is_killed_callers_see_no_answer_or_the_right_one(sample_bundle: Path, short_path: Path) -> None:
    outcomes: list[str] = []
    enough = threading.Event()

    def ask_all_the_time() -> None:
        while not enough.is_set():
            for resource_id in (ADMIN_REFUND, ORDER_LOOKUP):
                try:
                    decision = wire.authorize(channel, wire.question(resource_id))
                except grpc.RpcError as error:
                    outcomes.append(error.code().name)
                else:
                    outcomes.append(f"{resource_id} {decision_pb2.Effect.Name(decision.effect)}")

    with (
        running_sidecar(sidecar_settings(short_path, sample_bundle, log__access=False)) as (_, channel),
        ThreadPoolExecutor(8) as callers,
    ):
        calls = [callers.submit(ask_all_the_time) for _ in range(8)]
        try:
            for _ in range(3):
                wait_until(lambda: wire.get_status(channel).serving)
                here = len(outcomes)
                wait_until(lambda at_least=here + 50: len(outcomes) > at_least)
                os.kill(wire.get_status(channel).opa.pid, signal.SIGKILL)
                wait_until(lambda after=here: "UNAVAILABLE" in outcomes[after:])
        finally:
            enough.set()
        for call in calls:
            call.result()

    assert {*outcomes} == {"UNAVAILABLE", f"{ADMIN_REFUND} EFFECT_DENY", f"{ORDER_LOOKUP} EFFECT_ALLOW"}


def test_health_follows_a_killed_opa_down_and_up_again(sample_bundle: Path, short_path: Path) -> None:
    with (
        running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel),
        _watching_health(channel) as seen,
    ):
        os.kill(wire.get_status(channel).opa.pid, signal.SIGKILL)
        wait_until(lambda: len(seen) >= 3)

    assert seen[:3] == ["SERVING", "NOT_SERVING", "SERVING"]


def test_restarts_of_opa_are_counted(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel):
        before = wire.get_status(channel).opa
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda: wire.get_status(channel).opa.pid not in {0, before.pid})
        after = wire.get_status(channel).opa

    assert (before.restarts, after.restarts) == (0, 1)


def test_after_a_restart_of_opa_the_same_question_has_the_same_answer(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel):
        before = wire.authorize(channel)
        os.kill(wire.get_status(channel).opa.pid, signal.SIGKILL)
        wait_until(lambda: wire.get_status(channel).opa.restarts == 1 and wire.get_status(channel).serving)
        after = wire.authorize(channel)

    assert (after.effect, after.code, after.revision) == (before.effect, before.code, before.revision)


def test_a_stopped_opa_is_unavailable_and_recovers(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, opa__timeout_seconds=0.3)
    with running_sidecar(settings) as (_, channel):
        pid = wire.get_status(channel).opa.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            error = wire.failure(lambda: wire.authorize(channel))
            wait_until(lambda: not wire.get_status(channel).serving)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: wire.get_status(channel).serving)
        decision = wire.authorize(channel)

    assert wire.outcome(error) == UNAVAILABLE
    assert decision.effect == decision_pb2.EFFECT_ALLOW


def test_status_tells_why_it_does_not_serve(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, opa__timeout_seconds=0.3)
    with running_sidecar(settings) as (_, channel):
        pid = wire.get_status(channel).opa.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not wire.get_status(channel).serving)
            status = wire.get_status(channel)
        finally:
            os.kill(pid, signal.SIGCONT)

    assert "OPA" in status.problem
    assert status.revision, "the revision in force stays known"


def test_a_bundle_that_is_gone_after_the_start_does_not_keep_opa_from_deciding(short_path: Path) -> None:
    bundle = build_bundle(DATA / "export-full", short_path / "bundle.tar.gz")
    with running_sidecar(sidecar_settings(short_path, bundle)) as (_, channel):
        bundle.unlink()

        assert wire.authorize(channel).effect == decision_pb2.EFFECT_ALLOW


# ── the sidecar itself ends ─────────────────────────────────────────────────────────────────────────────────────────────


class _Served:
    """A sidecar in a process of its own, whose log is read all the time."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "tenantgate.sock"
        command: list[str | Path] = [
            Path(sys.executable).parent / "tenantgate",
            "serve",
            "--set",
            f"state_dir={folder}",
            "--set",
            "identity.mode=asserted",
        ]
        self.process = subprocess.Popen(
            [*command, "--set", f"opa.binary={OPA}", *options], stderr=subprocess.PIPE, text=True, cwd=folder
        )
        self.channel = grpc.insecure_channel(f"unix:{self.socket}")
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self._lines.extend(lines)

    def wait_until_serving(self) -> None:
        wait_until(lambda: self.has_written('"event":"serving"'), 30)

    def has_written(self, words: str) -> bool:
        return any(words in line for line in [*self._lines])

    def finish(self) -> tuple[int, str]:
        """Wait for the end of the process; give its exit status and what it wrote."""
        status = self.process.wait(timeout=30)
        self._reader.join()
        return status, "".join(self._lines)

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.finish()


@contextmanager
def _served(folder: Path, *options: str) -> Iterator[_Served]:
    served = _Served(folder, *options)
    try:
        served.wait_until_serving()
        yield served
    finally:
        served.close()


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends OPA when its parent is gone")
def test_opa_does_not_outlive_a_sidecar_that_is_killed(sample_bundle: Path, short_path: Path) -> None:
    with _served(short_path, "--bundle", str(sample_bundle)) as served:
        pid = wire.get_status(served.channel).opa.pid
        assert _is_alive(pid)
        served.process.kill()
        wait_until(lambda: not _is_alive(pid))


def test_a_sidecar_that_was_killed_can_be_started_again_in_the_same_place(
    sample_bundle: Path, short_path: Path
) -> None:
    with _served(short_path, "--bundle", str(sample_bundle)) as served:
        served.process.kill()
        served.finish()
    with _served(short_path, "--bundle", str(sample_bundle)) as served:
        assert wire.authorize(served.channel).effect == decision_pb2.EFFECT_ALLOW


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_signal_ends_the_sidecar_in_order(sample_bundle: Path, short_path: Path, number: signal.Signals) -> None:
    with _served(short_path, "--bundle", str(sample_bundle)) as served:
        pid = wire.get_status(served.channel).opa.pid
        served.process.send_signal(number)
        status, written = served.finish()

    assert status == 0, written
    wait_until(lambda: not _is_alive(pid))
    assert not served.socket.exists()
    assert not (short_path / "opa.sock").exists()


def test_a_signal_that_another_thread_is_given_ends_the_sidecar(sample_bundle: Path, short_path: Path) -> None:
    # as the kernel may do it after a SIGCONT, and then Python tells the main thread when that wakes by itself
    with _served(short_path, "--bundle", str(sample_bundle)) as served:
        pid = served.process.pid
        thread = max(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
        assert ctypes.CDLL(None).tgkill(pid, thread, signal.SIGTERM) == 0
        status, written = served.finish()

    assert thread != pid
    assert status == 0, written


def test_a_signal_right_after_a_pause_ends_the_sidecar(sample_bundle: Path, short_path: Path) -> None:
    with _served(short_path, "--bundle", str(sample_bundle)) as served:
        for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM):
            served.process.send_signal(number)
        status, written = served.finish()

    assert status == 0, written


def test_a_signal_during_the_start_ends_the_sidecar_in_order(short_path: Path) -> None:
    bundle = short_path / "bundle.tar.gz"
    bundle.write_text("never looked at")
    slow = short_path / "slow-opa"
    slow.write_text(f"#!/bin/sh\n[ $1 = version ] && exec {OPA} version\ntouch {short_path}/started\nexec sleep 60\n")
    slow.chmod(0o755)
    served = _Served(short_path, "--bundle", str(bundle), "--set", f"opa.binary={slow}")
    try:
        wait_until((short_path / "started").exists, 30)
        served.process.terminate()
        status, written = served.finish()
    finally:
        served.close()

    assert status == 0, written
    assert not (short_path / "opa.sock").exists()


@contextmanager
def _draining(folder: Path, calls: int) -> Iterator[tuple[_Served, list[Any], threading.Event]]:
    """Run a sidecar that was told to end while OPA holds back the answers to some calls."""
    release = threading.Event()

    def when_released(query: Query) -> Iterator[bytes]:
        wait_until(lambda: release.is_set() or query.stopped.is_set(), 60)
        yield decided(DENY)

    with fake_opa(folder / "fake.sock", after_probes(when_released)) as opa:
        options = {"opa.address": opa.address, "opa.timeout_seconds": "60", "lifecycle.drain_seconds": "60"}
        options |= {"cache.bytes": "0", "opa.batch_items": "1"}  # each call is a query
        flags = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
        try:
            with _served(folder, *flags) as served, _watching_health(served.channel) as seen:
                stub = AuthorizationServiceStub(served.channel)
                held = [stub.Authorize.future(wire.question(), timeout=DEADLINE) for _ in range(calls)]
                wait_until(lambda: len(opa.queries) == calls)
                served.process.terminate()
                wait_until(lambda: seen[-1] == "NOT_SERVING")
                yield served, held, release
        finally:
            release.set()


def test_calls_in_flight_at_the_end_are_answered(short_path: Path) -> None:
    with _draining(short_path, 4) as (_, held, release):
        release.set()
        effects = [call.result().decision.effect for call in held]

    assert effects == [decision_pb2.EFFECT_DENY] * 4


def test_new_calls_at_the_end_are_refused(short_path: Path) -> None:
    def refused() -> bool:
        with grpc.insecure_channel(f"unix:{served.socket}") as channel:
            try:
                AuthorizationServiceStub(channel).Authorize(wire.question(), timeout=0.5)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

    with _draining(short_path, 1) as (served, held, release):
        wait_until(refused)
        release.set()
        assert held[0].result().decision.effect == decision_pb2.EFFECT_DENY


def test_a_sidecar_that_has_drained_ends_well(short_path: Path) -> None:
    with _draining(short_path, 2) as (served, held, release):
        release.set()
        for call in held:
            call.result()
        served.channel.close()
        status, _ = served.finish()

    assert status == 0
    assert not served.socket.exists()


def test_a_health_watcher_does_not_hold_up_the_end(short_path: Path) -> None:
    with _draining(short_path, 1) as (served, held, release):
        release.set()
        held[0].result()
        status, _ = served.finish()  # long before lifecycle.drain_seconds are over, or this fails

    assert status == 0


def test_the_drain_is_bounded(short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock", after_probes(_silent)) as opa:
        overrides = {"opa__address": opa.address, "opa__timeout_seconds": 60, "lifecycle__drain_seconds": 0.2}
        with running_sidecar(sidecar_settings(short_path, None, **overrides)) as (sidecar, channel):
            call = AuthorizationServiceStub(channel).Authorize.future(wire.question(), timeout=60)
            wait_until(lambda: opa.queries)
            sidecar.stop()
            error: Any = wire.failure(call.result)

    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_opa_unavailable_is_told_apart_from_a_deadline(short_path: Path) -> None:
    client = OpaClient(f"unix:{short_path}/nobody.sock", connections=1, timeout=1, max_answer_bytes=1024)
    with pytest.raises(EngineUnavailableError, match=r"nobody\.sock did not answer"):
        client.query("x", b"{}", time.monotonic() + DEADLINE)
