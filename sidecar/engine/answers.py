"""From a question to OPA's answer: what is remembered by the rules of ``cache``, and OPA is asked for the rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar import translate
from sidecar.engine.cache import ALWAYS, Held, Lease, may_be_given
from sidecar.engine.coalesce import AUTHORIZE, Coalescer
from sidecar.engine.keys import ALL_PARTS, key_of_item, key_of_tools, keys_of_items
from sidecar.model import Action, Identity, Item, Principal, Question, Resource, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sidecar.engine.cache import DecisionCache, Epoch
    from sidecar.engine.coalesce import PolicyEngine
    from sidecar.engine.keys import Key
    from sidecar.model import Decision, Found, Listing, Part, Search
    from sidecar.translate import PolicySettings

BATCH = "tenantgate/batch/decisions"
TOOLS = "tenantgate/tools/listing"
SEARCH = "tenantgate/search/"

PROBE = Question(
    Identity(Tenant(""), Principal("agent:probe")), (Item(Resource("TOOL", "agent:tool:probe"), Action()),)
)
"""A question whose answer is known: no registry can hold a tenant without an id."""

_REVISION = "the revision"
"""The key of the flight of the question which revision OPA has."""

_Answer = TypeVar("_Answer", "Decision", "Listing")
_Heard = TypeVar("_Heard", "Decision", "Found")


class Asking(Struct, frozen=True):
    """On what terms a question is asked.

    ``now`` is the moment of the question and ``oldest`` that of the oldest registry which a remembered answer may be from, in
    microseconds since 1970; ``deadline`` is a moment of ``time.monotonic()``.
    """

    decision_id: str
    deadline: float
    now: int
    oldest: int = 0


class Answers:
    """Answers questions. With a ``cache``, what was answered before is given again; ``together`` questions go to OPA as one.

    ``max_staleness`` is the age of the registry, in seconds, from which on nothing is given again; ``None`` sets no bound. All
    methods raise ``EngineError`` or ``DeadlineExceededError``.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        settings: PolicySettings,
        *,
        cache: DecisionCache | None,
        together: int,
        max_staleness: float | None,
    ) -> None:
        self._engine = engine
        self._settings = translate.encode_settings(settings)
        self._cache = cache
        self._max_staleness = max_staleness
        self.coalescer = Coalescer(engine, together)

    def decide(self, question: Question, asking: Asking) -> Held[Decision]:
        """Answer a question about one item."""
        if self._cache is None:
            return Held(self._ask_one(question, asking))
        return self._answer(self._cache, question, key_of_item(question), self._ask_one, asking)

    def filter_tools(self, question: Question, asking: Asking) -> Held[Listing]:
        """Say which tools may be called at all."""
        if self._cache is None:
            return Held(self._ask_tools(question, asking))
        return self._answer(self._cache, question, key_of_tools(question), self._ask_tools, asking)

    def decide_batch(self, question: Question, asking: Asking) -> Sequence[Held[Decision]]:
        """Answer a question about many items, all under one revision."""

        def ask(places: Sequence[int]) -> tuple[Decision, ...]:
            some = replace(question, items=tuple([question.items[place] for place in places]))
            body = translate.items_query(some, asking.decision_id, asking.now, self._settings)
            return translate.batch_answer(*self._engine.query(BATCH, body, asking.deadline), len(places))

        cache, every = self._cache, range(len(question.items))
        if cache is None:
            return [*map(Held, ask(every))]
        came = self._come(cache, asking)
        epoch, began = cache.epoch, cache.clock()
        keys = keys_of_items(question)
        found = [_recall(cache, key, came, asking)[0] for key in keys]
        missing: Sequence[int] = [place for place in every if not _is_of(found[place], epoch)]
        if missing:
            decisions = ask(missing)
            cache.heard(epoch, began, decisions[0].revision)
            if len(missing) < len(found) and decisions[0].revision != epoch.revision:
                # The others were remembered under another.
                epoch, began, missing = cache.epoch, cache.clock(), every
                decisions = ask(every)
                cache.heard(epoch, began, decisions[0].revision)
            for place, decision in zip(missing, decisions, strict=True):
                found[place] = self._keep(cache, epoch, keys[place], decision, asking.now)
        cache.count(len(found) - len(missing), len(missing))
        return [held for held in found if held is not None]

    def search(
        self,
        kind: Literal["subjects", "resources", "actions"],
        question: Question,
        search: Search,
        asking: Asking,
    ) -> Found:
        """Search. What is found is not remembered."""
        body = translate.search_query(question, search, asking.decision_id, asking.now, self._settings)
        return self._hearing(lambda: translate.search_answer(*self._engine.query(SEARCH + kind, body, asking.deadline)))

    def probe(self, asking: Asking) -> Decision:
        """Ask OPA the question whose answer is known, at once and in any case."""
        body = translate.single_query(PROBE, asking.decision_id, asking.now, self._settings)
        return self._hearing(lambda: translate.decision_answer(*self._engine.query(AUTHORIZE, body, asking.deadline)))

    def _ask_one(self, question: Question, asking: Asking) -> Decision:
        asked = translate.single_input(question, asking.now, self._settings)
        return self.coalescer.ask(asked, asking.decision_id, asking.deadline)

    def _ask_tools(self, question: Question, asking: Asking) -> Listing:
        body = translate.items_query(question, asking.decision_id, asking.now, self._settings)
        return translate.tools_answer(*self._engine.query(TOOLS, body, asking.deadline), len(question.items))

    def _hearing(self, ask: Callable[[], _Heard]) -> _Heard:
        cache = self._cache
        if cache is None:
            return ask()
        epoch, began = cache.epoch, cache.clock()
        answer = ask()
        cache.heard(epoch, began, answer.revision)
        return answer

    def _answer(
        self,
        cache: DecisionCache,
        question: Question,
        key: Key,
        ask: Callable[[Question, Asking], _Answer],
        asking: Asking,
    ) -> Held[_Answer]:
        """Give what is remembered, or what others are being answered who ask the same, or ask."""
        came = self._come(cache, asking)
        epoch = cache.epoch
        held, whole = _recall(cache, key, came, asking)
        if held is not None:
            cache.count(1, 0)
            return held
        # What it depends on may not be known yet; then those ask the same whose questions are the same in every part.
        same = key.with_parts(ALL_PARTS) if whole is None else whole
        flight, own = cache.board(epoch, same)
        if not own:
            held = flight.wait(asking.deadline - time.monotonic())
            if held is not None and may_be_given(held.lease, asking.now, asking.oldest):
                cache.count(1, 0)
                return held
        try:
            began = cache.clock()
            answer = ask(question, asking)
            cache.heard(epoch, began, answer.revision)
            held = self._keep(cache, epoch, key, answer, asking.now)
            if own:
                flight.held = held
        finally:
            if own:
                cache.land(epoch, same, flight)
        cache.count(0, 1)
        return held

    def _come(self, cache: DecisionCache, asking: Asking) -> float:
        """Tell when a question came; have OPA asked for its revision if what is remembered could not be given otherwise.

        One asks for all who come: without that, a pause would send all of them to OPA with their questions, which would keep it
        busy until the next.
        """
        came = cache.clock()
        if cache.must_ask(came):
            epoch = cache.epoch
            flight, own = cache.board(epoch, _REVISION)
            if not own:
                flight.wait(asking.deadline - time.monotonic())
                return came
            try:
                self.probe(replace(asking, decision_id="probe"))
            finally:
                cache.land(epoch, _REVISION, flight)
        return came

    def _keep(self, cache: DecisionCache, epoch: Epoch, key: Key, answer: _Answer, now: int) -> Held[_Answer]:
        """Remember an answer to a question that was asked in an epoch, if it may be given again."""
        parts: Sequence[Part] | None = answer.depends_on
        until = min(ALWAYS if answer.valid_until is None else answer.valid_until, self._stale_from(answer))
        if parts is None or "time" in parts:
            return Held(answer)
        held = Held(answer, Lease(epoch.number, answer.as_of, now, until))
        whole = key.about
        if parts:
            cache.put(epoch.number, whole, parts, _size(whole))
            whole = key.with_parts(parts)
        cache.put(epoch.number, whole, held, _size(whole) + _TIMES_AS_JSON * len(_encoder.encode(answer)))
        return held

    def _stale_from(self, answer: Decision | Listing) -> int:
        """Tell from when on the registry of an answer may be too old, to a microsecond."""
        bounds = [bound for bound in (self._max_staleness, answer.max_staleness_seconds) if bound is not None]
        return answer.as_of + int(min(bounds) * translate.MICROSECONDS) if bounds else ALWAYS


def _recall(
    cache: DecisionCache, key: Key, came: float, asking: Asking
) -> tuple[Held[Any] | None, tuple[Hashable, ...] | None]:
    """Give what is remembered under a key, and the key with all that it depends on, if that is known."""
    found, whole = cache.get(key.about, came), key.about
    if found is None:
        return None, None
    if not isinstance(found, Held):
        whole = key.with_parts(found)
        found = cache.get(whole, came)
    if found is not None and not may_be_given(found.lease, asking.now, asking.oldest):
        found = None
    return found, whole


def _is_of(held: Held[Any] | None, epoch: Epoch) -> bool:
    return held is not None and held.lease is not None and held.lease.epoch == epoch.number


def _size(key: tuple[Any, ...]) -> int:
    return sum(map(len, key)) * 3 // 2  # what wrote them has kept some room


_encoder = msgspec.json.Encoder()
_TIMES_AS_JSON = 3
"""How many times larger an answer is, with what a door keeps of it, than written as JSON."""
