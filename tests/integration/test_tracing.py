"""One trace from the caller through the door to OPA, as a collector sees it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from sidecar.doors.agentcore.authorizer import SidecarAuthorizer
from sidecar.doors.agentcore.callers import Caller, Callers
from sidecar.doors.verdicts import Asked
from sidecar.errors import StartError
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.server import Sidecar
from tests.support import authzen, wire
from tests.support.collector import Collector, Span, running_collector
from tests.support.fake_opa import ALLOW, fake_opa, honest, http
from tests.support.processes import running_sidecar, sidecar_settings, wait_until
from tests.support.relay import Relay, running_relay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.support.fake_opa import Query

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
NOT_SAMPLED = f"00-{TRACE}-{CALLER}-00"
SERVER, CLIENT = 2, 3  # SpanKind of OTLP
AUTHORIZE = "tenantgate.v1.AuthorizationService/Authorize"
DECISION = "/v1/data/tenantgate/authorize/decision"
COALESCED = "POST /v1/data/tenantgate/coalesced/decisions"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, which the environment names."""
    with running_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield running


@pytest.fixture
def relay(sample_sidecar: tuple[Sidecar, grpc.Channel], short_path: Path) -> Iterator[Relay]:
    """A relay to the OPA that has the sample bundle."""
    address = f"unix:{sample_sidecar[0]._settings.state_dir}/opa.sock"
    with running_relay(short_path / "relay.sock", address) as running:
        yield running


@contextmanager
def _traced(short_path: Path, address: str, **overrides: Any) -> Iterator[tuple[Sidecar, grpc.Channel]]:
    settings = sidecar_settings(short_path / "traced", None, opa__address=address, tracing__enabled=True, **overrides)
    with running_sidecar(settings) as running:
        yield running


def _named(traceparent: str = SAMPLED) -> dict[str, Any]:
    return {"metadata": (("traceparent", traceparent), ("tracestate", "vendor=7"))}


def test_a_call_is_one_trace_from_the_caller_through_the_door_to_opa(
    collector: Collector, relay: Relay, short_path: Path
) -> None:
    with _traced(short_path, relay.address) as (_, channel):
        decision = wire.authorize(channel, **_named())
        opa, door = collector.of(TRACE, 2)

    assert (door.name, door.kind, door.parent, door.service) == (AUTHORIZE, SERVER, CALLER, "tenantgate")
    assert (opa.name, opa.kind, opa.parent) == (f"POST {DECISION}", CLIENT, door.id)
    assert relay.headers("traceparent") == [f"00-{TRACE}-{opa.id}-01"]
    assert relay.headers("tracestate") == ["vendor=7"]
    assert door.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": AUTHORIZE,
        "rpc.response.status_code": "OK",
        "tenantgate.decision_id": decision.decision_id,
        "tenantgate.cached": False,
        "tenantgate.effect": "ALLOW",
        "tenantgate.code": "ALLOWED",
        "tenantgate.revision": decision.revision,
    }
    assert opa.attributes == {
        "http.request.method": "POST",
        "url.template": DECISION,
        "server.address": relay.address,
        "http.response.status_code": 200,
    }
    assert not door.failed
    assert not opa.failed


def test_a_reply_that_is_remembered_has_a_span_and_asks_nobody(
    collector: Collector, relay: Relay, short_path: Path
) -> None:
    with _traced(short_path, relay.address) as (_, channel):
        wait_until(lambda: _cached(channel, collector))


def _cached(channel: grpc.Channel, collector: Collector) -> bool:
    """Ask, and tell whether the span says that OPA was not asked; then there is no span of OPA in its trace."""
    decision = wire.authorize(channel)
    wait_until(lambda: _door(collector, decision.decision_id))
    (door,) = _door(collector, decision.decision_id)
    cached: bool = door.attributes["tenantgate.cached"]
    assert len(collector.of(door.trace_id, 1)) == (1 if cached else 2)
    assert door.attributes["tenantgate.code"] == "ALLOWED"
    return cached


def _door(collector: Collector, decision_id: str) -> list[Span]:
    return [span for span in collector.spans if span.attributes.get("tenantgate.decision_id") == decision_id]


