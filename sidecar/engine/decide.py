"""The one decision path: every front door ends here.

OPA decides. What is added is what OPA cannot know: whether its answer is an answer at all, how old the registry behind it is,
and what a caller demands of that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import msgspec
import uuid_utils

from sidecar import translate
from sidecar.errors import MalformedAnswerError, RevisionRolledBackError, RevisionTooOldError
from sidecar.model import (
    Action,
    Decision,
    Finding,
    Found,
    Identity,
    Item,
    Listing,
    Principal,
    Question,
    Resource,
    Search,
    Tenant,
    ToolAnswer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.engine.freshness import Served
    from sidecar.translate import PolicySettings

MICROSECONDS = translate.MICROSECONDS

AUTHORIZE = "tenantgate/authorize/decision"
BATCH = "tenantgate/batch/decisions"
TOOLS = "tenantgate/tools/listing"
SEARCH = "tenantgate/search/"

PROBE = Question(
    Identity(Tenant(""), Principal("agent:probe")), (Item(Resource("TOOL", "agent:tool:probe"), Action()),)
)
"""A question whose answer is known: no registry can hold a tenant without an id."""


class PolicyEngine(Protocol):
    """What answers queries: OPA, or a fake in tests."""

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Answer the query ``body`` for the rule at ``entrypoint`` with an HTTP status and body."""


def now_microseconds() -> int:
    """Tell the time in microseconds since 1970."""
    return time.time_ns() // 1000


def new_decision_id() -> str:
    """Make a decision id: a UUID of version 7, so that ids sort by time. Source: RFC 9562 section 5.7."""
    return str(uuid_utils.uuid7())


_Answer = TypeVar("_Answer")
_Dated = TypeVar("_Dated", Decision, Listing, Found)


def _itself(answer: _Dated) -> _Dated:
    return answer


def _oldest(decisions: tuple[Decision, ...]) -> Decision:
    return min(decisions, key=lambda decision: decision.as_of)


