"""How new the registry behind decisions is: never older than before, and as new as a caller waits for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from sidecar.engine.durable import read_durable, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

_MICROSECONDS = 1_000_000
_MARGIN_SECONDS = 0.1
_MARGIN_SHARE = 0.2


class _Record(Struct, frozen=True):
    as_of: int
    revision: str


class Served:
    """The newest registry that a decision was given under, remembered across restarts. Raises ``StartError`` if it cannot be."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()  # held while it is written, which happens once for each registry
        self._closed = False
        kept = read_durable(file, _Record, "how new a registry it has served, so that it serves an older one")
        self.as_of = 0 if kept is None else kept.as_of

    def rise(self, as_of: int, revision: str) -> None:
        """Remember a newer one: on disk before this returns, while other calls go on."""
        with self._lock:
            if as_of <= self.as_of or self._closed:
                return
            self.as_of = as_of
            try:
                write_durably(self._file, _Record(as_of, revision))
            except OSError as fault:
                # Not to decide would be worse than to forget: what was taken in is remembered elsewhere too.
                log.error("served_not_kept", reason=str(fault))  # noqa: TRY400 - the reason is all there is

    def close(self) -> None:
        """Write no more: the state directory is another's from now on, while calls that outlived the drain may still end."""
        with self._lock:
            self._closed = True


class Waiting:
    """Lets a bounded number of calls wait for a newer registry, none so long that it could not be told that there is none.

    ``wait`` waits until a deadline for a registry as of a moment, and tells whether it is there.
    """

    def __init__(self, wait: Callable[[int, float], bool], most: int, clock: Callable[[], int]) -> None:
        self._wait = wait
        self._places = threading.Semaphore(most)
        self._clock = clock

    def __call__(self, as_of: int, deadline: float) -> bool:
        """Wait if there is hope and room; tell whether the registry is there."""
        left = deadline - time.monotonic()
        left -= min(_MARGIN_SECONDS, left * _MARGIN_SHARE)
        # no registry is from the future
        if left <= 0 or as_of > self._clock() + left * _MICROSECONDS or not self._places.acquire(blocking=False):
            return False
        try:
            return self._wait(as_of, time.monotonic() + left)
        finally:
            self._places.release()
