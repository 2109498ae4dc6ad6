"""Items in any order, given back tenant by tenant.

An export holds its items as DynamoDB partitions them. They go through a SQLite file that is only ever appended to and then
sorted, on disk, so that memory is bounded by the largest tenant and time grows in step with the export.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from sidecar.errors import MalformedItemsError
from sidecar.registry import items
from sidecar.registry.items import KINDS, SHARED, MalformedItemError, TenantRecords

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model import Json

_SCHEMA = "CREATE TABLE record (tenant TEXT, kind TEXT, id TEXT, plain INTEGER, body BLOB)"
_INSERT = "INSERT INTO record VALUES (?, ?, ?, ?, ?)"
_DUPLICATES = "SELECT tenant, kind, id FROM record GROUP BY tenant, kind, id HAVING count(*) > 1"
_EXAMPLES = 5


class Spool:
    """Takes items in, and gives the records out by tenant. A context manager, because it has a temporary file.

    ``counts`` are the items by kind; ``unknown`` are those of no kind that we know, with a few ``examples``; ``attributes``
    counts attributes, as ``KIND.name``, that the kind does not have.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tenantgate-")
        self._database = sqlite3.connect(Path(self._folder.name) / "spool.sqlite", isolation_level=None)
        self._database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;")
        self._database.execute(_SCHEMA)
        self._decoders = {kind: msgspec.msgpack.Decoder(record) for kind, record in KINDS.items()}
        self.counts: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.unknown = 0
        self.examples: list[str] = []
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file."""
        self._database.close()
        self._folder.cleanup()

    def add(self, plain_items: Iterable[dict[str, Json]]) -> None:
        """Take items in. What is wrong with malformed ones is kept in ``faults``."""
        self._database.execute("BEGIN")
        self._database.executemany(_INSERT, self._rows(plain_items))
        self._database.execute("COMMIT")

    def check(self) -> None:
        """Raise ``MalformedItemsError`` if any item was malformed, or two have one id."""
        for tenant, kind, record_id in self._database.execute(_DUPLICATES):
            self.faults.append(f"tenant {tenant!r} has two items of kind {kind} with the id {record_id!r}")
        if self.faults:
            raise MalformedItemsError(self.faults)

    def shared(self) -> list[items.Resource]:
        """Give the resources that belong to all tenants."""
        rows = self._database.execute("SELECT body FROM record WHERE tenant = ? ORDER BY id", (SHARED,))
        return [self._decoders["RESOURCE"].decode(body) for (body,) in rows]  # type: ignore[misc]

    def tenants(self) -> Iterator[tuple[str, TenantRecords]]:
        """Yield each tenant's id and records, in the order of the ids.

        A tenant that has policy documents of a plain table and no tenant item is active and keeps no memberships.
        """
        query = "SELECT tenant, kind, plain, body FROM record WHERE tenant != ? ORDER BY tenant, kind, id"
        for tenant_id, rows in groupby(self._database.execute(query, (SHARED,)), key=lambda row: row[0]):
            records = TenantRecords.none()
            has_plain = False
            for _, kind, plain, body in rows:
                record = self._decoders[kind].decode(body)
                has_plain |= bool(plain)
                records.add(record)
            if records.tenant is None and has_plain:
                records.tenant = items.Tenant(membership="OPTIONAL")
            yield tenant_id, records

    def _rows(self, plain_items: Iterable[dict[str, Json]]) -> Iterator[tuple[str, str, str, bool, bytes]]:
        encoder = msgspec.msgpack.Encoder()
        for item in plain_items:
            entry = self._parse(item)
            if entry is None:
                continue
            self.counts[entry.kind] += 1
            for name in items.unknown_attributes(item, entry.kind):
                self.attributes[f"{entry.kind}.{name}"] += 1
            yield entry.tenant, entry.kind, entry.id, entry.plain, encoder.encode(entry.record)

    def _parse(self, item: dict[str, Json]) -> items.Entry | None:
        try:
            entry = items.parse(item)
        except MalformedItemError as fault:
            self.faults.append(f"{items.item_name(item)}: {fault}")
            return None
        if entry is None:
            self.unknown += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(items.item_name(item))
        return entry
