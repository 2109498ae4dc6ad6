"""Responses that are written once and given many times: each is the message that would be written anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from sidecar import translate
from sidecar.doors.replies import Replies, Reply, all_decided, decided, listed, written
from sidecar.engine.cache import DecisionCache, Held, Lease
from sidecar.engine.decide import Decider
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.model import (
    ConditionOutcome,
    Decision,
    Explanation,
    Finding,
    RuleOutcome,
    WeakestHop,
)
from sidecar.settings import Settings
from tests.support.engines import HeldEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.doors.replies import Write

AS_OF = 1_795_478_400_000_000
ID = "019ab5f0-0000-7000-8000-000000000000"

PLAIN = Decision("DENY", "NO_MATCHING_RULE", "no rule", "r1", AS_OF, ())
FULL = Decision(
    "ALLOW",
    "ALLOWED",
    "erlaubt für alle ✓",
    "20261124T000000.000000Z-0123456789ab",
    AS_OF,
    ("arguments", "context"),
    policy_id="P",
    rule_id="r",
    obligations=({"type": "LOG", "to": ["a", {"b": None}]}, {"type": "X" * 300}),
    valid_until=AS_OF + 60_000_001,
    max_staleness_seconds=90.5,
    explanation=Explanation(
        (Finding("ALLOWED", "-", "P", "r"),),
        (
            RuleOutcome(
                "P", "r", "ALLOW", "APPLIES", (), (ConditionOutcome("/arguments/n", "lt", "HOLDS", 5, "", 3.5),)
            ),
        ),
        "agent:p",
        "alice",
        ("clerk",),
        ("read",),
        WeakestHop("agent:p", 0, ("write",)),
    ),
)
LONG = Decision("DENY", "DENIED_BY_RULE", "x" * 20_000, "r1", AS_OF, ())
DECISIONS = {"plain": PLAIN, "full": FULL, "long": LONG}


def held(decision: Decision) -> Held[Decision]:
    """Give a decision as it is remembered."""
    return Held(decision, Lease(1, decision.as_of, 0))


def anew(decision: Decision, decision_id: str, now: int) -> decision_pb2.Decision:
    """Write a decision as a message, with nothing remembered."""
    message = decision_pb2.Decision(tenant_id="acme")
    translate.write_decision(message, decision, decision_id, now)
    return message


def reply(write: Write, size: int = 0, **fields: Any) -> Reply:
    """Make a reply."""
    given: dict[str, Any] = {"as_of": AS_OF, "lease": None, "lasts": lambda: True, "facts": {}} | fields
    return Reply(write, size, **given)


_AGES = {"none": 0, "a microsecond": 1, "an hour": 3_600_000_000, "many years": 10**15 - 1, "of the future": -5}


@pytest.mark.parametrize("age", _AGES.values(), ids=_AGES)
@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
def test_a_decision_that_is_given_again_is_the_message_that_would_be_written_anew(decision: Decision, age: int) -> None:
    remembered = held(decision)
    once = reply(decided(remembered, "acme")[0])
    again = reply(decided(remembered, "acme")[0])
    given = [pb.AuthorizeResponse.FromString(written(kept, AS_OF + age, ID)) for kept in (once, once, again)]

    assert given == [pb.AuthorizeResponse(decision=anew(decision, ID, AS_OF + age))] * 3


def test_only_the_id_and_the_age_differ_from_one_time_to_the_next() -> None:
    kept = reply(decided(held(FULL), "acme")[0])
    first = pb.AuthorizeResponse.FromString(written(kept, AS_OF, ID))
    second = pb.AuthorizeResponse.FromString(written(kept, AS_OF + 1_500_000, ID[::-1]))

    assert (second.decision.decision_id, second.decision.age) == (ID[::-1], Duration(seconds=1, nanos=500_000_000))
    for message in (first, second):
        message.decision.ClearField("decision_id")
        message.decision.ClearField("age")
    assert first == second


def test_a_batch_that_is_given_again_is_the_message_that_would_be_written_anew() -> None:
    fault = pb.ItemError(reason="REQUEST_INVALID", message="must not be empty", field="items[1].resource.id")
    outcomes: list[Held[Decision] | pb.ItemError] = [held(PLAIN), fault, held(FULL), held(LONG), *[held(PLAIN)] * 200]
    outcomes.append(fault)
    kept = reply(all_decided(outcomes, "acme")[0])

    for decision_id in (ID, "id", ID[::-1]):
        for age in (*_AGES.values(), 8):
            expected = pb.BatchAuthorizeResponse()
            for number, outcome in enumerate(outcomes):
                entry = expected.results.add()
                if isinstance(outcome, pb.ItemError):
                    entry.error.CopyFrom(outcome)
                else:
                    entry.decision.CopyFrom(anew(outcome.answer, f"{decision_id}.{number}", AS_OF + age))

            assert pb.BatchAuthorizeResponse.FromString(written(kept, AS_OF + age, decision_id)) == expected


def test_a_list_that_is_given_again_is_the_message_that_would_be_written_anew() -> None:
    response = pb.FilterToolsResponse(tenant_id="acme", revision="r1", tools=[{"id": "a"}, {"id": "b"}])
    kept = reply(listed(response)[0])
    given = pb.FilterToolsResponse.FromString(written(kept, AS_OF + 7, ID))

    assert (given.decision_id, given.age.ToMicroseconds()) == (ID, 7)
    given.ClearField("decision_id")
    given.ClearField("age")
    assert given == response


def test_a_list_that_was_decided_under_no_revision_has_no_age() -> None:
    kept = reply(listed(pb.FilterToolsResponse(tenant_id="acme"))[0])

    assert not pb.FilterToolsResponse.FromString(written(kept, AS_OF + 7, ID)).HasField("age")


def test_the_bytes_of_a_decision_are_these() -> None:
    kept = reply(decided(held(PLAIN), "t")[0])

    assert written(kept, AS_OF + 1_000_002, "id").hex(" ") == _GOLDEN


# field 1, 39 bytes: effect 2, code 10, the reason, the revision, as_of, the tenant; then what is new, decision_id and age
_GOLDEN = (
    "0a 27 10 02 18 0a 22 07 6e 6f 20 72 75 6c 65 42 02 72 31 4a 06 08 80 a7 93 d8 06 62 01 74 "
    "0a 02 69 64 52 05 08 01 10 d0 0f"
)


@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
def test_a_reply_knows_how_long_it_is(decision: Decision) -> None:
    write, size = decided(held(decision), "acme")
    ending = 2 * (2 + len(ID)) + 20

    assert 0 <= len(written(reply(write), AS_OF, ID)) - size <= ending


# ── under what they are remembered ──────────────────────────────────────────────────────────────────────────────────────


class Memory:
    """A door's replies, and the cache behind them."""

    def __init__(self, most: int = 1 << 24) -> None:
        self.cache = DecisionCache(most, 3600.0)
        decider = Decider(HeldEngine(lambda _: None), Settings().policy, clock=lambda: AS_OF, cache=self.cache)
        self.replies = Replies(decider, ("authorization", "x-tenant-id"))
        self.cache.heard(self.cache.epoch, self.cache.clock(), "r1")

    def keep(self, key: Any, **fields: Any) -> Reply:
        """Keep a reply, which is asked for the second time."""
        lease = Lease(self.cache.epoch.number, AS_OF, 0)
        kept = reply(lambda _id, _age: b"", **({"lease": lease} | fields))
        for _ in range(2):
            self.replies.keep(key, kept)
        return kept


