"""A clock for what asks one."""

from __future__ import annotations


class Clock:
    """A clock that stands still until a test sets ``now``, in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
