"""A real Envoy with the configuration of the examples, and a server behind it that writes down what reaches it."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3 import HTTPHeaderDict

from tests.support.processes import REPOSITORY, free_port, wait_until
from tests.support.services import running_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ENVOY = REPOSITORY / ".tools" / "envoy" / "envoy" / "_bin" / "envoy"
CONFIGURATION = REPOSITORY / "examples" / "envoy" / "envoy.yaml"


def why_missing() -> str:
    """Say why the tests that need Envoy are skipped; empty if they are not."""
    return "" if ENVOY.exists() else "Envoy is not installed: tests/envoy/install says why"


@dataclass
class Reached:
    """A request as it reached the server behind Envoy."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Give all values of a header."""
        return [value for key, value in self.headers if key == name]


@dataclass
class Gateway:
    """An Envoy, the server behind it, and what reached that since it was last looked at."""

    origin: str
    log: Path
    requests: list[Reached] = field(default_factory=list)

    def send(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str | Sequence[str]] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request. A body that is a list of bytes goes in chunks; one that is not bytes is written as JSON."""
        given = HTTPHeaderDict()
        for name, values in ({"content-type": "application/json"} | {**(headers or {})}).items():
            for value in [values] if isinstance(values, str) else values:
                given.add(name, value)
        in_chunks = isinstance(body, list) and isinstance(body[0], bytes)
        content = body if body is None or isinstance(body, bytes) or in_chunks else json.dumps(body).encode()
        return urllib3.request(method, self.origin + path, body=content, headers=given, retries=False, timeout=20)

    def reached(self) -> list[Reached]:
        """Give what reached the server, and forget it."""
        reached, self.requests[:] = [*self.requests], []
        return reached


@contextmanager
def running_gateway(folder: Path, sidecar_socket: Path, **replaced: str) -> Iterator[Gateway]:
    """Run Envoy for a while. ``replaced`` are further texts of its configuration by what stands in their place."""
    gateway = Gateway("", folder / "envoy.log")
    with running_service(_server(gateway.requests)) as origin:
        port = free_port()
        configuration = CONFIGURATION.read_text()
        for text, other in (
            ("port_value: 10000", f"port_value: {port}"),
            ("port_value: 8000", f"port_value: {origin.rpartition(':')[2]}"),
            (".tenantgate/tenantgate.sock}", f"{sidecar_socket}}}"),
            *replaced.items(),
        ):
            assert configuration.count(text) == 1, text
            configuration = configuration.replace(text, other)
        file = folder / "envoy.yaml"
        file.write_text(configuration)
        command: list[str | Path] = [ENVOY, "-c", file, "--disable-hot-restart", "--concurrency", "1"]
        with gateway.log.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--log-level", "error", "--file-flush-interval-msec", "100"], stdout=log, stderr=log
            )
        try:
            wait_until(lambda: _answers(port) or process.poll() is not None)
            assert process.poll() is None, gateway.log.read_text()
            gateway.origin = f"http://127.0.0.1:{port}"
            yield gateway
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def _server(requests: list[Reached]) -> Any:
    """Make a server that answers everything with what it would be for: a result of a tool, or a stream with an event."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        path = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        requests.append(Reached(scope["method"], path, headers, body))
        stream = scope["method"] == "GET" and path == "/mcp"
        kind = b"text/event-stream" if stream else b"application/json"
        answer = b"data: {}\n\n" if stream else b'{"jsonrpc": "2.0", "id": 1, "result": {"content": []}}'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": answer})

    return serve