ONE = ("Authorize", b"request", [("authorization", "Bearer a"), ("x-tenant-id", "acme"), ("user-agent", "x")])
_OTHERS: dict[str, tuple[str, bytes, list[tuple[str, str | bytes]]]] = {
    "another method": ("FilterTools", ONE[1], [*ONE[2]]),
    "another request": (ONE[0], b"requests", [*ONE[2]]),
    "another token": (*ONE[:2], [("authorization", "Bearer b"), ("x-tenant-id", "acme")]),
    "no token": (*ONE[:2], [("x-tenant-id", "acme")]),
    "two tokens": (*ONE[:2], [*ONE[2], ("authorization", "Bearer a")]),
    "another tenant": (*ONE[:2], [("authorization", "Bearer a"), ("x-tenant-id", "globex")]),
    "a second tenant": (*ONE[:2], [*ONE[2], ("x-tenant-id", "globex")]),
    "the token under the name of the tenant": (*ONE[:2], [("x-tenant-id", "Bearer a"), ("authorization", "acme")]),
}


@pytest.mark.parametrize("other", _OTHERS.values(), ids=_OTHERS)
def test_a_reply_is_not_given_to_another_request(other: tuple[str, bytes, list[tuple[str, str | bytes]]]) -> None:
    memory = Memory()
    memory.keep(memory.replies.key(*ONE))

    assert memory.replies.find(memory.replies.key(*other)) is None


def test_a_reply_is_given_to_the_same_request_whatever_else_comes_with_it() -> None:
    memory = Memory()
    kept = memory.keep(memory.replies.key(*ONE))
    other = (*ONE[:2], [("x-request-id", "7"), *ONE[2][:2], ("traceparent", "00")])

    assert memory.replies.find(memory.replies.key(*other)) == (kept, AS_OF)


_NOT_KEPT: dict[str, dict[str, Any]] = {
    "has no lease": {"lease": None},
    "who asks is not to be believed again": {"lasts": lambda: False},
}


@pytest.mark.parametrize("fields", _NOT_KEPT.values(), ids=_NOT_KEPT)
def test_what_may_not_be_given_again_is_not_kept(fields: dict[str, Any]) -> None:
    memory = Memory()
    memory.keep(memory.replies.key(*ONE), **fields)

    assert memory.cache.bytes == 0


def test_a_reply_is_not_given_once_who_asked_is_not_believed_any_more() -> None:
    memory, believed = Memory(), [True]
    memory.keep(memory.replies.key(*ONE), lasts=lambda: believed[0])
    before = memory.replies.find(memory.replies.key(*ONE))
    believed[0] = False

    assert before is not None
    assert memory.replies.find(memory.replies.key(*ONE)) is None


_SIZES: dict[str, Callable[[int], Any]] = {
    "of requests": lambda n: ("Authorize", b"r" * 5000 + str(n).encode(), []),
    "of tokens": lambda n: ("Authorize", b"", [("authorization", "t" * 5000 + str(n))]),
}


@pytest.mark.parametrize("make", _SIZES.values(), ids=_SIZES)
def test_the_size_of_what_it_is_kept_under_counts(make: Callable[[int], Any]) -> None:
    memory = Memory(most=200_000)
    for number in range(100):
        memory.keep(memory.replies.key(*make(number)))

    assert memory.cache.evictions > 50
    assert sum(len(str(key)) for key in memory.cache.epoch.entries) < 200_000
