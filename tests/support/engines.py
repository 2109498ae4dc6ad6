"""Policy engines for unit tests: what they answer a function gives, and they can be held while they are asked."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.engine.coalesce import COALESCED
from sidecar.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 20.0
"""Seconds after which a test that waits for a thread fails."""


class Asked(NamedTuple):
    """A query as it reached the engine."""

    entrypoint: str
    body: dict[str, Any]
    deadline: float

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The inputs that are asked about."""
        read = self.body["input"]
        questions: list[dict[str, Any]] = read["questions"] if self.entrypoint == COALESCED else [read]
        return questions

    @property
    def tenants(self) -> list[str]:
        """The tenants that are asked about, which tell questions apart."""
        return [question["tenant"]["id"] for question in self.questions]


class HeldEngine:
    """Answers each query with ``answer``, once it is let go: while it is held, queries wait within it.

    ``answer`` gives the result of a query, or raises. ``asked`` are the queries that reached it, in their order.
    """

    def __init__(self, answer: Callable[[Asked], Any], *, held: bool = False) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self._gate = threading.Semaphore(0 if held else 1_000_000)
        self._arrived = threading.Condition()

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Answer a query."""
        asked = Asked(entrypoint, json.loads(body), deadline)
        with self._arrived:
            self.asked.append(asked)
            self._arrived.notify_all()
        if not self._gate.acquire(timeout=WAIT):
            msg = "the test did not let it go"
            raise EngineUnavailableError(msg)
        result = self.answer(asked)
        return 200, json.dumps({} if result is None else {"result": result}).encode()

    def let_go(self, queries: int = 1_000_000) -> None:
        """Let so many queries be answered."""
        self._gate.release(queries)

    def wait_for(self, queries: int) -> None:
        """Wait until so many queries have reached it."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.asked) >= queries, WAIT), self.asked


class Callers:
    """Threads that call, and what came of it."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.outcomes: dict[str, Any] = {}

    def call(self, name: str, function: Callable[[], Any]) -> None:
        """Call a function on a thread of its own."""

        def run() -> None:
            try:
                self.outcomes[name] = function()
            except Exception as fault:  # noqa: BLE001 - the test looks at it
                self.outcomes[name] = fault

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> dict[str, Any]:
        """Wait until all have ended; give what each call gave, or raised."""
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive(), thread.name
        return self.outcomes
