"""Exports of the table, as DynamoDB writes them to S3: read from ``s3://`` or a directory, verified, streamed.

What is read is what the manifests list, never what lies about. Sources of the layout, and of where it departs from the
documentation: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html, ``docs/registry.md``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import UNSET, Struct, UnsetType

from sidecar.errors import ExportError
from sidecar.registry.attribute_values import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sidecar.model import Json

FULL, INCREMENTAL = "FULL_EXPORT", "INCREMENTAL_EXPORT"
SCANNED = "SCAN"
"""The ``exportMethod`` of an export that ``tenantgate registry export --scan`` wrote. AWS does not have the field."""

SUMMARY = "manifest-summary.json"
_CHECKSUMS = (".md5", ".checksum")  # what exports have, what the documentation says
ROOT = "AWSDynamoDB"
_VIEWS = {"NEW_AND_OLD_IMAGES", "NEW_IMAGE", "NEW_IMAGES"}  # the API says one, its prose the other
_MICROSECONDS = 1_000_000
_S = TypeVar("_S")
_T = TypeVar("_T")


class Store(Protocol):
    """Where the objects of an export lie, by key."""

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading. Raises ``FileNotFoundError``."""

    def keys(self, under: str) -> list[str]:
        """List the keys of the objects below ``under``."""


class Directory:
    """A directory whose relative paths are the keys."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading."""
        path = self._root / key
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise FileNotFoundError(key)
        return path.open("rb")

    def keys(self, under: str) -> list[str]:
        """List the files below a folder."""
        return sorted(p.relative_to(self._root).as_posix() for p in (self._root / under).rglob("*") if p.is_file())


