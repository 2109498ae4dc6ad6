"""The decision log of real sidecars: a record for every decision of every door, with a bound, and none lost in silence."""

from __future__ import annotations

import gzip
import json
import os
import signal
import ssl
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
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from moto.server import ThreadedMotoServer

from sidecar.audit.records import Record
from sidecar.errors import SettingsError, StartError
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.identity.development import DevelopmentIssuer
from sidecar.server import Sidecar
from tests.support import authzen, ext_authz, wire
from tests.support.certificates import Authority
from tests.support.decision_logs import collecting, read, wait_for
from tests.support.dynamodb import CREDENTIALS, ENVIRONMENT
from tests.support.exchanges import MEMORY, exchanging
from tests.support.exports import write_export
from tests.support.metrics import value
from tests.support.processes import OPA, build_bundle, running_sidecar, sidecar_settings, wait_until
from tests.support.sts import ENVIRONMENT as STS_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
    from sidecar.settings import Settings

NEW = {"time", "decision_id", "method", "ms", "cached"}
KEEP = [{"how": "keep"}]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Logged:
    """A sidecar whose decision log is a file."""

    def __init__(self, settings: Settings, sidecar: Sidecar, channel: grpc.Channel) -> None:
        assert settings.decision_log_path is not None
        self.path = settings.decision_log_path
        self.sidecar = sidecar
        self.channel = channel
        self.stub = AuthorizationServiceStub(channel)

    def ask(self, request: pb.AuthorizeRequest | None = None, **options: Any) -> pb.AuthorizeResponse:
        """Call Authorize."""
        response: pb.AuthorizeResponse = self.stub.Authorize(
            request or wire.question(), **({"timeout": wire.DEADLINE} | options)
        )
        return response

    def records(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many records, and give them."""
        return wait_for(self.path, count)


@contextmanager
def logged(bundle: Path | None, **overrides: Any) -> Iterator[Logged]:
    """Run a sidecar."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        settings = sidecar_settings(Path(folder), bundle, **overrides)
        with running_sidecar(settings) as (sidecar, channel):
            yield Logged(settings, sidecar, channel)


def without_new(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a record what is new every time."""
    assert record.keys() >= NEW
    return {name: said for name, said in record.items() if name not in NEW}


def but(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: said for name, said in record.items() if name not in names}


WHO = {
    "tenant_id": "Tenant-A",
    "principal_id": "agent:order-bot",
    "subject_id": "alice",
    "scopes": ["tools:read", "tools:write"],
}

# ── every door ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_decision_has_a_record_that_says_all_of_it_but_arguments(sample_bundle: Path) -> None:
    with logged(sample_bundle) as log:
        response = log.ask(
            wire.question(arguments={"order": "secret-4711"}),
            metadata=(("x-request-id", "r-1"), ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")),
        )
        (record,) = log.records(1)
        mode = log.path.stat().st_mode

    decision = response.decision
    assert (record["decision_id"], record["method"], record["cached"]) == (decision.decision_id, "Authorize", False)
    assert record["ms"] > 0
    assert record["time"].endswith("Z")
    assert without_new(record) == WHO | {
        "request_id": "r-1",
        "trace_id": TRACE,
        "resource_type": "TOOL",
        "resource_id": wire.ORDER_LOOKUP,
        "action": "invoke",
        "effect": "ALLOW",
        "code": "ALLOWED",
        "policy_id": decision.policy_id,
        "rule_id": decision.rule_id,
        "reason": decision.reason,
        "revision": decision.revision,
        "as_of": record["as_of"],
    }
    assert decision.as_of.ToJsonString()[:19] == record["as_of"][:19]
    assert mode & 0o777 == 0o600


def test_the_earlier_actors_and_what_they_were_given_are_in_the_record(sample_bundle: Path) -> None:
    request = wire.question()
    request.identity.delegation.add(id="agent:planner").scopes.values.append("tools:read")
    request.identity.delegation.add(id="agent:other")
    with logged(sample_bundle) as log:
        log.ask(request)
        (record,) = log.records(1)

    assert record["delegation"] == [{"id": "agent:planner", "scopes": ["tools:read"]}, {"id": "agent:other"}]


def test_every_item_of_a_batch_has_a_record_of_its_own_bad_ones_too(sample_bundle: Path) -> None:
    with logged(sample_bundle) as log:
        response = log.stub.BatchAuthorize(wire.batch(wire.ORDER_LOOKUP, "", wire.ADMIN_REFUND), timeout=wire.DEADLINE)
        records = log.records(3)

    first = response.results[0].decision.decision_id
    assert [record["decision_id"] for record in records] == [first, f"{first[:-2]}.1", f"{first[:-2]}.2"]
    assert [record.get("effect", record.get("error")) for record in records] == ["ALLOW", "REQUEST_INVALID", "DENY"]
    assert records[1]["cause"] == "items[1].resource.id"
    assert {record["tenant_id"] for record in records} == {"Tenant-A"}


def test_a_list_of_tools_has_one_record_with_the_state_of_each(sample_bundle: Path) -> None:
    with logged(sample_bundle) as log:
        response = log.stub.FilterTools(wire.tools(wire.ORDER_LOOKUP, wire.ADMIN_REFUND, ""), timeout=wire.DEADLINE)
        (record,) = log.records(1)

    assert record["decision_id"] == response.decision_id
    assert (record["method"], record["action"], record["revision"]) == ("FilterTools", "invoke", response.revision)
    assert [(tool["id"], tool.get("state"), tool.get("error")) for tool in record["tools"]] == [
        (wire.ORDER_LOOKUP, "ALLOWED", None),
        (wire.ADMIN_REFUND, "DENIED", None),
        ("", None, "REQUEST_INVALID"),
    ]


@pytest.mark.parametrize(
    ("request_", "error", "cause", "known"),
    [
        (wire.question(""), "REQUEST_INVALID", "resource.id", {"tenant_id"}),
        (wire.question(identity=wire.identity("")), "REQUEST_INVALID", "identity.tenant_id", set()),
    ],
)
def test_an_error_in_place_of_a_decision_has_a_record_with_what_is_known(
    sample_bundle: Path, request_: pb.AuthorizeRequest, error: str, cause: str, known: set[str]
) -> None:
    with logged(sample_bundle) as log:
        failed = wire.failure(lambda: log.ask(request_))
        (record,) = log.records(1)

    trailing = {entry.key: entry.value for entry in failed.trailing_metadata()}
    assert record["decision_id"] == trailing["x-decision-id"]
    assert (record["error"], record["cause"]) == (error, cause)
    assert "effect" not in record
    assert record.keys() >= known


def test_a_token_that_is_not_believed_is_in_the_log_by_its_fault_alone(sample_bundle: Path, short_path: Path) -> None:
    issuer = DevelopmentIssuer(short_path / "issuer")
    verified = {"identity__mode": "verified", "identity__issuers": [issuer.settings()]}
    token = issuer.mint("Tenant-A", "alice", "agent:order-bot", lifetime=-3600)
    with logged(sample_bundle, **verified) as log:
        wire.failure(lambda: log.ask(metadata=(("authorization", f"Bearer {token}"),)))
        (record,) = log.records(1)

    assert without_new(record) == {"error": "CALLER_UNAUTHENTICATED", "cause": "TOKEN_EXPIRED"}


def test_an_exchange_has_a_record_and_no_credential_is_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, said in STS_ENVIRONMENT.items():
        monkeypatch.setenv(name, said)
    path = tmp_path / "d.jsonl"
    with exchanging() as world:
        world.reset()
        with world.running(audit__file__path=str(path)):
            answer = world.call()
            wire.failure(lambda: world.call("no token"))
            record, failed = wait_for(path, 2)

    assert (record["method"], record["decision_id"]) == ("ExchangeToken", answer.decision.decision_id)
    assert (record["resource_type"], record["resource_id"], record["action"]) == ("MEMORY", MEMORY, "read")
    assert (record["effect"], record["tenant_id"], record["subject_id"]) == ("ALLOW", "acme", "alice")
    assert failed["error"] == "CALLER_UNAUTHENTICATED"
    text = path.read_text()
    for secret in (answer.credentials.secret_access_key, answer.credentials.session_token, "no token"):
        assert secret not in text


def test_envoys_questions_have_records_refusals_without_a_decision_too(short_path: Path) -> None:
    bundle = build_bundle(write_export(short_path / "export", ext_authz.registry()), short_path / "bundle.tar.gz")
    issuer = DevelopmentIssuer(short_path / "issuer")
    settings = {
        "identity__mode": "verified",
        "identity__issuers": [issuer.settings()],
        "ext_authz__enabled": True,
        "ext_authz__routes": [
            {"path": "/tools/{tool}", "resource_id": "agent:tool:{tool}"},
            {"path": "/mcp", "mcp": True, "resource_id": "agent:tool:{tool}"},
        ],
        "audit__arguments": [{"path": "/id", "how": "keep"}],
    }
    headers = {
        "authorization": f"Bearer {issuer.mint('acme', 'alice', 'agent:order-bot')}",
        "x-request-id": "envoy-1",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    }
    with logged(bundle, **settings) as log:
        envoy = AuthorizationStub(log.channel)
        body = json.dumps({"id": 7, "note": "secret"}).encode()
        envoy.Check(ext_authz.check_request("/tools/order-lookup", body, headers=headers), timeout=20)
        unknown = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "no/such/method"}).encode()
        envoy.Check(ext_authz.check_request("/mcp", unknown, headers=headers), timeout=20)
        envoy.Check(ext_authz.check_request("/tools/order-lookup", body, headers={}), timeout=20)
        asked, refused, unauthenticated = log.records(3)

    assert {record["method"] for record in (asked, refused, unauthenticated)} == {"Check"}
    assert (asked["resource_id"], asked["request_id"], asked["trace_id"]) == (
        "agent:tool:order-lookup",
        "envoy-1",
        TRACE,
    )
    assert asked["effect"] in {"ALLOW", "DENY"}
    assert asked["arguments"] == {"id": 7}
    assert refused["error"]
    assert refused["tenant_id"] == "acme"
    assert (unauthenticated["error"], unauthenticated["cause"]) == ("CALLER_UNAUTHENTICATED", "TOKEN_MISSING")


def test_authzen_evaluations_and_searches_have_records(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    cert = {"x_tenant_id": "cert"}
    alice, bob = authzen.evaluation("alice", "read", "record-1"), authzen.evaluation("bob", "write", "record-1")
    with authzen.serving(authzen.registry("authzen-certification"), audit__file__path=str(path)) as sidecar:
        one = authzen.post(sidecar, authzen.EVALUATION, alice, x_request_id="a-1", **cert)
        many = {"evaluations": [alice, {**bob, "resource": {"type": "record"}}, bob]}
        several = authzen.post(sidecar, authzen.EVALUATIONS, many, **cert)
        sought = authzen.ask(sidecar, f"{authzen.SEARCH}subject", {**alice, "subject": {"type": "user"}}, **cert)
        authzen.send(sidecar, authzen.EVALUATION, b"{")
        records = wait_for(path, 6)

    single, first, bad, second, search, malformed = records
    assert single["decision_id"] == one.headers["x-decision-id"]
    assert (single["request_id"], single["tenant_id"], single["subject_id"]) == ("a-1", "cert", "alice")
    assert (single["resource_type"], single["resource_id"], single["action"]) == ("record", "record-1", "read")
    decision_id = several.headers["x-decision-id"]
    assert [record["decision_id"] for record in (first, bad, second)] == [f"{decision_id}.{n}" for n in range(3)]
    assert [record.get("effect") == "ALLOW" for record in (single, first, second)] == [
        one.json()["decision"],
        *[several.json()["evaluations"][n]["decision"] for n in (0, 2)],
    ]
    assert (bad["error"], bad["cause"]) == ("REQUEST_INVALID", "evaluations[1].resource.id")
    assert (first["cached"], first["subject_id"], second["subject_id"]) == (True, "alice", "bob")
    assert search["found"] == [entry["id"] for entry in sought["results"]]
    assert malformed["error"] == "REQUEST_INVALID"


def test_all_that_a_record_can_say_is_on_the_page() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "decision-log.md").read_text()

    names = [*NEW, "request_id", "trace_id", *Record.__struct_fields__, "arguments"]
    assert [name for name in names if f"`{name}`" not in page] == []


# ── remembered answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_that_is_given_again_has_a_record_each_time_with_an_id_of_its_own(sample_bundle: Path) -> None:
    with logged(sample_bundle, cache__revision_check_seconds=60) as log:
        ids = [log.ask().decision.decision_id for _ in range(4)]
        log.stub.BatchAuthorize(wire.batch(wire.ORDER_LOOKUP, "agent:tool:other"), timeout=wire.DEADLINE)
        records = log.records(6)

    assert [record["decision_id"] for record in records[:4]] == ids
    assert [record["cached"] for record in records] == [False, True, True, True, True, False]
    assert len({json.dumps(without_new(record)) for record in records[:4]}) == 1


def test_calls_that_share_an_answer_have_each_their_own_arguments_in_the_log(sample_bundle: Path) -> None:
    with logged(sample_bundle, cache__revision_check_seconds=60, audit__arguments=KEEP) as log:
        for number in (1, 2, 2, 2, 1, 3, 1, 1):
            log.ask(wire.question(arguments={"number": number}))
        log.ask(wire.question())
        records = log.records(9)

    assert [record.get("arguments", {}).get("number") for record in records] == [1, 2, 2, 2, 1, 3, 1, 1, None]
    assert [record["cached"] for record in records] == [False] + [True] * 8


def test_arguments_are_masked_as_the_rules_say_on_every_way(sample_bundle: Path, short_path: Path) -> None:
    key = short_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(32))
    rules = [
        {"tools": "agent:tool:order-*", "path": "/card/number", "how": "mask"},
        {"tools": "agent:tool:order-*", "path": "/user", "how": "digest"},
        {"tools": "agent:tool:order-*", "path": "/card", "how": "keep"},
    ]
    arguments: dict[str, Any] = {"card": {"number": "4111", "brand": "visa"}, "user": "u@x", "note": "free text"}
    request = wire.question(arguments=arguments)
    items = wire.batch(wire.ORDER_LOOKUP, wire.ADMIN_REFUND)
    for one in items.items:
        one.arguments.update(arguments)
    with logged(sample_bundle, audit__arguments=rules, audit__digest_key_file=str(key)) as log:
        for _ in range(3):
            log.ask(request)
        log.stub.BatchAuthorize(items, timeout=wire.DEADLINE)
        *singles, item, other = log.records(5)
        text = log.path.read_text()

    assert {json.dumps(record["arguments"]) for record in [*singles, item]} == {json.dumps(item["arguments"])}
    assert item["arguments"]["card"] == {"number": "***", "brand": "visa"}
    assert item["arguments"]["user"].startswith("hmac-sha256:")
    assert "arguments" not in other
    assert [word for word in ("4111", "u@x", "free text") if word in text] == []


# ── too much ────────────────────────────────────────────────────────────────────────────────────────────────────────────

SMALL = {
    "limits__batch_items": 2,
    "audit__queue_records": 2,
    "audit__file__path": None,
    "audit__http__pause_seconds": 0.01,
    "audit__http__timeout_seconds": 60,
    "listen__admin": "127.0.0.1:0",
}


@contextmanager
def stuck(bundle: Path, on_full: str, **overrides: Any) -> Iterator[tuple[Any, Sidecar, grpc.Channel]]:
    """Run a sidecar whose only sink takes nothing more, with as much waiting for it as may."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder, collecting() as collector:
        given = SMALL | {"audit__http__url": collector.url, "audit__on_full": on_full} | overrides
        collector.gate.clear()
        with running_sidecar(sidecar_settings(Path(folder), bundle, **given)) as (sidecar, channel):
            for _ in range(2):
                wire.authorize(channel)
            assert collector.asked.wait(20)
            try:
                yield collector, sidecar, channel
            finally:
                collector.gate.set()


def audit(sidecar: Sidecar, name: str) -> float:
    return value(sidecar, f"tenantgate_audit_{name}", sink="http")


def test_with_drop_decisions_go_on_and_the_records_that_are_missing_are_counted(sample_bundle: Path) -> None:
    with stuck(sample_bundle, "drop") as (collector, sidecar, channel):
        assert wire.authorize(channel).effect == 1
        assert (audit(sidecar, "dropped_total"), audit(sidecar, "waiting")) == (1, 2)
        (sink,) = wire.get_status(channel).audit
        assert (sink.name, sink.dropped, sink.waiting) == ("http", 1, 2)
        collector.gate.set()
        wait_until(lambda: audit(sidecar, "records_total") == 2)

    assert len(collector.events) == 2


def test_with_block_a_decision_waits_for_room_for_its_record(sample_bundle: Path) -> None:
    answers: list[Any] = []
    with stuck(sample_bundle, "block") as (collector, sidecar, channel):
        waiting = threading.Thread(target=lambda: answers.append(wire.authorize(channel)))
        waiting.start()
        wait_until(lambda: value(sidecar, "tenantgate_in_flight", kind="calls") == 1)
        assert not answers
        collector.gate.set()
        waiting.join(20)

    assert [answer.effect for answer in answers] == [1]
    assert [entry["decision_id"] for entry in collector.events][2:] == [answers[0].decision_id]


@pytest.mark.parametrize("cached", [True, False])
def test_with_block_no_decision_leaves_without_its_record(sample_bundle: Path, *, cached: bool) -> None:
    with stuck(sample_bundle, "block", cache__bytes=1 << 20 if cached else 0) as (_, sidecar, channel):
        began = time.monotonic()
        failed = wire.failure(lambda: wire.authorize(channel, timeout=0.5))
        took = time.monotonic() - began
        # the call's deadline is the client's too, so what ends it first is a matter of chance
        assert failed.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        wait_until(lambda: value(sidecar, "tenantgate_errors_total", reason="DECISION_NOT_RECORDED") == 1)

    assert took >= 0.4


def test_with_block_the_caller_is_told_that_there_is_no_room(sample_bundle: Path) -> None:
    with stuck(sample_bundle, "block", limits__default_deadline_seconds=0.3) as (_, _, channel):
        failed = wire.failure(lambda: AuthorizationServiceStub(channel).Authorize(wire.question()))

    assert wire.outcome(failed) == (grpc.StatusCode.UNAVAILABLE, "DECISION_NOT_RECORDED", "tenantgate")


def test_with_block_every_door_holds_its_decision_back(short_path: Path) -> None:
    bundle = build_bundle(
        write_export(short_path, authzen.registry("authzen-certification")), short_path / "bundle.tar.gz"
    )
    given = {**authzen.ASSERTED, "limits__default_deadline_seconds": 0.3}
    with stuck(bundle, "block", **given) as (_, sidecar, _):
        answer = authzen.post(
            sidecar, authzen.EVALUATION, authzen.evaluation("alice", "read", "record-1"), x_tenant_id="cert"
        )

    assert (answer.status, answer.data.split(b":")[0]) == (503, b"DECISION_NOT_RECORDED")


# ── the end, and what is left ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(folder: Path, bundle: Path, *options: str, **popen: Any) -> Iterator[tuple[Any, grpc.Channel]]:
    """Run a sidecar in a process of its own."""
    given = {"state_dir": folder, "identity.mode": "asserted", "opa.binary": OPA, "log.level": "error"}
    flags = [word for name, said in given.items() for word in ("--set", f"{name}={said}")]
    flags += [word for option in options for word in ("--set", option)]
    command: list[str | Path] = [Path(sys.executable).with_name("tenantgate"), "serve", "--bundle", bundle, *flags]
    with (
        subprocess.Popen(command, **popen) as process,
        grpc.insecure_channel(f"unix:{folder}/tenantgate.sock") as channel,
    ):
        try:
            grpc.channel_ready_future(channel).result(30)
            yield process, channel
        finally:
            process.kill()


def test_sigterm_hands_on_what_waits(sample_bundle: Path, short_path: Path) -> None:
    with collecting() as collector:
        url = f"audit.http.url={collector.url}"
        # by itself, it would not post within this test
        with serving(short_path, sample_bundle, url, "audit.http.pause_seconds=600") as (process, channel):
            ids = [wire.authorize(channel).decision_id for _ in range(5)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0

    assert [entry["decision_id"] for entry in collector.events] == ids
    assert [record["decision_id"] for record in read(short_path / "decisions.jsonl")] == ids


def test_a_sink_that_is_stuck_does_not_keep_the_sidecar_from_stopping(sample_bundle: Path, short_path: Path) -> None:
    with collecting() as collector:
        collector.gate.clear()
        options = (f"audit.http.url={collector.url}", "audit.http.pause_seconds=0.01", "audit.http.timeout_seconds=600")
        with serving(short_path, sample_bundle, *options, "lifecycle.drain_seconds=1", stderr=subprocess.PIPE) as (
            process,
            channel,
        ):
            wire.authorize(channel)
            assert collector.asked.wait(20)
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=20)

    assert process.returncode == 0
    assert b'"event":"records_dropped"' in told


def test_a_sidecar_that_is_killed_leaves_whole_lines_and_the_next_one_goes_on(
    sample_bundle: Path, short_path: Path
) -> None:
    path = short_path / "decisions.jsonl"
    with serving(short_path, sample_bundle) as (process, channel):
        stub = AuthorizationServiceStub(channel)
        calls = [stub.Authorize.future(wire.question(), timeout=20) for _ in range(300)]
        wait_until(lambda: path.stat().st_size)
        process.kill()
        process.wait()
        for call in calls:
            call.cancel()
    *whole, last = path.read_bytes().split(b"\n")
    for line in whole:
        json.loads(line)
    path.write_bytes(b"\n".join([*whole, last or b'{"time":"2026']))  # as if in the middle of a line
    with serving(short_path, sample_bundle) as (_, channel):
        decision_id = wire.authorize(channel).decision_id
        wait_until(lambda: path.read_bytes().endswith(b"\n"))
    *_, newest = path.read_bytes().splitlines()

    assert whole
    assert json.loads(newest)["decision_id"] == decision_id


def test_the_file_is_rotated_and_no_record_is_lost_while_there_is_room(sample_bundle: Path) -> None:
    with logged(sample_bundle, audit__file__max_bytes=4096, audit__file__keep=100) as log:
        ids = [log.ask().decision.decision_id for _ in range(60)]
        folder = log.path.parent

        def all_records() -> list[dict[str, Any]]:
            return [record for path in folder.glob("decisions.jsonl*") for record in read(path)]

        wait_until(lambda: len(all_records()) == 60)
        found = sorted(record["decision_id"] for record in all_records())
        assert len([*folder.glob("decisions.jsonl.*")]) > 2

    assert found == sorted(ids)


def test_records_on_standard_output_are_lines_of_json(sample_bundle: Path, short_path: Path) -> None:
    options = ("audit.stdout=true", "audit.file.path=null")
    with serving(short_path, sample_bundle, *options, stdout=subprocess.PIPE) as (process, channel):
        decision_id = wire.authorize(channel).decision_id
        process.send_signal(signal.SIGTERM)
        written, _ = process.communicate(timeout=20)

    (record,) = [json.loads(line) for line in written.splitlines()]
    assert record["decision_id"] == decision_id
    assert not (short_path / "decisions.jsonl").exists()


# ── collectors and buckets ──────────────────────────────────────────────────────────────────────────────────────────────

DOCUMENTED = {
    "labels": dict,
    "decision_id": str,
    "trace_id": str,
    "bundles": dict,
    "path": str,
    "input": dict,
    "result": dict,
    "error": dict,
    "timestamp": str,
    "metrics": dict,
    "custom": dict,
}
"""The fields of OPA's events that ours have (https://www.openpolicyagent.org/docs/latest/management-decision-logs/)."""


def test_a_collector_of_opas_logs_gets_what_it_knows(sample_bundle: Path, short_path: Path) -> None:
    token = short_path / "token"
    token.write_text("first\n")
    with collecting() as collector:
        given = {
            "audit__http__url": collector.url,
            "audit__http__token_file": str(token),
            "audit__http__labels": {"region": "eu"},
            "audit__http__pause_seconds": 0.01,
        }
        with logged(sample_bundle, **given) as log:
            decision = log.ask(wire.question(arguments={"a": 1})).decision
            wait_until(lambda: collector.events)
            token.write_text("second\n")
            wire.failure(lambda: log.ask(wire.question("")))
            wait_until(lambda: len(collector.events) == 2)
            records = log.records(2)

    made, failed = collector.events
    assert made["decision_id"] == decision.decision_id
    assert made["bundles"] == {"registry": {"revision": decision.revision}}
    assert made["labels"].items() >= {"app": "tenantgate", "region": "eu"}.items()
    assert (made["result"]["effect"], made["input"]["resource_id"]) == ("ALLOW", wire.ORDER_LOOKUP)
    assert made["timestamp"] == records[0]["time"]
    assert failed["error"]["code"] == "REQUEST_INVALID"
    for entry in collector.events:
        assert {name: type(said) for name, said in entry.items()}.items() <= DOCUMENTED.items()
    (path, headers, _), *rest = collector.posts
    assert path == "/logs"
    assert (headers["content-type"], headers["content-encoding"]) == ("application/json", "gzip")
    assert (headers["authorization"], rest[-1][1]["authorization"]) == ("Bearer first", "Bearer second")


def test_a_collector_that_fails_gets_the_records_later_and_it_is_seen_meanwhile(sample_bundle: Path) -> None:
    with collecting() as collector:
        collector.statuses = [500, 401, 302]
        given = {"audit__http__url": collector.url, "audit__http__pause_seconds": 0.01, "listen__admin": "127.0.0.1:0"}
        with logged(sample_bundle, **given) as log:
            ids = [log.ask().decision.decision_id for _ in range(3)]
            wait_until(lambda: audit(log.sidecar, "failures_total") >= 1)
            sinks = {sink.name: sink.error for sink in wire.get_status(log.channel).audit}
            wait_until(lambda: audit(log.sidecar, "records_total") == 3)
            after = {sink.name: sink.error for sink in wire.get_status(log.channel).audit}

    assert "answers" in sinks["http"]
    assert after == {"file": "", "http": ""}
    assert [entry["decision_id"] for entry in collector.events] == ids


def test_a_collector_that_takes_little_at_once_gets_all_of_it(sample_bundle: Path) -> None:
    with collecting() as collector:
        collector.most = 2
        given = {"audit__http__url": collector.url, "audit__http__pause_seconds": 600}
        with logged(sample_bundle, **given) as log:
            ids = [log.ask().decision.decision_id for _ in range(9)]

    assert [entry["decision_id"] for entry in collector.events] == ids


def test_a_collector_whose_certificate_nobody_vouches_for_gets_no_record_and_no_token(
    sample_bundle: Path, short_path: Path
) -> None:
    authority = Authority(short_path, "authority")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority.certify("127.0.0.1"))
    with collecting(tls) as collector:
        given = {"audit__http__url": collector.url, "audit__http__pause_seconds": 0.01}
        with logged(sample_bundle, audit__http__ca_file=str(authority.file), **given) as log:
            decision_id = log.ask().decision.decision_id
            wait_until(lambda: collector.events)
        with logged(sample_bundle, **given) as log:
            log.ask()
            wait_until(lambda: any("certificate" in sink.error for sink in wire.get_status(log.channel).audit))

    assert [entry["decision_id"] for entry in collector.events] == [decision_id]
    assert len(collector.posts) == 1


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 by moto."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, said in {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}.items():
            monkeypatch.setenv(name, said)
        client: Any = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **CREDENTIALS)  # type: ignore[call-overload]
        yield client
        client.close()
    finally:
        server.stop()


