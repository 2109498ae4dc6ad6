"""Sinks on this host: standard output, and a file that is rotated."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PAUSE = 0.05
_MOST = 1 << 20


class StandardOutput:
    """Writes lines to standard output, for whoever reads what a container prints."""

    name = "stdout"
    pause = _PAUSE
    most = _MOST

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._sent = 0  # of what was given last; the same is given again after a failure

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines."""
        data = b"".join(lines)
        while self._sent < len(data):
            self._sent += os.write(self._descriptor, memoryview(data)[self._sent :])
        self._sent = 0

    def close(self) -> None:
        """Leave it open: it is not ours."""


class RotatingFile:
    """Appends lines to a file, which is named ``PATH.1`` before it has more than ``most_bytes``, and so on up to ``keep``.

    Several processes may append to the same file, and others may rename it: each looks, before it writes, whether it has the
    file that is there, and holds a lock on it meanwhile. Raises ``OSError`` if it cannot be opened.
    """

    name = "file"
    pause = _PAUSE

    def __init__(self, path: Path, most_bytes: int, keep: int) -> None:
        self.most = min(_MOST, most_bytes)
        self._path = path
        self._most_bytes = most_bytes
        self._keep = keep
        self._descriptor = self._open()

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines, all or none."""
        data = b"".join(lines)
        size = self._lock()
        try:
            if size and size + len(data) > self._most_bytes:
                self._rotate()
                size = self._lock()
            self._append(data, size)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _lock(self) -> int:
        """Hold the lock of the file that is there now; give its size."""
        while True:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            mine = os.fstat(self._descriptor)
            try:
                there = self._path.stat()
            except FileNotFoundError:
                there = None
            if there is not None and os.path.samestat(mine, there):
                return mine.st_size
            fresh = self._open()
            os.close(self._descriptor)  # and with it, the lock
            self._descriptor = fresh

    def _rotate(self) -> None:
        """Give every file the next name. Who waits for the lock finds another file in the place of this one."""
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names), [*reversed(names)][1:], strict=False):
            with suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            os.ftruncate(self._descriptor, 0)

    def _append(self, data: bytes, size: int) -> None:
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # who was to write the line before was killed
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise
