"""The client of OPA's data API, over a Unix socket or TCP.

Source: https://www.openpolicyagent.org/docs/latest/rest-api/#get-a-document-with-input
"""

from __future__ import annotations

import http.client
import math
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from sidecar.errors import DeadlineExceededError, EngineUnavailableError, MalformedAnswerError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADERS = {"Content-Type": "application/json"}
_CHUNK = 65536
_SHORTEST = 0.001  # seconds; 0 would mean not to wait at all


class OpaClient:
    """Sends queries to OPA over a bounded pool of kept-alive connections.

    ``address`` is ``unix:PATH`` or ``http://HOST:PORT``. A query takes at most ``timeout`` seconds and no longer than its
    deadline, and an answer may have at most ``max_answer_bytes``.
    """

    def __init__(self, address: str, *, connections: int, timeout: float, max_answer_bytes: int) -> None:
        self.address = address
        self._timeout = timeout
        self._max_answer_bytes = max_answer_bytes
        self._pool = _pool(address, connections)

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Ask for the rule at ``entrypoint`` with the query ``body``; give the HTTP status and body of the answer.

        Errors of builtin functions are errors of the query, not undefined values, so that they cannot pass for "no reason to
        deny". ``deadline`` is a moment of ``time.monotonic()``.

        Raises ``EngineUnavailableError`` or ``DeadlineExceededError``.
        """
        return self._send("POST", f"/v1/data/{entrypoint}?strict-builtin-errors=true", body, deadline)

    def bundles_active(self, deadline: float) -> bool:
        """Tell whether OPA has activated all its bundles."""
        return self._send("GET", "/health?bundles", None, deadline)[0] == http.client.OK

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _send(self, method: str, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
        left = deadline - time.monotonic()
        if left <= 0:
            msg = "the deadline passed before OPA was asked"
            raise DeadlineExceededError(msg)
        end = min(deadline, time.monotonic() + self._timeout)
        try:
            try:
                return self._exchange(method, path, body, end)
            except urllib3.exceptions.ProtocolError as fault:
                # A query changes nothing: asking once more is safe when a kept-alive connection turns out dead.
                if not isinstance(fault.args[-1], ConnectionError):
                    raise
                return self._exchange(method, path, body, end)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as fault:
            if time.monotonic() >= deadline:
                msg = "the deadline passed while OPA was asked"
                raise DeadlineExceededError(msg) from fault
            msg = f"OPA at {self.address} did not answer: {fault}"
            raise EngineUnavailableError(msg) from fault

    def _exchange(self, method: str, path: str, body: bytes | None, end: float) -> tuple[int, bytes]:
        timeout = max(end - time.monotonic(), _SHORTEST)
        response = self._pool.urlopen(
            method,
            path,
            body=body,
            headers=_HEADERS,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(total=timeout),
            pool_timeout=timeout,  # type: ignore[arg-type]  # a fraction of a second is as good
            preload_content=False,
        )
        return response.status, self._read(response, end)

    def _read(self, response: urllib3.BaseHTTPResponse, end: float) -> bytes:
        read = bytearray()
        with closing(response):  # a connection whose answer was read to the end is back in the pool by then
            while chunk := response.read1(_CHUNK):
                read += chunk
                if len(read) > self._max_answer_bytes:
                    msg = f"OPA's answer has more than {self._max_answer_bytes} bytes"
                    raise MalformedAnswerError(msg)
                if time.monotonic() > end:
                    msg = "its answer came too slowly"
                    raise TimeoutError(msg)
        return bytes(read)


class _BoundedSocket(socket.socket):
    """A socket whose timeout bounds all that is received until it is set anew.

    A timeout as sockets have it begins anew with every byte, so that a trickle would hold a thread for as long as it lasts.
    """

    _end = math.inf

    def settimeout(self, value: float | None) -> None:
        self._end = math.inf if value is None else time.monotonic() + value
        super().settimeout(value)

    def recv_into(self, *arguments: Any) -> int:
        if self._end < math.inf:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            super().settimeout(left)
        return super().recv_into(*arguments)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _BoundedSocket(fileno=super()._new_conn().detach())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _UnixConnection(HTTPConnection):
    """A connection to the Unix socket at ``unix_path``, whatever host the URL names."""

    def __init__(self, *arguments: Any, unix_path: str, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unix_path = unix_path

    def _new_conn(self) -> socket.socket:
        connection = _BoundedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if isinstance(self.timeout, int | float):
                connection.settimeout(self.timeout)
            connection.connect(self._unix_path)
        except OSError as fault:
            connection.close()
            raise urllib3.exceptions.NewConnectionError(
                self, f"{self._unix_path}: {fault.strerror or fault}"
            ) from fault
        return connection


class _UnixPool(HTTPConnectionPool):
    ConnectionCls = _UnixConnection


def _pool(address: str, connections: int) -> HTTPConnectionPool:
    arguments: Mapping[str, Any] = {"maxsize": connections, "block": True}
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        return _UnixPool("localhost", unix_path=path, **arguments)
    url = urlsplit(address)
    if url.scheme != "http" or not url.hostname:
        msg = f"opa.address: {address!r} is neither unix:PATH nor http://HOST:PORT"
        raise SettingsError(msg)
    return _Pool(url.hostname, url.port or 8181, **arguments)
