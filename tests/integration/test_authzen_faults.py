"""What enforcement points see of the AuthZEN door when something is wrong, never a decision, and what operators see of it."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import urllib3

from sidecar.errors import SettingsError, StartError
from sidecar.server import Sidecar
from tests.support.authzen import (
    ASSERTED,
    EVALUATION,
    EVALUATIONS,
    PRINCIPAL,
    SEARCH,
    action,
    ask,
    evaluation,
    post,
    registry,
    resource,
    send,
    serving,
    subject,
)
from tests.support.fake_opa import ALLOW, Held, Query, after_probes, decided, fake_opa, http
from tests.support.following import following
from tests.support.metrics import samples, value
from tests.support.processes import running_sidecar, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.support.bundles import Publisher
    from tests.support.fake_opa import FakeOpa

ACME = {"x_tenant_id": "acme"}
READS = evaluation("alice", "read", "record-1")
OF_TYPE = {"subject": subject("alice"), "action": action("read"), "resource": {"type": "record"}}
CALLS = [
    (EVALUATION, READS),
    (EVALUATIONS, {"evaluations": [READS, READS]}),
    (f"{SEARCH}subject", READS),
    (f"{SEARCH}resource", OF_TYPE),
    (f"{SEARCH}action", READS),
]
DEADLINE = 20.0


@contextmanager
def running_beside(folder: Path, **settings: Any) -> Iterator[tuple[FakeOpa, Sidecar]]:
    """Run a sidecar with the door beside an OPA that can be turned, with room for one call."""
    with fake_opa(folder / "fake.sock") as opa:
        given = {
            "opa__address": opa.address,
            "opa__timeout_seconds": 60,
            "listen__admin": "127.0.0.1:0",
            "limits__in_flight": 1,
            "limits__default_deadline_seconds": DEADLINE,
            "lifecycle__drain_seconds": DEADLINE,
        }
        with running_sidecar(sidecar_settings(folder / "beside", None, **{**ASSERTED, **given, **settings})) as running:
            yield opa, running[0]


@pytest.fixture
def beside(short_path: Path) -> Iterator[tuple[FakeOpa, Sidecar]]:
    """A sidecar beside an OPA that can be turned."""
    with running_beside(short_path) as running:
        yield running


@pytest.fixture
def hasty(short_path: Path) -> Iterator[tuple[FakeOpa, Sidecar]]:
    """One that soon gives up."""
    with running_beside(short_path, limits__default_deadline_seconds=0.2) as running:
        yield running


# ── no decision ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (http({}), 503, "POLICY_NOT_READY"),
        (http({"code": "internal_error"}, 500), 500, "POLICY_EVALUATION_FAILED"),
        (http({"result": True}), 500, "POLICY_RESULT_MALFORMED"),
        (http({"result": {"allow": True}}), 500, "POLICY_RESULT_MALFORMED"),
        (http({"result": [{"effect": "ALLOW"}]}), 500, "POLICY_RESULT_MALFORMED"),
        (http(b"{"), 500, "POLICY_RESULT_MALFORMED"),
        (b"", 503, "POLICY_ENGINE_UNAVAILABLE"),
    ],
    ids=["undefined", "error", "true", "another shape", "a list", "no JSON", "no answer"],
)
def test_whatever_opa_answers_that_is_no_decision_is_none(  # noqa: PLR0917 - a table of tables
    beside: tuple[FakeOpa, Sidecar], path: str, body: Any, answer: bytes, status: int, reason: str
) -> None:
    opa, sidecar = beside

    def answering(_query: Query) -> Iterable[bytes]:
        yield answer
        if not answer:
            raise ConnectionAbortedError

    opa.answer = after_probes(answering)
    told = post(sidecar, path, body, **ACME)

    assert told.status == status
    assert told.data.decode().startswith(f"{reason}: ")
    assert b'decision":' not in told.data


def test_an_answer_that_does_not_come_in_time_is_none(hasty: tuple[FakeOpa, Sidecar]) -> None:
    opa, sidecar = hasty
    opa.answer = held = Held(lambda _: [decided(ALLOW)])
    told = post(sidecar, EVALUATION, READS, **ACME)
    held.let_go()

    assert (told.status, told.data[:18]) == (503, b"DEADLINE_EXCEEDED:")


def test_a_body_that_does_not_come_in_time_is_no_question(hasty: tuple[FakeOpa, Sidecar]) -> None:
    opa, sidecar = hasty
    port = int(sidecar.authzen_url.rpartition(":")[2])
    head = f"POST {EVALUATION} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", port), DEADLINE)) as slow:
        slow.sendall(head.encode() + b"{")
        told = slow.recv(4096)

    assert told.startswith(b"HTTP/1.1 503 ")
    assert opa.queries == []


def test_more_calls_than_are_taken_on_are_refused_at_once(beside: tuple[FakeOpa, Sidecar]) -> None:
    opa, sidecar = beside
    opa.answer = held = Held(lambda _: [decided(ALLOW)])
    first: list[Any] = []
    calling = threading.Thread(target=lambda: first.append(post(sidecar, EVALUATION, READS, **ACME)))
    calling.start()
    held.asked.wait(DEADLINE)
    refused = post(sidecar, EVALUATION, READS, **ACME)
    metadata = send(sidecar, "/.well-known/authzen-configuration", None, method="GET")
    held.let_go()
    calling.join(DEADLINE)

    assert (refused.status, refused.data[:12]) == (503, b"OVERLOADED: ")
    assert metadata.status == 200
    assert value(sidecar, "tenantgate_errors_total", method="AuthZEN.evaluation", reason="OVERLOADED") == 1
    wait_until(lambda: post(sidecar, EVALUATION, READS, **ACME).status == 200)


def test_before_there_is_a_registry_there_is_metadata_and_no_decision(publisher: Publisher) -> None:
    with running_sidecar(following(publisher, **ASSERTED)) as (sidecar, _):
        told = [post(sidecar, path, body, **ACME) for path, body in CALLS]
        metadata = send(sidecar, "/.well-known/authzen-configuration", None, method="GET")
        described = send(sidecar, "/openapi.json", None, method="GET")

    assert {(answer.status, answer.data.partition(b":")[0]) for answer in told} == {(503, b"POLICY_NOT_READY")}
    assert (metadata.status, described.status) == (200, 200)


def test_a_registry_that_is_too_old_denies_and_finds_nothing() -> None:
    with serving(registry("authzen-certification"), freshness__max_staleness_seconds=1) as sidecar:
        decision = ask(sidecar, EVALUATION, READS, x_tenant_id="cert")
        results = [ask(sidecar, path, body, x_tenant_id="cert")["results"] for path, body in CALLS[2:]]

    assert (decision["decision"], decision["context"]["code"]) == (False, "POLICY_STALE")
    assert results == [[], [], []]


def test_calls_in_flight_end_when_the_sidecar_stops(beside: tuple[FakeOpa, Sidecar]) -> None:
    opa, sidecar = beside
    opa.answer = held = Held(lambda _: [decided(ALLOW)])
    answers: list[Any] = []
    calling = threading.Thread(target=lambda: answers.append(post(sidecar, EVALUATION, READS, **ACME)))
    calling.start()
    held.asked.wait(DEADLINE)
    stopping = threading.Thread(target=sidecar.stop)
    stopping.start()
    wait_until(lambda: not _listens(sidecar))
    held.let_go()
    calling.join(DEADLINE)
    stopping.join(DEADLINE)

    assert [answer.json()["decision"] for answer in answers] == [True]


def _listens(sidecar: Sidecar) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(sidecar.authzen_url.rpartition(":")[2])), 1).close()
    except OSError:
        return False
    return True


# ── what operators see ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_decisions_and_errors_are_counted_by_endpoint() -> None:
    cert = {"x_tenant_id": "cert"}
    with serving(registry("authzen-certification"), listen__admin="127.0.0.1:0") as sidecar:
        for _ in range(2):
            ask(sidecar, EVALUATION, READS, **cert)
        post(sidecar, EVALUATION, {}, **cert)
        ask(sidecar, EVALUATIONS, {"evaluations": [READS, {}, evaluation("bob", "write", "record-1"), READS]}, **cert)
        stopping = {"options": {"evaluations_semantic": "permit_on_first_permit"}, "evaluations": [READS, READS]}
        ask(sidecar, EVALUATIONS, stopping, **cert)
        ask(sidecar, f"{SEARCH}resource", OF_TYPE, **cert)
        counted = {
            (sample.labels["method"], sample.labels["code"]): sample.value
            for sample in samples(sidecar, "tenantgate_decisions_total")
        }
        failed = {
            (sample.labels["method"], sample.labels["reason"]): sample.value
            for sample in samples(sidecar, "tenantgate_errors_total")
        }
        searches = value(sidecar, "tenantgate_call_seconds_count", method="AuthZEN.search.resource")

    assert counted == {
        ("AuthZEN.evaluation", "ALLOWED"): 2,
        ("AuthZEN.evaluations", "ALLOWED"): 3,
        ("AuthZEN.evaluations", "CONDITION_NOT_MET"): 1,
    }
    assert failed == {("AuthZEN.evaluation", "REQUEST_INVALID"): 1, ("AuthZEN.evaluations", "REQUEST_INVALID"): 1}
    assert searches == 1


def test_the_access_log_says_who_asked_what_and_what_came_of_it() -> None:
    secret = {"subject": subject("alice", note="hush"), "resource": resource("record-1", note="hush")}
    with serving(registry("authzen-certification")) as sidecar, structlog.testing.capture_logs() as lines:
        answer = post(sidecar, EVALUATION, READS | secret, x_tenant_id="cert", x_request_id="r-1")
        post(sidecar, f"{SEARCH}action", READS, x_tenant_id="cert")
        post(sidecar, EVALUATION, {}, x_tenant_id="cert")

    calls = [line for line in lines if line["event"] == "call"]
    assert (
        calls[0].items()
        >= {
            "method": "AuthZEN.evaluation",
            "status": "OK",
            "decision_id": answer.headers["x-decision-id"],
            "request_id": "r-1",
            "tenant_id": "cert",
            "principal_id": PRINCIPAL,
            "subject_id": "alice",
            "resource_type": "record",
            "resource_id": "record-1",
            "action": "read",
            "effect": "ALLOW",
            "code": "ALLOWED",
            "rule_id": "read",
        }.items()
    )
    assert calls[1].items() >= {"method": "AuthZEN.search.action", "status": "OK", "results": 2}.items()
    assert (calls[2]["method"], calls[2]["status"]) == ("AuthZEN.evaluation", "REQUEST_INVALID")
    assert "hush" not in json.dumps(lines, default=str)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"authzen__listen": "0.0.0.0:0"}, "authzen.listen: 0.0.0.0:0 can be reached from other hosts"),
        ({"authzen__listen": "localhost"}, "authzen.listen: 'localhost' is not HOST:PORT"),
        ({"authzen__principal": None}, "authzen.principal: name the principal of calls"),
        ({"authzen__principal": ""}, "authzen.principal: "),
        ({"identity__mode": "verified"}, "authzen.principal: with identity.mode: verified the token says who calls"),
        ({"authzen__base_url": "https://pdp.example.com/"}, "authzen.base_url: "),
        ({"authzen__base_url": "pdp.example.com"}, "authzen.base_url: "),
        ({"authzen__page_size": 0}, "authzen.page_size: "),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        sidecar_settings(tmp_path, None, **{**ASSERTED, **settings})

    assert fault in str(refused.value)


def test_a_port_that_is_taken_stops_the_start(sample_bundle: Path, short_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        sidecar = Sidecar(sidecar_settings(short_path, sample_bundle, **{**ASSERTED, "authzen__listen": address}))
        with pytest.raises(StartError, match=rf"authzen\.listen: cannot listen on {address}"):
            sidecar.start()


def test_without_the_setting_nothing_listens(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (sidecar, _):
        assert sidecar.authzen_url == ""


def test_an_idle_caller_does_not_keep_the_sidecar_from_stopping(sample_bundle: Path, short_path: Path) -> None:
    with (
        urllib3.PoolManager() as pool,
        running_sidecar(sidecar_settings(short_path, sample_bundle, **ASSERTED)) as (
            sidecar,
            _,
        ),
    ):
        first = pool.request("GET", f"{sidecar.authzen_url}/openapi.json", retries=False)
        stopping = threading.Thread(target=sidecar.stop)
        stopping.start()
        stopping.join(DEADLINE)

        assert (first.status, stopping.is_alive()) == (200, False)
