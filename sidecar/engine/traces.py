"""For whom a thread works, where calls are traced. Nothing here knows how: what is not traced needs no library for it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sidecar.model import Decision


class TracedCall(Protocol):
    """A call that is traced, while it is under way."""

    @property
    def trace_id(self) -> str:
        """The id of its trace, in 32 hexadecimal digits."""

    def decided(self, decision_id: str, decisions: Sequence[Decision]) -> None:
        """Tell it what was decided."""

    def failed(self, decision_id: str, status: str, reason: str) -> None:
        """Tell it that there is no decision: with the name of a gRPC status, and the stable reason."""


Calls = tuple[TracedCall, ...]

_calls: ContextVar[Calls] = ContextVar("calls", default=())


def traced_calls() -> Calls:
    """Give the calls that this thread works for: its own first, then those that it takes along. None is traced: empty."""
    return _calls.get()


@contextmanager
def working_for(calls: Iterable[TracedCall]) -> Iterator[None]:
    """Work for these calls for a while."""
    before = _calls.set(tuple(calls))
    try:
        yield
    finally:
        _calls.reset(before)
