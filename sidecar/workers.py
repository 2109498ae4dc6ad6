"""Several processes that answer calls on the same ports, for a sidecar that is to use several cores.

The process that is started is the parent: it has the state directory, OPA, the intake, the admin listener and the Unix socket.
Its workers have all that deciding needs but OPA, which they share. They listen on the same TCP ports, and the kernel gives each
connection to one of them (SO_REUSEPORT of socket(7)).

Parent and worker talk over a socket, which is the worker's standard input. Down go ``Orders``, then the state of the sidecar, as
the bytes of ``Status``, whenever it changes; up go ``Report``s. What a worker logs, the parent writes, in whole lines.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sidecar.doors.sums import Family, Sums
from sidecar.engine.process import Child, launched
from sidecar.errors import StartError
from sidecar.settings import Settings, split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from prometheus_client import CollectorRegistry, Metric

_MODULE = "sidecar.worker"
_CHUNK = 1 << 16
_CHECK_SECONDS = 1.0  # how soon those who tell a worker the state notice that it is gone
_FORCE_SECONDS = 2.0
"""How much longer than its calls a worker may take to end."""


class Orders(Struct, frozen=True):
    """What a worker is to be: its number, which counts from 1, and settings that say where the sidecar's OPA and ports are."""

    number: int
    settings: Settings


class Report(Struct, frozen=True):
    """What a worker tells when it listens, and then over and over; or instead, why it cannot start.

    ``fault`` is that reason, ``serving`` whether it can decide, and ``families`` are its metrics.
    """

    fault: str = ""
    serving: bool = False
    families: tuple[Family, ...] = ()


