"""Following the table: every change becomes part of the overlay, and the overlay is published at once.

Three things are kept in the folder of the bundles: ``base.tar.gz``, ``overlay.tar.gz`` and the position in the stream. The
position is written after the overlay, so a crash in between means that some changes are taken in twice, which changes nothing.
Without a position the stream is read from its beginning, which is the last 24 hours: that is enough as long as what was published
last is younger. If it is not, there is a gap: the as-of stays where it is until a new base brings what was missed, and the
overlay begins anew beside that.
"""

from __future__ import annotations

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from botocore.exceptions import BotoCoreError, ClientError

from sidecar.bundles.build import rfc3339, write_base
from sidecar.bundles.bundle import read_manifest, replacing
from sidecar.bundles.compile import microseconds
from sidecar.bundles.overlay import Overlay
from sidecar.errors import BundleError, MalformedItemsError, PositionLostError, TableError
from sidecar.registry import items
from sidecar.registry.items import SHARED, MalformedItemError, TenantRecords
from sidecar.registry.spool import Spool
from sidecar.registry.streams import RESOLUTION, Position, StreamReader, created, partition_of
from sidecar.registry.table import RegistryTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sidecar.bundles.build import Recipe
    from sidecar.bundles.bundle import Manifest

log = structlog.get_logger(__name__)

BASE = "base.tar.gz"
OVERLAY = "overlay.tar.gz"
POSITION = "position.json"
MICROSECONDS = 1_000_000
_RETENTION = 23 * 3600 * MICROSECONDS  # an hour less than streams keep records, for what the rest takes

_RENEW_AGAIN = 60.0  # seconds until a base that could not be made is tried again


class ServiceClock:
    """The time as the service has it, in microseconds since 1970: from the ``Date`` of its last answer, which is whole seconds.

    Bases are dated by it, so the overlay must be too: the clock of this machine may be off.
    """

    def __init__(self, client: Any) -> None:
        self._date = 0
        client.meta.events.register("after-call.dynamodb", self._note)

    def _note(self, parsed: dict[str, Any], **_: Any) -> None:
        date = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            self._date = max(self._date, microseconds(parsedate_to_datetime(date)))

    def not_before(self) -> int:
        """Give a moment that had come when the last answer was given."""
        return self._date

    def not_after(self) -> int:
        """Give a moment that had not passed when the last answer was given."""
        return self._date + MICROSECONDS


class Timing(msgspec.Struct, frozen=True):
    """How often, in seconds.

    ``heartbeat`` is the longest time without a publication, if only to say that nothing has changed; ``lag`` is how long a change
    may take to appear in the stream, by which the as-of stays behind; a base older than ``base_age`` is made anew.
    """

    heartbeat: float = 5.0
    lag: float = 1.0
    base_age: float = 12 * 3600.0


DEFAULT_TIMING = Timing()


