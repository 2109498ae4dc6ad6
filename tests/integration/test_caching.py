"""What callers notice of remembered decisions: nothing, but that they come sooner."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.decision_pb2 import EFFECT_ALLOW, EFFECT_DENY, DecisionCode
from tests.support import metrics, wire
from tests.support.exports import write_export
from tests.support.fake_opa import DENY, Query, after_probes, decided, fake_opa
from tests.support.following import bundle_status, following
from tests.support.processes import build_bundle, running_sidecar, sidecar_settings, wait_until
from tests.support.registries import sample_items
from tests.support.tokens import good_claims, issuer_settings, signer, write_keys
from tests.support.wire import ADMIN_REFUND, ORDER_LOOKUP, REFUND_CREATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sidecar.server import Sidecar
    from tests.support.bundles import Publisher

INTERVAL = 0.2
"""The default of ``cache.revision_check_seconds``."""


@pytest.fixture(scope="module")
def remembering(
    sample_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sidecar, grpc.Channel]]:
    """A sidecar that remembers decisions, and tells how many. It is shared: each test asks as somebody else."""
    folder = tmp_path_factory.mktemp("c")
    settings = sidecar_settings(
        folder, sample_bundle, listen__admin="127.0.0.1:0", listen__tcp="127.0.0.1:0", limits__json_depth=4
    )
    with running_sidecar(settings) as running:
        yield running


def hits(sidecar: Sidecar) -> int:
    """Tell how many decisions were given without OPA."""
    return int(metrics.value(sidecar, "tenantgate_cache_hits_total"))


def misses(sidecar: Sidecar) -> int:
    """Tell how many decisions OPA was asked for."""
    return int(metrics.value(sidecar, "tenantgate_cache_misses_total"))


_names = itertools.count()


def someone() -> Any:
    """Say who asks: somebody who has not asked before, in a tenant that lets everybody in."""
    return wire.identity("Tenant-B", subject=f"user {next(_names)}")


def code_of(decision: Any) -> str:
    """Name the code of a decision."""
    return DecisionCode.Name(decision.code).removeprefix("DECISION_CODE_")


# ── given without OPA ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_opa_is_asked_once_for_what_is_asked_again_and_again(short_path: Path) -> None:
    with (
        fake_opa(short_path / "fake.sock", after_probes(lambda _: [decided(DENY)])) as opa,
        running_sidecar(sidecar_settings(short_path, None, opa__address=opa.address)) as (_, channel),
    ):
        answers = [wire.authorize(channel) for _ in range(10)]

    assert len(opa.queries) == 1
    assert {answer.reason for answer in answers} == {"denied"}


def test_opa_is_asked_each_time_where_nothing_is_to_be_remembered(short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock", after_probes(lambda _: [decided(DENY)])) as opa:
        settings = sidecar_settings(short_path, None, opa__address=opa.address, cache__bytes=0)
        with running_sidecar(settings) as (_, channel):
            for _ in range(10):
                wire.authorize(channel)

    assert len(opa.queries) == 10


def test_an_answer_that_is_given_again_has_its_own_id_and_age(
    remembering: tuple[Sidecar, grpc.Channel],
) -> None:
    sidecar, channel = remembering
    request = wire.question(identity=someone())
    before = hits(sidecar)
    calls = [AuthorizationServiceStub(channel).Authorize.with_call(request, timeout=wire.DEADLINE) for _ in range(5)]
    decisions = [response.decision for response, _ in calls]

    assert hits(sidecar) == before + 4
    assert len({decision.decision_id for decision in decisions}) == 5
    assert [dict(call.trailing_metadata())["x-decision-id"] for _, call in calls] == [d.decision_id for d in decisions]
    ages = [decision.age.ToMicroseconds() for decision in decisions]
    assert ages == sorted(ages)
    assert ages[0] < ages[-1]
    for decision in decisions:
        decision.ClearField("decision_id")
        decision.ClearField("age")
    assert all(decision == decisions[0] for decision in decisions)


def test_hits_and_misses_are_counted_decision_by_decision(remembering: tuple[Sidecar, grpc.Channel]) -> None:
    sidecar, channel = remembering
    stub: Any = AuthorizationServiceStub(channel)
    before = hits(sidecar), misses(sidecar)
    who = someone()
    wire.authorize(channel, wire.question(identity=who))
    stub.BatchAuthorize(wire.batch(ORDER_LOOKUP, ADMIN_REFUND, "x", identity=who), timeout=wire.DEADLINE)
    after = hits(sidecar) - before[0], misses(sidecar) - before[1]

    assert after == (1, 3)


# ── nobody else's ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_decisions_are_shared_by_questions_whose_arguments_no_rule_reads(
    remembering: tuple[Sidecar, grpc.Channel],
) -> None:
    sidecar, channel = remembering
    who = someone()
    before = misses(sidecar)
    for number in range(6):
        wire.authorize(channel, wire.question(ORDER_LOOKUP, {"n": number}, identity=who))

    assert misses(sidecar) == before + 1


def test_decisions_are_not_shared_where_a_rule_reads_the_arguments(
    remembering: tuple[Sidecar, grpc.Channel],
) -> None:
    _, channel = remembering
    who = someone()
    told = [
        code_of(wire.authorize(channel, wire.question(REFUND_CREATE, {"amount": amount}, identity=who)))
        for amount in (50, 500, 50, 500, 50, 500)
    ]

    assert told[1::2] == ["DENIED_BY_RULE"] * 3
    assert "DENIED_BY_RULE" not in told[::2]


def test_of_a_batch_the_values_of_the_arguments_count_and_not_the_order_in_which_they_are_written(
    remembering: tuple[Sidecar, grpc.Channel],
) -> None:
    sidecar, channel = remembering
    ask: Any = channel.unary_unary(
        "/tenantgate.v1.AuthorizationService/BatchAuthorize", response_deserializer=pb.BatchAuthorizeResponse.FromString
    )
    who = wire.batch(identity=someone()).SerializeToString()

    def code(*members: dict[str, Any]) -> str:
        # fields that are written one after the other are put together by who reads them
        item = wire.batch(REFUND_CREATE).items[0].SerializeToString()
        for member in members:
            arguments = Struct()
            arguments.update(member)
            item += pb.BatchAuthorizeItem(arguments=arguments).SerializeToString()
        (result,) = ask(who + b"\x12" + bytes([len(item)]) + item, timeout=wire.DEADLINE).results
        return code_of(result.decision)

    little: dict[str, Any] = {"amount": 50}
    much: dict[str, Any] = {"amount": 500}
    note: dict[str, Any] = {"note": "x"}
    told = [code(*members) for members in 3 * [(little, note), (much, note), (note, little), (note, much)]]
    before = misses(sidecar)

    assert told[1::2] == ["DENIED_BY_RULE"] * 6
    assert "DENIED_BY_RULE" not in told[::2]
    assert code(little, note) == code(note, little) == told[0]
    assert misses(sidecar) == before


_FAULTS: dict[str, tuple[Any, str]] = {
    "nested too deeply": ({"a": {"b": {"c": {"d": {"e": 1}}}}}, "is nested too deeply"),
    "too large": ({"a": "x" * 70_000}, "must have at most 65536 bytes"),
    "not finite": ({"a": float("inf")}, "not finite"),
    "without a kind": (Struct(fields={"a": {}}), "without a kind"),  # type: ignore[dict-item]  # an empty Value
}


@pytest.mark.parametrize("field", ["arguments", "context"])
@pytest.mark.parametrize(("value", "words"), _FAULTS.values(), ids=_FAULTS)
def test_what_is_wrong_with_arguments_is_told_though_the_decision_is_remembered_whatever_they_are(
    field: str, value: Any, words: str, remembering: tuple[Sidecar, grpc.Channel]
) -> None:
    _, channel = remembering
    request = wire.question(identity=someone())
    for _ in range(3):
        wire.authorize(channel, request)
    bad = getattr(request, field)
    bad.CopyFrom(value) if isinstance(value, Struct) else bad.update(value)
    errors: list[Any] = [wire.failure(lambda: wire.authorize(channel, request)) for _ in range(2)]

    assert [wire.wrong_fields(error) for error in errors] == [[field]] * 2
    assert all(words in error.details() for error in errors)


def test_a_tenant_that_a_header_names_is_compared_though_the_decision_is_remembered(
    remembering: tuple[Sidecar, grpc.Channel],
) -> None:
    _, channel = remembering
    request = wire.question(identity=someone())
    named = ["Tenant-B", None, "Tenant-A", "Tenant-B", "Tenant-A", None]
    told = [
        code_of(wire.authorize(channel, request, metadata=[("x-tenant-id", tenant)] if tenant else []))
        for tenant in named
    ]

    assert [code == "TENANT_MISMATCH" for code in told] == [tenant == "Tenant-A" for tenant in named]


def test_an_explanation_is_given_to_those_who_want_one(remembering: tuple[Sidecar, grpc.Channel]) -> None:
    _, channel = remembering
    who = someone()
    asked = [wire.authorize(channel, wire.question(identity=who, explain=wanted)) for wanted in (False, True) * 3]

    assert [decision.HasField("explanation") for decision in asked] == [False, True] * 3


@pytest.fixture
def extended(tmp_path: Path, short_path: Path) -> Iterator[Callable[[str], grpc.Channel]]:
    """Start a sidecar with an extension, whose Rego is given."""
    started = []

    def start(rego: str) -> grpc.Channel:
        folder = tmp_path / "custom" / "limit"
        folder.mkdir(parents=True)
        (folder / "limit.rego").write_text(f"package custom.limit\n\n{rego}\n")
        bundle = build_bundle(
            write_export(tmp_path / "export", sample_items()), tmp_path / "bundle.tar.gz", tmp_path / "custom"
        )
        running = running_sidecar(sidecar_settings(short_path, bundle))
        started.append(running)
        return running.__enter__()[1]

    yield start
    for running in started:
        running.__exit__(None, None, None)


_DENY = 'deny contains "too much" if input.arguments.n > 5\n\ndeny contains "frozen" if input.context.frozen == true'


@pytest.mark.parametrize("declared", ["", 'depends_on := ["arguments", "context"]\n\n'], ids=["nothing", "both"])
def test_what_an_extension_reads_counts_whether_or_not_it_says_so(
    declared: str, extended: Callable[[str], grpc.Channel]
) -> None:
    channel = extended(declared + _DENY)
    asked = [(1, False), (9, False), (1, True), (1, False)] * 3
    told = [
        wire.authorize(channel, wire.question(ORDER_LOOKUP, {"n": n}, context={"frozen": frozen})).reason
        for n, frozen in asked
    ]

    assert [reason if reason in {"too much", "frozen"} else "" for reason in told] == ["", "too much", "frozen", ""] * 3


# ── nothing stale ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Told(NamedTuple):
    """What a call was told: it began and ended at moments of ``time.monotonic()``."""

    began: float
    ended: float
    as_of: int
    code: str


class Callers:
    """Threads that ask the same, over and over, each on a channel of its own."""

    def __init__(self, address: str, request: pb.AuthorizeRequest, threads: int = 4, **options: Any) -> None:
        self.told: list[Told] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address, request, options)) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        wait_until(lambda: len(self.told) > 20 * len(self._threads))
        return self

    def __exit__(self, *fault: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str, request: pb.AuthorizeRequest, options: dict[str, Any]) -> None:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            while not self._ended.is_set():
                began = time.monotonic()
                try:
                    decision = wire.authorize(channel, request, **options)
                    as_of, code = decision.as_of.ToMicroseconds(), code_of(decision)
                except grpc.RpcError as error:
                    as_of, code = 0, wire.error_info(error).reason
                self.told.append(Told(began, time.monotonic(), as_of, code))

    def a_little_more(self) -> None:
        """Let them ask a little more."""
        count = len(self.told)
        wait_until(lambda: len(self.told) > count + 3 * len(self._threads))


@pytest.mark.parametrize("interval", [0.2, 2.0])
def test_a_revocation_is_served_to_all_at_once_and_within_the_interval(publisher: Publisher, interval: float) -> None:
    publisher.base(0)
    with (
        running_sidecar(following(publisher, cache__revision_check_seconds=interval)) as (sidecar, channel),
        Callers(sidecar.addresses[0], wire.question()) as callers,
    ):
        publisher.overlay(5, since=0, removed="Tenant-A")
        wait_until(lambda: bundle_status(channel, "overlay").active)
        active = time.monotonic()
        wait_until(lambda: callers.told[-1].code == "TENANT_UNKNOWN")
        callers.a_little_more()

    told = callers.told
    assert {entry.code for entry in told} == {"ALLOWED", "TENANT_UNKNOWN"}
    assert not [entry for entry in told if entry.code == "ALLOWED" and entry.began > active + interval]
    first_told = min(entry.ended for entry in told if entry.code == "TENANT_UNKNOWN")
    assert not [entry for entry in told if entry.code == "ALLOWED" and entry.began > first_told]


def test_a_call_that_wants_the_newer_registry_gets_it_though_the_older_one_is_remembered(
    publisher: Publisher,
) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher, cache__revision_check_seconds=60)) as (_, channel):
        for _ in range(3):
            wire.authorize(channel)
        as_of = wire.authorize(channel).as_of.ToMicroseconds()
        overlay = publisher.overlay(5, since=0, removed="Tenant-A")
        wanted = Timestamp()
        wanted.FromMicroseconds(as_of + 5_000_000)
        told = [wire.authorize(channel, wire.question(min_as_of=wanted)), wire.authorize(channel)]

    assert [decision.revision for decision in told] == [overlay] * 2


def test_nothing_is_given_when_opa_has_not_answered_for_longer_than_the_interval(
    sample_bundle: Path, short_path: Path
) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle, opa__timeout_seconds=0.3)) as (sidecar, channel):
        pid = wire.get_status(channel).opa.pid
        with Callers(sidecar.addresses[0], wire.question()) as callers:
            os.kill(pid, signal.SIGSTOP)
            stopped = time.monotonic()
            try:
                wait_until(lambda: callers.told[-1].code == "POLICY_ENGINE_UNAVAILABLE")
                callers.a_little_more()
            finally:
                resumed = time.monotonic()
                os.kill(pid, signal.SIGCONT)

    meanwhile = [entry for entry in callers.told if entry.began > stopped + INTERVAL and entry.ended < resumed]
    assert {entry.code for entry in meanwhile} == {"POLICY_ENGINE_UNAVAILABLE"}


def test_what_is_remembered_is_given_again_after_a_pause_once_opa_has_said_its_revision(short_path: Path) -> None:
    asked: list[Query] = []

    def answer(query: Query) -> list[bytes]:
        asked.append(query)
        return [decided(DENY)]

    with fake_opa(short_path / "fake.sock", after_probes(answer)) as opa:
        settings = sidecar_settings(
            short_path,
            None,
            opa__address=opa.address,
            cache__revision_check_seconds=0.01,
            lifecycle__probe_interval_seconds=60,
        )
        with running_sidecar(settings) as (_, channel):
            for _ in range(50):
                wire.authorize(channel)

    assert len(asked) <= 2  # the second while it was not known yet which revision OPA has


# ── nothing beyond its time ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_that_ends_is_remembered_until_then(tmp_path: Path, short_path: Path) -> None:
    end = int(time.time()) + 4
    rule = {
        "effect": "ALLOW",
        "resourceType": "TOOL",
        "resources": [ORDER_LOOKUP],
        "notAfter": datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    items: list[dict[str, Any]] = [
        {"pk": "TENANT#T", "sk": "TENANT", "membership": "OPTIONAL"},
        {"pk": "TENANT#T", "sk": "POLICY#p", "rules": [rule]},
    ]
    bundle = build_bundle(write_export(tmp_path, items), tmp_path / "bundle.tar.gz")
    request, told = wire.question(identity=wire.identity("T")), []
    with running_sidecar(sidecar_settings(short_path, bundle)) as (_, channel):
        while time.time() < end + 0.2:
            began = time.time()
            decision = wire.authorize(channel, request)
            told.append((began, time.time(), decision.effect))

    assert {effect for began, _, effect in told if began >= end} == {EFFECT_DENY}
    assert {effect for _, ended, effect in told if ended < end} == {EFFECT_ALLOW}


def test_a_token_that_ends_ends_what_is_remembered_for_it(sample_bundle: Path, short_path: Path) -> None:
    issuer = issuer_settings(write_keys(short_path / "keys.json", signer().jwk()))
    settings = sidecar_settings(
        short_path,
        sample_bundle,
        identity__mode="verified",
        identity__issuers=[issuer],
        identity__clock_skew_seconds=0,
    )
    request, told = pb.AuthorizeRequest(resource=wire.resource()), []
    with running_sidecar(settings) as (_, channel):
        end = int(time.time()) + 3
        metadata = [("authorization", f"Bearer {signer().token(good_claims(exp=end))}")]
        while time.time() < end + 0.2:
            began, code = time.time(), ""
            try:
                code = code_of(wire.authorize(channel, request, metadata=metadata))
            except grpc.RpcError as error:
                code = wire.error_info(error).reason
            told.append((began, time.time(), code))

    assert {code for began, _, code in told if began >= end} == {"CALLER_UNAUTHENTICATED"}
    assert {code for _, ended, code in told if ended < end} == {"ALLOWED"}


def test_a_key_that_its_issuer_lists_no_more_ends_what_is_remembered_for_its_tokens(
    sample_bundle: Path, short_path: Path
) -> None:
    old, new = signer("ES256", "old"), signer("ES256", "new")
    keys = write_keys(short_path / "keys.json", old.jwk(), new.jwk())
    settings = sidecar_settings(
        short_path, sample_bundle, identity__mode="verified", identity__issuers=[issuer_settings(keys)]
    )
    request = pb.AuthorizeRequest(resource=wire.resource())
    with running_sidecar(settings) as (sidecar, channel):
        metadata = [("authorization", f"Bearer {old.token()}")]
        with Callers(sidecar.addresses[0], request, metadata=metadata) as callers:
            write_keys(keys, new.jwk())
            wait_until(lambda: callers.told[-1].code == "CALLER_UNAUTHENTICATED")
            callers.a_little_more()
        other = wire.authorize(channel, request, metadata=[("authorization", f"Bearer {new.token()}")])

    told = callers.told
    assert {entry.code for entry in told} == {"ALLOWED", "CALLER_UNAUTHENTICATED"}
    first_told = min(entry.ended for entry in told if entry.code == "CALLER_UNAUTHENTICATED")
    assert not [entry for entry in told if entry.code == "ALLOWED" and entry.began > first_told]
    assert code_of(other) == "ALLOWED"