def test_a_query_that_takes_others_along_is_linked_to_their_calls(collector: Collector, short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock", _slow) as opa, _traced(short_path, opa.address) as (_, channel):
        wait_until(lambda: _travels(channel, collector))

    query = next(span for span in collector.spans if span.name == COALESCED)
    leader, *others = (
        next(span for span in collector.spans if span.id == span_id) for span_id in (query.parent, *query.links)
    )
    assert query.trace_id == leader.trace_id
    assert len(others) > 0
    assert {leader.trace_id}.isdisjoint({span.trace_id for span in others})
    assert [span.attributes["tenantgate.cached"] for span in (leader, *others)] == [False] * (1 + len(others))


def _slow(query: Query) -> Iterable[bytes]:
    """Take a moment for each query, so that others come meanwhile, and allow."""
    if "coalesced" in query.path:
        return [http({"result": [ALLOW] * len(json.loads(query.body)["input"]["questions"])})]
    if not query.is_probe:
        query.stopped.wait(0.02)
    return honest(query)


def _travels(channel: grpc.Channel, collector: Collector) -> bool:
    """Ask different questions at once; tell whether some of them travelled together."""
    names = [f"agent:tool:{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        decisions = [*pool.map(lambda name: wire.authorize(channel, wire.question(name)), names)]
    wait_until(lambda: all(_door(collector, decision.decision_id) for decision in decisions))
    return any(span.name == COALESCED for span in collector.spans)


def test_a_batch_says_what_its_decisions_have_in_common(collector: Collector, relay: Relay, short_path: Path) -> None:
    with _traced(short_path, relay.address) as (_, channel):
        stub: Any = AuthorizationServiceStub(channel)
        stub.BatchAuthorize(wire.batch(wire.ORDER_LOOKUP, "unknown"), timeout=wire.DEADLINE, **_named())
        _, door = collector.of(TRACE, 2)

    said = {name: value for name, value in door.attributes.items() if name.startswith("tenantgate.")}
    assert {*said} == {"tenantgate.decision_id", "tenantgate.cached", "tenantgate.revision", "tenantgate.decisions"}
    assert said["tenantgate.decisions"] == 2


def test_the_door_over_http_is_traced(collector: Collector, relay: Relay, short_path: Path) -> None:
    with _traced(short_path, relay.address, **authzen.ASSERTED) as (sidecar, _):
        asked = authzen.evaluation("alice", "invoke", wire.ORDER_LOOKUP)
        answer = authzen.post(sidecar, f"/tenants/Tenant-A{authzen.EVALUATION}", asked, traceparent=SAMPLED)
        opa, door = collector.of(TRACE, 2)

    assert answer.status == 200
    assert (door.name, door.kind, door.parent) == (f"POST /tenants/{{tenant:path}}{authzen.EVALUATION}", SERVER, CALLER)
    assert opa.parent == door.id
    assert door.attributes["http.response.status_code"] == 200
    assert door.attributes["tenantgate.code"] == "DELEGATION_INVALID"


def test_calls_that_workers_answer_are_traced(collector: Collector, relay: Relay, short_path: Path) -> None:
    with _traced(short_path, relay.address, workers=2, listen__tcp="127.0.0.1:0") as (sidecar, _):
        with grpc.insecure_channel(sidecar.addresses[0]) as channel:
            wire.authorize(channel, **_named())
        opa, door = collector.of(TRACE, 2)

    assert (door.name, door.parent, opa.parent) == (AUTHORIZE, CALLER, door.id)


def test_the_door_of_agentcore_hands_on_the_trace(collector: Collector, relay: Relay, short_path: Path) -> None:
    headers = {"Authorization": "Bearer abc", "Traceparent": SAMPLED, "tracestate": "vendor=7," + "x" * 600}
    caller = Callers((), None).caller(headers, None)
    assert isinstance(caller, Caller)
    with _traced(short_path, relay.address) as (sidecar, _):
        authorizer = SidecarAuthorizer(sidecar.addresses[0], wire.DEADLINE, items=10)
        authorizer.call(caller, Asked("TOOL", wire.ORDER_LOOKUP, "invoke", {}))
        authorizer.close()
        (door,) = collector.of(TRACE, 1)

    assert (door.name, door.parent) == (AUTHORIZE, CALLER)


def test_a_call_that_opa_does_not_answer_is_a_failed_one(collector: Collector, short_path: Path) -> None:
    with _traced(short_path, f"unix:{short_path}/nobody.sock") as (_, channel):
        wire.failure(lambda: wire.authorize(channel, **_named()))
        opa, door = collector.of(TRACE, 2)

    assert (opa.failed, opa.attributes["error.type"]) == (True, "EngineUnavailableError")
    assert (door.failed, door.attributes["error.type"]) == (True, "POLICY_ENGINE_UNAVAILABLE")
    assert door.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert "tenantgate.effect" not in door.attributes


def test_a_call_that_is_malformed_is_the_callers_fault(collector: Collector, relay: Relay, short_path: Path) -> None:
    with _traced(short_path, relay.address) as (_, channel):
        wire.failure(lambda: wire.authorize(channel, wire.question(""), **_named()))
        (door,) = collector.of(TRACE, 1)

    assert (door.failed, door.attributes["error.type"]) == (False, "REQUEST_INVALID")


@pytest.mark.parametrize("traceparent", ["", "00-0-0-01", "ff-xyz", f"00-{'0' * 32}-{CALLER}-01", SAMPLED + "\xff"])
def test_a_context_that_is_none_begins_a_trace_of_its_own(
    traceparent: str, collector: Collector, relay: Relay, short_path: Path
) -> None:
    with _traced(short_path, relay.address, **authzen.ASSERTED) as (sidecar, _):
        asked = authzen.evaluation("alice", "invoke", wire.ORDER_LOOKUP)
        authzen.post(sidecar, f"/tenants/Tenant-A{authzen.EVALUATION}", asked, traceparent=traceparent)
        wait_until(lambda: len(collector.spans) == 2)

    opa, door = collector.spans
    assert door.parent == ""
    assert door.trace_id not in {TRACE, "0" * 32}
    assert (opa.trace_id, opa.parent) == (door.trace_id, door.id)


def test_the_caller_or_else_the_ratio_says_which_traces_are_kept(
    collector: Collector, relay: Relay, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with _traced(short_path, relay.address) as (_, channel):
        wire.authorize(channel)
        wire.authorize(channel, wire.question("other"), **_named(NOT_SAMPLED))
        wire.authorize(channel, wire.question("another"), **_named())
        kept = collector.of(TRACE, 2)

    assert collector.spans == kept
    assert [int(value[-2:], 16) & 1 for value in relay.headers("traceparent")] == [0, 0, 1]


def test_the_access_log_names_the_trace(collector: Collector, relay: Relay, short_path: Path) -> None:
    with structlog.testing.capture_logs() as lines, _traced(short_path, relay.address) as (_, channel):
        wire.authorize(channel, **_named())
        wire.failure(lambda: wire.authorize(channel, wire.question(""), **_named()))
        collector.of(TRACE, 3)

    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [TRACE, TRACE]


def test_spans_hold_neither_tokens_nor_arguments(collector: Collector, relay: Relay, short_path: Path) -> None:
    secrets = {"authorization": "Bearer tok.en.secret", "x-api-key": "key-secret", "x-tenant-id": "tenant-secret"}
    with _traced(short_path, relay.address) as (_, channel):
        metadata = (("traceparent", SAMPLED), *secrets.items())
        wire.authorize(channel, wire.question(arguments={"iban": "argument-secret"}), metadata=metadata)
        collector.of(TRACE, 2)

    assert b"secret" not in b"".join(collector.bodies)


def test_a_collector_that_is_gone_hinders_nobody_and_is_told_to_the_log(
    relay: Relay, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with structlog.testing.capture_logs() as lines, _traced(short_path, relay.address) as (_, channel):
        assert wire.authorize(channel).effect == 1
        wait_until(lambda: [line for line in lines if line["event"] == "tracing"])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("Otel")]


def test_without_the_extra_it_does_not_start_and_says_what_to_install(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry" or name == "sidecar.tracing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = sidecar_settings(short_path, None, opa__address="unix:none", tracing__enabled=True)

    with pytest.raises(
        StartError, match=re.escape("tracing.enabled: OpenTelemetry is not installed; install tenantgate[otel]")
    ):
        Sidecar(settings).start()


def test_a_sidecar_that_does_not_trace_does_not_load_the_library(short_path: Path) -> None:
    program = f"""
import sys
from sidecar.server import Sidecar
from sidecar.settings import load
sidecar = Sidecar(load(None, {{}}, ["state_dir={short_path}", "opa.address=unix:none", "identity.mode=asserted"]))
sidecar.start()
sidecar.stop()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
