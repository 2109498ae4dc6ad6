"""Where published bundles are fetched from: a directory, an HTTP server or S3. They are carriers: nothing is believed of them.

A source is asked for a file with a token for what was seen of it before, and puts what is another into a file. It may take its
time to find out whether there is, but never longer than it was given, and ends at once when it is closed.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import threading
import time
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 18
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
_MOST_BYTES = 1 << 30  # as much as OPA takes
_MOST_DOWNLOAD_SECONDS = 300.0
_BUNDLE_TYPE = "application/vnd.openpolicyagent.bundles"
_NO_ETAG = "sha256:"  # begins no ETag
_NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
_NOT_MODIFIED = {"304", "NotModified"}


class SourceError(Exception):
    """Raised when a source cannot be asked, or what it holds cannot be had. It goes no further than the intake."""


class Source(Protocol):
    """What bundles are fetched from. ``pause`` is how long to leave it alone after an answer, in seconds."""

    def fetch(self, name: str, seen: str, into: IO[bytes], *, wait: bool) -> str:
        """Put a file into another if it is not the one ``seen``; give a token for it, and ``seen`` itself if it is.

        Gives an empty token when there is no such file. With ``wait``, a source that can may wait for it to change. Raises
        ``SourceError``.
        """

    def pause(self, name: str) -> float:
        """Tell how long to leave it alone before it is asked for a file again, in seconds."""

    def close(self) -> None:
        """End what is going on."""


def open_source(
    address: str, *, poll_seconds: float | None, long_poll_seconds: int, token_file: str | None, ca_file: str | None
) -> Source:
    """Open the source at an address; it need not be there yet. Raises ``SourceError``."""
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme == "s3":
        return S3Source(address, poll_seconds or 1.0)
    if scheme in {"http", "https"}:
        return HttpSource(address, poll_seconds or 1.0, long_poll_seconds, token_file, ca_file)
    return DirectorySource(Path(address), poll_seconds or 0.1)


class DirectorySource:
    """A directory that files are renamed into."""

    def __init__(self, folder: Path, poll_seconds: float) -> None:
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._closed = threading.Event()

    def fetch(self, name: str, seen: str, into: IO[bytes], *, wait: bool) -> str:  # noqa: ARG002 - to look is cheap
        """Look at the file, and copy it if its inode, size or time is another."""
        try:
            found = (self._folder / name).stat()
            if _token(found) == seen:
                return seen
            # does not hang on what is no file, such as a pipe without a writer
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if not self._folder.is_dir():
                msg = f"{self._folder}: no such directory"
                raise SourceError(msg) from None
            return ""
        except (OSError, ValueError) as fault:
            _fail(self._folder / name, fault)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                msg = f"{self._folder / name}: not a plain file"
                raise SourceError(msg)
            try:
                taken = 0
                while chunk := file.read(_CHUNK):
                    taken = _write(into, chunk, taken, name)
                    if self._closed.is_set():
                        _fail_closed()
            except OSError as fault:
                _fail(self._folder / name, fault)
        return _token(found)

    def pause(self, name: str) -> float:  # noqa: ARG002 - the same for all
        """Tell how long to leave it alone."""
        return self._poll_seconds

    def close(self) -> None:
        """End a copy."""
        self._closed.set()


def _token(found: os.stat_result) -> str:
    return f"{found.st_dev}-{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


class HttpSource:
    """An HTTP server; with long polling if it knows it, else asked at an interval."""

    def __init__(
        self, url: str, poll_seconds: float, long_poll_seconds: int, token_file: str | None, ca_file: str | None
    ) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            msg = f"{url}: there is no host in it"
            raise SourceError(msg)
        self._path = parts.path.rstrip("/")
        self._poll_seconds = poll_seconds
        self._long_poll_seconds = long_poll_seconds
        self._token_file = None if token_file is None else Path(token_file)
        self._address = f"{parts.scheme}://{parts.netloc}{self._path}"
        self._authorities = (
            f"checked against {f'bundles.ca_file {ca_file}' if ca_file else 'the certificates of the system'}"
        )
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._pauses: dict[str, float] = {}
        self._patient: set[str] = set()
        settings: dict[str, Any] = {"maxsize": 4, "block": False}
        self._pool: HTTPConnectionPool
        if parts.scheme == "https":
            self._pool = HTTPSConnectionPool(
                parts.hostname, parts.port or 443, cert_reqs="CERT_REQUIRED", ca_certs=ca_file, **settings
            )
            self._pool.ConnectionCls = _following(HTTPSConnection, self._follow)
        else:
            self._pool = HTTPConnectionPool(parts.hostname, parts.port or 80, **settings)
            self._pool.ConnectionCls = _following(HTTPConnection, self._follow)

    def fetch(self, name: str, seen: str, into: IO[bytes], *, wait: bool) -> str:
        """Ask for the file. The token is its ETag or, from a server that gives none, its hash."""
        # Only one that has shown that it knows long polling is asked to wait: another may take it for something else.
        wait = wait and name in self._patient
        began = time.monotonic()
        self._pauses[name] = self._poll_seconds
        try:
            token = self._ask(name, seen, into, self._long_poll_seconds if wait else 0)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as fault:
            if self._closed:
                _fail_closed()
            tls = f" ({self._authorities})" if isinstance(fault, urllib3.exceptions.SSLError) else ""
            _fail(f"{self._address}/{name}{tls}", fault)
        if name in self._patient:
            # One that answers before it must, and with nothing new, is asked no more often than one that cannot wait.
            is_new = token not in {"", seen}
            self._pauses[name] = 0.0 if is_new else max(0.0, self._poll_seconds - (time.monotonic() - began))
        return token

    def pause(self, name: str) -> float:
        """Tell how long to leave it alone: not at all after one that has waited by itself."""
        return self._pauses.get(name, self._poll_seconds)

    def close(self) -> None:
        """Cut all connections, whatever they wait for."""
        self._closed = True
        self._cut()

    def _ask(self, name: str, seen: str, into: IO[bytes], wait: int) -> str:
        headers = {"Accept": f"{_BUNDLE_TYPE}, application/gzip;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}
        prefer = "modes=snapshot"
        if wait:
            prefer += f";wait={wait}"
        headers["Prefer"] = prefer
        if seen and not seen.startswith(_NO_ETAG):
            headers["If-None-Match"] = seen
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        with self._bounded(wait + _MOST_DOWNLOAD_SECONDS):
            try:
                response = self._send(name, headers, wait)
            except urllib3.exceptions.ProtocolError as fault:
                # a kept-alive connection turned out dead
                if self._closed or not isinstance(fault.args[-1], ConnectionError):
                    raise
                response = self._send(name, headers, wait)
            try:
                return self._take(response, name, seen, into)
            finally:
                response.close()

    def _send(self, name: str, headers: dict[str, str], wait: int) -> urllib3.BaseHTTPResponse:
        return self._pool.urlopen(
            "GET",
            f"{self._path}/{name}",
            headers=headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=wait + _READ_SECONDS),
            preload_content=False,
        )

    def _take(self, response: urllib3.BaseHTTPResponse, name: str, seen: str, into: IO[bytes]) -> str:
        if response.status == HTTPStatus.NOT_MODIFIED:
            return seen
        if response.headers.get("Content-Type", "").partition(";")[0].strip() == _BUNDLE_TYPE:
            self._patient.add(name)
        else:
            self._patient.discard(name)
        if response.status == HTTPStatus.NOT_FOUND:
            return ""
        if response.status != HTTPStatus.OK:
            msg = f"{self._address}/{name}: HTTP status {response.status}"
            raise SourceError(msg)
        token = response.headers.get("ETag", "")
        if token and token == seen:
            return seen
        taken, digest = 0, hashlib.sha256()
        while chunk := response.read(_CHUNK):
            taken = _write(into, chunk, taken, name)
            digest.update(chunk)
        return token or _NO_ETAG + digest.hexdigest()

    def _follow(self, connected: socket.socket) -> None:
        with self._lock:
            self._open = {other for other in self._open if other.fileno() >= 0} | {connected}
        if self._closed:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for connected in self._open:
                with suppress(OSError, ValueError):
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)

    @contextmanager
    def _bounded(self, seconds: float) -> Iterator[None]:
        """Cut the connections when it takes longer: a timeout of a socket begins anew with every byte."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _following(kind: type[Any], follow: Any) -> type[Any]:
    """Make a kind of connection that tells of its socket."""

    class Followed(kind):  # type: ignore[misc]  # chosen at run time
        def connect(self) -> None:
            super().connect()
            follow(self.sock)

    return Followed