class Decider:
    """Decides questions by asking a policy engine.

    ``max_staleness`` is the age, in seconds, from which on every decision is POLICY_STALE; ``None`` sets no bound. A tenant may
    set a tighter one for itself in the registry. ``served`` remembers the newest registry that decisions were made under, before
    which none is made any more; ``None`` sets no such bound. ``wait`` waits for a registry as of a moment, until a deadline, and
    tells whether it is there; ``None`` where there will be no other. All deadlines are moments of ``time.monotonic()``.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        settings: PolicySettings,
        max_staleness: float | None = None,
        clock: Callable[[], int] = now_microseconds,
        served: Served | None = None,
    ) -> None:
        self._engine = engine
        self._settings = translate.encode_settings(settings)
        self._max_staleness = max_staleness
        self._served = served
        self.wait: Callable[[int, float], bool] | None = None
        self.clock = clock

    def decide(self, question: Question, decision_id: str, deadline: float) -> Decision:
        """Decide a question about one item.

        Raises ``EngineError``, ``DeadlineExceededError`` or ``RevisionTooOldError`` when there is no decision.
        """

        def ask(now: int) -> Decision:
            body = translate.single_query(question, decision_id, now, self._settings)
            return translate.decision_answer(*self._engine.query(AUTHORIZE, body, deadline))

        decision, now = self._ask(question, deadline, ask, _itself)
        return self._guard(decision, now)

    def decide_batch(self, question: Question, decision_id: str, deadline: float) -> tuple[Decision, ...]:
        """Decide a question about many items, in their order and all under one revision. Raises as ``decide``."""

        def ask(now: int) -> tuple[Decision, ...]:
            body = translate.items_query(question, decision_id, now, self._settings)
            return translate.batch_answer(*self._engine.query(BATCH, body, deadline), len(question.items))

        decisions, now = self._ask(question, deadline, ask, _oldest)
        return tuple(self._guard(decision, now) for decision in decisions)

    def filter_tools(self, question: Question, decision_id: str, deadline: float) -> Listing:
        """Say which tools may be called at all. Raises as ``decide``."""

        def ask(now: int) -> Listing:
            body = translate.items_query(question, decision_id, now, self._settings)
            return translate.tools_answer(*self._engine.query(TOOLS, body, deadline), len(question.items))

        listing, now = self._ask(question, deadline, ask, _itself)
        stale = self._staleness(listing.as_of, listing.max_staleness_seconds, now)
        if stale is None:
            return listing
        denied = ToolAnswer(state="DENIED", code="POLICY_STALE", reason=stale)
        return msgspec.structs.replace(listing, tools=(denied,) * len(listing.tools))

    def search(
        self,
        kind: Literal["subjects", "resources", "actions"],
        question: Question,
        search: Search,
        decision_id: str,
        deadline: float,
    ) -> Found:
        """Say for which of the subjects, resources or actions that the registry names it is an ALLOW. Raises as ``decide``."""

        def ask(now: int) -> Found:
            body = translate.search_query(question, search, decision_id, now, self._settings)
            return translate.search_answer(*self._engine.query(SEARCH + kind, body, deadline))

        found, now = self._ask(question, deadline, ask, _itself)
        if self._staleness(found.as_of, found.max_staleness_seconds, now) is None:
            return found
        return msgspec.structs.replace(found, found=(), next="")

    def probe(self, deadline: float) -> Decision:
        """Ask the real question once more and check the answer that is known beforehand.

        Raises ``EngineError``, also when OPA decides what it must not: ``MalformedAnswerError``.
        """
        body = translate.single_query(PROBE, "probe", self.clock(), self._settings)
        floor = self._floor()
        decision = translate.decision_answer(*self._engine.query(AUTHORIZE, body, deadline))
        self._check_floor(decision.revision, decision.as_of, floor)
        if (decision.effect, decision.code) != ("DENY", "TENANT_UNKNOWN"):
            msg = f"OPA answers {decision.effect} {decision.code} about a tenant that does not exist"
            raise MalformedAnswerError(msg)
        return decision

    def _guard(self, decision: Decision, now: int) -> Decision:
        stale = self._staleness(decision.as_of, decision.max_staleness_seconds, now)
        if stale is None:
            return decision
        explanation = decision.explanation
        if explanation is not None:
            findings = (Finding("POLICY_STALE", stale), *explanation.codes)
            explanation = msgspec.structs.replace(explanation, codes=findings)
        return Decision(
            effect="DENY",
            code="POLICY_STALE",
            reason=stale,
            revision=decision.revision,
            as_of=decision.as_of,
            depends_on=decision.depends_on,
            explanation=explanation,
        )

    def _staleness(self, as_of: int, tenant_bound: float | None, now: int) -> str | None:
        bounds = [bound for bound in (self._max_staleness, tenant_bound) if bound is not None]
        age = (now - as_of) / MICROSECONDS
        if not bounds or age <= min(bounds):
            return None
        return f"the registry in force is {age:.0f} s old, {min(bounds):g} s are accepted"

    def _floor(self) -> int:
        """Tell the oldest registry that a decision asked for from now on may be made under.

        Read before OPA is asked: an answer that was on its way while a newer one was served is no step back.
        """
        return 0 if self._served is None else self._served.as_of

    def _ask(
        self,
        question: Question,
        deadline: float,
        ask: Callable[[int], _Answer],
        dated: Callable[[_Answer], Decision | Listing | Found],
    ) -> tuple[_Answer, int]:
        """Ask, and once more after a wait if the answer is from an older registry than the question wants.

        Gives the moment of asking too. Raises ``RevisionTooOldError`` or ``RevisionRolledBackError``.
        """
        served = self._served
        for wait in (self.wait, None):
            now, floor = self.clock(), self._floor()
            answer = ask(now)
            revision, as_of = dated(answer).revision, dated(answer).as_of
            self._check_floor(revision, as_of, floor)
            if as_of >= question.min_as_of:
                if served is not None and as_of > served.as_of:
                    served.rise(as_of, revision)
                return answer, now
            if wait is None or not wait(question.min_as_of, deadline):
                break
        behind = (question.min_as_of - as_of) / MICROSECONDS
        msg = f"revision {revision} is {behind:.3f} s older than min_as_of asks for"
        raise RevisionTooOldError(msg)

    @staticmethod
    def _check_floor(revision: str, as_of: int, floor: int) -> None:
        if as_of < floor:
            behind = (floor - as_of) / MICROSECONDS
            msg = f"OPA decides under revision {revision}, {behind:.3f} s older than one that has been served"
            raise RevisionRolledBackError(msg)
