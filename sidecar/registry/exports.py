"""Exports of the table, as DynamoDB writes them to S3: read from ``s3://`` or a directory, verified, streamed.

What is read is what the manifests list, never what lies about. Sources of the layout, and of where it departs from the
documentation: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html, ``docs/registry.md``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from datetime import datetime  # noqa: TC003 - msgspec resolves the annotation at run time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from sidecar.errors import ExportError
from sidecar.registry.attribute_values import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.model import Json

SUMMARY = "manifest-summary.json"
_CHECKSUMS = (".md5", ".checksum")  # what exports have, what the documentation says
_ROOT = "AWSDynamoDB"
_MICROSECONDS = 1_000_000
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
    export_time: datetime | None = None
    export_type: str = "FULL_EXPORT"


class _DataFile(Struct, rename="camel"):
    """A line of ``manifest-files.json``."""

    item_count: int
    md5_checksum: str = msgspec.field(name="md5Checksum")
    data_file_s3_key: str = msgspec.field(name="dataFileS3Key")


class _Record(Struct):
    """A line of a data file of a full export."""

    Item: dict[str, Any]


class Export:
    """A full export that is complete: its manifests are there, verified and consistent.

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
        assert summary.export_time is not None  # noqa: S101 - checked
        self.arn = summary.export_arn
        self.table_arn = summary.table_arn
        self.item_count = summary.item_count
        self.as_of = int(summary.export_time.timestamp()) * _MICROSECONDS + summary.export_time.microsecond
        files_key = self._resolve(summary.manifest_files_s3_key)
        lines = self._verified(files_key).splitlines()
        self._files = [self._decode(files_key, line, _DataFile) for line in lines if line.strip()]
        listed = sum(file.item_count for file in self._files)
        if listed != self.item_count:
            raise self._fault(files_key, f"lists {listed} items, {SUMMARY} says {self.item_count}")

    def items(self, progress: Callable[[int], None] = lambda _count: None) -> Iterator[dict[str, Json]]:
        """Yield each item as plain JSON, file by file. ``progress`` is told the number of items of each file read.

        Raises ``ExportError`` when a file is missing, damaged or does not hold what the manifest says; items of that file may
        have been yielded by then, so the caller must not act on any before the end.
        """
        decoder = msgspec.json.Decoder(_Record)
        for file in self._files:
            key = self._resolve(file.data_file_s3_key)
            count = 0
            for number, line in enumerate(self._lines(key, file.md5_checksum), start=1):
                if not line.strip():
                    continue
                try:
                    yield plain(decoder.decode(line).Item)
                except (msgspec.DecodeError, ValueError) as fault:
                    raise self._fault(key, f"line {number}: {fault}") from fault
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
        if summary.export_type != "FULL_EXPORT":
            raise self._fault(SUMMARY, f"this is an {summary.export_type}; a base bundle is built from a FULL_EXPORT")
        if summary.export_time is None:
            raise self._fault(SUMMARY, "exportTime is missing")

    def _resolve(self, key: str) -> str:
        """Find an object of the export by the key that a manifest gives, which may or may not include the prefix."""
        below = key.rpartition(f"{_ROOT}/")[2]
        prefix, root, _ = self._folder.rpartition(f"{_ROOT}/")
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
    if _ROOT not in path.parts:
        return Directory(path), ""
    depth = len(path.parts) - path.parts[::-1].index(_ROOT) - 1
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
