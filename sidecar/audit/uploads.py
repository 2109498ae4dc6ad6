"""Sinks elsewhere: a collector of OPA's decision logs over HTTP, and a bucket."""

from __future__ import annotations

import gzip
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import urllib3

from sidecar.audit.opa_events import event
from sidecar.audit.writer import TooMuchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.settings import AuditHttp, AuditS3

_TOO_LARGE = 413  # https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14
_LEVEL = 6  # of compression


class UploadError(Exception):
    """Raised when records were not taken."""


class HttpSink:
    """Posts records as OPA posts its decision logs: a JSON array of events, compressed.

    Source: https://www.openpolicyagent.org/docs/latest/management-decision-logs/#decision-log-service-api. ``labels`` say which
    sidecar it is.
    """

    name = "http"

    def __init__(self, settings: AuditHttp, labels: dict[str, str]) -> None:
        self.pause = settings.pause_seconds
        self.most = settings.batch_bytes
        self._url = settings.url or ""
        self._labels = labels | settings.labels
        self._token_file = settings.token_file
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(total=settings.timeout_seconds), ca_certs=settings.ca_file
        )

    def write(self, lines: Sequence[bytes]) -> None:
        """Post records."""
        events = [event(msgspec.json.decode(line), self._labels) for line in lines]
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        if self._token_file is not None:
            # read every time: whoever issues it replaces it
            headers["authorization"] = f"Bearer {Path(self._token_file).read_text().strip()}"
        try:
            answer = self._pool.request(
                "POST", self._url, body=gzip.compress(msgspec.json.encode(events), _LEVEL, mtime=0), headers=headers
            )
        except urllib3.exceptions.HTTPError as fault:
            msg = f"{self._url} cannot be reached: {_without_address(fault)}"
            raise UploadError(msg) from fault
        if answer.status == _TOO_LARGE:
            msg = f"{self._url} answers 413 to {len(lines)} records"
            raise TooMuchError(msg)
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - success, and nothing else
            msg = f"{self._url} answers {answer.status}"
            raise UploadError(msg)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


class S3Sink:
    """Puts records into a bucket: an object of JSON lines, compressed, for what was gathered.

    The key of an object says when and where the first of its records was made. Objects that are put twice, as an attempt seemed
    to fail, are the same.
    """

    name = "s3"

    def __init__(self, settings: AuditS3) -> None:
        self.pause = settings.pause_seconds
        self.most = settings.batch_bytes
        bucket, _, prefix = (settings.address or "").removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._timeout = settings.timeout_seconds
        self._host = socket.gethostname()
        self._client: Any = None

    def write(self, lines: Sequence[bytes]) -> None:
        """Put records."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow to load, seldom needed

        key = self._prefix + object_key(lines[0], self._host)
        body = gzip.compress(b"".join(lines), _LEVEL, mtime=0)
        try:
            self._s3().put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/gzip")
        except (BotoCoreError, ClientError) as fault:
            msg = f"s3://{self._bucket}/{key} cannot be written: {fault}"
            raise UploadError(msg) from fault

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _s3(self) -> Any:
        if self._client is None:
            import boto3  # noqa: PLC0415 - slow to load, seldom needed
            from botocore.config import Config  # noqa: PLC0415

            config = Config(
                connect_timeout=self._timeout,
                read_timeout=self._timeout,
                retries={"max_attempts": 1, "mode": "standard"},
            )
            self._client = boto3.Session().client("s3", config=config)
        return self._client


def object_key(line: bytes, host: str) -> str:
    """Name the object whose first record is a line: by day and hour, moment, host and decision."""
    first = msgspec.json.decode(line)
    time, decision_id = first["time"], first["decision_id"]
    day, _, clock = time.partition("T")
    moment = f"{day.replace('-', '')}T{clock.replace(':', '')}"
    return f"{day.replace('-', '/')}/{clock[:2]}/{moment}-{host}-{decision_id}.jsonl.gz"


def _without_address(fault: Exception) -> str:
    """Say what went wrong in urllib3's words, without the object that they begin with."""
    text = str(fault)
    return text.rpartition("): ")[2] or text
