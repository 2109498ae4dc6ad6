"""What OPA is offered of one kind of bundle: what was taken in last or, while it refuses that, what it had in force before."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.engine.durable import replace_durably
from sidecar.seal import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Kept(Struct, frozen=True):
    """A bundle on disk: what it says about itself, and the SHA-256 of the file."""

    sealed: Sealed
    digest: str


class Offer:
    """The files of one kind of bundle, which is published under ``name``.

    ``newest`` was taken in last; ``refused`` tells that OPA refuses it. ``before`` is what OPA had in force when that came, kept
    until the newest is in force.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / name
        self._file_before = folder / f"before-{name}"
        self.newest: Kept | None = None
        self.before: Kept | None = None
        self.refused = False
        self._back = False

    @property
    def offered(self) -> Path:
        """The file that OPA is to have."""
        return self._file_before if self._back else self.file

    @property
    def instead(self) -> str:
        """The revision that is offered in place of the newest; empty while the newest is."""
        return self.before.sealed.revision if self.before is not None and self._back else ""

    @property
    def oldest(self) -> Sealed | None:
        """The oldest bundle that OPA may have in force."""
        kept = self.before or self.newest
        return None if kept is None else kept.sealed

    def load(self, read: Callable[[Path], Kept | None]) -> None:
        """Take what was kept. ``read`` tells what a file is, or removes it. Raises ``OSError``."""
        self.newest = read(self.file) if self.file.exists() else None
        self.before = read(self._file_before) if self._file_before.exists() else None
        if self.newest is None and self.before is not None:
            self._file_before.rename(self.file)
            self.newest, self.before = self.before, None

    def put(self, scratch: Path, kept: Kept, active: str) -> None:
        """Offer a newer file, which is on disk. ``active`` is the revision that OPA has in force. Raises ``OSError``."""
        last = self.newest
        # Before OPA has said anything it may have the last one, unless there is one that it had for certain.
        if last is not None and (last.sealed.revision == active or (self.before is None and not self.refused)):
            replace_durably(self.file, self._file_before)
            self.newest, self.before, self._back = None, last, True
        replace_durably(scratch, self.file)
        self.newest, self.refused, self._back = kept, False, False

    def hear(self, active: str, given: str, *, complains: bool) -> bool:
        """Hear which revision OPA has in force, and whether it complains; tell whether it is offered another file now.

        A complaint may be late. It is about what is offered if that is the file, by its SHA-256, that OPA was ``given`` before.
        """
        offered = self.offered
        newest, before = self.newest, self.before
        if newest is None:
            return False
        if active == newest.sealed.revision:
            self.refused = False
            self.settle()
        elif complains and self._back and before is not None:
            # Perhaps it can have neither; then the newest is as good.
            self._back = given != before.digest or active != ""
        elif complains and given == newest.digest:
            self.refused = True
            # It may have in force what there is no copy of; that is best left alone.
            self._back = before is not None and active in {"", before.sealed.revision}
        return self.offered != offered

    def settle(self) -> None:
        """Forget what was before: the newest is in force."""
        if self.before is not None:
            with suppress(OSError):  # it is in nobody's way
                self._file_before.unlink()
        self.before, self._back = None, False

    def drop(self) -> None:
        """Forget everything. Raises ``OSError``."""
        self.settle()
        self.file.unlink(missing_ok=True)
        self.newest = None
