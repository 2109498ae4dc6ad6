"""A sidecar of several processes: callers and operators see one sidecar, whichever process answers, and whichever dies."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest
import urllib3
from grpc_health.v1 import health_pb2
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from sidecar import workers
from sidecar.errors import SettingsError, StartError
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.status_service_pb2 import WatchStatusRequest
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from sidecar.server import Sidecar
from sidecar.settings import Settings
from sidecar.workers import Orders, Port, Report
from tests.support import wire
from tests.support.bundles import NOW, SECOND
from tests.support.certificates import Authority, hosts
from tests.support.fake_opa import ALLOW, PROBE_ANSWER, Query, decided, fake_opa, honest
from tests.support.processes import OPA, REPOSITORY, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.bundles import Publisher

TENANTGATE = Path(sys.executable).with_name("tenantgate")
WORKERS = 2
LONGEST = 60.0
"""Seconds that a machine with much else to do may take for something of several processes."""


class _Serving:
    """A sidecar of several processes, whose log is read all the time."""

    def __init__(self, folder: Path, **settings: object) -> None:
        given = {
            "state_dir": folder,
            "identity.mode": "asserted",
            "listen.tcp": "127.0.0.1:0",
            "listen.admin": "127.0.0.1:0",
            "workers": WORKERS,
        } | {name.replace("__", "."): value for name, value in settings.items()}
        if "opa.address" not in given:
            given["opa.binary"] = OPA
        flags = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        self.process = subprocess.Popen([TENANTGATE, "serve", *flags], stderr=subprocess.PIPE, start_new_session=True)
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            # each is whole, though several processes write
            self.lines.extend(json.loads(line) if line.startswith(b"{") else {"event": line} for line in lines)

    def said(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """Give the lines about an event with these facts."""
        return [line for line in [*self.lines] if line["event"] == event and line.items() >= facts.items()]

    def wait_until_serving(self) -> None:
        wait_until(lambda: self._own_line or self.process.poll() is not None, LONGEST)
        assert self._own_line, self.lines

    @property
    def _own_line(self) -> dict[str, Any] | None:
        return next((line for line in self.said("serving") if "worker" not in line), None)

    @property
    def address(self) -> str:
        """Where the workers answer."""
        assert self._own_line is not None
        address: str = self._own_line["addresses"][0]
        return address

    @property
    def socket(self) -> str:
        """Where the parent answers."""
        assert self._own_line is not None
        address: str = self._own_line["addresses"][1]
        return address

    def url(self, path: str, of: str = "admin") -> str:
        """Give the URL of a path of an HTTP listener."""
        assert self._own_line is not None
        return f"{self._own_line[of]}{path}"

    def metric(self, name: str, **labels: str) -> float:
        """Add up the samples with a name that have at least these labels."""
        return _total(self.metrics(), name, **labels)

    def metrics(self, **headers: str) -> str:
        """Ask for the metrics."""
        answer = urllib3.request("GET", self.url("/metrics"), headers=headers, retries=False, timeout=20)
        assert answer.status == 200
        return answer.data.decode()

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [pid for pid in _children(self.process.pid) if "sidecar.worker" in _command_of(pid)]

    def finish(self) -> int:
        """Wait for the end of the process; give its exit status."""
        status = self.process.wait(timeout=LONGEST)
        self._reader.join(LONGEST)
        return status

    def close(self) -> None:
        self.process.kill()
        self.finish()


@contextmanager
def _serving(folder: Path, **settings: object) -> Iterator[_Serving]:
    serving = _Serving(folder, **settings)
    try:
        serving.wait_until_serving()
        yield serving
    finally:
        serving.close()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended in between
            found += map(int, (task / "children").read_text().split())
    return found


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _total(text: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    )


def _connect(address: str) -> grpc.Channel:
    """Connect anew: channels of one process share connections unless told not to."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


