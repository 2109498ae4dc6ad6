"""Decision logs: what a sidecar has written of one, and a collector that takes them as OPA posts them."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.http import Handler, http_server
from tests.support.processes import wait_until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """Read all records of a file, each of which must be whole."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def wait_for(path: Path, count: int) -> list[Record]:
    """Wait until a file has so many records; give them."""
    wait_until(lambda: len(read(path)) >= count)
    records = read(path)
    assert len(records) == count, records
    return records


class Collector:
    """Takes decision logs. ``statuses`` are what it answers next, then 200; while ``gate`` is shut, it answers nothing."""

    def __init__(self) -> None:
        self.events: list[Record] = []
        self.posts: list[tuple[str, dict[str, str], int]] = []
        self.statuses: list[int] = []
        self.most = 1000
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.url: str

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Take a post; give the status of the answer."""
        self.asked.set()
        self.gate.wait(60)
        events = json.loads(gzip.decompress(body))
        self.posts.append((path, headers, len(events)))
        if self.statuses:
            return self.statuses.pop(0)
        if len(events) > self.most:
            return 413
        self.events += events
        return 200


@contextmanager
def collecting(tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    """Run a collector for a while."""
    collector = Collector()

    class Taking(Handler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802 - the name by which it is found
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(collector.take(self.path, headers, body))
            self.send_header("content-length", "0")
            self.end_headers()

    with http_server(Taking, tls) as url:
        collector.url = f"{url}/logs"
        try:
            yield collector
        finally:
            collector.gate.set()
