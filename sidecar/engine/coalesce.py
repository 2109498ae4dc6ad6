"""Questions that come while OPA is busy with others travel to it together, as one query; one that comes when it is not, at once.

Rule 1. Nobody waits for company. A question goes to OPA on its caller's own thread as long as few enough queries are under way.
        What comes meanwhile queues up, and goes as one query when one of those has ended: on the thread of the caller who has
        the most time, so that no one else's end cuts it short.

Rule 2. Nobody waits for others for long: who has waited for ``_PATIENCE`` in the queue goes, with all who are in it.

Rule 3. One question that fails does not fail those that it travels with. What OPA cannot decide is null in its place. When the
        query as a whole fails, each is asked once more by itself, on the thread of its caller.

Rule 4. Nobody waits beyond the own deadline. What comes for a caller who has gone is dropped.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import structlog

from sidecar import translate
from sidecar.engine.traces import traced_calls, working_for
from sidecar.errors import DeadlineExceededError, EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import Decision

log = structlog.get_logger(__name__)

AUTHORIZE = "tenantgate/authorize/decision"
COALESCED = "tenantgate/coalesced/decisions"

_UNDER_WAY = 1
"""How many queries may be under way before others queue up."""

_PATIENCE = 0.05
"""In seconds: long beside what OPA takes for a query, so that it is only reached when one hangs."""


class PolicyEngine(Protocol):
    """What answers queries: OPA, or a fake in tests."""

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Answer the query ``body`` for the rule at ``entrypoint`` with an HTTP status and body."""


class _Waiting:
    """A question on its way. ``batch`` are those that its caller is to take to OPA; ``answer`` is what came for it."""

    def __init__(self, question: bytes, decision_id: str, deadline: float) -> None:
        self.question = question
        self.decision_id = decision_id
        self.deadline = deadline
        self.taken = False
        self.batch: Sequence[_Waiting] = ()
        self.answer: bytes | None = None
        self.calls = traced_calls()
        self.turn = threading.Lock()
        self.turn.acquire()


class Coalescer:
    """Asks OPA for decisions, up to ``most`` of them in one query. ``sizes`` counts queries by how many they took along."""

    def __init__(self, engine: PolicyEngine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._lock = threading.Lock()
        self._under_way = 0
        self._queue: list[_Waiting] = []
        self.sizes: Counter[int] = Counter()

    def ask(self, question: bytes, decision_id: str, deadline: float) -> Decision:
        """Have a question decided, which is written as OPA's input. Raises ``EngineError`` or ``DeadlineExceededError``."""
        with self._lock:
            at_once = self._under_way < _UNDER_WAY or self._most == 1
            if at_once:
                self._under_way += 1
            else:
                waiting = _Waiting(question, decision_id, deadline)
                self._queue.append(waiting)
        if at_once:
            try:
                return self._ask_alone(question, decision_id, deadline)
            finally:
                self._hand_on(1)
        self._await(waiting)
        if waiting.batch:
            return self._lead(waiting)
        return self._read(waiting)

    def _lead(self, waiting: _Waiting) -> Decision:
        """Take a batch to OPA, of which one's own question is one, and let the others go."""
        batch = waiting.batch
        try:
            if len(batch) == 1:
                return self._ask_alone(waiting.question, waiting.decision_id, waiting.deadline)
            with working_for((*waiting.calls, *(call for one in batch if one is not waiting for call in one.calls))):
                self._ask_together(batch, waiting.deadline)
        finally:
            self._hand_on(len(batch))
            for one in batch:
                if one is not waiting:
                    one.turn.release()
        return self._read(waiting)

    def _read(self, waiting: _Waiting) -> Decision:
        """Read the answer that came; ask alone if none did."""
        if waiting.answer is None:
            return self._ask_alone(waiting.question, waiting.decision_id, waiting.deadline)
        return translate.one_of_many(waiting.answer)

    def _ask_alone(self, question: bytes, decision_id: str, deadline: float) -> Decision:
        body = translate.query_of(question, decision_id)
        return translate.decision_answer(*self._engine.query(AUTHORIZE, body, deadline))

    def _ask_together(self, batch: Sequence[_Waiting], deadline: float) -> None:
        try:
            body = translate.query_of_many([(one.question, one.decision_id) for one in batch])
            answers = translate.many_answers(*self._engine.query(COALESCED, body, deadline), len(batch))
        except (EngineError, DeadlineExceededError) as fault:
            # Each asks by itself, and is told then what is wrong with its own question.
            log.info("coalesced_query_failed", questions=len(batch), reason=str(fault))
        else:
            for one, answer in zip(batch, answers, strict=True):
                one.answer = answer

    def _hand_on(self, size: int) -> None:
        """Let those who have queued up go, as a query of that many questions has ended."""
        with self._lock:
            self.sizes[size] += 1
            if not self._queue:
                self._under_way -= 1
                return
            batch = self._take(self._most)
            leader = max(batch, key=lambda one: one.deadline)
            leader.batch = batch
        leader.turn.release()

    def _take(self, most: int) -> list[_Waiting]:
        batch, self._queue = self._queue[:most], self._queue[most:]
        for one in batch:
            one.taken = True
        return batch

    def _await(self, waiting: _Waiting) -> None:
        """Wait for the answer, or until it is one's turn to ask. Raises ``DeadlineExceededError``."""
        if waiting.turn.acquire(timeout=_left(waiting, _PATIENCE)):
            return
        with self._lock:
            if not waiting.taken:
                self._queue.remove(waiting)
                if _left(waiting) > 0:
                    self._under_way += 1
                    waiting.batch = [waiting, *self._take(self._most - 1)]
                    return
        if waiting.taken and waiting.turn.acquire(timeout=_left(waiting)):
            return
        with self._lock:
            if waiting.batch:
                return  # it has just been given the others to take along, who must be let go
        msg = "the deadline passed before OPA had decided"
        raise DeadlineExceededError(msg)


def _left(waiting: _Waiting, most: float = threading.TIMEOUT_MAX) -> float:
    return min(most, max(0.0, waiting.deadline - time.monotonic()))