@contextmanager
def _channels(serving: _Serving) -> Iterator[dict[int, grpc.Channel]]:
    """Connect until there is a channel to each worker; give them by its number."""
    found: dict[int, grpc.Channel] = {}
    opened = []
    try:
        for number in range(200):
            opened.append(channel := _connect(serving.address))
            wire.authorize(channel, metadata=[("x-request-id", f"find-{number}")])
            wait_until(lambda number=number: serving.said("call", request_id=f"find-{number}"))
            found.setdefault(serving.said("call", request_id=f"find-{number}")[0]["worker"], channel)
            if len(found) == WORKERS:
                break
        yield found
    finally:
        for channel in opened:
            channel.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sample_bundle: Path) -> Iterator[_Serving]:
    """A sidecar of several processes that serves the sample bundle. It is shared: tests only ask it questions."""
    with _serving(
        tmp_path_factory.mktemp("w"),
        opa__bundle=sample_bundle,
        authzen__listen="127.0.0.1:0",
        authzen__principal="agent:x",
    ) as serving:
        yield serving


# ── one sidecar to its callers ──────────────────────────────────────────────────────────────────────────────────────────


def test_all_workers_answer_on_one_port(shared: _Serving) -> None:
    with _channels(shared) as channels:
        decisions = [wire.authorize(channel) for channel in channels.values()]

    assert {*channels} == {1, 2}
    assert {(decision.code, decision.revision) for decision in decisions} == {
        (decision_pb2.DECISION_CODE_ALLOWED, decisions[0].revision)
    }


def test_the_unix_socket_is_answered_by_the_parent(shared: _Serving) -> None:
    with _connect(shared.socket) as channel:
        wire.authorize(channel, metadata=[("x-request-id", "by the socket")])
    wait_until(lambda: shared.said("call", request_id="by the socket"))

    assert "worker" not in shared.said("call", request_id="by the socket")[0]


def test_status_and_health_are_whole_through_every_worker(shared: _Serving) -> None:
    with _channels(shared) as channels, _connect(shared.socket) as parent:
        told = [wire.get_status(channel) for channel in (*channels.values(), parent)]
        health = [wire.health(channel).Check(health_pb2.HealthCheckRequest()).status for channel in channels.values()]
    for status in told:
        assert status.serving
        assert status.opa.embedded
        status.ClearField("age")
        status.ClearField("audit")  # each process has its own

    assert told[0] == told[1] == told[2]
    assert {*health} == {health_pb2.HealthCheckResponse.SERVING}


def test_authzen_is_answered_by_the_workers_too(shared: _Serving) -> None:
    question = {
        "subject": {"type": "user", "id": "alice", "properties": {"tenant_id": "Tenant-A"}},
        "action": {"name": "invoke"},
        "resource": {"type": "TOOL", "id": wire.ORDER_LOOKUP},
    }
    url = shared.url("/access/v1/evaluation", "authzen")

    def ask() -> set[int]:
        answer = urllib3.PoolManager().request("POST", url, json=question, retries=False, timeout=20)
        assert answer.status in {200, 400}, answer.data
        return {line["worker"] for line in shared.said("call", method="AuthZEN.evaluation")}

    wait_until(lambda: ask() == {1, 2})


