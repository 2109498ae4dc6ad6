"""What is remembered between a question and OPA's answer: nothing stale, nobody else's, nothing beyond its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from sidecar.engine.answers import BATCH, TOOLS
from sidecar.engine.cache import DecisionCache
from sidecar.engine.coalesce import COALESCED
from sidecar.engine.decide import Decider
from sidecar.errors import EngineUnavailableError, NotReadyError, RevisionRolledBackError, RevisionTooOldError
from sidecar.model import Identity, Item, Principal, Question, Resource, Subject, Tenant
from sidecar.settings import Settings
from tests.support.engines import WAIT, Asked, Callers, HeldEngine

if TYPE_CHECKING:
    from collections.abc import Callable

AS_OF = 1_795_478_400_000_000
SECOND = 1_000_000
SECONDS = 0.2

QUESTION = Question(Identity(Tenant("T"), Principal("p"), Subject("alice")), (Item(Resource("TOOL", "t")),))
BATCHED = replace(QUESTION, items=tuple(Item(Resource("TOOL", name)) for name in ("a", "b", "c")))


class Served:
    """The newest registry that was served, in memory."""

    as_of = 0

    def rise(self, as_of: int, _revision: str) -> None:
        self.as_of = as_of


class World:
    """An OPA with a revision, and a decider that remembers. What it decides says under which revision, and for whom."""

    def __init__(self, *, max_staleness: float | None = None, held: bool = False) -> None:
        self.boot = 100.0
        self.now = AS_OF + SECOND
        self.revision = "r1"
        self.as_of = AS_OF
        self.fields: dict[str, Any] = {}
        self.served = Served()
        self.engine = HeldEngine(self.answer, held=held)
        self.cache = DecisionCache(1 << 20, SECONDS, lambda: self.boot)
        self.decider = Decider(
            self.engine,
            Settings().policy,
            max_staleness,
            lambda: self.now,
            self.served,  # type: ignore[arg-type]  # it need not be on disk
            cache=self.cache,
        )

    def answer(self, asked: Asked) -> Any:
        """Decide as OPA does at this moment."""
        if asked.entrypoint == TOOLS:
            tools = [{"state": "ALLOWED", "code": "ALLOWED"} for _ in asked.body["input"]["items"]]
            return {**self.meta, "depends_on": [], **self.fields, "tools": tools}
        if asked.entrypoint == BATCH:
            return [self.decision(asked.tenants[0]) for _ in asked.body["input"]["items"]]
        decisions = [self.decision(tenant) for tenant in asked.tenants]
        return decisions if asked.entrypoint == COALESCED else decisions[0]

    @property
    def meta(self) -> dict[str, Any]:
        """What every answer says of the registry."""
        return {"revision": self.revision, "as_of": self.as_of}

    def decision(self, tenant: str) -> dict[str, Any]:
        """Make a decision; the probe, whose tenant has no id, gets the one that it must get."""
        if not tenant:
            return {"effect": "DENY", "code": "TENANT_UNKNOWN", "reason": "-", "depends_on": [], **self.meta}
        return {"effect": "ALLOW", "code": "ALLOWED", "reason": "-", "depends_on": [], **self.meta, **self.fields}

    def turn(self, revision: str, seconds: int) -> None:
        """Give OPA another registry, as of so many seconds after the first."""
        self.revision, self.as_of = revision, AS_OF + seconds * SECOND

    def hear(self) -> None:
        """Have OPA asked for its revision, as the monitor does."""
        self.decider.probe(deadline())

    def ask(self, question: Question = QUESTION) -> str:
        """Ask; give the revision of the answer."""
        return self.decider.decide(question, "id", deadline()).revision

    @property
    def queries(self) -> int:
        """How many queries there were that were not probes."""
        return sum(asked.tenants != [""] for asked in self.engine.asked)

    @property
    def probes(self) -> int:
        """How many probes there were."""
        return len(self.engine.asked) - self.queries


def deadline() -> float:
    """Give a deadline that does not matter."""
    return time.monotonic() + WAIT


@pytest.fixture
def world() -> World:
    """A world whose revision is known."""
    made = World()
    made.hear()
    return made


_METHODS: dict[str, Callable[[Decider], Any]] = {
    "decide": lambda decider: decider.decide(QUESTION, "id", deadline()),
    "decide_batch": lambda decider: decider.decide_batch(BATCHED, "id", deadline()),
    "filter_tools": lambda decider: decider.filter_tools(BATCHED, "id", deadline()),
}
each_method = pytest.mark.parametrize("ask", _METHODS.values(), ids=_METHODS)


# ── given again ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@each_method
def test_an_answer_is_given_again_without_opa(ask: Callable[[Decider], Any], world: World) -> None:
    first = ask(world.decider)

    assert ask(world.decider) == first
    assert world.queries == 1


@each_method
def test_a_denial_is_given_again_alike(ask: Callable[[Decider], Any], world: World) -> None:
    world.fields = {"max_staleness_seconds": 100}
    ask(world.decider)
    world.now += 200 * SECOND
    stale = ask(world.decider)

    assert "POLICY_STALE" in repr(stale)
    assert "ALLOW'" not in repr(stale)


@each_method
def test_nothing_is_remembered_where_nothing_is_to_be(ask: Callable[[Decider], Any]) -> None:
    engine = HeldEngine(World().answer)
    decider = Decider(engine, Settings().policy, clock=lambda: AS_OF)
    first = ask(decider)

    assert ask(decider) == first
    assert len(engine.asked) == 2


def test_items_of_a_batch_are_remembered_one_by_one(world: World) -> None:
    one = replace(BATCHED, items=BATCHED.items[1:2])
    world.ask(one)
    world.decider.decide_batch(BATCHED, "id", deadline())
    world.ask(replace(BATCHED, items=BATCHED.items[2:]))

    assert [len(asked.body["input"].get("items", ())) for asked in world.engine.asked] == [0, 0, 2]
    assert (world.cache.hits, world.cache.misses) == (2, 3)


def test_only_the_parts_that_a_decision_depends_on_are_compared(world: World) -> None:
    world.fields = {"depends_on": ["arguments"]}
    asked = [
        replace(QUESTION, items=(replace(QUESTION.items[0], arguments={"n": n}, context={"n": other}),))
        for n, other in ((1, 1), (1, 2), (2, 1), (1, 3))
    ]
    for question in asked:
        world.ask(question)

    assert world.queries == 2


# ── nothing stale ───────────────────────────────────────────────────────────────────────────────────────────────────────


@each_method
def test_nothing_is_given_under_a_revision_that_opa_does_not_have_any_more(
    ask: Callable[[Decider], Any], world: World
) -> None:
    ask(world.decider)
    world.turn("r2", 1)
    world.hear()

    assert "'r2'" in repr(ask(world.decider))


@each_method
def test_a_revision_that_changes_between_question_and_answer_leaves_nothing_behind(
    ask: Callable[[Decider], Any], world: World
) -> None:
    world.turn("r2", 1)
    during = ask(world.decider)
    after = ask(world.decider)

    assert "'r2'" in repr(during)
    assert after == during
    assert world.queries == 2


def test_an_answer_that_comes_after_the_next_revision_is_not_remembered() -> None:
    world, callers = World(), Callers()
    world.hear()
    slow = HeldEngine(lambda _: world.decision("T") | {"revision": "r1", "as_of": AS_OF}, held=True)
    decider = Decider(slow, Settings().policy, clock=lambda: world.now, cache=world.cache)
    callers.call("early", lambda: decider.decide(QUESTION, "id", deadline()).revision)
    slow.wait_for(1)
    world.turn("r2", 1)
    world.hear()
    slow.let_go()
    callers.join()

    assert callers.outcomes == {"early": "r1"}
    assert world.ask() == "r2"


@each_method
def test_nothing_is_given_when_opa_was_asked_too_long_ago_before_it_is_asked_again(
    ask: Callable[[Decider], Any], world: World
) -> None:
    ask(world.decider)
    world.boot += SECONDS
    world.turn("r2", 1)

    assert "'r2'" in repr(ask(world.decider))


@each_method
def test_after_a_pause_opa_is_asked_for_its_revision_and_not_for_what_is_remembered(
    ask: Callable[[Decider], Any], world: World
) -> None:
    first = ask(world.decider)
    world.boot += 3600

    assert ask(world.decider) == first
    assert (world.queries, world.probes) == (1, 2)


def test_after_a_pause_one_asks_for_the_revision_for_all() -> None:
    world, callers = World(held=True), Callers()
    world.engine.let_go(2)
    world.hear()
    world.ask()
    world.boot += SECONDS
    for number in range(8):
        callers.call(str(number), world.ask)
    world.engine.wait_for(3)
    world.engine.let_go()

    assert {*callers.join().values()} == {"r1"}
    assert (world.queries, world.probes) == (1, 2)


@each_method
def test_nothing_is_given_while_opa_cannot_be_asked_for_its_revision(
    ask: Callable[[Decider], Any], world: World
) -> None:
    def gone(_asked: Asked) -> Any:
        msg = "gone"
        raise EngineUnavailableError(msg)

    ask(world.decider)
    world.boot += SECONDS
    world.engine.answer = gone
    with pytest.raises(EngineUnavailableError):
        ask(world.decider)


def test_nothing_is_given_of_an_opa_that_has_lost_its_policies(world: World) -> None:
    world.ask()
    world.boot += SECONDS
    world.engine.answer = lambda _: None
    with pytest.raises(NotReadyError):
        world.ask()


@each_method
def test_nothing_is_given_that_is_older_than_what_was_served(ask: Callable[[Decider], Any], world: World) -> None:
    ask(world.decider)
    world.served.as_of = AS_OF + 1

    with pytest.raises(RevisionRolledBackError):
        ask(world.decider)


@each_method
def test_opa_is_asked_where_what_is_remembered_is_older_than_what_was_served(
    ask: Callable[[Decider], Any], world: World
) -> None:
    ask(world.decider)
    world.turn("r2", 1)
    world.served.as_of = world.as_of

    assert "'r2'" in repr(ask(world.decider))


@each_method
def test_an_older_registry_that_comes_back_gives_nothing_though_it_was_remembered(
    ask: Callable[[Decider], Any], world: World
) -> None:
    ask(world.decider)
    world.turn("r2", 1)
    world.hear()
    ask(world.decider)
    world.turn("r1", 0)

    ask(world.decider)  # within the interval: OPA has not been asked again
    world.boot += SECONDS
    with pytest.raises(RevisionRolledBackError):
        ask(world.decider)


def test_a_caller_who_wants_a_newer_registry_gets_nothing_older(world: World) -> None:
    world.ask()
    wanted = replace(QUESTION, min_as_of=AS_OF + SECOND)
    with pytest.raises(RevisionTooOldError):
        world.ask(wanted)
    world.turn("r2", 1)

    assert world.ask(wanted) == "r2"
    assert world.ask() == "r2"


def test_a_batch_is_of_one_revision_though_one_came_while_it_was_asked(world: World) -> None:
    world.decider.decide_batch(replace(BATCHED, items=BATCHED.items[:2]), "id", deadline())
    world.turn("r2", 1)
    decisions = world.decider.decide_batch(BATCHED, "id", deadline())

    assert [decision.revision for decision in decisions] == ["r2"] * 3
    assert (world.cache.hits, world.cache.misses) == (0, 2 + 3)


def test_a_batch_is_of_one_revision_though_one_came_while_it_was_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.decider.decide_batch(BATCHED, "id", deadline())
    looked_up, get = [], world.cache.get

    def get_while_it_changes(key: Any, came: float) -> Any:
        looked_up.append(key)
        if len(looked_up) == 2:
            world.turn("r2", 1)
            world.hear()
            world.decider.decide_batch(BATCHED, "id of others", deadline())
        return get(key, came)

    monkeypatch.setattr(world.cache, "get", get_while_it_changes)
    decisions = world.decider.decide_batch(BATCHED, "id", deadline())

    assert [decision.revision for decision in decisions] == ["r2"] * 3


# ── nothing beyond its time ─────────────────────────────────────────────────────────────────────────────────────────────


@each_method
def test_an_answer_ends_when_the_time_may_change_it(ask: Callable[[Decider], Any], world: World) -> None:
    world.fields = {"valid_until": world.now + 10}
    ask(world.decider)
    world.now += 9
    ask(world.decider)
    before = world.queries
    world.now += 1
    ask(world.decider)

    assert (before, world.queries) == (1, 2)


@each_method
def test_an_answer_that_has_ended_already_is_not_remembered(ask: Callable[[Decider], Any], world: World) -> None:
    world.fields = {"valid_until": world.now}
    ask(world.decider)
    world.now -= 1
    ask(world.decider)

    assert world.queries == 2


@each_method
def test_an_answer_is_not_given_for_a_time_before_it_was_made(ask: Callable[[Decider], Any], world: World) -> None:
    ask(world.decider)
    world.now -= 1
    ask(world.decider)

    assert world.queries == 2


@each_method
def test_what_depends_on_the_time_itself_is_not_remembered(ask: Callable[[Decider], Any], world: World) -> None:
    world.fields = {"depends_on": ["time"]}
    ask(world.decider)
    ask(world.decider)

    assert world.queries == 2


@pytest.mark.parametrize("bound", ["sidecar", "tenant"])
@each_method
def test_an_answer_is_stale_at_the_same_moment_whether_or_not_it_is_remembered(
    ask: Callable[[Decider], Any], bound: str
) -> None:
    world = World(max_staleness=60 if bound == "sidecar" else 90)
    world.fields = {} if bound == "sidecar" else {"max_staleness_seconds": 60}
    world.hear()
    ask(world.decider)
    world.now = AS_OF + 60 * SECOND
    fresh = ask(world.decider)
    world.now += 1
    stale = ask(world.decider)

    assert "POLICY_STALE" not in repr(fresh)
    assert "POLICY_STALE" in repr(stale)


# ── asked once ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask_at_once(world: World, questions: list[Question]) -> dict[str, Any]:
    """Have questions asked while OPA is busy with the first; give the revisions."""
    callers = Callers()
    before = len(world.engine.asked)
    callers.call("0", lambda: world.ask(questions[0]))
    world.engine.wait_for(before + 1)
    for number, question in enumerate(questions[1:], 1):
        callers.call(str(number), lambda question=question: world.ask(question))  # type: ignore[misc]
    world.engine.let_go()
    return callers.join()


def test_opa_is_asked_once_for_all_who_ask_the_same_at_once() -> None:
    world = World(held=True)
    world.engine.let_go(1)
    world.hear()

    assert _ask_at_once(world, [QUESTION] * 8) == {str(number): "r1" for number in range(8)}
    assert world.queries == 1
    assert world.cache.hits == 7


def test_who_asks_with_other_arguments_does_not_wait_for_an_answer_that_may_depend_on_them() -> None:
    world = World(held=True)
    world.fields = {"depends_on": ["arguments"]}
    world.engine.let_go(1)
    world.hear()
    item = QUESTION.items[0]
    others = [replace(QUESTION, items=(replace(item, arguments={"n": n}),)) for n in range(4)]
    _ask_at_once(world, others)

    asked = [question["arguments"]["n"] for query in world.engine.asked[1:] for question in query.questions]
    assert sorted(asked) == [0, 1, 2, 3]


def test_who_waited_for_an_answer_that_may_not_be_given_again_asks() -> None:
    world = World(held=True)
    world.fields = {"depends_on": ["time"]}
    world.engine.let_go(1)
    world.hear()
    _ask_at_once(world, [QUESTION] * 3)

    assert sum(len(asked.questions) for asked in world.engine.asked[1:]) == 3


def test_who_waited_for_an_answer_that_failed_asks() -> None:
    world = World(held=True)
    world.engine.let_go(1)
    world.hear()
    failed = iter([True])

    def answer(asked: Asked) -> Any:
        return None if next(failed, False) else world.answer(asked)

    world.engine.answer = answer
    told = _ask_at_once(world, [QUESTION] * 3)

    assert isinstance(told.pop("0"), NotReadyError)
    assert {*told.values()} == {"r1"}


def test_who_wants_a_newer_registry_does_not_take_the_answer_of_who_does_not() -> None:
    world = World(held=True)
    world.engine.let_go(1)
    world.hear()
    told = _ask_at_once(world, [QUESTION, replace(QUESTION, min_as_of=AS_OF + SECOND)])

    assert told["0"] == "r1"
    assert isinstance(told["1"], RevisionTooOldError)


# ── what doors have remembered ──────────────────────────────────────────────────────────────────────────────────────────


class Kept:
    """What a door has remembered."""

    answers = 3

    def __init__(self, world: World, *, believed: bool = True) -> None:
        self.lease = world.decider.decide_held(QUESTION, "id", deadline()).lease
        self.believed = believed

    def lasts(self) -> bool:
        return self.believed


def _remember(world: World, kept: Kept) -> None:
    for _ in range(2):
        world.decider.remember("key", kept, 100)


def test_a_door_is_given_what_it_had_remembered_the_second_time(world: World) -> None:
    kept = Kept(world)
    world.decider.remember("key", kept, 100)
    once = world.decider.recall("key")
    world.decider.remember("key", kept, 100)

    assert (once, world.decider.recall("key")) == (None, (kept, world.now))
    assert world.cache.hits == 3


def _turn(world: World, _kept: Kept) -> None:
    world.turn("r2", 1)
    world.hear()


_ENDS: dict[str, Callable[[World, Kept], Any]] = {
    "another revision": _turn,
    "OPA is said to have another": lambda world, _: world.cache.forget(),
    "OPA was asked too long ago": lambda world, _: setattr(world, "boot", world.boot + SECONDS),
    "a newer registry was served": lambda world, _: setattr(world.served, "as_of", AS_OF + 1),
    "it is stale": lambda world, _: setattr(world, "now", world.now + 60 * SECOND),
    "the clock has gone back": lambda world, _: setattr(world, "now", world.now - 1),
    "who asked is not believed any more": lambda _, kept: setattr(kept, "believed", False),
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=_ENDS)
def test_a_door_is_not_given_what_may_not_be_given_again(end: Callable[[World, Kept], Any]) -> None:
    world = World(max_staleness=60)
    world.hear()
    kept = Kept(world)
    _remember(world, kept)
    before = world.decider.recall("key")
    end(world, kept)

    assert before is not None
    assert world.decider.recall("key") is None


def test_what_may_never_be_given_again_is_not_remembered_for_a_door(world: World) -> None:
    _remember(world, Kept(world, believed=False))
    before = world.cache.bytes
    _remember(world, Kept(world))

    assert world.cache.bytes > before
