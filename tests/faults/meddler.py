"""One between the sidecar and its OPA, who hands on what both say, or holds it back, or says something else."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

_ALLOW = b'{"result":{"effect":"ALLOW","code":"ALLOWED","reason":"","obligations":[]}}'
_GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_ALLOW), _ALLOW),
    b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"result":true}',
    b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + _ALLOW,
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n%s" % (len(_ALLOW), _ALLOW),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + _ALLOW,
)


class Meddler:
    """Listens at ``front`` for the sidecar, and asks OPA at ``back``.

    ``delay`` is how long each answer is held back, in seconds; with ``garbage``, something else is said in its place.
    """

    def __init__(self, front: Path, back: Path) -> None:
        self._back = str(back)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(front))
        self._listener.listen(512)
        self._open: set[socket.socket] = set()
        self._stop = threading.Event()
        self._said: Iterator[bytes] = itertools.cycle([*_GARBAGE, os.urandom(512)])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.delay = 0.0
        self.garbage = False

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and close all connections."""
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._back)
            except OSError:  # OPA does not listen yet
                near.close()
                continue
            self._open |= {near, far}
            for source, sink, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._hand_on, args=(source, sink, answers), daemon=True).start()

    def _hand_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if answers:
                    self._stop.wait(self.delay)
                sink.sendall(next(self._said) if answers and self.garbage else data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()
        self._open.discard(source)
