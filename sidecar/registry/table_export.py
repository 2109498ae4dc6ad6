"""Exports of the live table: by DynamoDB itself, at a point in time, or by a scan where that is not to be had.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_ExportTableToPointInTime.html
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from sidecar.errors import TableError
from sidecar.registry.export_writer import ExportWriter, destination
from sidecar.registry.exports import FULL, INCREMENTAL, ROOT, SCANNED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SHORTEST, LONGEST = timedelta(minutes=15), timedelta(hours=24)
"""How long an incremental export may last."""

_FIRST_WAIT, _LONGEST_WAIT = 2.0, 30.0  # seconds between two looks at an export, which takes minutes
_FILE_BYTES = 64 << 20  # of items in one data file, before they are compressed
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


class Window(NamedTuple):
    """The time of an incremental export: from the one, up to but not at the other."""

    begin: datetime
    end: datetime

    def fault(self) -> str | None:
        """Say what DynamoDB would not take, if anything."""
        if not SHORTEST <= self.end - self.begin <= LONGEST:
            return (
                f"an incremental export lasts from 15 minutes to 24 hours; this one would last {self.end - self.begin}"
            )
        return "an incremental export begins and ends at whole seconds" if any(m.microsecond for m in self) else None


class TableExport(Struct, frozen=True):
    """An export of the table. ``location`` is where it is, or will be."""

    location: str
    status: str
    arn: str = ""
    items: int = 0
    fault: str = ""


def start_export(client: Any, table: str, bucket: str, prefix: str, window: Window | None = None) -> TableExport:
    """Have DynamoDB export the table, or what was written in a window of time. ``client`` is boto3's.

    To ask again for the same window gives the same export for eight hours, unless it failed. Raises ``TableError``.
    """
    with _telling(table):
        arn = client.describe_table(TableName=table)["Table"]["TableArn"]
        request = {
            "TableArn": arn,
            "S3Bucket": bucket,
            **({"S3Prefix": prefix} if prefix else {}),
            "ExportFormat": "DYNAMODB_JSON",
            "ExportType": INCREMENTAL if window else FULL,
        }
        if window is None:
            # another one is another export: its moment is now
            return _described(client.export_table_to_point_in_time(**request, ClientToken=str(uuid4())))
        request["IncrementalExportSpecification"] = {
            "ExportFromTime": window.begin,
            "ExportToTime": window.end,
            "ExportViewType": "NEW_AND_OLD_IMAGES",
        }
        text = json.dumps(request, sort_keys=True, default=lambda moment: moment.astimezone(UTC).isoformat())
        token = hashlib.sha256(text.encode()).hexdigest()[:36]
        started = _described(client.export_table_to_point_in_time(**request, ClientToken=token))
        if started.status == "FAILED":
            started = _described(client.export_table_to_point_in_time(**request, ClientToken=str(uuid4())))
        return started


def follow_export(
    client: Any,
    table: str,
    started: TableExport,
    told: Callable[[TableExport], None] = lambda _export: None,
    wait: Callable[[float], None] = time.sleep,
) -> TableExport:
    """Wait until an export is there; ``told`` hears of every look at it. Raises ``TableError`` if it fails."""
    export = started
    pause = _FIRST_WAIT
    while export.status not in {"COMPLETED", "FAILED"}:
        told(export)
        wait(pause)
        pause = min(pause * 1.5, _LONGEST_WAIT)
        with _telling(table):
            export = _described(client.describe_export(ExportArn=started.arn))
    told(export)
    if export.status == "FAILED":
        msg = f"table {table}: the export {export.arn} failed: {export.fault}"
        raise TableError(msg)
    return export


def scan_export(
    client: Any, table: str, place: str, progress: Callable[[int], None] = lambda _count: None
) -> TableExport:
    """Export the table by a consistent scan, to ``s3://BUCKET/PREFIX`` or a directory. ``client`` is boto3's.

    ``progress`` is told how many more items were read. Such an export holds all that was written before it began, and some of
    what was written since. Raises ``TableError`` or ``ExportError``.
    """
    began = datetime.now(UTC)
    export_id = f"{int(began.timestamp() * 1000):014}-{secrets.token_hex(4)}"
    with _telling(table):
        described = client.describe_table(TableName=table)["Table"]
        with destination(place, export_id) as (sink, bucket, folder):
            writer = ExportWriter(sink, folder)
            pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
            for part in _parts(_lines(pages, progress)):
                writer.data_file(part, _file_name())
            if not writer.item_count:
                writer.data_file((), _file_name())
            writer.finish(
                {
                    "version": "2020-06-30",
                    "exportArn": f"{described['TableArn']}/export/{export_id}",
                    "startTime": _rfc3339(began),
                    "endTime": _rfc3339(datetime.now(UTC)),
                    "tableArn": described["TableArn"],
                    "tableId": described.get("TableId"),
                    "exportTime": _rfc3339(began),
                    "s3Bucket": bucket,
                    "s3Prefix": folder.partition(ROOT)[0].rstrip("/") or None,
                    "s3SseAlgorithm": None,
                    "s3SseKmsKeyId": None,
                    "billedSizeBytes": 0,
                    "exportType": FULL,
                    "exportMethod": SCANNED,
                }
            )
    location = f"s3://{bucket}/{folder}" if bucket else f"{place.rstrip('/')}/{folder}"
    return TableExport(location, "COMPLETED", items=writer.item_count)


def _lines(pages: Iterable[dict[str, Any]], progress: Callable[[int], None]) -> Iterator[bytes]:
    encode = msgspec.json.Encoder().encode  # writes binary values in base64, as exports have them
    for page in pages:
        for attributes in page["Items"]:
            yield encode({"Item": attributes})
        progress(page["Count"])


def _parts(lines: Iterable[bytes]) -> Iterator[Iterator[bytes]]:
    """Cut lines into parts of a size that is good for one file."""
    size = 0

    def number(line: bytes) -> int:
        nonlocal size
        size += len(line)
        return size // _FILE_BYTES

    return (part for _, part in groupby(lines, number))


def _file_name() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))


def _described(answer: dict[str, Any]) -> TableExport:
    export = answer["ExportDescription"]
    prefix = f"{export['S3Prefix'].strip('/')}/" if export.get("S3Prefix") else ""
    folder = f"{prefix}{ROOT}/{export['ExportArn'].rpartition('/')[2]}"
    faults = (export.get("FailureCode"), export.get("FailureMessage"))
    return TableExport(
        location=f"s3://{export['S3Bucket']}/{folder}",
        status=export["ExportStatus"],
        arn=export["ExportArn"],
        items=export.get("ItemCount") or 0,
        fault=": ".join(filter(None, faults)) or "no reason is given",
    )


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_REMEDIES = {
    "ResourceNotFoundException": "does not exist here; `tenantgate registry init` makes it",
    "TableNotFoundException": "does not exist here; `tenantgate registry init` makes it",
    "PointInTimeRecoveryUnavailableException": (
        "has no point-in-time recovery, by which DynamoDB exports; `tenantgate registry init` turns it on, and --scan does"
        " without"
    ),
    "InvalidExportTimeException": "does not reach back so far, or the time is still to come",
    "LimitExceededException": "has as many exports at once as DynamoDB allows; try again when one is done",
    "UnknownOperationException": "is not in a DynamoDB that exports; --scan does without",
}


@contextmanager
def _telling(table: str) -> Iterator[None]:
    """Tell the errors of boto3 in words, with the remedy."""
    try:
        yield
    except ClientError as fault:
        error = fault.response["Error"]
        said = f"{fault.operation_name}: {error['Code']}: {error['Message']}"
        remedy = _REMEDIES.get(error["Code"])
        msg = f"table {table}: {f'{remedy} ({said})' if remedy else said}"
        raise TableError(msg) from fault
    except BotoCoreError as fault:
        msg = f"table {table}: {fault}"
        raise TableError(msg) from fault
