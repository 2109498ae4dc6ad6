"""The decision log as the front doors see it: they say what was decided, and it lets them know whether that is kept."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.audit import records
from sidecar.audit.masking import Masking
from sidecar.audit.writer import Writer
from sidecar.errors import NotRecordedError, StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sidecar.audit.records import Told, ToolState
    from sidecar.audit.writer import Sink, SinkState
    from sidecar.model import Decision, Found, Identity, Item, Json, Listing
    from sidecar.settings import Settings

_SHORTEST_KEY = 16  # bytes
_SHORTEST_CLOSE = 1.0  # seconds that sinks have in any case


class DecisionLog:
    """Takes the records of calls, for every one of its writers. Without any, it is off, and all records are empty.

    With ``blocks``, no decision leaves without its record; else what there is no room for is dropped.
    """

    def __init__(self, writers: Sequence[Writer] = (), masking: Masking | None = None, *, blocks: bool = False) -> None:
        self.on = bool(writers)
        self._writers = writers
        self._masking = masking or Masking(())
        self.blocks = blocks

    def start(self) -> None:
        """Begin to hand records on."""
        for writer in self._writers:
            writer.start()

    def close(self, seconds: float) -> None:
        """Hand on what waits, for so many seconds at the most, and take no more."""
        end = time.monotonic() + max(seconds, _SHORTEST_CLOSE)
        for writer in self._writers:
            writer.hasten()
        for writer in self._writers:
            writer.close(max(0.0, end - time.monotonic()))

    def states(self) -> list[SinkState]:
        """Tell how it goes with every sink."""
        return [writer.state() for writer in self._writers]

    def decided(self, identity: Identity, item: Item, decision: Decision, *, place: str = "") -> tuple[Told, ...]:
        """Give the record of a decision, without the arguments; ``place`` is that of an item, as its id says it."""
        return ((place, records.decided(identity, item, decision)),) if self.on else ()

    def with_arguments(self, told: tuple[Told, ...], resource_id: str, arguments: Json) -> tuple[Told, ...]:
        """Add what is said of the arguments of a call to the record of its decision."""
        if not self.on or not isinstance(arguments, dict):
            return told
        said = self._masking.written(resource_id, arguments)
        return tuple((place, known + said) for place, known in told) if said else told

    def decided_call(self, identity: Identity, item: Item, decision: Decision, *, place: str = "") -> tuple[Told, ...]:
        """Give the record of a decision, with the arguments."""
        return self.with_arguments(
            self.decided(identity, item, decision, place=place), item.resource.id, item.arguments
        )

    def failed(
        self, reason: str, fault: Exception | None, identity: Identity | None, item: Item | None, *, place: str = ""
    ) -> tuple[Told, ...]:
        """Give the record of an error in place of a decision, by its stable reason."""
        return ((place, records.failed(reason, fault, identity, item)),) if self.on else ()

    def listed(
        self, identity: Identity, action: str, tools: Sequence[ToolState], listing: Listing | None
    ) -> tuple[Told, ...]:
        """Give the record of a list of tools."""
        return (("", records.listed(identity, action, tools, listing)),) if self.on else ()

    def sought(self, identity: Identity, item: Item, ids: Sequence[str], found: Found) -> tuple[Told, ...]:
        """Give the record of a search."""
        return (("", records.sought(identity, item, ids, found)),) if self.on else ()

    def take(
        self,
        method: str,
        decision_id: str,
        seconds: float,
        told: Sequence[Told],
        facts: Mapping[str, Any],
        *,
        cached: Iterable[bool] = (),
        until: float | None = None,
    ) -> None:
        """Take the records of a call that has taken so many seconds. ``cached`` says of each whether it was remembered.

        Before decisions leave, the call may wait ``until`` a moment of ``time.monotonic()``. Raises ``NotRecordedError`` if they
        must not leave.
        """
        if not self.on:
            return
        lines = records.lines(method, decision_id, seconds, told, facts, cached=cached)
        size = sum(map(len, lines))
        end = until if self.blocks else None
        for writer in self._writers:
            if not writer.put(lines, size, end) and end is not None:
                msg = f"audit: the sink {writer.name} has no room for the record, and audit.on_full is block"
                raise NotRecordedError(msg)


OFF = DecisionLog()
"""For what decides nothing."""


def open_decision_log(settings: Settings, version: str) -> DecisionLog:
    """Open the sinks that the settings name. Raises ``StartError``, which names the setting."""
    audit = settings.audit
    masking = Masking(audit.arguments, _digest_key(audit.digest_key_file))
    writers = [
        Writer(sink, records=audit.queue_records, most_bytes=audit.queue_bytes) for sink in _sinks(settings, version)
    ]
    return DecisionLog(writers, masking, blocks=audit.on_full == "block")


def _sinks(settings: Settings, version: str) -> list[Sink]:
    audit, sinks = settings.audit, list[Any]()
    # What is not used is not imported: a start takes half a second of which imports are most.
    if audit.stdout or audit.file.path is not None:
        from sidecar.audit.sinks import RotatingFile, StandardOutput  # noqa: PLC0415

        if audit.stdout:
            sinks.append(StandardOutput())
        path = settings.decision_log_path
        if path is not None:
            try:
                sinks.append(RotatingFile(path, audit.file.max_bytes, audit.file.keep))
            except OSError as fault:
                msg = f"audit.file.path: {path} cannot be written: {fault.strerror or fault}"
                raise StartError(msg) from fault
    if audit.http.url is not None or audit.s3.address is not None:
        import socket  # noqa: PLC0415

        from sidecar.audit.uploads import HttpSink, S3Sink  # noqa: PLC0415

        if audit.http.url is not None:
            sinks.append(HttpSink(audit.http, {"app": "tenantgate", "id": socket.gethostname(), "version": version}))
        if audit.s3.address is not None:
            sinks.append(S3Sink(audit.s3))
    return sinks


def _digest_key(file: str | None) -> bytes:
    if file is None:
        return b""
    try:
        key = Path(file).read_bytes().strip()
        mode = Path(file).stat().st_mode
    except OSError as fault:
        msg = f"audit.digest_key_file: {file} cannot be read: {fault.strerror or fault}"
        raise StartError(msg) from fault
    if len(key) < _SHORTEST_KEY:
        msg = f"audit.digest_key_file: {file} holds {len(key)} bytes, and who guesses the key can guess arguments; make it 32"
        raise StartError(msg)
    if mode & stat.S_IROTH:
        msg = f"audit.digest_key_file: {file} can be read by everyone; make it 0600"
        raise StartError(msg)
    return key