def objects(client: Any, name: str) -> dict[str, list[dict[str, Any]]]:
    listed = client.list_objects_v2(Bucket=name).get("Contents", [])
    bodies = {entry["Key"]: client.get_object(Bucket=name, Key=entry["Key"])["Body"].read() for entry in listed}
    return {key: [*map(json.loads, gzip.decompress(body).splitlines())] for key, body in bodies.items()}


def test_a_bucket_gets_an_object_for_what_was_gathered_named_by_hour_and_host(sample_bundle: Path, bucket: Any) -> None:
    bucket.create_bucket(Bucket="records")
    with logged(sample_bundle, audit__s3__address="s3://records/decisions/") as log:
        ids = [log.ask().decision.decision_id for _ in range(5)]
        first = log.records(5)[0]["time"]

    ((key, records),) = objects(bucket, "records").items()
    assert [record["decision_id"] for record in records] == ids
    assert key.startswith(f"decisions/{first[:10].replace('-', '/')}/{first[11:13]}/")
    assert key.endswith(f"{ids[0]}.jsonl.gz")
    assert os.uname().nodename in key


def test_a_bucket_that_is_not_there_yet_gets_its_records_when_it_is(sample_bundle: Path, bucket: Any) -> None:
    given = {"audit__s3__address": "s3://records-later", "audit__s3__pause_seconds": 0.01}
    with logged(sample_bundle, **given) as log:
        decision_id = log.ask().decision.decision_id
        wait_until(lambda: any(sink.failures for sink in wire.get_status(log.channel).audit))
        bucket.create_bucket(Bucket="records-later")
        wait_until(lambda: objects(bucket, "records-later"))

    assert [record["decision_id"] for records in objects(bucket, "records-later").values() for record in records] == [
        decision_id
    ]