class Bucket:
    """A bucket of S3. ``client`` is boto3's."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading, streamed."""
        try:
            body: BinaryIO = self._client.get_object(Bucket=self._name, Key=key)["Body"]
        except self._client.exceptions.NoSuchKey as fault:
            raise FileNotFoundError(key) from fault
        except (BotoCoreError, ClientError) as fault:
            raise self._fault(fault) from fault
        return body

    def keys(self, under: str) -> list[str]:
        """List the objects below a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=under)
        try:
            return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))
        except (BotoCoreError, ClientError) as fault:
            raise self._fault(fault) from fault

    def _fault(self, fault: Exception) -> ExportError:
        return ExportError(f"s3://{self._name}: {fault}")


class _Summary(Struct, rename="camel"):
    """``manifest-summary.json``. Fields that we do not know are ignored: AWS adds some from time to time."""

    manifest_files_s3_key: str = msgspec.field(name="manifestFilesS3Key")
    item_count: int
    output_format: str
    export_arn: str = ""
    table_arn: str = ""
    table_id: str | None = None
    export_time: datetime | None = None
    export_from_time: datetime | None = None
    export_to_time: datetime | None = None
    output_view: str = ""
    export_type: str = FULL
    export_method: str = ""
    filter_specification: Any = None


class _DataFile(Struct, rename="camel"):
    """A line of ``manifest-files.json``."""

    item_count: int
    md5_checksum: str = msgspec.field(name="md5Checksum")
    data_file_s3_key: str = msgspec.field(name="dataFileS3Key")


class _Record(Struct):
    """A line of a data file of a full export."""

    Item: dict[str, Any]


class _Metadata(Struct):
    """When an item was written. Exports have ``{"N": "5"}``, the documentation ``"5"``, and 5 has been seen."""

    WriteTimestampMicros: dict[str, str] | str | int


class _ChangeRecord(Struct):
    """A line of a data file of an incremental export. An item that has no new image was deleted."""

    Metadata: _Metadata
    Keys: dict[str, Any]
    NewImage: dict[str, Any] | UnsetType = UNSET


class Change(Struct, frozen=True):
    """What became of an item: its new attributes as DynamoDB writes them, or ``None`` if it was deleted.

    ``written`` is in microseconds since 1970. ``key`` is what ``key_of`` makes of the item and of ``names``, the names of the
    attributes of the key.
    """

    names: tuple[str, ...]
    key: bytes
    written: int
    image: dict[str, Any] | None


class _AnyExport:
    """An export that is complete: its manifests are there, verified and consistent.

    ``source`` is ``s3://BUCKET/PREFIX`` or a directory, at any level from the prefix down to the folder of one export. Raises
    ``ExportError`` if there is no export, more than one, or one that cannot be used.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._store, under = _open_store(source)
        summary_key = self._find_summary(under)
        self._folder = summary_key.removesuffix(SUMMARY)
        summary = self._decode(summary_key, self._verified(summary_key), _Summary)
        self._check(summary)
        self.arn = summary.export_arn
        self.table_arn = summary.table_arn
        self.table_id = summary.table_id
        self.item_count = summary.item_count
        files_key = self._resolve(summary.manifest_files_s3_key)
        lines = self._verified(files_key).splitlines()
        self._files = [self._decode(files_key, line, _DataFile) for line in lines if line.strip()]
        listed = sum(file.item_count for file in self._files)
        if listed != self.item_count:
            raise self._fault(files_key, f"lists {listed} items, {SUMMARY} says {self.item_count}")

    def _each(
        self, kind: type[_S], convert: Callable[[_S], _T | None], progress: Callable[[int], None]
    ) -> Iterator[_T]:
        """Yield what ``convert`` makes of each record, file by file; nothing where it gives ``None``.

        Raises ``ExportError`` when a file is missing, damaged or does not hold what the manifest says; records of that file may
        have been yielded by then, so the caller must not act on any before the end.
        """
        decoder = msgspec.json.Decoder(kind)
        for file in self._files:
            key = self._resolve(file.data_file_s3_key)
            count = 0
            for number, line in enumerate(self._lines(key, file.md5_checksum), start=1):
                if not line.strip():
                    continue
                try:
                    converted = convert(decoder.decode(line))
                except (msgspec.DecodeError, ValueError) as fault:
                    raise self._fault(key, f"line {number}: {fault}") from fault
                if converted is not None:
                    yield converted
                count += 1
            if count != file.item_count:
                raise self._fault(key, f"holds {count} items, the manifest says {file.item_count}")
            progress(count)

    def _find_summary(self, under: str) -> str:
        found = [k for k in self._store.keys(under) if k.rpartition("/")[2] == SUMMARY]
        if not found:
            msg = (
                f"{self.source}: no export here: there is no {SUMMARY}. A failed or unfinished export does not have one"
            )
            raise ExportError(msg)
        if len(found) > 1:
            folders = ", ".join(key.removesuffix(f"/{SUMMARY}") for key in found[:5])
            msg = f"{self.source}: {len(found)} exports here; name one of them: {folders}"
            raise ExportError(msg)
        return found[0]

    def _check(self, summary: _Summary) -> None:
        if summary.output_format != "DYNAMODB_JSON":
            raise self._fault(SUMMARY, f"the format is {summary.output_format}; export the table as DYNAMODB_JSON")
        if summary.filter_specification is not None:
            raise self._fault(SUMMARY, "this export is filtered; a registry is only good as a whole")

    def _moment(self, name: str, moment: datetime | None) -> int:
        """Give a moment of the summary in microseconds since 1970."""
        if moment is None:
            raise self._fault(SUMMARY, f"{name} is missing")
        if moment.tzinfo is None:
            raise self._fault(SUMMARY, f"{name} has no time zone")
        return int(moment.timestamp()) * _MICROSECONDS + moment.microsecond

    def _resolve(self, key: str) -> str:
        """Find an object of the export by the key that a manifest gives, which may or may not include the prefix."""
        below = key.rpartition(f"{ROOT}/")[2]
        prefix, root, _ = self._folder.rpartition(f"{ROOT}/")
        # Where the folder of the export stands alone, keys are taken from below it.
        return f"{prefix}{root}{below}" if root else self._folder + below.partition("/")[2]

    def _verified(self, key: str) -> bytes:
        body = self._read(key)
        stem = key.removesuffix(".json")
        for suffix in _CHECKSUMS:
            try:
                with self._store.open(stem + suffix) as file:
                    expected = file.read().decode(errors="replace").strip()
            except FileNotFoundError:
                continue
            if base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode() != expected:
                raise self._fault(key, f"does not have the MD5 that {Path(stem).name}{suffix} says: it is damaged")
            return body
        raise self._fault(key, f"has no checksum file beside it ({Path(stem).name}.md5)")

    def _read(self, key: str) -> bytes:
        try:
            with self._store.open(key) as file:
                return file.read()
        except FileNotFoundError as fault:
            raise self._fault(key, "is missing") from fault
        except (OSError, BotoCoreError) as fault:
            raise self._fault(key, f"cannot be read: {fault}") from fault

    def _lines(self, key: str, md5_checksum: str) -> Iterator[bytes]:
        try:
            with self._store.open(key) as file:
                hashing = _Hashing(file)
                yield from gzip.GzipFile(fileobj=hashing)  # type: ignore[call-overload]
                if hashing.digest() != md5_checksum:
                    raise self._fault(key, "does not have the MD5 that the manifest says: it is damaged")
        except FileNotFoundError as fault:
            raise self._fault(key, "is missing") from fault
        except (EOFError, OSError, zlib.error, BotoCoreError) as fault:
            raise self._fault(key, f"is damaged: {fault}") from fault

    def _decode(self, key: str, text: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError as fault:
            raise self._fault(key, str(fault)) from fault

    def _fault(self, key: str, fault: str) -> ExportError:
        return ExportError(f"{self.source}: {key.removeprefix(self._folder)}: {fault}")


class Export(_AnyExport):
    """A full export: all items as they were at ``as_of``, in microseconds since 1970."""

    changes = None

    def items(
        self,
        progress: Callable[[int], None] = lambda _count: None,
        without: Callable[[dict[str, Any]], bool] = lambda _attributes: False,
    ) -> Iterator[dict[str, Json]]:
        """Yield each item as plain JSON. ``progress`` is told the number of items of each file read.

        Items for whose attributes, as DynamoDB writes them, ``without`` is true are left out. Raises ``ExportError``, at the
        latest at the end, when the export is damaged.
        """
        yield from self._each(_Record, lambda record: None if without(record.Item) else plain(record.Item), progress)

    def _check(self, summary: _Summary) -> None:
        super()._check(summary)
        if summary.export_type != FULL:
            fault = f"this is an {summary.export_type}; a base bundle is built from a {FULL}"
            raise self._fault(SUMMARY, fault + (", and others go on top with --incremental" * _is_incremental(summary)))
        self.as_of = self._moment("exportTime", summary.export_time)
        self.scanned = summary.export_method == SCANNED


class IncrementalExport(_AnyExport):
    """An incremental export: what became of the items that were written from ``begin`` up to, but not at, ``end``.

    Both are in microseconds since 1970. Of an item that was written more than once there is only the last; of one that was
    made and deleted again in this time, there is nothing.
    """

    def records(self, progress: Callable[[int], None] = lambda _count: None) -> Iterator[Change]:
        """Yield each change. ``progress`` is told the number of records of each file read.

        Raises ``ExportError``, at the latest at the end, when the export is damaged.
        """
        yield from self._each(_ChangeRecord, _change, progress)

    def _check(self, summary: _Summary) -> None:
        super()._check(summary)
        if not _is_incremental(summary):
            raise self._fault(SUMMARY, f"this is a {summary.export_type}; --incremental takes an {INCREMENTAL}")
        if summary.output_view not in _VIEWS:
            raise self._fault(SUMMARY, f"outputView is {summary.output_view!r}; new images are needed")
        self.begin = self._moment("exportFromTime", summary.export_from_time)
        self.end = self._moment("exportToTime", summary.export_to_time)
        if self.begin >= self.end:
            raise self._fault(SUMMARY, "exportFromTime is not before exportToTime")


def key_of(attributes: Mapping[str, Any], names: Sequence[str]) -> bytes:
    """Give the key of an item, which has these attributes, in one form. Raises ``KeyError`` where one is missing."""
    return _ENCODER.encode([attributes[name] for name in names])


_ENCODER = msgspec.json.Encoder()


def _is_incremental(summary: _Summary) -> bool:
    return summary.export_type == INCREMENTAL


def _change(record: _ChangeRecord) -> Change:
    if not record.Keys:
        msg = "Keys: are missing"
        raise ValueError(msg)
    plain(record.Keys)
    names = tuple(sorted(record.Keys))
    key = key_of(record.Keys, names)
    image = None if record.NewImage is UNSET else record.NewImage
    if image is not None and (not image.keys() >= record.Keys.keys() or key_of(image, names) != key):
        msg = "NewImage: has another key than Keys"
        raise ValueError(msg)
    return Change(names, key, _written(record.Metadata.WriteTimestampMicros), image)


def _written(micros: dict[str, str] | str | int) -> int:
    text = str(micros.get("N") if isinstance(micros, dict) else micros)
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST):
        msg = f"Metadata.WriteTimestampMicros: {micros!r} is not a number of microseconds"
        raise ValueError(msg)
    return int(text)


_LONGEST = 18  # digits, of what SQLite can hold


def _open_store(source: str) -> tuple[Store, str]:
    """Give the store that a source names, and the key below which to look."""
    if source.startswith("s3://"):
        import boto3  # noqa: PLC0415 - half a second that reading a directory does not need

        url = urlsplit(source)
        return Bucket(boto3.client("s3"), url.netloc), url.path.strip("/")
    path = Path(source).resolve()
    if not path.is_dir():
        msg = f"{source}: no such directory; an export is a directory or s3://BUCKET/PREFIX"
        raise ExportError(msg)
    if ROOT not in path.parts:
        return Directory(path), ""
    depth = len(path.parts) - path.parts[::-1].index(ROOT) - 1
    return Directory(Path(*path.parts[:depth])), "/".join(path.parts[depth:])


class _Hashing:
    """A file that hashes what is read from it, so that a data file is read once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._md5 = hashlib.md5(usedforsecurity=False)

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._md5.update(chunk)
        return chunk

    def digest(self) -> str:
        """Give the MD5 of the whole file, as the manifest writes it."""
        while self.read(65536):
            pass
        return base64.b64encode(self._md5.digest()).decode()
