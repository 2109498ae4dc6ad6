"""Questions that come while OPA is busy: who takes them along, who fails, who waits, and for how long."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sidecar import translate
from sidecar.engine import coalesce
from sidecar.engine.coalesce import AUTHORIZE, COALESCED, Coalescer
from sidecar.errors import (
    DeadlineExceededError,
    EngineUnavailableError,
    EvaluationError,
    MalformedAnswerError,
    NotReadyError,
)
from sidecar.model import Identity, Item, Principal, Question, Resource, Tenant
from sidecar.settings import Settings
from tests.support.engines import WAIT, Asked, Callers, HeldEngine
from tests.support.fake_opa import DENY
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

_SETTINGS = translate.encode_settings(Settings().policy)


def decision(tenant: str) -> dict[str, Any]:
    """Give a decision by which one sees who asked."""
    return DENY | {"reason": f"of {tenant}"}


def honest(asked: Asked) -> Any:
    """Decide each question by itself."""
    decisions = [decision(tenant) for tenant in asked.tenants]
    return decisions if asked.entrypoint == COALESCED else decisions[0]


class Meeting:
    """Callers of one coalescer, whose engine is held."""

    def __init__(self, answer: Callable[[Asked], Any] = honest, most: int = 64) -> None:
        self.engine = HeldEngine(answer, held=True)
        self.coalescer = Coalescer(self.engine, most)
        self._callers = Callers()
        self._queued = 0

    def ask(self, name: str, seconds: float = WAIT) -> None:
        """Have a caller ask, whose tenant is named as it is."""
        question = Question(Identity(Tenant(name), Principal("p")), (Item(Resource("TOOL", "t")),))
        body = translate.single_input(question, 0, _SETTINGS)
        deadline = time.monotonic() + seconds

        def call() -> str:
            return self.coalescer.ask(body, f"id of {name}", deadline).reason

        self._callers.call(name, call)

    def ask_first(self, name: str) -> None:
        """Have a caller ask, and wait until OPA is busy with that."""
        self.ask(name)
        self.engine.wait_for(1)

    def queue(self, *names: str, seconds: float = WAIT) -> None:
        """Have callers ask, one after the other, and wait until each is in the queue."""
        for name in names:
            self._queued += 1
            self.ask(name, seconds)
            wait_until(lambda: len(self.coalescer._queue) == self._queued)

    def end(self) -> dict[str, Any]:
        """Let all go; give what each caller was told."""
        self.engine.let_go()
        return self._callers.join()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody lose patience, but where a test says so."""
    monkeypatch.setattr(coalesce, "_PATIENCE", WAIT)


# ── rule 1: nobody waits for company ────────────────────────────────────────────────────────────────────────────────────


def test_a_question_goes_at_once_when_opa_is_not_busy() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.engine.let_go(1)
    meeting.end()
    meeting.ask("b")

    assert meeting.end() == {"a": "of a", "b": "of b"}
    assert [(asked.entrypoint, asked.tenants) for asked in meeting.engine.asked] == [
        (AUTHORIZE, ["a"]),
        (AUTHORIZE, ["b"]),
    ]


def test_what_comes_while_opa_is_busy_goes_as_one_query_and_each_gets_its_own_answer() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.queue("b", "c", "d")
    told = meeting.end()

    assert told == {name: f"of {name}" for name in "abcd"}
    assert [(asked.entrypoint, asked.tenants) for asked in meeting.engine.asked] == [
        (AUTHORIZE, ["a"]),
        (COALESCED, ["b", "c", "d"]),
    ]


def test_opas_log_can_tell_whose_questions_they_were() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.queue("b", "c")
    meeting.end()

    assert meeting.engine.asked[0].body["decision_id"] == "id of a"
    assert meeting.engine.asked[1].body["decision_ids"] == ["id of b", "id of c"]


def test_one_question_that_waited_goes_by_itself_and_others_wait_for_it() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.queue("b")
    meeting.engine.let_go(1)
    meeting.engine.wait_for(2)
    meeting._queued = 0
    meeting.queue("c", "d")
    meeting.end()

    assert [(asked.entrypoint, asked.tenants) for asked in meeting.engine.asked] == [
        (AUTHORIZE, ["a"]),
        (AUTHORIZE, ["b"]),
        (COALESCED, ["c", "d"]),
    ]


def test_no_query_holds_more_than_it_may() -> None:
    meeting = Meeting(most=3)
    meeting.ask_first("a")
    meeting.queue(*"bcdefgh")
    told = meeting.end()

    assert told == {name: f"of {name}" for name in "abcdefgh"}
    assert [len(asked.tenants) for asked in meeting.engine.asked] == [1, 3, 3, 1]


def test_every_question_goes_alone_and_at_once_where_one_is_the_most() -> None:
    meeting = Meeting(most=1)
    for name in "abc":
        meeting.ask(name)
    meeting.engine.wait_for(3)

    assert meeting.end() == {name: f"of {name}" for name in "abc"}
    assert {asked.entrypoint for asked in meeting.engine.asked} == {AUTHORIZE}


def test_the_caller_with_the_most_time_takes_the_others_along() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.queue("b", seconds=WAIT - 5)
    meeting.queue("c", seconds=WAIT + 5)
    meeting.queue("d", seconds=WAIT)
    now = time.monotonic()
    meeting.end()

    assert meeting.engine.asked[1].deadline > now + WAIT


# ── rule 2: patience ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_has_waited_for_long_goes_with_all_who_are_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.queue("b", "c")
    monkeypatch.setattr(coalesce, "_PATIENCE", 0.0)
    meeting.ask("d")
    meeting.engine.wait_for(2)

    assert meeting.end() == {name: f"of {name}" for name in "abcd"}
    assert sorted(meeting.engine.asked[1].tenants) == ["b", "c", "d"]


