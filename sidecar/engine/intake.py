"""How bundles get from where they are published to OPA: fetched, checked, kept, handed on; and never backwards.

Rule 1. Only a whole bundle with a good seal is taken in. What is refused changes nothing, is counted, and is shown, with the
        reason.

Rule 2. Of each kind, the moment (``as_of``) never goes back, and one moment has one revision. The mark of what was taken in is on
        disk before the bundle is handed on.

Rule 3. What was taken in is kept, and served again after a restart before anyone has been asked.

Rule 4. An overlay holds the changes since some moment. While OPA may have a base from before that moment, the overlay waits:
        together they would lack the changes in between.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from msgspec import Struct

from sidecar import seal
from sidecar.engine.durable import read_durable, replace_durably, write_durably
from sidecar.engine.sources import SourceError
from sidecar.errors import SealError
from sidecar.seal import BASE, FILES, OVERLAY, Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sidecar.engine.sources import Source
    from sidecar.seal import PublicKey

log = structlog.get_logger(__name__)

_MARKS = "marks.json"
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_STOP_SECONDS = 1.0


class Mark(Struct, frozen=True):
    """How far a kind of bundle has got."""

    as_of: int
    revision: str


class Marks(Struct, frozen=True):
    """How far each kind of bundle has got."""

    taken: dict[str, Mark]


class Refusal(Struct, frozen=True):
    """Why a file was not taken in. ``reason`` is a stable word; ``at`` is microseconds since 1970."""

    file: str
    reason: str
    fault: str
    at: int


class Intaken(Struct, frozen=True):
    """The state of one kind of bundle.

    ``sealed`` is what OPA is given; ``persisted`` says that it was kept from before, and that the source has not confirmed it.
    ``active`` is the revision that OPA says it has, ``held`` that of an overlay that waits for its base. ``refusal`` is the last
    one there was and ``refused`` their number by reason. Of the ``..._fault``, that of the file is why what the source holds now
    is not taken in.
    """

    kind: str
    sealed: Sealed | None = None
    persisted: bool = False
    active: str = ""
    held: str = ""
    refusal: Refusal | None = None
    refused: dict[str, int] = {}
    file_fault: str = ""
    source_fault: str = ""
    engine_fault: str = ""

    @property
    def error(self) -> str:
        """What is wrong now; empty when nothing is."""
        faults = (self.file_fault, self.source_fault, f"OPA: {self.engine_fault}" if self.engine_fault else "")
        return "; ".join(fault for fault in faults if fault)


def judge(kind: str, sealed: Sealed, mark: Mark | None) -> tuple[str, str] | None:
    """Say why a sealed bundle is not taken in, by reason and in words; ``None`` if it is."""
    if sealed.kind != kind:
        return "WRONG_KIND", f"it is the {sealed.kind} bundle, under the name of the {kind} bundle"
    if mark is None or sealed.as_of > mark.as_of or (sealed.as_of, sealed.revision) == (mark.as_of, mark.revision):
        return None
    if sealed.as_of == mark.as_of:
        return "FORKED", f"its revision {sealed.revision} is of the same moment as {mark.revision}, which was taken in"
    return "ROLLED_BACK", f"its revision {sealed.revision} is older than {mark.revision}, which was taken in"


class Intake:
    """Follows a source, a thread for each kind of bundle.

    ``folder`` is where bundles are kept, under the names that they are published under. With no ``keys``, unsigned bundles are
    taken in. ``hand_on`` is called when a file in ``folder`` is another, ``on_change`` when the state is.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        keys: Mapping[str, PublicKey],
        hand_on: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._folder = folder
        self._keys = keys
        self._hand_on = hand_on
        self._on_change = on_change
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._looked = {kind: threading.Event() for kind in FILES}
        self._states = {kind: Intaken(kind) for kind in FILES}
        self._digests: dict[str, str] = {}
        self._marks: dict[str, Mark] = {}
        self._oldest_base: int | None = None
        self._held: tuple[Sealed, str] | None = None
        self._threads = [
            threading.Thread(target=self._follow, args=[kind], name=f"intake-{kind}", daemon=True) for kind in FILES
        ]

    @property
    def states(self) -> tuple[Intaken, ...]:
        """The state of each kind of bundle, the base first."""
        with self._lock:
            return tuple(self._states.values())

    @property
    def base(self) -> Sealed | None:
        """The base that OPA is given."""
        return self._states[BASE].sealed

    def load(self) -> None:
        """Take what was kept before. Raises ``StartError`` when it cannot be known what that was, ``OSError`` without a disk."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in self._folder.glob(".*"):
            leftover.unlink()
        marks = read_durable(self._folder / _MARKS, Marks, "which bundles it has taken in, so that it takes older ones")
        self._marks = {} if marks is None else {**marks.taken}
        for kind, name in FILES.items():
            if (self._folder / name).exists():
                self._load_kept(kind, self._folder / name)
        base, overlay = self.base, self._states[OVERLAY].sealed
        self._oldest_base = None if base is None else base.as_of
        if overlay is not None and (base is None or overlay.since > base.as_of):
            self._drop(OVERLAY)

    def start(self) -> None:
        """Begin to follow the source."""
        for thread in self._threads:
            thread.start()

    def wait_for_first_look(self, timeout: float) -> None:
        """Wait until the source has been asked for each kind, whatever came of it, but no longer than ``timeout`` seconds."""
        end = time.monotonic() + timeout
        for looked in self._looked.values():
            looked.wait(max(0.0, end - time.monotonic()))

    def stop(self) -> None:
        """Stop following. What is under way ends, or is without effect."""
        with self._lock:
            self._stopping.set()
        self._source.close()
        end = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def note(self, body: bytes) -> None:
        """Take what OPA's status plugin says about its bundles."""
        try:
            report = msgspec.json.decode(body, type=_Report)
        except msgspec.DecodeError as fault:
            log.warning("opa_status_unreadable", reason=str(fault))
            return
        with self._lock:
            before = self._states.copy()
            for kind in FILES:
                found = report.bundles.get(kind, _Found())
                self._set(kind, active=found.active_revision, engine_fault=found.message)
            base = self.base
            if base is not None and self._states[BASE].active == base.revision:
                self._oldest_base = base.as_of
                self._release()
            changed = before != self._states
        if changed:
            self._on_change()

    def _follow(self, kind: str) -> None:
        name = FILES[kind]
        scratch = self._folder / f".{name}.incoming"
        seen, pause = "", 0.0
        while not self._stopping.wait(pause):
            before = self._states[kind]
            try:
                with scratch.open("wb") as into:
                    token = self._source.fetch(name, seen, into, wait=self._looked[kind].is_set())
                    into.flush()
                    os.fsync(into.fileno())
                self._set(kind, source_fault="")
                if token != seen or not token:
                    self._consider(kind, scratch if token else None)
                seen, pause = token, self._source.pause(name)
            except Exception as fault:
                if not isinstance(fault, SourceError | OSError):
                    log.exception("intake", kind=kind)
                self._set(kind, source_fault=str(fault) or type(fault).__name__)
                pause = min(max(pause * 2, self._source.pause(name), _SHORTEST_PAUSE), _LONGEST_PAUSE)
            self._looked[kind].set()
            if self._states[kind] != before and not self._stopping.is_set():
                self._on_change()

    def _consider(self, kind: str, scratch: Path | None) -> None:
        """Take a file in, or refuse it. Raises ``OSError`` when it cannot be kept, and then it must be brought again."""
        if scratch is None:
            missing = kind == BASE and self.base is None
            self._set(kind, file_fault=f"{FILES[kind]} is not published" if missing else "")
            return
        try:
            sealed, digest = self._check(scratch)
        except SealError as fault:
            self._refuse(kind, fault.reason, str(fault))
            return
        with self._lock:
            if self._stopping.is_set():
                return
            if digest == self._digests.get(kind):
                self._let_go(kind)
                self._set(kind, persisted=False, file_fault="")
            elif (objection := judge(kind, sealed, self._marks.get(kind))) is not None:
                self._refuse(kind, *objection)
            elif kind == OVERLAY and (self._oldest_base is None or sealed.since > self._oldest_base):
                scratch.replace(self._held_path)
                self._held = sealed, digest
                self._set(kind, held=sealed.revision, file_fault="")
                log.info("overlay_held", revision=sealed.revision, since=sealed.since)
            else:
                self._take(kind, sealed, digest, scratch)

    def _take(self, kind: str, sealed: Sealed, digest: str, scratch: Path) -> None:
        marks = {**self._marks, kind: Mark(sealed.as_of, sealed.revision)}
        write_durably(self._folder / _MARKS, Marks(marks))
        self._marks = marks
        replace_durably(scratch, self._folder / FILES[kind])
        self._digests[kind] = digest
        self._let_go(kind)
        self._set(kind, sealed=sealed, persisted=False, file_fault="")
        log.info("bundle_taken_in", kind=kind, revision=sealed.revision, key_id=sealed.key_id)
        if kind == BASE and self._oldest_base is None:
            self._oldest_base = sealed.as_of
            self._release()
        self._hand_on()

    def _release(self) -> None:
        """Take in the overlay that was held back, if its base is there now."""
        if self._held is None or self._oldest_base is None or self._held[0].since > self._oldest_base:
            return
        sealed, digest = self._held
        try:
            self._take(OVERLAY, sealed, digest, self._held_path)
        except OSError as fault:
            log.error("overlay_not_kept", reason=str(fault))  # noqa: TRY400 - the reason is all there is

    def _let_go(self, kind: str) -> None:
        """Forget the overlay that was held back: there is a better one."""
        if kind == OVERLAY:
            self._held = None
            self._set(kind, held="")

    @property
    def _held_path(self) -> Path:
        return self._folder / f".{FILES[OVERLAY]}.held"

    def _load_kept(self, kind: str, path: Path) -> None:
        try:
            sealed, digest = self._check(path)
        except SealError as fault:
            self._refuse(kind, fault.reason, f"kept from before: {fault}")
            self._drop(kind)
            return
        if sealed.kind != kind:
            self._drop(kind)
            return
        self._digests[kind] = digest
        self._set(kind, sealed=sealed, persisted=True)

    def _drop(self, kind: str) -> None:
        (self._folder / FILES[kind]).unlink()
        self._digests.pop(kind, None)
        self._set(kind, sealed=None, persisted=False)

    def _check(self, path: Path) -> tuple[Sealed, str]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            try:
                return seal.check(file, self._keys), digest
            except SealError:
                raise
            except Exception as fault:
                log.exception("bundle_unreadable", file=path.name)
                msg = f"cannot be read: {type(fault).__name__}: {fault}"
                raise SealError(msg) from fault

    def _refuse(self, kind: str, reason: str, fault: str) -> None:
        with self._lock:
            state = self._states[kind]
            self._set(
                kind,
                file_fault=f"refused, {reason}: {fault}",
                refusal=Refusal(FILES[kind], reason, fault, time.time_ns() // 1000),
                refused={**state.refused, reason: state.refused.get(reason, 0) + 1},
            )
        log.error("bundle_refused", file=FILES[kind], reason=reason, fault=fault)

    def _set(self, kind: str, **changes: Any) -> None:
        with self._lock:
            self._states[kind] = msgspec.structs.replace(self._states[kind], **changes)


class _Found(Struct):
    active_revision: str = ""
    message: str = ""


class _Report(Struct):
    bundles: dict[str, _Found] = {}
