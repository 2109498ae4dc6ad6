"""Fake OPAs: servers on a Unix socket whose answers a function gives, byte by byte if need be."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tests.support.registries import AS_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

REVISION = "20261124T000000.000000Z-000000000000"

PROBE_ANSWER: dict[str, Any] = {
    "effect": "DENY",
    "code": "TENANT_UNKNOWN",
    "reason": "the registry has no such tenant",
    "revision": REVISION,
    "as_of": AS_OF,
    "depends_on": [],
}
ALLOW = PROBE_ANSWER | {"effect": "ALLOW", "code": "ALLOWED", "reason": "allowed", "policy_id": "P", "rule_id": "r"}
DENY = PROBE_ANSWER | {"code": "DENIED_BY_RULE", "reason": "denied", "policy_id": "P", "rule_id": "r"}


class Query(NamedTuple):
    """One query as it reached the fake; ``number`` counts those on the same connection, from 1.

    ``stopped`` is set when the fake is to end: an answer that is held back must not wait for longer.
    """

    path: str
    body: bytes
    number: int
    stopped: threading.Event

    @property
    def input(self) -> dict[str, Any]:
        """The input of the query."""
        read: dict[str, Any] = json.loads(self.body)["input"]
        return read

    @property
    def is_probe(self) -> bool:
        """Whether it is the question that the sidecar asks by itself."""
        return self.input.get("tenant") == {"id": ""}


class HangUp(Exception):  # noqa: N818 - not an error, an instruction
    """Raised by an answer that ends with the connection."""


Answer: TypeAlias = "Callable[[Query], Iterable[bytes]]"
"""Gives the bytes to send, piece by piece. An iterator may wait between pieces, or raise ``HangUp``."""


def http(body: bytes | Any, status: int = 200, *headers: str, length: int | None = None) -> bytes:
    """Write an HTTP response; what is not bytes becomes JSON. ``length`` is what it claims to hold, if not the truth."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def decided(decision: dict[str, Any]) -> bytes:
    """Write the response that carries a decision."""
    return http({"result": decision})


def honest(query: Query) -> Iterable[bytes]:
    """Answer the probe as it must be answered, and ALLOW everything else: what a bug in the sidecar would let through."""
    return [decided(PROBE_ANSWER if query.is_probe else ALLOW)]


def after_probes(answer: Answer) -> Answer:
    """Answer probes honestly, and other queries with ``answer``."""
    return lambda query: honest(query) if query.is_probe else answer(query)


class Held:
    """An answer, by default an honest one, that is held back until it is let go or OPA ends; probes are answered at once."""

    def __init__(self, answer: Answer = honest) -> None:
        self.asked = threading.Event()
        self._answer = answer
        self._free = threading.Event()

    def __call__(self, query: Query) -> Iterable[bytes]:
        if query.is_probe:
            return honest(query)
        self.asked.set()
        while not self._free.wait(0.01) and not query.stopped.is_set():
            pass
        return self._answer(query)

    def let_go(self) -> None:
        """Answer."""
        self._free.set()


class FakeOpa:
    """A server on a Unix socket. ``answer`` may be replaced while it runs; ``queries`` are those that were not probes."""

    def __init__(self, path: Path, answer: Answer = honest) -> None:
        self.address = f"unix:{path}"
        self.answer = answer
        self.queries: list[Query] = []
        self.stopped = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._start(self._accept)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def stop(self) -> None:
        """End all connections and threads."""
        self.stopped.set()
        for connection in [self._listener, *self._connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            if self.stopped.is_set():
                connection.shutdown(socket.SHUT_RDWR)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as received, suppress(OSError, HangUp):
            number = 0
            while line := received.readline():
                number += 1
                length = 0
                while header := received.readline().strip():
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                query = Query(line.split()[1].decode(), received.read(length), number, self.stopped)
                if not query.is_probe:
                    self.queries.append(query)
                for piece in self.answer(query):
                    connection.sendall(piece)
        self._connections.discard(connection)


@contextmanager
def fake_opa(path: Path, answer: Answer = honest) -> Iterator[FakeOpa]:
    """Run a fake OPA for a while."""
    opa = FakeOpa(path, answer)
    try:
        yield opa
    finally:
        opa.stop()
