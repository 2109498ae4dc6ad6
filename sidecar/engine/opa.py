"""The client of OPA's data API, over a Unix socket or TCP.

It writes and reads HTTP/1.1 itself, the little of it that OPA needs: a library's share of a query would be larger than OPA's.
Sources: https://www.openpolicyagent.org/docs/latest/rest-api/#get-a-document-with-input and RFC 9112.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from sidecar.errors import DeadlineExceededError, EngineUnavailableError, MalformedAnswerError, SettingsError

_CHUNK = 65536
_SHORTEST = 0.001  # seconds; 0 would mean not to wait at all
_MOST_HEAD = 65536
_LONGEST_LINE = 1024

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?")
_NO_CONTENT = 204


class OpaClient:
    """Sends queries to OPA over a bounded number of kept-alive connections.

    ``address`` is ``unix:PATH`` or ``http://HOST:PORT``. A query takes at most ``timeout`` seconds and no longer than its
    deadline, and an answer may have at most ``max_answer_bytes``.
    """

    def __init__(self, address: str, *, connections: int, timeout: float, max_answer_bytes: int) -> None:
        self.address = address
        self._timeout = timeout
        self._max_answer_bytes = max_answer_bytes
        self._where = _where(address)
        self._places = threading.Semaphore(connections)
        self._idle: list[_Connection] = []  # the one that was used last is used first
        self._closed = False

    def query(self, entrypoint: str, body: bytes, deadline: float, headers: str = "") -> tuple[int, bytes]:
        """Ask for the rule at ``entrypoint`` with the query ``body``; give the HTTP status and body of the answer.

        Errors of builtin functions are errors of the query, not undefined values, so that they cannot pass for "no reason to
        deny". ``deadline`` is a moment of ``time.monotonic()``; ``headers`` are lines of HTTP to send along, each with its end.

        Raises ``EngineUnavailableError`` or ``DeadlineExceededError``.
        """
        return self._send("POST", f"/v1/data/{entrypoint}?strict-builtin-errors=true", body, deadline, headers)

    def bundles_active(self, deadline: float) -> bool:
        """Tell whether OPA has activated all its bundles."""
        return self._send("GET", "/health?bundles", b"", deadline)[0] == 200  # noqa: PLR2004 - HTTP OK

    def close(self) -> None:
        """Keep no connection any more: those that nobody uses are closed now, and the others once they are not used."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        with suppress(IndexError):  # there are no more, or others were quicker
            while True:
                self._idle.pop().close()

    def _send(self, method: str, path: str, body: bytes, deadline: float, headers: str = "") -> tuple[int, bytes]:
        now = time.monotonic()
        if now >= deadline:
            msg = "the deadline passed before OPA was asked"
            raise DeadlineExceededError(msg)
        end = min(deadline, now + self._timeout)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._where.host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n"
        )
        try:
            if not self._places.acquire(timeout=end - now):
                msg = "all connections are in use"
                raise TimeoutError(msg)
            try:
                return self._exchange(head.encode() + body, end)
            finally:
                self._places.release()
        except (OSError, _NotHttpError) as fault:
            if time.monotonic() >= deadline:
                msg = "the deadline passed while OPA was asked"
                raise DeadlineExceededError(msg) from fault
            msg = f"OPA at {self.address} did not answer: {fault}"
            raise EngineUnavailableError(msg) from fault

    def _exchange(self, request: bytes, end: float) -> tuple[int, bytes]:
        try:
            kept = self._idle.pop()
        except IndexError:
            pass
        else:
            try:
                return self._use(kept, request, end)
            except ConnectionError:
                # To ask once more is safe, as a query changes nothing. When one kept-alive connection is dead, so are others.
                self._let_go()
        return self._use(_Connection(self._where, end), request, end)

    def _use(self, connection: _Connection, request: bytes, end: float) -> tuple[int, bytes]:
        try:
            answer = connection.exchange(request, end, self._max_answer_bytes)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
            if self._closed:  # asked after it was put there: either it is seen here, or ``close`` sees the connection
                self._let_go()
        else:
            connection.close()
        return answer


class _NotHttpError(Exception):
    """Raised when an answer cannot be read as HTTP."""


