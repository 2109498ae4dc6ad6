"""ASGI applications on loopback, served by uvicorn in a thread, and the bytes that reach plain HTTP servers."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running_service(app: Any) -> Iterator[str]:
    """Serve an application for a while; gives its origin."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="h11", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="service")
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def exchange_bytes(origin: str, request: bytes, answers: int) -> list[bytes]:
    """Send bytes over one connection, and give the bodies of as many answers."""
    host, _, port = origin.removeprefix("http://").partition(":")
    bodies = []
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        reader = connection.makefile("rb")
        for _ in range(answers):
            length = 0
            while line := reader.readline().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            bodies.append(reader.read(length))
    return bodies