def test_workers_speak_tls_with_those_who_may_connect_and_with_no_one_else(
    short_path: Path, sample_bundle: Path
) -> None:
    servers, clients = Authority(short_path, "servers"), Authority(short_path, "clients")
    own, agent = servers.issue("sidecar", *hosts("localhost")), clients.issue("agent", *hosts("agent.example.org"))
    settings = {
        "tls__cert_file": own.certificate,
        "tls__key_file": own.key,
        "tls__client_ca_file": clients.file,
        "tls__allowed_clients": "[agent.example.org]",
    }
    with _serving(short_path / "s", opa__bundle=sample_bundle, **settings) as serving:
        address = serving.address.replace("127.0.0.1", "localhost")
        proof = grpc.ssl_channel_credentials(
            servers.file.read_bytes(), agent.key.read_bytes(), agent.certificate.read_bytes()
        )
        with grpc.secure_channel(address, proof) as channel:
            assert wire.authorize(channel).code == decision_pb2.DECISION_CODE_ALLOWED
            assert wire.get_status(channel).HasField("tls")
        with _connect(address) as channel:
            error: Any = wire.failure(lambda: wire.authorize(channel))

    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_the_command_of_the_page_starts_as_many_as_it_says(short_path: Path, sample_bundle: Path) -> None:
    (command,) = re.findall(r"^\$ (.*)$", (REPOSITORY / "docs" / "workers.md").read_text(), re.MULTILINE)
    (short_path / ".venv").symlink_to(REPOSITORY / ".venv")
    settings = {"identity": {"mode": "asserted"}, "opa": {"bundle": str(sample_bundle), "binary": str(OPA)}}
    (short_path / "tenantgate.yaml").write_text(json.dumps(settings))
    # a port that is free on whatever machine this runs
    words = [re.sub(r":8443$", ":0", word) for word in shlex.split(command)]
    with subprocess.Popen(words, cwd=short_path, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        own = next(
            line for line in map(json.loads, process.stderr) if line["event"] == "serving" and "worker" not in line
        )
        process.terminate()
        process.stderr.read()

    assert own["workers"] == 4
    assert process.returncode == 0


# ── one sidecar to its operators ────────────────────────────────────────────────────────────────────────────────────────


def test_the_numbers_of_all_processes_add_up_to_the_calls_that_were_made(shared: _Serving) -> None:
    wait_until(lambda: shared.metric("tenantgate_workers") == WORKERS)

    def counted() -> tuple[float, float, float]:
        text = shared.metrics()
        return (
            _total(text, "tenantgate_decisions_total", method="Authorize"),
            _total(text, "tenantgate_call_seconds_count", method="Authorize"),
            _total(text, "tenantgate_call_seconds_bucket", method="Authorize", le="+Inf"),
        )

    made = 0
    before = counted()
    with _channels(shared) as channels, _connect(shared.socket) as parent:
        wait_until(lambda: counted()[0] > before[0])
        calls = [line for line in shared.said("call") if line["method"] == "Authorize"]
        wait_until(lambda: counted()[0] == len(calls))
        for channel in (*channels.values(), parent) * 5:
            wire.authorize(channel)
            made += 1
    wait_until(lambda: counted() == (len(calls) + made,) * 3)


def test_metrics_are_told_once_and_in_both_formats(shared: _Serving) -> None:
    families = [*text_string_to_metric_families(shared.metrics())]
    names = [family.name for family in families]
    opened = [
        family.name
        for family in open_metrics(  # type: ignore[no-untyped-call]
            shared.metrics(accept="application/openmetrics-text")
        )
    ]

    assert len(names) == len({*names})
    assert {"tenantgate_decisions", "tenantgate_workers", "tenantgate_serving"} <= {*opened}
    # what is so of the sidecar is said once, what is so of a worker under its number
    assert shared.metric("tenantgate_serving") == 1
    assert shared.metric("tenantgate_opa_restarts_total") == 0
    told = {
        sample.labels.get("worker")
        for family in families
        for sample in family.samples
        if family.name.endswith("cache_bytes")
    }
    assert told == {None, "1", "2"}


def test_decisions_of_all_processes_are_in_one_decision_log(short_path: Path, sample_bundle: Path) -> None:
    with (
        _serving(short_path, opa__bundle=sample_bundle) as serving,
        _channels(serving) as channels,
        _connect(serving.socket) as parent,
    ):
        made = {wire.authorize(channel).decision_id for channel in (*channels.values(), parent) * 3}
        serving.process.terminate()
        serving.finish()

    assert made <= {
        json.loads(line)["decision_id"] for line in (short_path / "decisions.jsonl").read_text().splitlines()
    }


# ── a worker dies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_is_killed_is_replaced_while_calls_go_on_and_no_number_goes_back(
    short_path: Path, sample_bundle: Path
) -> None:
    with _serving(short_path, opa__bundle=sample_bundle) as serving:
        with _channels(serving) as channels:
            for channel in channels.values():
                wire.authorize(channel)
        wait_until(lambda: serving.metric("tenantgate_decisions_total") == len(serving.said("call")) > WORKERS)
        made = len(serving.said("call"))
        victim = serving.workers[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not _command_of(victim))
        seen = [float(made)]
        while serving.metric("tenantgate_worker_restarts_total") < 1 or serving.metric("tenantgate_workers") < WORKERS:
            with _connect(serving.address) as channel:
                wire.authorize(channel, wait_for_ready=True)
                made += 1
            seen.append(serving.metric("tenantgate_decisions_total"))
        wait_until(lambda: serving.metric("tenantgate_decisions_total") == made)

        assert seen == sorted(seen)
        assert [line["status"] for line in serving.said("worker_exited")] == [-signal.SIGKILL]
        assert victim not in serving.workers
        assert len(serving.workers) == WORKERS
        with _channels(serving) as channels:
            assert {*channels} == {1, 2}
            assert all(wire.get_status(channel).serving for channel in channels.values())


