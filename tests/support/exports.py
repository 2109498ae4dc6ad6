"""Exports as DynamoDB writes them, made by the tests."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from sidecar.registry.export_writer import DirectorySink, ExportWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/tenantgate-registry"
TABLE_ID = "0c5d2a1e-7c7b-4f5e-9a60-3f0f7a1f8f11"


def attribute(value: Any) -> dict[str, Any]:
    """Write a plain JSON value as DynamoDB does."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": repr(value)}
        case str():
            return {"S": value}
        case dict():
            return {"M": attributes(value)}
        case _:
            return {"L": [attribute(entry) for entry in value]}


def attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    """Write a plain item as DynamoDB does."""
    return {name: attribute(value) for name, value in item.items()}


def md5(body: bytes) -> str:
    """Give an MD5 as manifests write it."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def write_export(
    folder: Path,
    items: Iterable[Mapping[str, Any]],
    *,
    files: int = 2,
    export_id: str = "01764000000000-1a2b3c4d",
    prefix: str = "",
    summary: Mapping[str, Any] | None = None,
    lines: Sequence[str] | None = None,
) -> Path:
    """Write a full export of plain items below a folder; the last data file is empty, as they sometimes are.

    ``summary`` overrides fields of the manifest summary; ``lines`` stand in for the items when they must be malformed.
    """
    records = [json.dumps({"Item": attributes(item)}) for item in items] if lines is None else lines
    root = f"{prefix}AWSDynamoDB/{export_id}"
    described = {
        "version": "2020-06-30",
        "exportArn": f"{ARN}/export/{export_id}",
        "tableArn": ARN,
        "tableId": TABLE_ID,
        "exportTime": "2026-11-24T00:00:00.000Z",
        "s3Bucket": "registry-exports",
        "s3Prefix": prefix.rstrip("/") or None,
    }
    _write(ExportWriter(DirectorySink(folder), root), records, files, {**described, **(summary or {})})
    return folder


def change(
    written: int,
    new: Mapping[str, Any] | None = None,
    old: Mapping[str, Any] | None = None,
    keys: Sequence[str] = ("pk", "sk"),
) -> dict[str, Any]:
    """Make a record of an incremental export, of the plain item before and after; of a deletion if there is no new one.

    ``written`` is in microseconds since 1970.
    """
    item = new or old or {}
    record = {
        "Metadata": {"WriteTimestampMicros": {"N": str(written)}},
        "Keys": attributes({name: item[name] for name in keys}),
    }
    images = {"NewImage": new, "OldImage": old}
    return record | {name: attributes(image) for name, image in images.items() if image is not None}


def write_incremental(
    folder: Path,
    records: Iterable[Mapping[str, Any]],
    begin: str,
    end: str,
    *,
    files: int = 1,
    export_id: str = "01764000900000-5e6f7a8b",
    prefix: str = "",
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write an incremental export below a folder, and give its own folder; the last data file is empty."""
    root = f"{prefix}AWSDynamoDB"
    described = {
        "version": "2023-08-01",
        "exportArn": f"{ARN}/export/{export_id}",
        "tableArn": ARN,
        "tableId": TABLE_ID,
        "exportFromTime": begin,
        "exportToTime": end,
        "s3Bucket": "registry-exports",
        "s3Prefix": prefix.rstrip("/") or None,
        "outputView": "NEW_AND_OLD_IMAGES",
        "exportType": "INCREMENTAL_EXPORT",
    }
    writer = ExportWriter(DirectorySink(folder), f"{root}/{export_id}", data_folder=f"{root}/data")
    _write(writer, [*map(json.dumps, records)], files, {**described, **(summary or {})}, name=export_id)
    return folder / root / export_id


def _write(
    writer: ExportWriter,
    records: Sequence[str],
    files: int,
    described: Mapping[str, Any],
    name: str = "abcdefghijklmnopqrst",
) -> None:
    for number in range(files + 1):
        part = records[number::files] if number < files else []
        writer.data_file(map(str.encode, part), f"p{number:03}{name}")
    writer.finish(described)