class S3Source:
    """A prefix in a bucket."""

    def __init__(self, address: str, poll_seconds: float) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket:
            msg = f"{address}: there is no bucket in it"
            raise SourceError(msg)
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False

    def fetch(self, name: str, seen: str, into: IO[bytes], *, wait: bool) -> str:  # noqa: ARG002 - S3 cannot wait
        """Get the object if its ETag is another."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow to load, seldom needed

        key = self._prefix + name
        condition = {"IfNoneMatch": seen} if seen else {}
        try:
            answer = self._s3().get_object(Bucket=self._bucket, Key=key, **condition)
            with answer["Body"] as body:
                taken, end = 0, time.monotonic() + _MOST_DOWNLOAD_SECONDS
                while chunk := body.read(_CHUNK):
                    taken = _write(into, chunk, taken, name)
                    if self._closed or time.monotonic() > end:
                        _fail_closed()
            return str(answer["ETag"])
        except ClientError as fault:
            code = fault.response.get("Error", {}).get("Code", "")
            if code in _NOT_MODIFIED:
                return seen
            if code in _NOT_FOUND:
                return ""
            _fail(f"s3://{self._bucket}/{key}", fault)
        except (BotoCoreError, urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as fault:
            _fail(f"s3://{self._bucket}/{key}", fault)

    def pause(self, name: str) -> float:  # noqa: ARG002 - the same for all
        """Tell how long to leave it alone."""
        return self._poll_seconds

    def close(self) -> None:
        """End a download at the next piece; a wait for one is bounded."""
        self._closed = True

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                import boto3  # noqa: PLC0415 - slow to load, seldom needed
                from botocore.config import Config  # noqa: PLC0415

                config = Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"max_attempts": 1, "mode": "standard"},
                )
                self._client = boto3.Session().client("s3", config=config)
            return self._client


def _write(into: IO[bytes], chunk: bytes, taken: int, name: str) -> int:
    taken += len(chunk)
    if taken > _MOST_BYTES:
        msg = f"{name}: has more than {_MOST_BYTES} bytes"
        raise SourceError(msg)
    into.write(chunk)
    return taken


def _fail(what: object, fault: Exception) -> NoReturn:
    reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else fault
    msg = f"{what}: {reason}"
    raise SourceError(msg) from fault


def _fail_closed() -> NoReturn:
    msg = "closed, or too slow"
    raise SourceError(msg)