def test_a_sidecar_none_of_whose_workers_can_decide_is_not_ready(short_path: Path, sample_bundle: Path) -> None:
    with _serving(short_path, opa__bundle=sample_bundle) as serving:
        wait_until(lambda: serving.metric("tenantgate_workers") == WORKERS)
        for pid in serving.workers:
            os.kill(pid, signal.SIGSTOP)  # so that none comes back before it was looked
        for pid in serving.workers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(serving.said("worker_exited")) == WORKERS)
        found = urllib3.request("GET", serving.url("/readyz"), retries=False, timeout=20)
        wait_until(lambda: urllib3.request("GET", serving.url("/readyz"), retries=False).status == 200, LONGEST)

    assert (found.status, found.data) == (503, b"no worker can decide\n")


# ── the registry changes ────────────────────────────────────────────────────────────────────────────────────────────────


def _following(publisher: Publisher, **settings: object) -> dict[str, Any]:
    assert publisher.key is not None
    return {
        "bundles__source": publisher.folder,
        "bundles__keys": f"[{publisher.key.public}]",
        # Not so often that a worker would find by its own what it should be told.
        "lifecycle__probe_interval_seconds": 30,
        "cache__revision_check_seconds": 60,
    } | settings


def test_what_is_taken_away_is_taken_away_by_all_workers_though_they_remember_it(
    publisher: Publisher, short_path: Path
) -> None:
    publisher.base(0)
    with _serving(short_path, **_following(publisher)) as serving, _channels(serving) as channels:
        for channel in [*channels.values()] * 3:
            assert wire.authorize(channel).code == decision_pb2.DECISION_CODE_ALLOWED
        publisher.base(1, without="Tenant-A")
        for channel in channels.values():
            wait_until(
                lambda channel=channel: wire.authorize(channel).code == decision_pb2.DECISION_CODE_TENANT_UNKNOWN
            )


def test_a_caller_is_never_taken_back_whichever_worker_answers(short_path: Path) -> None:
    as_of = NOW

    def answer(query: Query) -> Iterable[bytes]:
        decision = PROBE_ANSWER if query.is_probe else ALLOW
        return [decided(decision | {"as_of": as_of, "revision": f"{as_of}"})]

    with (
        fake_opa(short_path / "fake.sock", answer) as opa,
        _serving(
            short_path / "s",
            opa__address=opa.address,
            lifecycle__probe_interval_seconds=30,
            cache__revision_check_seconds=60,
        ) as serving,
        _channels(serving) as channels,
    ):
        one, other = channels.values()
        wire.authorize(other)
        asked = len(opa.queries)
        remembered = wire.authorize(other).as_of.ToMicroseconds()
        assert len(opa.queries) == asked
        as_of += SECOND
        newer = wire.authorize(one, wire.question("agent:tool:another")).as_of.ToMicroseconds()

        assert (remembered, newer) == (NOW, NOW + SECOND)
        assert wire.authorize(other).as_of.ToMicroseconds() == newer