# ── rule 3: one does not fail the others ────────────────────────────────────────────────────────────────────────────────


def _told_alone(meeting: Meeting) -> Any:
    """Give what comes of the second of three questions; the others are answered."""
    meeting.ask_first("a")
    meeting.queue("b", "c")
    told = meeting.end()
    alone = told.pop("b")
    assert told == {"a": "of a", "c": "of c"}
    return alone


def test_a_question_that_cannot_be_decided_fails_alone() -> None:
    def answer(asked: Asked) -> Any:
        decisions = [None if tenant == "b" else decision(tenant) for tenant in asked.tenants]
        return decisions if asked.entrypoint == COALESCED else decisions[0]

    assert isinstance(_told_alone(Meeting(answer)), NotReadyError)


def test_an_answer_that_is_no_decision_fails_alone() -> None:
    def answer(asked: Asked) -> Any:
        decisions = [decision(tenant) | ({"allow": True} if tenant == "b" else {}) for tenant in asked.tenants]
        return decisions if asked.entrypoint == COALESCED else decisions[0]

    assert isinstance(_told_alone(Meeting(answer)), MalformedAnswerError)


def _fails(_asked: Asked) -> Any:
    msg = "a builtin failed"
    raise EvaluationError(msg)


_WHOLE: dict[str, Callable[[Asked], Any]] = {
    "cannot be evaluated": _fails,
    "is undefined": lambda _: None,
    "has too few answers": lambda asked: honest(asked)[1:],
    "has too many": lambda asked: [*honest(asked), decision("nobody")],
    "is no list": lambda asked: honest(asked)[0],
}


@pytest.mark.parametrize("together", _WHOLE.values(), ids=_WHOLE)
def test_when_the_query_as_a_whole_fails_each_asks_by_itself(together: Callable[[Asked], Any]) -> None:
    meeting = Meeting(lambda asked: together(asked) if asked.entrypoint == COALESCED else honest(asked))
    meeting.ask_first("a")
    meeting.queue("b", "c", "d")

    assert meeting.end() == {name: f"of {name}" for name in "abcd"}
    assert sorted(asked.tenants[0] for asked in meeting.engine.asked[2:]) == ["b", "c", "d"]


def test_each_is_told_what_is_wrong_with_the_own_question() -> None:
    def answer(asked: Asked) -> Any:
        if "b" in asked.tenants:
            _fails(asked)
        return honest(asked)

    assert isinstance(_told_alone(Meeting(answer)), EvaluationError)


def test_what_fails_in_an_unforeseen_way_leaves_nobody_waiting() -> None:
    def answer(asked: Asked) -> Any:
        if asked.entrypoint == COALESCED:
            msg = "a bug"
            raise RuntimeError(msg)
        return honest(asked)

    meeting = Meeting(answer)
    meeting.ask_first("a")
    meeting.queue("b", "c", "d")
    told = meeting.end()

    assert sum(isinstance(outcome, RuntimeError) for outcome in told.values()) == 1
    assert sum(outcome == f"of {name}" for name, outcome in told.items()) == 3


def test_a_question_that_fails_leaves_the_way_free_for_the_next() -> None:
    meeting = Meeting(partial(_fails))
    meeting.ask_first("a")
    meeting.queue("b")
    told = meeting.end()
    meeting.engine.answer = honest
    meeting.ask("c")
    after = meeting.end()

    assert {type(told["a"]), type(told["b"])} == {EvaluationError}
    assert after["c"] == "of c"
    assert meeting.coalescer._under_way == 0


# ── rule 4: nobody waits beyond the own deadline ────────────────────────────────────────────────────────────────────────


def test_who_has_no_time_left_leaves_the_queue_and_takes_no_one_along() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.ask("b", seconds=0.05)
    wait_until(lambda: "b" in meeting._callers.outcomes)
    meeting.queue("c")
    told = meeting.end()

    assert isinstance(told["b"], DeadlineExceededError)
    assert told["c"] == "of c"
    assert [asked.tenants for asked in meeting.engine.asked] == [["a"], ["c"]]


def test_who_runs_out_of_time_on_the_way_does_not_wait_for_the_others() -> None:
    meeting = Meeting()
    meeting.ask_first("a")
    meeting.queue("b", seconds=2.5)
    meeting._queued = 1
    meeting.queue("c")
    meeting.engine.let_go(1)
    meeting.engine.wait_for(2)
    wait_until(lambda: "b" in meeting._callers.outcomes)
    before = dict(meeting._callers.outcomes)
    told = meeting.end()

    assert meeting.engine.asked[1].tenants == ["b", "c"]
    assert isinstance(before["b"], DeadlineExceededError)
    assert told["c"] == "of c"


def test_an_opa_that_is_gone_is_told_to_all_who_asked() -> None:
    def answer(_asked: Asked) -> Any:
        msg = "gone"
        raise EngineUnavailableError(msg)

    meeting = Meeting(answer)
    meeting.ask_first("a")
    meeting.queue("b", "c")

    assert {type(outcome) for outcome in meeting.end().values()} == {EngineUnavailableError}


def test_many_callers_at_once_all_get_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "_PATIENCE", 0.001)
    meeting = Meeting(most=5)
    meeting.engine.let_go()
    names = [f"caller {number}" for number in range(300)]
    for name in names:
        meeting.ask(name)

    assert meeting.end() == {name: f"of {name}" for name in names}
    assert meeting.coalescer._under_way == 0
    assert not meeting.coalescer._queue