class _Connection:
    """One connection, on which one thing is asked after the other. All ends are moments of ``time.monotonic()``."""

    def __init__(self, where: _Where, end: float) -> None:
        self._read = b""
        self.reusable = False
        if where.unix_path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.settimeout(_left(end))
                self._socket.connect(where.unix_path)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection((where.hostname, where.port), _left(end))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request: bytes, end: float, most: int) -> tuple[int, bytes]:
        """Ask, and give status and body. Raises ``OSError``, ``_NotHttpError`` or ``MalformedAnswerError``, if it is too long."""
        self.reusable = False
        self._socket.settimeout(_left(end))
        self._socket.sendall(request)
        head = self._until(b"\r\n\r\n", _MOST_HEAD, end)
        status = _STATUS.match(head)
        if status is None:
            msg = "its answer is not HTTP/1.1"
            raise _NotHttpError(msg)
        length = _LENGTH.search(head)
        if int(status[1]) == _NO_CONTENT:
            body = b""
        elif _CHUNKED.search(head):
            body = self._chunks(end, most)
        elif length is not None:
            body = self._exactly(_bounded(int(length[1]), most), end)
        else:
            msg = "its answer does not say how long it is"
            raise _NotHttpError(msg)
        # what came besides belongs to no question
        self.reusable = not self._read and _CLOSE.search(head) is None
        return int(status[1]), body

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _chunks(self, end: float, most: int) -> bytes:
        body = bytearray()
        while True:
            size = _SIZE.fullmatch(self._until(b"\r\n", _LONGEST_LINE, end)[:-2])
            if size is None:
                break
            length = int(size[1], 16)
            if length == 0:
                while self._until(b"\r\n", _LONGEST_LINE, end) != b"\r\n":
                    pass
                return bytes(body)
            _bounded(len(body) + length, most)
            body += self._exactly(length, end)
            if self._exactly(2, end) != b"\r\n":
                break
        msg = "a chunk of its answer is broken"
        raise _NotHttpError(msg)

    def _until(self, mark: bytes, most: int, end: float) -> bytes:
        """Read up to a mark, and with it."""
        while (at := self._read.find(mark)) < 0:
            if len(self._read) > most:
                msg = "a line or the head of its answer is too long"
                raise _NotHttpError(msg)
            self._read += self._receive(end)
        return self._take(at + len(mark))

    def _exactly(self, length: int, end: float) -> bytes:
        if len(self._read) < length:
            parts, left = [self._read], length - len(self._read)
            while left > 0:
                parts.append(self._receive(end))
                left -= len(parts[-1])
            self._read = b"".join(parts)
        return self._take(length)

    def _take(self, length: int) -> bytes:
        taken, self._read = self._read[:length], self._read[length:]
        return taken

    def _receive(self, end: float) -> bytes:
        self._socket.settimeout(_left(end))
        received = self._socket.recv(_CHUNK)
        if not received:
            msg = "it closed the connection"
            raise ConnectionResetError(msg)
        return received


def _left(end: float) -> float:
    """Tell how long an operation may take, in seconds. Raises ``TimeoutError`` at the end: a trickle must not last."""
    left = end - time.monotonic()
    if left <= 0:
        msg = "its answer did not come in time"
        raise TimeoutError(msg)
    return max(left, _SHORTEST)


def _bounded(length: int, most: int) -> int:
    if length > most:
        msg = f"OPA's answer has more than {most} bytes"
        raise MalformedAnswerError(msg)
    return length


class _Where(NamedTuple):
    """Where OPA listens: a path, or a host and a port. ``host`` is what it is told."""

    host: str
    unix_path: str = ""
    hostname: str = ""
    port: int = 0


def _where(address: str) -> _Where:
    if address.startswith("unix:"):
        return _Where("localhost", address.removeprefix("unix:").removeprefix("//"))
    url = urlsplit(address)
    if url.scheme != "http" or not url.hostname:
        msg = f"opa.address: {address!r} is neither unix:PATH nor http://HOST:PORT"
        raise SettingsError(msg)
    return _Where(url.netloc, hostname=url.hostname, port=url.port or 8181)
