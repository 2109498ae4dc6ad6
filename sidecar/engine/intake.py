"""How bundles get from where they are published to OPA: fetched, checked, kept, handed on; and never backwards.

Rule 1. Only a whole bundle with a good seal is taken in. What is refused changes nothing, is counted, and is shown, with the
        reason.

Rule 2. Of each kind, the moment (``as_of``) never goes back, and one moment has one revision. The mark of what was taken in is on
        disk before the bundle is handed on.

Rule 3. What was taken in is kept, and served again after a restart before anyone has been asked.

Rule 4. An overlay holds the changes since some moment. While OPA may have a base from before that moment, the overlay waits:
        together they would lack the changes in between.

Rule 5. What OPA has in force is kept until what is newer is in force. While OPA refuses the newer one, it is offered what it had,
        so that it serves on under that after a restart. That is no step back: nothing newer was in force. Had it been and gone
        unreported, ``freshness.py`` would have no decision made.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from msgspec import Struct

from sidecar import seal
from sidecar.engine.durable import read_durable, write_durably
from sidecar.engine.offer import Kept, Offer
from sidecar.engine.sources import SourceError
from sidecar.errors import SealError
from sidecar.seal import BASE, FILES, OVERLAY, Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sidecar.engine.sources import Source
    from sidecar.seal import PublicKey

log = structlog.get_logger(__name__)

REASONS = ("UNSIGNED", "FOREIGN_KEY", "TAMPERED", "DAMAGED", "WRONG_KIND", "ROLLED_BACK", "FORKED", "NOT_ACTIVATED")
"""Why a bundle is refused: for its seal, by ``judge``, or by OPA."""

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
    """Why a bundle was refused. ``reason`` is one of ``REASONS``; ``at`` is microseconds since 1970."""

    file: str
    reason: str
    fault: str
    at: int


class Intaken(Struct, frozen=True):
    """The state of one kind of bundle.

    ``sealed`` is what was taken in last; ``persisted`` says that it was kept from before, and not confirmed by the source yet.
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
        self._offers = {kind: Offer(folder, name) for kind, name in FILES.items()}
        self._marks: dict[str, Mark] = {}
        self._held: Kept | None = None
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
        """The base that was taken in last."""
        return self._states[BASE].sealed

    @property
    def settled(self) -> bool:
        """Whether OPA has everything that was taken in, or refuses it."""
        return all(
            state.sealed is None or state.active == state.sealed.revision or self._offers[state.kind].refused
            for state in self.states
        )

    def offered(self, name: str) -> Path:
        """Tell which file OPA is to have under a name."""
        return next(offer.offered for offer in self._offers.values() if offer.file.name == name)

    def load(self) -> None:
        """Take what was kept before. Raises ``StartError`` when it cannot be known what that was, ``OSError`` without a disk."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in self._folder.glob(".*"):
            leftover.unlink()
        marks = read_durable(self._folder / _MARKS, Marks, "which bundles it has taken in, so that it takes older ones")
        self._marks = {} if marks is None else {**marks.taken}
        for kind in FILES:
            self._load_kept(kind)
        base, overlay = self._offers[BASE], self._states[OVERLAY].sealed
        if overlay is None:
            return
        if self.base is None or overlay.since > self.base.as_of:
            self._offers[OVERLAY].drop()
            self._set(OVERLAY, sealed=None, persisted=False)
        elif base.before is not None and overlay.since > base.before.sealed.as_of:
            base.settle()  # without the newer base in force, it would not have been taken in

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

    def note(self, body: bytes, given: Mapping[str, tuple[str, datetime]]) -> None:
        """Take what OPA's status plugin says about its bundles.

        ``given`` tells, by name, which file it was given last: its SHA-256, and the moment before.
        """
        try:
            report = msgspec.json.decode(body, type=_Report)
        except msgspec.DecodeError as fault:
            log.warning("opa_status_unreadable", reason=str(fault))
            return
        with self._lock:
            before = self._states.copy()
            for kind, name in FILES.items():
                self._note(kind, report.bundles.get(kind, _Found()), given.get(name))
            self._release()
            changed = before != self._states
        if changed:
            self._on_change()

    def _note(self, kind: str, found: _Found, given: tuple[str, datetime] | None) -> None:
        offer = self._offers[kind]
        known = offer.refused
        if offer.hear(found.active_revision, found.about(given), complains=bool(found.message)):
            self._hand_on()
        self._set(kind, active=found.active_revision)
        if not offer.refused:
            self._set(kind, engine_fault=found.fault)
        elif not known and offer.newest is not None:
            instead = f"; it is offered {offer.instead} again" if offer.instead else ""
            self._set(kind, engine_fault=f"cannot activate {offer.newest.sealed.revision}: {found.fault}{instead}")
            self._count(kind, "NOT_ACTIVATED", f"OPA: {found.fault}")

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
            kept = self._check(scratch)
        except SealError as fault:
            self._refuse(kind, fault.reason, str(fault))
            return
        sealed = kept.sealed
        with self._lock:
            if self._stopping.is_set():
                return
            if self._is_newest(kind, kept):
                self._let_go(kind)
                self._set(kind, persisted=False, file_fault="")
            elif (objection := judge(kind, sealed, self._marks.get(kind))) is not None:
                self._refuse(kind, *objection)
            elif kind == OVERLAY and self._lacks_base(sealed):
                scratch.replace(self._held_path)
                self._held = kept
                self._set(kind, held=sealed.revision, file_fault="")
                log.info("overlay_held", revision=sealed.revision, since=sealed.since)
            else:
                self._take(kind, kept, scratch)

    def _is_newest(self, kind: str, kept: Kept) -> bool:
        newest = self._offers[kind].newest
        return newest is not None and newest.digest == kept.digest

    def _lacks_base(self, overlay: Sealed) -> bool:
        """Tell whether OPA may have a base that an overlay does not go with."""
        oldest = self._offers[BASE].oldest
        return oldest is None or overlay.since > oldest.as_of

    def _take(self, kind: str, kept: Kept, scratch: Path) -> None:
        marks = {**self._marks, kind: Mark(kept.sealed.as_of, kept.sealed.revision)}
        write_durably(self._folder / _MARKS, Marks(marks))
        self._marks = marks
        self._offers[kind].put(scratch, kept, self._states[kind].active)
        self._let_go(kind)
        self._set(kind, sealed=kept.sealed, persisted=False, file_fault="", engine_fault="")
        log.info("bundle_taken_in", kind=kind, revision=kept.sealed.revision, key_id=kept.sealed.key_id)
        if kind == BASE:
            self._release()
        self._hand_on()

    def _release(self) -> None:
        """Take in the overlay that was held back, if its base is there now."""
        if self._held is None or self._lacks_base(self._held.sealed):
            return
        try:
            self._take(OVERLAY, self._held, self._held_path)
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

    def _load_kept(self, kind: str) -> None:
        def read(path: Path) -> Kept | None:
            kept = None
            try:
                kept = self._check(path)
            except SealError as fault:
                self._refuse(kind, fault.reason, f"kept from before: {fault}")
            if kept is None or kept.sealed.kind != kind:
                path.unlink()
                return None
            return kept

        offer = self._offers[kind]
        offer.load(read)
        if offer.newest is not None:
            self._set(kind, sealed=offer.newest.sealed, persisted=True)

    def _check(self, path: Path) -> Kept:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            try:
                return Kept(seal.check(file, self._keys), digest)
            except SealError:
                raise
            except Exception as fault:
                log.exception("bundle_unreadable", file=path.name)
                msg = f"cannot be read: {type(fault).__name__}: {fault}"
                raise SealError(msg) from fault

    def _refuse(self, kind: str, reason: str, fault: str) -> None:
        self._set(kind, file_fault=f"refused, {reason}: {fault}")
        self._count(kind, reason, fault)

    def _count(self, kind: str, reason: str, fault: str) -> None:
        with self._lock:
            refused = self._states[kind].refused
            self._set(
                kind,
                refusal=Refusal(FILES[kind], reason, fault, time.time_ns() // 1000),
                refused={**refused, reason: refused.get(reason, 0) + 1},
            )
        log.error("bundle_refused", file=FILES[kind], reason=reason, fault=fault)

    def _set(self, kind: str, **changes: Any) -> None:
        with self._lock:
            self._states[kind] = msgspec.structs.replace(self._states[kind], **changes)


class _Location(Struct):
    file: str = ""
    row: int = 0


class _Error(Struct):
    message: str = ""
    location: _Location | None = None

    @property
    def fault(self) -> str:
        return self.message if self.location is None else f"{self.location.file}:{self.location.row}: {self.message}"


class _Found(Struct):
    active_revision: str = ""
    message: str = ""
    errors: tuple[_Error, ...] = ()
    last_request: datetime | None = None

    def about(self, given: tuple[str, datetime] | None) -> str:
        """Give the SHA-256 of the file that it is about, of what OPA was given last; none if OPA had not looked at that yet.

        A report may come late, when OPA has been given the next file already, which is not to blame for the one before.
        """
        digest, at = given or ("", None)
        return "" if at is not None and self.last_request is not None and self.last_request < at else digest

    @property
    def fault(self) -> str:
        return ": ".join([self.message, *(error.fault for error in self.errors[:1])])


class _Report(Struct):
    bundles: dict[str, _Found] = {}
