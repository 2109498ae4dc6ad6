"""An HTTP server in a thread of its own, for what the sidecar serves besides gRPC."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn
from msgspec import Struct
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.errors import StartError

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class Security(Struct, frozen=True):
    """How a server speaks TLS.

    ``fault`` says why the owner of a certificate, in PEM, may not connect; it is empty if it may. A connection lives for
    ``connection_seconds``.
    """

    context: ssl.SSLContext
    fault: Callable[[bytes], str]
    connection_seconds: float


class _SecureConnection(H11Protocol):
    """A connection whose client has proved who it is; the proof lasts for a while."""

    def __init__(self, security: Security, **given: Any) -> None:
        super().__init__(**given)
        self._security = security
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Look who it is."""
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        fault = self._security.fault(ssl.DER_cert_to_PEM_cert(certificate).encode())
        super().connection_made(transport)
        if fault:
            self.app = PlainTextResponse(f"{fault}\n", 403)
        self._end = self.loop.call_later(self._security.connection_seconds, self.shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let it go."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)


class HttpServer:
    """Serves an application, and listens from when it is made. Raises ``StartError`` when it cannot.

    ``name`` is that of its thread; of more than so many ``connections`` at a time, it answers 503. Requests that are being
    answered when it stops have ``drain`` seconds to end. With ``security`` it speaks TLS. On a port that is ``shared``, other
    processes of ours may listen too.
    """

    def __init__(
        self,
        application: ASGIApp,
        host: str,
        port: int,
        *,
        name: str,
        connections: int,
        drain: float = 1.0,
        security: Security | None = None,
        shared: bool = False,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=connections, reuse_port=shared)
        except OSError as fault:
            msg = f"cannot listen on {host}:{port}: {fault.strerror or fault}"
            raise StartError(msg) from fault
        # Connections inherit it. asyncio sets it only where a socket names its protocol, and create_server leaves that open; but
        # without it, the body of an answer waits until the caller has acknowledged the head, which takes 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        scheme = "http" if security is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._socket.getsockname()[1]}"
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(
            application,
            http="h11" if security is None else functools.partial(_SecureConnection, security),  # type: ignore[arg-type]  # it makes one
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=connections,
            timeout_graceful_shutdown=math.ceil(drain),
        )
        if security is not None:
            config.load()
            config.ssl = security.context
        self._server = uvicorn.Server(config)
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Answer those who wait, and end."""
        self._stopping = True
        self.call(self._close)
        if self._thread.is_alive():
            self._thread.join(self._drain + 1.0)
        self._socket.close()

    def call(self, work: Callable[[], Any]) -> None:
        """Have work done in the loop of the server, if it runs. May be called from any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it ended in between
                loop.call_soon_threadsafe(work)

    def run(self) -> None:
        """Answer until ``stop``, in the thread that calls."""
        try:
            asyncio.run(self._run())
        finally:
            self._loop = None
            self._ready.set()

    async def _run(self) -> None:
        self._begin()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        if not self._stopping:
            await self._server.serve([self._socket])

    def _begin(self) -> None:
        """Do what is to be done in the loop before it answers."""

    def _close(self) -> None:
        """Do what is to be done in the loop so that it ends."""
        self._server.should_exit = True
