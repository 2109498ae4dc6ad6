"""The one decision path: every front door ends here.

OPA decides. What is added is what OPA cannot know: whether its answer is an answer at all, how old the registry behind it is,
and what a caller demands of that. What it has decided before is given again by the rules of ``cache``, and passes the same
checks as what it decides now.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import uuid_utils
from msgspec.structs import replace

from sidecar import translate
from sidecar.engine.answers import Answers, Asking
from sidecar.engine.cache import Held, Lease, may_be_given
from sidecar.errors import MalformedAnswerError, RevisionRolledBackError, RevisionTooOldError
from sidecar.model import Decision, Finding, Found, Listing, Question, Search, ToolAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from sidecar.engine.cache import DecisionCache
    from sidecar.engine.coalesce import PolicyEngine
    from sidecar.engine.freshness import Served
    from sidecar.translate import PolicySettings

MICROSECONDS = translate.MICROSECONDS


def now_microseconds() -> int:
    """Tell the time in microseconds since 1970."""
    return time.time_ns() // 1000


def new_decision_id() -> str:
    """Make a decision id: a UUID of version 7, so that ids sort by time. Source: RFC 9562 section 5.7."""
    return str(uuid_utils.uuid7())


class Remembered(Protocol):
    """What a door gives again: so many ``answers`` at once, on a lease."""

    @property
    def lease(self) -> Lease | None:
        """For how long it may be given, if it may."""

    @property
    def answers(self) -> int:
        """How many they are."""

    def lasts(self) -> bool:
        """Tell whether all else is as it was then."""


_Answer = TypeVar("_Answer")
_Dated = Decision | Listing | Found
_One = TypeVar("_One", bound=_Dated)


class Decider:
    """Decides questions by asking a policy engine.

    ``max_staleness`` is the age, in seconds, from which on every decision is POLICY_STALE; ``None`` sets no bound. A tenant may
    set a tighter one for itself in the registry. ``served`` remembers the newest registry that decisions were made under, before
    which none is made any more; ``None`` sets no such bound. ``cache`` remembers what was decided; ``None`` has nothing
    remembered. ``together`` is how many questions of different callers OPA is asked at once at the most. ``wait`` waits for a
    registry as of a moment, until a deadline, and tells whether it is there; ``None`` where there will be no other. All deadlines
    are moments of ``time.monotonic()``.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        settings: PolicySettings,
        max_staleness: float | None = None,
        clock: Callable[[], int] = now_microseconds,
        served: Served | None = None,
        *,
        cache: DecisionCache | None = None,
        together: int = 64,
    ) -> None:
        self._answers = Answers(engine, settings, cache=cache, together=together, max_staleness=max_staleness)
        self._max_staleness = max_staleness
        self._served = served
        self._cache = cache
        self.wait: Callable[[int, float], bool] | None = None
        self.clock = clock

    def decide(self, question: Question, decision_id: str, deadline: float) -> Decision:
        """Decide a question about one item.

        Raises ``EngineError``, ``DeadlineExceededError`` or ``RevisionTooOldError`` when there is no decision.
        """
        return self.decide_held(question, decision_id, deadline).answer

    def decide_batch(self, question: Question, decision_id: str, deadline: float) -> tuple[Decision, ...]:
        """Decide a question about many items, in their order and all under one revision. Raises as ``decide``."""
        return tuple([held.answer for held in self.decide_batch_held(question, decision_id, deadline)])

    def filter_tools(self, question: Question, decision_id: str, deadline: float) -> Listing:
        """Say which tools may be called at all. Raises as ``decide``."""
        return self.filter_tools_held(question, decision_id, deadline).answer

    def decide_held(self, question: Question, decision_id: str, deadline: float) -> Held[Decision]:
        """Do as ``decide`` does, and say for how long the decision holds."""
        return self._guard(*self._ask(question, decision_id, deadline, self._answers.decide, _answer_of))

    def decide_batch_held(self, question: Question, decision_id: str, deadline: float) -> tuple[Held[Decision], ...]:
        """Do as ``decide_batch`` does, and say for how long each decision holds."""
        held, now = self._ask(question, decision_id, deadline, self._answers.decide_batch, _oldest_of)
        return tuple([self._guard(one, now) for one in held])

    def filter_tools_held(self, question: Question, decision_id: str, deadline: float) -> Held[Listing]:
        """Do as ``filter_tools`` does, and say for how long the listing holds."""
        held, now = self._ask(question, decision_id, deadline, self._answers.filter_tools, _answer_of)
        listing = held.answer
        stale = self._staleness(listing.as_of, listing.max_staleness_seconds, now)
        if stale is None:
            return held
        denied = ToolAnswer(state="DENIED", code="POLICY_STALE", reason=stale)
        return Held(replace(listing, tools=(denied,) * len(listing.tools)))

    def search(
        self,
        kind: Literal["subjects", "resources", "actions"],
        question: Question,
        search: Search,
        decision_id: str,
        deadline: float,
    ) -> Found:
        """Say for which of the subjects, resources or actions that the registry names it is an ALLOW. Raises as ``decide``."""

        def ask(question: Question, asking: Asking) -> Held[Found]:
            return Held(self._answers.search(kind, question, search, asking))

        held, now = self._ask(question, decision_id, deadline, ask, _answer_of)
        found = held.answer
        if self._staleness(found.as_of, found.max_staleness_seconds, now) is None:
            return found
        return replace(found, found=(), next="")

    def probe(self, deadline: float) -> Decision:
        """Ask the real question once more and check the answer that is known beforehand.

        Raises ``EngineError``, also when OPA decides what it must not: ``MalformedAnswerError``.
        """
        floor = self._floor()
        decision = self._answers.probe(Asking("probe", deadline, self.clock()))
        self._check_floor(decision.revision, decision.as_of, floor)
        if (decision.effect, decision.code) != ("DENY", "TENANT_UNKNOWN"):
            msg = f"OPA answers {decision.effect} {decision.code} about a tenant that does not exist"
            raise MalformedAnswerError(msg)
        return decision

    @property
    def sizes(self) -> Mapping[int, int]:
        """How many queries took how many questions of different calls to OPA."""
        return self._answers.coalescer.sizes

    @property
    def remembers(self) -> bool:
        """Whether anything is remembered."""
        return self._cache is not None

    def recall(self, key: Hashable) -> tuple[Any, int] | None:
        """Give what a door has had remembered under a key, if it may be given again now, and the moment of that."""
        cache = self._cache
        if cache is None:
            return None
        kept: Remembered | None = cache.get(key, cache.clock())
        if kept is None:
            return None
        now = self.clock()
        if not may_be_given(kept.lease, now, self._floor()) or not kept.lasts():
            return None
        cache.count(kept.answers, 0)
        return kept, now

    def remember(self, key: Hashable, kept: Remembered, size: int) -> None:
        """Remember, for a door, what it may give again: so many bytes, and only for a key that comes a second time."""
        if self._cache is not None and kept.lease is not None and self._cache.comes_again(key) and kept.lasts():
            self._cache.put(kept.lease.epoch, key, kept, size)

    def _guard(self, held: Held[Decision], now: int) -> Held[Decision]:
        decision = held.answer
        stale = self._staleness(decision.as_of, decision.max_staleness_seconds, now)
        if stale is None:
            return held
        explanation = decision.explanation
        if explanation is not None:
            findings = (Finding("POLICY_STALE", stale), *explanation.codes)
            explanation = replace(explanation, codes=findings)
        return Held(
            Decision(
                effect="DENY",
                code="POLICY_STALE",
                reason=stale,
                revision=decision.revision,
                as_of=decision.as_of,
                depends_on=decision.depends_on,
                explanation=explanation,
            )
        )

    def _staleness(self, as_of: int, tenant_bound: float | None, now: int) -> str | None:
        if self._max_staleness is None and tenant_bound is None:
            return None
        bounds = [bound for bound in (self._max_staleness, tenant_bound) if bound is not None]
        age = (now - as_of) / MICROSECONDS
        if age <= min(bounds):
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
        decision_id: str,
        deadline: float,
        ask: Callable[[Question, Asking], _Answer],
        dated_of: Callable[[_Answer], _Dated],
    ) -> tuple[_Answer, int]:
        """Ask, and once more after a wait if the answer is from an older registry than the question wants.

        ``dated_of`` gives what of an answer is from the oldest registry. Gives the moment of asking too. Raises
        ``RevisionTooOldError`` or ``RevisionRolledBackError``.
        """
        served = self._served
        for wait in (self.wait, None):
            now, floor = self.clock(), self._floor()
            answer = ask(question, Asking(decision_id, deadline, now, max(floor, question.min_as_of)))
            dated = dated_of(answer)
            revision, as_of = dated.revision, dated.as_of
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


def _answer_of(held: Held[_One]) -> _One:
    return held.answer


def _oldest_of(held: Sequence[Held[Decision]]) -> Decision:
    return min([one.answer for one in held], key=lambda decision: decision.as_of)
