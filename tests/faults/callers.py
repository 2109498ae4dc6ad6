"""Those who ask, all the time: each with a connection of its own, one question after the other."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import grpc

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from tests.faults.truth import LIMIT, Asked

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from sidecar.gen.tenantgate.v1.decision_pb2 import Decision
    from tests.faults.truth import Truth

DEADLINE = 1.0
"""Seconds that a call may take."""

PAUSE = 0.005
"""Seconds between the calls of one caller: they are to see faults, not to be one."""

_QUICK_TO_CONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]


class Failure(NamedTuple):
    """A call without an answer: moments of ``time.monotonic()``, and the status."""

    began: float
    ended: float
    status: str


class Callers:
    """So many callers; every fourth asks about everything at once."""

    def __init__(self, address: Path, truth: Truth, number: int = 8) -> None:
        self._address = f"unix:{address}"
        self._truth = truth
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(number)]
        self.failures: list[Failure] = []
        self.answered = 0
        self.last_answers = [0.0] * number

    def __enter__(self) -> Self:
        """Begin, and wait until everyone has been answered once."""
        for thread in self._threads:
            thread.start()
        end = time.monotonic() + 30
        while min(self.last_answers) == 0.0:
            if time.monotonic() > end:
                self._stop.set()
                msg = f"nobody answers: {self.failures[-3:]}"
                raise TimeoutError(msg)
            self._stop.wait(0.01)
        self.failures.clear()  # nobody listened yet
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE * 5)

    def recovery(self, healed: float, quiet: float = 1.0, patience: float = 30.0) -> float:
        """Give the seconds from a moment until the last error of a call that began later: none came for ``quiet`` seconds."""
        end = time.monotonic() + patience
        while True:
            now = time.monotonic()
            last = max((f.ended for f in self.failures if f.began >= healed), default=healed)
            if now - last >= quiet and min(self.last_answers) > last:
                return last - healed
            if now > end:
                return float("inf")
            self._stop.wait(0.02)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        batch = number % 4 == 3
        with grpc.insecure_channel(self._address, options=_QUICK_TO_CONNECT) as channel:
            stub = AuthorizationServiceStub(channel)
            while not self._stop.wait(PAUSE):
                began, floor = time.monotonic(), self._truth.as_of
                wall = time.time()
                asked = _questions(chance) if batch else [chance.choice(_questions(chance))]
                try:
                    decisions = _ask(stub, asked)
                except grpc.RpcError as error:
                    self.failures.append(Failure(began, time.monotonic(), error.code().name))
                    continue
                for one, decision in zip(asked, decisions, strict=True):
                    self._truth.judge(one, decision, wall, floor)
                self.answered += 1
                self.last_answers[number] = time.monotonic()


def _questions(chance: random.Random) -> list[Asked]:
    """Give one question of each kind."""
    return [
        Asked("one", "open"),
        Asked("one", "granted"),
        Asked("one", "hours"),
        Asked("one", "payment", chance.randrange(1, 2 * LIMIT)),
        Asked("one", "never"),
        Asked("other", "open"),
        Asked("nobody", "open"),
    ]


def _ask(stub: AuthorizationServiceStub, asked: list[Asked]) -> list[Decision]:
    if len(asked) == 1:
        return [stub.Authorize(asked[0].request(), timeout=DEADLINE).decision]
    # A batch has one tenant.
    asked[:] = [one for one in asked if one.tenant == "one"]
    requests = [one.request() for one in asked]
    items = [pb.BatchAuthorizeItem(resource=r.resource, arguments=r.arguments) for r in requests]
    response = stub.BatchAuthorize(
        pb.BatchAuthorizeRequest(identity=requests[0].identity, items=items), timeout=DEADLINE
    )
    return [result.decision for result in response.results]
