"""Exports of the table in exactly the layout that DynamoDB writes to S3, by us: data files, manifests and their checksums.

What says that an export is complete comes last: a reader finds a whole export or none. The layout is described where it is read,
in ``sidecar/registry/exports.py``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from sidecar.errors import ExportError
from sidecar.registry.exports import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Sink(Protocol):
    """Where the files of an export go, by key."""

    def put(self, key: str, body: IO[bytes]) -> str:
        """Store a file, and give the entity tag that S3 has, or would have, for it."""


class DirectorySink:
    """A directory, in which keys are relative paths."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, body: IO[bytes]) -> str:
        """Store a file."""
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        md5 = hashlib.md5(usedforsecurity=False)
        with path.open("wb") as file:
            while chunk := body.read(1 << 20):
                md5.update(chunk)
                file.write(chunk)
        # that of an upload in one part, as DynamoDB makes them
        return hashlib.md5(md5.digest(), usedforsecurity=False).hexdigest() + "-1"


class BucketSink:
    """A bucket of S3. ``client`` is boto3's. Raises ``ExportError`` when it cannot be written to."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def put(self, key: str, body: IO[bytes]) -> str:
        """Store an object."""
        try:
            answer = self._client.put_object(Bucket=self._name, Key=key, Body=body)
        except (BotoCoreError, ClientError) as fault:
            msg = f"s3://{self._name}/{key}: cannot be written: {fault}"
            raise ExportError(msg) from fault
        return str(answer["ETag"]).strip('"')


class ExportWriter:
    """Writes one export: data files, and then the manifests. ``folder`` is the key that they all begin with, without ``/``.

    The data files are in a folder of the export, or in ``data_folder``: incremental exports share one.
    """

    def __init__(self, sink: Sink, folder: str, data_folder: str | None = None) -> None:
        self._sink = sink
        self._folder = folder
        self._data_folder = data_folder or f"{folder}/data"
        self._entries: list[dict[str, Any]] = []

    @property
    def item_count(self) -> int:
        """The number of records written."""
        return sum(entry["itemCount"] for entry in self._entries)

    def data_file(self, lines: Iterable[bytes], name: str) -> None:
        """Write a data file of these records, each in JSON. There may be none."""
        key = f"{self._data_folder}/{name}.json.gz"
        count = 0
        with tempfile.TemporaryFile() as file:
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as zipped:
                for count, line in enumerate(lines, start=1):  # noqa: B007 - the number of the last is their count
                    zipped.write(line + b"\n")
            file.seek(0)
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
            file.seek(0)
            etag = self._sink.put(key, file)
        checksum = base64.b64encode(digest).decode()
        self._entries.append({"itemCount": count, "md5Checksum": checksum, "etag": etag, "dataFileS3Key": key})

    def finish(self, described: Mapping[str, Any]) -> None:
        """Write the manifests; ``described`` is what else the summary says, and overrides what is known here."""
        manifest = f"{self._folder}/manifest-files.json"
        encoded = map(msgspec.json.encode, self._entries)
        self._put(manifest, b"".join(line + b"\n" for line in encoded))
        summary = {
            "manifestFilesS3Key": manifest,
            "itemCount": self.item_count,
            "outputFormat": "DYNAMODB_JSON",
        }
        self._put(f"{self._folder}/manifest-summary.json", msgspec.json.encode({**summary, **described}))

    def _put(self, key: str, body: bytes) -> None:
        # checksum first: of a summary that is there, all else is there
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        self._sink.put(key.removesuffix(".json") + ".md5", io.BytesIO(base64.b64encode(digest)))
        self._sink.put(key, io.BytesIO(body))


@contextmanager
def destination(place: str, export_id: str) -> Iterator[tuple[Sink, str | None, str]]:
    """Open a place to write an export to: ``s3://BUCKET/PREFIX``, or a directory, which is made if need be.

    Gives the sink, the bucket if there is one, and the key of the folder of the export. In a directory there is nothing of the
    export to be seen until the end, and nothing is left if it fails. Raises ``ExportError`` when it cannot be written.
    """
    if place.startswith("s3://"):
        bucket, prefix = split_s3(place)
        with _bucket_client(place) as client:
            yield BucketSink(client, bucket), bucket, f"{prefix}/{ROOT}/{export_id}".lstrip("/")
        return
    root = Path(place)
    folder = f"{ROOT}/{export_id}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=root, prefix=f".{export_id}."))
        try:
            yield DirectorySink(scratch), None, folder
            for path in scratch.rglob("*.*"):
                _to_disk(path)
            (root / ROOT).mkdir(exist_ok=True)
            (scratch / folder).rename(root / folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as fault:
        msg = f"{place}: cannot be written: {fault.strerror or fault}"
        raise ExportError(msg) from fault


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def split_s3(place: str) -> tuple[str, str]:
    """Split ``s3://BUCKET/PREFIX``. Raises ``ExportError`` if there is no bucket in it."""
    url = urlsplit(place)
    if not url.netloc:
        msg = f"{place}: names no bucket; write s3://BUCKET/PREFIX"
        raise ExportError(msg)
    return url.netloc, url.path.strip("/")


@contextmanager
def _bucket_client(place: str) -> Iterator[Any]:
    import boto3  # noqa: PLC0415 - half a second that writing to a directory does not need

    try:
        client = boto3.client("s3")
    except (BotoCoreError, ValueError) as fault:
        msg = f"{place}: {fault}"
        raise ExportError(msg) from fault
    try:
        yield client
    finally:
        client.close()
