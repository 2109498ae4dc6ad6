"""Logs: one line, one dictionary with stable keys, on standard error."""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import msgspec
import structlog

if TYPE_CHECKING:
    from structlog.types import EventDict

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_encoder = msgspec.json.Encoder(enc_hook=repr)


def configure_logs(level: str, form: str, *, at_once: bool = False, **facts: int) -> None:
    """Write lines from ``level`` on to standard error: ``json`` for machines, ``text`` for people. Each has the ``facts``.

    ``at_once`` is for a process that may be stopped as soon as it has answered.
    """
    lines = _Lines(sys.stderr.buffer, at_once=at_once) if form == "json" else None
    structlog.configure(
        processors=[*([partial(_with, facts)] if facts else []), *(_for_people() if lines is None else [_stamped])],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if lines is None else lambda *_: lines,
        cache_logger_on_first_use=True,
    )


def _for_people() -> list[structlog.types.Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]


def _with(facts: dict[str, int], _logger: Any, _level: str, event: EventDict) -> EventDict:
    event.update(facts)
    return event


def _stamped(logger: Any, level: str, event: EventDict) -> EventDict:
    """Do what the processors above do at the moment of a line; the rest can wait."""
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    return event


def _written(event: EventDict) -> bytes:
    try:
        return _encoder.encode(event) + b"\n"
    except (UnicodeEncodeError, TypeError):  # half a surrogate pair, say, which has no bytes but an escape
        return json.dumps({name: str(value) for name, value in event.items()}).encode() + b"\n"


class _Lines:
    """Writes lines as JSON, in their order: those that only inform up to ``_PAUSE`` seconds later, many of them at once.

    To write is to let other threads go first. A call that wrote its own line would wait for all the others.
    """

    _PAUSE = 0.02
    _MOST = 10_000  # lines that wait; when there are more, who adds one waits until they are written

    def __init__(self, stream: IO[bytes], *, at_once: bool = False) -> None:
        self._stream = stream
        self._most = 0 if at_once else self._MOST
        self._waiting: deque[EventDict] = deque()
        self._lock = threading.Lock()  # held while lines are written, so that they stay in order
        self._some = threading.Event()
        self._pause = threading.Event()
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)

    def debug(self, **event: Any) -> None:
        """Write a line soon."""
        self._waiting.append(event)
        if not self._some.is_set():
            self._some.set()
        if len(self._waiting) > self._most:
            self.flush()

    info = debug

    def warning(self, **event: Any) -> None:
        """Write a line now, and those that wait before it."""
        self._waiting.append(event)
        self.flush()

    error = exception = critical = warning

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            lines = [_written(self._waiting.popleft()) for _ in range(len(self._waiting))]
            if lines:
                with suppress(OSError, ValueError):  # nobody reads any more
                    self._stream.write(b"".join(lines))
                    self._stream.flush()

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._pause.wait(self._PAUSE)
            self._some.clear()
            self.flush()