class Watcher:
    """Follows one table. ``client`` and ``streams`` are boto3's clients of DynamoDB and DynamoDB Streams.

    ``published`` is called with each file that was written, from the thread that steps.
    """

    def __init__(
        self,
        table: str,
        client: Any,
        streams: Any,
        folder: Path,
        recipe: Recipe,
        *,
        timing: Timing = DEFAULT_TIMING,
        published: Callable[[Path], None] = lambda _path: None,
    ) -> None:
        self._table = RegistryTable(client, table)
        self._streams = streams
        self._folder = folder
        self._recipe = recipe
        self._timing = timing
        self._published = published
        self._clock = ServiceClock(client)
        self._pending: set[str] = set()
        self._malformed: dict[str, str] = {}
        self._saved = Position()
        self._due = 0.0
        self._gap = False
        self._base_wanted = False
        self._base_unpublished = False
        self._renew_not_before = 0.0
        self._base_seen: tuple[int, int] = (0, 0)
        self._overlay = Overlay.beside("", 0)
        self._reader = StreamReader(streams, "", Position())

    def start(self) -> None:
        """Take up what the folder holds, or begin anew. Raises ``RegistryError``."""
        stream = self._stream()
        position = self._read_position()
        self._reader = StreamReader(self._streams, stream, Position())
        try:
            manifest = self._read_base()
            self._overlay = self._read_overlay(manifest)
        except BundleError as fault:
            log.warning("no_base", reason=str(fault), remedy="a new base is made from the table")
            self._gap = True
            self._rebase()
            return
        self._pending |= {*position.pending}
        if position.shards and self._overlay.meta.revision:
            self._reader = StreamReader(self._streams, stream, position)
        if position.stream not in {"", stream}:
            self._lose("the table has another stream than the one that was followed")
        elif self._clock.not_before() - self._overlay.meta.as_of > _RETENTION:
            self._lose(
                f"what was published last is of {rfc3339(self._overlay.meta.as_of)}; a stream forgets after 24 hours"
            )
        self._check_base()

    def step(self) -> bool:
        """Take in what has changed since the last step and publish it; tell whether anything was published.

        Raises ``TableError`` when the service does not answer, which may be tried again.
        """
        try:
            records, reached = self._reader.poll(self._clock.not_before())
        except PositionLostError as fault:
            self._lose(str(fault))
            records, reached = [], 0
        # Kept until it has been taken in and published, since the reader does not give it again.
        self._pending |= self._partitions(records)
        self._take_in(self._pending | self._malformed.keys())
        self._check_base()
        due = time.monotonic() >= self._due
        if due:
            lag = int(self._timing.lag * MICROSECONDS)
            # The as-of stays where it is while there is something that is not in what is published.
            self._publish(self._overlay.meta.as_of if self._malformed or self._gap else reached - lag)
        self._save_position()
        self._publish_base()
        self._renew_base()
        return due

    def _lose(self, reason: str) -> None:
        """Read the stream from its beginning, and know that changes before it were missed, which a new base will bring."""
        log.error("position_lost", reason=reason, remedy="a new base is made from the table")
        self._gap = True
        self._reader = StreamReader(self._streams, self._stream(), Position())

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _partitions(self, records: Iterable[dict[str, Any]]) -> set[str]:
        """Give the partitions that records are about, but for those that the base reflects for sure."""
        since = self._overlay.meta.since
        return {partition_of(record) for record in records if created(record["dynamodb"]) + RESOLUTION >= since}

    def _take_in(self, partitions: Iterable[str]) -> None:
        for pk in sorted(partitions):
            owner, _, tenant = pk.partition("#")
            if pk != SHARED and (owner != "TENANT" or not tenant):
                self._pending.discard(pk)
                continue
            records, faults = self._read(pk)
            self._pending.discard(pk)
            version = self._clock.not_after()
            if faults:
                changed = self._suspend(tenant or SHARED, records, version, faults)
                self._note_malformed(pk, faults)
            else:
                self._malformed.pop(pk, None)
                changed = (
                    self._overlay.set_tenant(tenant, records, version)
                    if tenant
                    else self._overlay.set_shared(records.resources, version)
                )
            if changed:
                self._due = 0.0  # at once, also when what follows fails

    def _suspend(self, tenant: str, records: TenantRecords, version: int, faults: list[str]) -> bool:
        """Shut off what is suspended: what else is malformed must not keep it from being so."""
        try:
            return self._overlay.suspend(tenant, records, version, self._folder / BASE)
        except BundleError as fault:
            faults.append(f"what is suspended is not shut off, for lack of the last good state: {fault}")
            return False

    def _note_malformed(self, pk: str, faults: list[str]) -> None:
        reason = "; ".join(faults)
        if self._malformed.get(pk) != reason:
            remedy = "its last good state stays in force, but for what is suspended; mend the items"
            log.error("malformed", partition=pk, reason=reason, remedy=remedy)
        self._malformed[pk] = reason

    def _read(self, pk: str) -> tuple[TenantRecords, list[str]]:
        """Read all of a tenant, or what is shared, as it is now, and what is malformed of it."""
        records = TenantRecords.none()
        faults: list[str] = []
        for item in self._table.partition(pk):
            try:
                entry = items.parse(item)
            except MalformedItemError as fault:
                faults.append(f"{items.item_name(item)}: {fault}")
                continue
            if entry is not None:
                records.add(entry.record)
        return records, faults

    # ── the base ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _rebase(self) -> None:
        """Make a new base from the table, and go on beside it. Raises ``RegistryError``."""
        self._describe()
        meta = self._overlay.meta
        # Later than any that was published, since the time of the service, in whole seconds, may not have moved on.
        as_of = max(self._clock.not_before(), meta.as_of + 1, meta.base_as_of + 1)
        with Spool() as spool:
            spool.add(self._table.scan())
            report = write_base(spool, as_of, f"table {self._table.name}", self._folder / BASE, self._recipe)
        log.info("base_made", revision=report.revision, tenants=report.tenants, rules=report.rules)
        self._base_wanted = False
        if self._gap:
            self._overlay = Overlay.beside(report.revision, as_of)
            self._gap = False
        self._check_base()
        self._publish(self._overlay.meta.as_of)
        self._publish_base()

    def _check_base(self) -> None:
        """Follow another base if there is one; want a new one if it is of no use. Raises ``TableError``."""
        try:
            stat = (self._folder / BASE).stat()
            seen = stat.st_mtime_ns, stat.st_ino
            if seen == self._base_seen:
                return
            manifest = self._read_base()
        except (OSError, BundleError) as fault:
            self._refuse_base(str(fault))
            return
        meta = self._overlay.meta
        if manifest.revision != meta.base and _as_of(manifest) <= meta.base_as_of:
            self._refuse_base(f"revision {manifest.revision} is no newer than {meta.base}, which it takes the place of")
        else:
            if manifest.revision != meta.base:
                self._follow_base(manifest)
            self._base_unpublished = True
        self._base_seen = seen

    def _refuse_base(self, reason: str) -> None:
        if not self._base_wanted:
            log.error("base_refused", reason=reason, remedy="a new base is made from the table")
        self._base_wanted = True

    def _follow_base(self, manifest: Manifest) -> None:
        doubtful = self._overlay.fold(manifest.revision, _as_of(manifest))
        self._pending |= {SHARED if tenant == SHARED else f"TENANT#{tenant}" for tenant in doubtful}
        self._take_in(self._pending)
        self._due = 0.0
        log.info("base_followed", revision=manifest.revision, kept=len(self._overlay.tenants))

    def _renew_base(self) -> None:
        """Make a new base when it is time: what is in it need not be in the overlay, and a stream forgets after 24 hours."""
        age = self._clock.not_before() - self._overlay.meta.base_as_of
        wanted = self._gap or self._base_wanted or age > self._timing.base_age * MICROSECONDS
        if not wanted or time.monotonic() < self._renew_not_before:
            return
        try:
            self._rebase()
        except (MalformedItemsError, BundleError) as fault:
            self._renew_not_before = time.monotonic() + _RENEW_AGAIN
            log.error("base_not_made", reason=str(fault), remedy="base and overlay stay in force")  # noqa: TRY400

    def _read_base(self) -> Manifest:
        return read_manifest(self._folder / BASE)

    def _read_overlay(self, manifest: Manifest) -> Overlay:
        path = self._folder / OVERLAY
        if not path.exists():
            return Overlay.beside(manifest.revision, _as_of(manifest))
        try:
            return Overlay.read(path)
        except BundleError as fault:
            log.warning("no_overlay", reason=str(fault), remedy="it is made anew from the stream")
            return Overlay.beside(manifest.revision, _as_of(manifest))

    # ── publishing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, as_of: int) -> None:
        manifest = self._overlay.write(self._folder / OVERLAY, as_of, self._recipe.signer)
        self._published(self._folder / OVERLAY)
        self._due = time.monotonic() + self._timing.heartbeat
        self._save_position()
        log.debug("overlay_published", revision=manifest.revision, tenants=len(self._overlay.tenants))

    def _publish_base(self) -> None:
        """Publish the base if it is another, after the overlay, which is small and may be urgent."""
        if self._base_unpublished:
            self._published(self._folder / BASE)
            self._base_unpublished = False

    def _save_position(self) -> None:
        if self._gap:
            return  # so that whoever takes up the position knows that it is lost
        position = self._reader.position
        position.pending = sorted(self._pending | self._malformed.keys())
        if position == self._saved:
            return
        with replacing(self._folder / POSITION) as file:
            file.write(msgspec.json.encode(position))
        self._saved = msgspec.structs.replace(position, shards=dict(position.shards))

    def _read_position(self) -> Position:
        path = self._folder / POSITION
        try:
            return msgspec.json.decode(path.read_bytes(), type=Position)
        except FileNotFoundError:
            return Position()
        except (OSError, msgspec.DecodeError) as fault:
            log.warning("no_position", reason=str(fault), remedy="the stream is read from its beginning")
            return Position()

    def _stream(self) -> str:
        """Give the stream of the table, and learn the service's time on the way. Raises ``TableError``."""
        described = self._describe()
        arn: str | None = described.get("LatestStreamArn")
        if arn is None or not described.get("StreamSpecification", {}).get("StreamEnabled"):
            msg = f"table {self._table.name}: has no stream; `tenantgate registry init` turns it on"
            raise TableError(msg)
        return arn

    def _describe(self) -> dict[str, Any]:
        try:
            table: dict[str, Any] = self._table.client.describe_table(TableName=self._table.name)["Table"]
        except (ClientError, BotoCoreError) as fault:
            msg = f"table {self._table.name}: {fault}"
            raise TableError(msg) from fault
        return table


def _as_of(manifest: Manifest) -> int:
    return microseconds(datetime.fromisoformat(manifest.metadata.as_of))