def test_every_worker_waits_for_the_registry_that_a_caller_wants_and_tells_its_state(
    publisher: Publisher, short_path: Path
) -> None:
    publisher.base(0)
    with _serving(short_path, **_following(publisher)) as serving, _channels(serving) as channels:
        wanted = wire.question()
        wanted.min_as_of.FromMicroseconds(NOW + SECOND)
        watching = [
            StatusServiceStub(channel).WatchStatus(WatchStatusRequest(), timeout=LONGEST)
            for channel in channels.values()
        ]
        assert {next(watched).status.bundles[0].as_of.ToMicroseconds() for watched in watching} == {NOW}
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(wire.authorize, channel, wanted) for channel in channels.values()]
            publisher.base(1)
            assert {answer.result().as_of.ToMicroseconds() for answer in answers} == {NOW + SECOND}
        for watched in watching:
            assert any(told.status.bundles[0].as_of.ToMicroseconds() == NOW + SECOND for told in watched)
            watched.cancel()


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Held:
    """An OPA that answers only when it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.free = threading.Event()

    def __call__(self, query: Query) -> Iterable[bytes]:
        if not query.is_probe:
            self.asked += 1
            while not self.free.wait(0.01) and not query.stopped.is_set():
                pass
        return honest(query)


@pytest.mark.parametrize("to_group", [False, True], ids=["SIGTERM to the parent", "Ctrl-C"])
def test_calls_in_flight_end_in_all_workers_before_the_sidecar_does(*, to_group: bool, short_path: Path) -> None:
    held = _Held()
    held.free.set()
    with (
        fake_opa(short_path / "fake.sock") as opa,
        _serving(
            short_path / "s",
            opa__address=opa.address,
            opa__timeout_seconds=30,
            lifecycle__drain_seconds=30,
            cache__bytes=0,
        ) as serving,
        _channels(serving) as channels,
        ThreadPoolExecutor() as pool,
    ):
        opa.answer = held
        held.free.clear()
        answers = [pool.submit(wire.authorize, channel) for channel in channels.values()]
        wait_until(lambda: held.asked == WORKERS)
        if to_group:
            os.killpg(serving.process.pid, signal.SIGINT)
        else:
            serving.process.terminate()
        pids = serving.workers

        def refused() -> bool:
            with _connect(serving.address) as channel:
                error: Any = wire.failure(lambda: wire.authorize(channel, timeout=1))
            return error.code() is grpc.StatusCode.UNAVAILABLE

        wait_until(refused)
        held.free.set()

        assert [answer.result().effect for answer in answers] == [decision_pb2.EFFECT_ALLOW] * WORKERS
        assert serving.finish() == 0
        assert not serving.said("worker_exited")
        assert not serving.said("worker_killed")
        assert not any(map(_command_of, pids))


def test_a_parent_that_is_killed_leaves_nothing_behind(short_path: Path, sample_bundle: Path) -> None:
    with _serving(short_path, opa__bundle=sample_bundle) as serving:
        address = serving.address
        pids = _children(serving.process.pid)
        assert len(pids) == WORKERS + 1
        serving.process.kill()
        wait_until(lambda: not any(map(_command_of, pids)))
    with _serving(short_path, opa__bundle=sample_bundle, listen__tcp=address) as again, _connect(address) as channel:
        assert wire.authorize(channel).code == decision_pb2.DECISION_CODE_ALLOWED
        assert again.address == address


# ── it does not start ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers_need_a_port_that_they_can_share(short_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^workers: 2 processes cannot share a Unix socket; set listen\.tcp"):
        sidecar_settings(short_path, None, workers=2)


def test_the_port_of_another_sidecar_is_not_shared_with_it(
    shared: _Serving, short_path: Path, sample_bundle: Path
) -> None:
    settings = sidecar_settings(short_path, sample_bundle, workers=2, listen__tcp=shared.address)
    with pytest.raises(StartError, match=rf"^listen\.tcp: cannot listen on {shared.address}; is it in use"):
        Sidecar(settings).start()


def test_two_sidecars_that_start_at_once_do_not_get_the_same_port() -> None:
    first = Port("127.0.0.1:0", "listen.tcp")
    try:
        with pytest.raises(StartError, match=r"^listen\.tcp: cannot listen on .* in use by another process"):
            Port(first.address, "listen.tcp")
    finally:
        first.close()
    Port(first.address, "listen.tcp").close()


def test_a_port_can_be_had_again_while_connections_of_before_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        address = "{}:{}".format(*before.getsockname())
        with socket.create_connection(before.getsockname()) as caller:
            answering, _ = before.accept()
            answering.close()  # who closes first is the one whose port lingers
            assert caller.recv(1) == b""
    Port(address, "listen.tcp").close()


def test_it_does_not_start_when_its_workers_do_not(
    short_path: Path, sample_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_MODULE", "sidecar.nothing")
    with pytest.raises(StartError, match=r"^not all workers come up"):
        Sidecar(sidecar_settings(short_path, sample_bundle, workers=2, listen__tcp="127.0.0.1:0")).start()


def test_a_worker_tells_its_parent_why_it_cannot_start() -> None:
    ours, theirs = Pipe()
    with ours, theirs, subprocess.Popen([sys.executable, "-m", "sidecar.worker"], stdin=theirs.fileno()) as worker:
        ours.send_bytes(msgspec.msgpack.encode(Orders(1, Settings())))
        ours.send_bytes(b"")
        report = msgspec.msgpack.decode(ours.recv_bytes(), type=Report)

    assert report.fault.startswith("identity.issuers: name whose tokens are to be believed")
    assert worker.returncode == 2
