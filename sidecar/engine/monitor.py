"""Whether decisions can be made: asked over and over by a real evaluation, and told to whoever wants to know."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct

from sidecar.errors import EngineError, TenantgateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model import Decision

log = structlog.get_logger(__name__)

_WAITED_FOR_INTERVAL = 0.05


class Readiness(Struct, frozen=True):
    """What the last probe found. ``problem`` is empty when decisions can be made; ``as_of`` is microseconds since 1970."""

    serving: bool = False
    problem: str = "starting"
    revision: str = ""
    as_of: int = 0


class Monitor:
    """Probes at an interval, which ``interval`` gives in seconds, and at once when ``wake`` is called.

    ``probe`` takes a deadline and gives the decision on a question whose answer is known; ``on_change`` is called from the
    monitor's thread, with the readiness, whenever it is another than before.
    """

    def __init__(
        self,
        probe: Callable[[float], Decision],
        interval: Callable[[], float],
        timeout: float,
        on_change: Callable[[Readiness], None],
    ) -> None:
        self._probe = probe
        self._interval = interval
        self._timeout = timeout
        self._on_change = on_change
        self._wake = threading.Event()
        self._stopping = False
        self._changed = threading.Condition()
        self._readiness = Readiness()
        self._version = 0
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    @property
    def readiness(self) -> Readiness:
        """What the last probe found."""
        return self._readiness

    @property
    def waiting(self) -> int:
        """How many wait for a registry."""
        return self._waiting

    def start(self) -> None:
        """Probe once, then begin to probe at the interval."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Stop probing, and let everyone go who waits for a change."""
        self._stopping = True
        self._wake.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Probe now: something happened that may have changed the answer."""
        self._wake.set()

    def tell(self) -> None:
        """Let those who wait for a change see one: something else that they watch has changed."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def wait_for_as_of(self, as_of: int, deadline: float) -> bool:
        """Wait until decisions are made under a registry as of that moment or later; tell whether they are.

        ``deadline`` is a moment of ``time.monotonic()``. While anybody waits, it is probed more often.
        """
        with self._changed:
            self._waiting += 1
            self._wake.set()
            try:
                self._changed.wait_for(
                    lambda: self._readiness.as_of >= as_of or self._stopping, max(0.0, deadline - time.monotonic())
                )
            finally:
                self._waiting -= 1
            return self._readiness.as_of >= as_of

    def wait_for_change(self, seen: int, timeout: float) -> tuple[int, bool]:
        """Wait until there is another version than ``seen``; give the version, and whether there will be more."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen or self._stopping, timeout)
            return self._version, not self._stopping

    def _run(self) -> None:
        while not self._stopping:
            interval = self._interval()
            self._wake.wait(min(interval, _WAITED_FOR_INTERVAL) if self._waiting else interval)
            self._wake.clear()
            if not self._stopping:
                self._look()

    def _look(self) -> None:
        try:
            decision = self._probe(time.monotonic() + self._timeout)
        except TenantgateError as fault:
            kind = "OPA gives no decision" if isinstance(fault, EngineError) else "no decision"
            found = msgspec.structs.replace(self._readiness, serving=False, problem=f"{kind}: {fault}")
        else:
            found = Readiness(serving=True, problem="", revision=decision.revision, as_of=decision.as_of)
        if found == self._readiness:
            return
        if found.serving != self._readiness.serving or found.revision != self._readiness.revision:
            log.info("readiness", serving=found.serving, problem=found.problem, revision=found.revision)
        self._readiness = found
        self._on_change(found)
        self.tell()