class Port:
    """A port that processes of ours share, and no one else gets. Raises ``StartError`` when somebody has it.

    ``setting`` is where it comes from. It is held by a socket that does not listen.

    Sharing is between sockets, not between those who mean to share. So that another sidecar is told that the port is taken, as
    anybody else is: a socket binds before it shares, which fails if others listen; and as they might not listen yet, a name is
    taken that belongs to one process of a network at a time (abstract sockets of unix(7)).
    """

    def __init__(self, address: str, setting: str) -> None:
        host, port = split_address(address, setting)
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._name = socket.socket(socket.AF_UNIX)
        try:
            # connections of a sidecar that has ended do not count
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
            self._socket.bind((host, port))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            host, port, *_ = self._socket.getsockname()
            self._name.bind(f"\0tenantgate:{host}:{port}")
        except OSError as fault:
            self.close()
            msg = f"{setting}: cannot listen on {address}; is it in use by another process? {fault.strerror or fault}"
            raise StartError(msg) from fault
        self.address = f"{address.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        """Let others have it."""
        self._socket.close()
        self._name.close()


class _Worker(Child):
    """One worker. ``heard`` is called when there is something new about it."""

    def __init__(self, number: int, sums: Sums, heard: Callable[[], None]) -> None:
        super().__init__("worker", heard, worker=number)
        self.number = number
        self.report: Report | None = None
        self._sums = sums
        self._heard = heard
        self._employed = threading.Event()
        self._orders = b""
        self._fault = ""
        self._wait: Callable[[int, float], tuple[int, bool]]
        self._state: Callable[[], bytes]
        self._hearing: threading.Thread

    def employ(self, orders: bytes, wait: Callable[[int, float], tuple[int, bool]], state: Callable[[], bytes]) -> None:
        """Let it begin, now and whenever it is started again; see ``WorkerProcesses.employ``."""
        self._orders, self._wait, self._state = orders, wait, state
        self._employed.set()

    def last_words(self) -> str:
        """Tell why it could not start, if it could not."""
        return self._fault

    def request_stop(self) -> None:
        """Ask it to end."""
        super().request_stop()
        self._employed.set()

    def _spawn(self) -> subprocess.Popen[bytes]:
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own module, by our own Python
                # without the folder that it is started in, whose modules are not ours
                launched(sys.executable, "-P", "-m", _MODULE),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # what a terminal sends to all when Ctrl-C is pressed is for the parent, which then asks its workers to end
                process_group=0,
            )
        self._hearing = threading.Thread(target=self._hear, args=[ours], name="worker-hear", daemon=True)
        self._hearing.start()
        threading.Thread(target=self._tell, args=[process, ours], name="worker-tell", daemon=True).start()
        return process

    def _tell(self, process: subprocess.Popen[bytes], to: Connection) -> None:
        """Give it its orders, and the state whenever that changes."""
        self._employed.wait()
        if self._stopping.is_set():
            return
        version, more = -1, True
        with suppress(OSError):  # it is gone
            to.send_bytes(self._orders)
            while more and process.poll() is None:
                seen = version
                version, more = self._wait(seen, _CHECK_SECONDS)
                if version != seen:
                    to.send_bytes(self._state())

    def _hear(self, of: Connection) -> None:
        """Take its reports."""
        with suppress(OSError, EOFError):  # it is gone
            while True:
                report = msgspec.msgpack.decode(of.recv_bytes(), type=Report)
                self._fault = report.fault
                self._sums.heard(self.number, report.families)
                self.report = report
                self._heard()

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        rest = b""
        with process.stderr:
            while chunk := os.read(process.stderr.fileno(), _CHUNK):
                lines, newline, rest = (rest + chunk).rpartition(b"\n")
                _log(lines + newline)
        _log(rest + b"\n" if rest else b"")
        # all that it told is heard before another tells
        self._hearing.join()
        self.report = None
        self._sums.ended(self.number)


class WorkerProcesses(Collector):
    """The workers of a sidecar. ``own`` are the metrics of the parent, which ``sums`` adds those of its workers to."""

    def __init__(self, settings: Settings, own: CollectorRegistry) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._end: float | None = None
        self._ports: dict[str, Port] = {}
        self.sums = Sums(own)
        own.register(self)
        self._workers = [_Worker(number + 1, self.sums, self._notice) for number in range(settings.workers)]

    @property
    def address(self) -> str:
        """Where they answer gRPC calls."""
        return self._ports["listen.tcp"].address

    @property
    def authzen_url(self) -> str:
        """Where they answer AuthZEN calls; empty if they do not."""
        port = self._ports.get("authzen.listen")
        scheme = "http" if self._settings.tls.cert_file is None else "https"
        return "" if port is None else f"{scheme}://{port.address}"

    @property
    def serving(self) -> int:
        """How many of them can decide."""
        reports = [worker.report for worker in self._workers]
        return sum(report.serving for report in reports if report is not None)

    def start(self) -> None:
        """Start them. They are not at work before ``employ``. Raises ``StartError`` when somebody else has a port."""
        for setting, address in {
            "listen.tcp": self._settings.listen.tcp,
            "authzen.listen": self._settings.authzen.listen,
        }.items():
            if address is not None:
                self._ports[setting] = Port(address, setting)
        for worker in self._workers:
            worker.start()

    def employ(
        self, opa: str, wait: Callable[[int, float], tuple[int, bool]], state: Callable[[], bytes], timeout: float
    ) -> None:
        """Put them to work, and wait until all of them listen.

        ``opa`` is where OPA is; ``wait`` waits for another version of the state of the sidecar than one, for so many seconds, and
        gives it with whether there will be more; ``state`` gives the state.

        Raises ``StartError`` when one cannot start, or when they do not listen after ``timeout`` seconds.
        """
        for worker in self._workers:
            worker.employ(msgspec.msgpack.encode(Orders(worker.number, self._settings_for(opa))), wait, state)
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None or self._failed or self._all_listen, timeout)
        for worker in self._workers:
            if worker.last_words():
                msg = f"worker {worker.number}: {worker.last_words()}"
                raise StartError(msg)
        if not self._all_listen:
            msg = f"not all workers come up within {timeout:g} s; see what they log, or raise opa.start_timeout_seconds"
            raise StartError(msg)

    def request_stop(self) -> None:
        """Have all of them let their calls end, and end."""
        if self._end is None:
            self._end = time.monotonic() + self._settings.lifecycle.drain_seconds + _FORCE_SECONDS
        for worker in self._workers:
            worker.request_stop()
        self._notice()

    def stop(self) -> None:
        """Wait until they have ended after ``request_stop``, and make them if they do not."""
        for worker in self._workers:
            worker.stop(max(0.0, (self._end or 0.0) - time.monotonic()))
        for port in self._ports.values():
            port.close()

    def collect(self) -> Iterator[Metric]:
        """Give what is counted of the workers themselves."""
        yield GaugeMetricFamily("tenantgate_workers", "Workers that can decide.", value=self.serving)
        restarts = sum(worker.restarts for worker in self._workers)
        yield CounterMetricFamily("tenantgate_worker_restarts", "Restarts of workers.", value=restarts)

    @property
    def _all_listen(self) -> bool:
        return all(worker.report is not None and not worker.report.fault for worker in self._workers)

    @property
    def _failed(self) -> bool:
        return any(worker.last_words() or worker.hopeless for worker in self._workers)

    def _notice(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _settings_for(self, opa: str) -> Settings:
        settings, authzen = self._settings, self._ports.get("authzen.listen")
        return replace(
            settings,
            listen=replace(settings.listen, socket=None, tcp=self.address, admin=None),
            authzen=replace(settings.authzen, listen=None if authzen is None else authzen.address),
            opa=replace(settings.opa, address=opa),
        )


def _log(lines: bytes) -> None:
    with suppress(OSError, ValueError):  # nobody reads any more
        sys.stderr.buffer.write(lines)
        sys.stderr.buffer.flush()
