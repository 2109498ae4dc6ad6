"""Exports as DynamoDB writes them, made by the tests."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/tenantgate-registry"


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
    records = [json.dumps({"Item": attributes(item)}) for item in items] if lines is None else list(lines)
    root = f"{prefix}AWSDynamoDB/{export_id}"
    entries = []
    for number in range(files + 1):
        part = records[number::files] if number < files else []
        body = gzip.compress("".join(f"{line}\n" for line in part).encode(), mtime=0)
        key = f"{root}/data/p{number:03}abcdefghijklmnopqrst.json.gz"
        _write(folder, key, body)
        entries.append(
            {"itemCount": len(part), "md5Checksum": md5(body), "etag": "0" * 32 + "-1", "dataFileS3Key": key}
        )
    manifest = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    described = {
        "version": "2020-06-30",
        "exportArn": f"{ARN}/export/{export_id}",
        "tableArn": ARN,
        "exportTime": "2026-11-24T00:00:00.000Z",
        "s3Bucket": "registry-exports",
        "s3Prefix": prefix.rstrip("/") or None,
        "manifestFilesS3Key": f"{root}/manifest-files.json",
        "itemCount": len(records),
        "outputFormat": "DYNAMODB_JSON",
    } | dict(summary or {})
    for name, body in (("manifest-files", manifest), ("manifest-summary", json.dumps(described).encode())):
        _write(folder, f"{root}/{name}.json", body)
        _write(folder, f"{root}/{name}.md5", md5(body).encode())
    return folder


def _write(folder: Path, key: str, body: bytes) -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