# ── what cannot be meant ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"audit__queue_records": 999}, "audit.queue_records: 999 is less than limits.batch_items"),
        ({"audit__http__url": "http://collector.example/logs"}, "audit.http.url: http://collector.example/logs is on"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        sidecar_settings(tmp_path, None, **overrides)
    assert str(refused.value).startswith(words)


def test_a_file_that_cannot_be_written_keeps_the_sidecar_from_starting(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, audit__file__path="no/such/folder/d.jsonl")
    with pytest.raises(StartError, match=r"^audit\.file\.path: .*no/such/folder/d\.jsonl cannot be written"):
        Sidecar(settings).start()


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0, "cannot be read"),
        (b"short", 0o600, "make it 32"),
        (b"0123456789abcdef" * 4, 0o644, "make it 0600"),
    ],
)
def test_a_key_for_digests_that_is_no_good_keeps_the_sidecar_from_starting(
    sample_bundle: Path, short_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    key = short_path / "key"
    if content is not None:
        key.write_bytes(content)
        key.chmod(mode)
    settings = sidecar_settings(
        short_path / "s", sample_bundle, audit__arguments=[{"how": "digest"}], audit__digest_key_file=str(key)
    )
    with pytest.raises(StartError, match=words):
        Sidecar(settings).start()
