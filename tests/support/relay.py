"""A relay between a sidecar and its OPA: it hands on every byte, and keeps what the sidecar said."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 16


class Relay:
    """A relay that listens at ``address``."""

    def __init__(self, path: Path, target: str) -> None:
        self.address = f"unix:{path}"
        self._target = target.removeprefix("unix:")
        self._said: list[bytearray] = []
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def headers(self, name: str) -> list[str]:
        """Give all values of a header that OPA was sent."""
        pattern = re.compile(rb"\r\n%b: *([^\r]*)\r\n" % name.encode(), re.IGNORECASE)
        return [value.decode() for said in self._said for value in pattern.findall(bytes(said))]

    def stop(self) -> None:
        """End all connections."""
        for opened in [self._listener, *self._open]:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                opa = socket.socket(socket.AF_UNIX)
                opa.connect(self._target)
                self._open += [caller, opa]
                self._said.append(bytearray())
                threading.Thread(target=self._hand_on, args=(caller, opa, self._said[-1]), daemon=True).start()
                threading.Thread(target=self._hand_on, args=(opa, caller, None), daemon=True).start()

    @staticmethod
    def _hand_on(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while received := source.recv(_CHUNK):
                if kept is not None:
                    kept += received
                target.sendall(received)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_relay(path: Path, target: str) -> Iterator[Relay]:
    """Relay for a while."""
    relay = Relay(path, target)
    try:
        yield relay
    finally:
        relay.stop()
