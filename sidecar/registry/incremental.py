"""Incremental exports on top of a full one: together they are what a full export of the later moment would be.

Of each item the latest write counts, in whatever order the records come. What was written before the full export is in it
already. An incremental export says nothing of an item that was made and deleted again while it lasts, so two things are read
from its silence:

Rule 1. If an export lasts over a write that another one tells of, and has no record of the item, then the item was deleted
before it ended: had the item been there at its beginning or at its end, there would be a record.

Rule 2. An export that begins before the full one and ends after it may be silent about an item that is in the full one. It is
taken only where others, which end no later than the full one, tell what was made since it began: then rule 1 does the rest.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from sidecar.errors import ExportError
from sidecar.registry.attribute_values import plain
from sidecar.registry.exports import Export, IncrementalExport, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sidecar.model import Json


class Changes(Struct):
    """What came of the records of incremental exports.

    ``applied`` are items that were made, replaced or deleted; ``ignored`` are records that were older than the full export, or
    that a later one replaced or repeated.
    """

    exports: int
    applied: int = 0
    ignored: int = 0


class UpdatedExport:
    """A full export and incremental ones that go on from it; reads like a full export of the moment ``as_of``.

    Raises ``ExportError`` if they are not of one table, or leave a time of which nothing is known. ``changes`` are counted while
    items are read.
    """

    def __init__(self, full: Export, increments: Sequence[IncrementalExport]) -> None:
        self._full = full
        self._increments = sorted(increments, key=lambda each: (each.begin, each.end, each.arn, each.source))
        self._names: tuple[str, ...] | None = None
        for each in self._increments:
            _check_table(full, each)
        if full.scanned:
            msg = (
                f"{full.source}: was made by a scan, and so is not of one moment; incremental exports go on top of one that"
                " DynamoDB made"
            )
            raise ExportError(msg)
        _check_beginning(full, self._increments)
        self.as_of = _check_joined(full, self._increments)
        self.source = ", ".join(dict.fromkeys(each.source for each in (full, *self._increments)))
        self.arn = ", ".join(dict.fromkeys(each.arn or each.source for each in (full, *self._increments)))
        self.item_count = full.item_count + sum(each.item_count for each in self._increments)
        self.changes = Changes(len(self._increments))

    def items(self, progress: Callable[[int], None] = lambda _count: None) -> Iterator[dict[str, Json]]:
        """Yield each item as plain JSON. ``progress`` is told the number of items or records of each file read.

        Raises ``ExportError``, at the latest at the end, when an export is damaged.
        """
        self.changes = Changes(len(self._increments))
        with _scratch() as database:
            self._settle(database, progress)
            yield from self._full.items(progress, lambda attributes: self._is_settled(database, attributes))
            for key, image in database.execute("SELECT key, image FROM settled WHERE image IS NOT NULL"):
                try:
                    yield plain(msgspec.json.decode(image))
                except ValueError as fault:
                    raise _item_fault(key, str(fault)) from fault

    def _settle(self, database: sqlite3.Connection, progress: Callable[[int], None]) -> None:
        """Find out what became of each item: its last image, or that it was deleted."""
        database.executemany("INSERT INTO change VALUES (?, ?, ?, ?, ?)", self._rows(progress))
        rows = map(_Row._make, database.execute("SELECT * FROM change ORDER BY key, written, image"))
        windows = {(each.begin, each.end) for each in self._increments}
        settled = (_settled([*group], windows, self._full.as_of) for _, group in groupby(rows, key=lambda row: row.key))
        database.executemany(
            "INSERT INTO settled VALUES (?, ?)", ((row.key, row.image) for row in settled if row is not None)
        )
        ((read,),) = database.execute("SELECT count(*) FROM change")
        ((applied,),) = database.execute("SELECT count(*) FROM settled")
        self.changes = Changes(len(self._increments), applied, read - applied)

    def _rows(self, progress: Callable[[int], None]) -> Iterator[_Row]:
        # sorted, so that the same image gives the same bytes
        encoder = msgspec.json.Encoder(order="sorted")
        for each in self._increments:
            for change in each.records(progress):
                self._names = self._names or change.names
                if change.names != self._names:
                    keys = f"{' and '.join(change.names)} after one of {' and '.join(self._names)}"
                    msg = f"{each.source}: a key of {keys}; these are not exports of one table"
                    raise ExportError(msg)
                image = None if change.image is None else encoder.encode(change.image)
                yield _Row(change.key, change.written, each.begin, each.end, image)

    def _is_settled(self, database: sqlite3.Connection, attributes: dict[str, Any]) -> bool:
        if self._names is None:
            return False
        try:
            key = key_of(attributes, self._names)
        except KeyError as fault:
            msg = (
                f"{self._full.source}: an item does not have {fault}, by which the incremental exports know items; these are"
                " not exports of one table"
            )
            raise ExportError(msg) from fault
        return database.execute("SELECT 1 FROM settled WHERE key = ?", (key,)).fetchone() is not None


def open_exports(full: str, increments: Sequence[str] = ()) -> Export | UpdatedExport:
    """Open a full export and the incremental ones, if any, that go on from it. Raises ``ExportError``."""
    export = Export(full)
    return UpdatedExport(export, [*map(IncrementalExport, increments)]) if increments else export


class _Row(NamedTuple):
    """A change, and when the export that tells of it begins and ends."""

    key: bytes
    written: int
    begin: int
    end: int
    image: bytes | None


def _settled(rows: Sequence[_Row], windows: set[tuple[int, int]], as_of: int) -> _Row | None:
    """Choose from all the changes of one item, in the order of their writes, the one that stands; ``None`` if none does.

    ``windows`` are when all the exports begin and end; ``as_of`` is the moment of the full one.
    """
    last = rows[-1]
    latest = [row for row in rows if row.written == last.written]
    # From a record that is not of the time of its own export, nothing follows.
    if last.image is not None and any(row.begin <= row.written < row.end for row in latest):
        told = {(row.begin, row.end) for row in rows}
        if any(begin <= last.written < end and end > as_of for begin, end in windows - told):
            return last._replace(image=None)
    if last.written < as_of:
        return None
    if not all(row.image == last.image or _same(row.image, last.image) for row in latest):
        fault = f"two different changes have the write time {_moment(last.written)}; make a new full export"
        raise _item_fault(last.key, fault)
    return last


def _same(one: bytes | None, other: bytes | None) -> bool:
    """Tell whether two images are the same, when the order of their sets is not."""
    if one is None or other is None:
        return one is other
    try:
        return plain(msgspec.json.decode(one)) == plain(msgspec.json.decode(other))
    except ValueError:
        return False


def _check_table(full: Export, each: IncrementalExport) -> None:
    for name, its, ours in (
        ("tableArn", each.table_arn, full.table_arn),
        ("tableId", each.table_id, full.table_id),
    ):
        if its and ours and its != ours:
            msg = f"{each.source}: is of another table than {full.source}: {name} is {its}, not {ours}"
            raise ExportError(msg)


def _check_beginning(full: Export, increments: Sequence[IncrementalExport]) -> None:
    """Check rule 2."""
    first = next((each for each in increments if each.begin < full.as_of < each.end), None)
    if first is None:
        return
    told = first.begin
    for each in increments:
        if each.begin <= told and each.end <= full.as_of:
            told = max(told, each.end)
    if told < full.as_of:
        msg = (
            f"{first.source}: begins at {_moment(first.begin)}, before the full export, which is of {_moment(full.as_of)}, and"
            " ends after it. It has no record of an item that was made in between and deleted after that, which would stay."
            f" Export from {_moment(full.as_of)} on, or give the incremental exports of {_moment(told)} to"
            f" {_moment(full.as_of)} too"
        )
        raise ExportError(msg)


def _check_joined(full: Export, increments: Sequence[IncrementalExport]) -> int:
    """Check that there is no gap, and give the moment up to which everything is known."""
    reached, before = full.as_of, full.source
    for each in increments:
        if each.begin > reached:
            msg = (
                f"nothing is known of the time from {_moment(reached)}, where {before} ends, to {_moment(each.begin)}, where"
                f" {each.source} begins: export that time too"
            )
            raise ExportError(msg)
        if each.end > reached:
            reached, before = each.end, each.source
    return reached


def _item_fault(key: bytes, fault: str) -> ExportError:
    values = (next(iter(value.values())) for value in msgspec.json.decode(key))
    return ExportError(f"the incremental exports: item {' / '.join(map(str, values))}: {fault}")


def _moment(microseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.isoformat().replace("+00:00", "Z")


@contextmanager
def _scratch() -> Iterator[sqlite3.Connection]:
    """Open a temporary database. Changes are only appended and then sorted, on disk, so that memory is bounded."""
    with tempfile.TemporaryDirectory(prefix="tenantgate-") as folder:
        database = sqlite3.connect(Path(folder) / "changes.sqlite", isolation_level=None)
        try:
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            yield database
        finally:
            database.close()


_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;
CREATE TABLE change (key BLOB, written INTEGER, begin INTEGER, "end" INTEGER, image BLOB);
CREATE TABLE settled (key BLOB PRIMARY KEY, image BLOB) WITHOUT ROWID;
"""
