"""How new the registry behind decisions is: never older than before, and as new as a caller waits for.

Where several processes decide, none decides under an older registry than another has: they share one mark, in memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from sidecar.engine.durable import read_durable, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = structlog.get_logger(__name__)

_MICROSECONDS = 1_000_000
_MARGIN_SECONDS = 0.1
_MARGIN_SHARE = 0.2


class _Record(Struct, frozen=True):
    as_of: int
    revision: str


class Served:
    """The newest registry that a decision was given under, remembered across restarts. Raises ``StartError`` if it cannot be.

    With ``shared``, the processes that name the same file share it. A sidecar that starts has to ``unshare`` first.
    """

    def __init__(self, file: Path, *, shared: bool = False) -> None:
        self._file = file
        self._lock = threading.Lock()  # held while it is written, which happens once for each registry
        self._closed = False
        self._alone = file.with_suffix(".lock") if shared else None
        self._mark: list[int] | memoryview[int] = _shared_number(file.with_suffix(".mark")) if shared else [0]
        kept = read_durable(file, _Record, "how new a registry it has served, so that it serves an older one")
        with self._lock, self._one_process():
            self._mark[0] = max(self._mark[0], 0 if kept is None else kept.as_of)

    @property
    def as_of(self) -> int:
        """The moment of it, in microseconds since 1970."""
        return self._mark[0]

    def rise(self, as_of: int, revision: str) -> None:
        """Remember a newer one: on disk before this returns, while other calls go on."""
        with self._lock, self._one_process():
            if as_of <= self.as_of or self._closed:
                return
            self._mark[0] = as_of
            try:
                write_durably(self._file, _Record(as_of, revision))
            except OSError as fault:
                # Not to decide would be worse than to forget: what was taken in is remembered elsewhere too.
                log.error("served_not_kept", reason=str(fault))  # noqa: TRY400 - the reason is all there is

    def close(self) -> None:
        """Write no more: the state directory is another's from now on, while calls that outlived the drain may still end."""
        with self._lock:
            self._closed = True

    @contextmanager
    def _one_process(self) -> Iterator[None]:
        """Keep other processes from writing."""
        if self._alone is None:
            yield
            return
        with self._alone.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def unshare(file: Path) -> None:
    """Forget what processes that are gone shared: what counts is the file."""
    file.with_suffix(".mark").unlink(missing_ok=True)


def _shared_number(path: Path) -> memoryview[int]:
    """Give a number that is the same in all processes. A processor writes its eight bytes at once, so none sees half of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, 8)
        return memoryview(mmap.mmap(descriptor, 8)).cast("q")
    finally:
        os.close(descriptor)


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
