"""What goes wrong. Each fault is a context in which it does: its end is the moment at which nothing is wrong any more."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tests.faults.meddler import Meddler
from tests.faults.stand import Resident, Stand
from tests.support.processes import REPOSITORY, free_port, separate_opa

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD = 3.0
"""Seconds for which a fault lasts."""

_COMPILER = "cc"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Fault(Struct, frozen=True):
    """A fault: its name, where it is done, and how. ``missing`` says why it cannot be done on this machine, if it cannot.

    With ``changes``, the registry changes while it lasts. One that is ``momentary`` is over as soon as it is done: what comes of
    it is the sidecar's to mend.
    """

    name: str
    happens: Callable[[Stand], AbstractContextManager[None]]
    stand: Callable[[], AbstractContextManager[Stand]]
    missing: Callable[[], str]
    changes: bool = True
    momentary: bool = False


FAULTS: list[Fault] = []


def _fault(
    name: str,
    stand: Callable[[], AbstractContextManager[Stand]] = Stand,
    *,
    missing: Callable[[], str] = str,
    changes: bool = True,
    momentary: bool = False,
) -> Callable[[Callable[[Stand], Iterator[None]]], Callable[[Stand], Iterator[None]]]:
    def register(happens: Callable[[Stand], Iterator[None]]) -> Callable[[Stand], Iterator[None]]:
        FAULTS.append(Fault(name, contextmanager(happens), stand, missing, changes, momentary))
        return happens

    return register


# ── OPA ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@_fault("OPA killed", momentary=True)
def opa_killed(stand: Stand) -> Iterator[None]:
    """Kill OPA, which the sidecar starts again."""
    os.kill(stand.opa_pid(), signal.SIGKILL)
    yield


@_fault("OPA stopped (SIGSTOP)")
def opa_stopped(stand: Stand) -> Iterator[None]:
    """Stop OPA, and let it go on."""
    yield from _stopped(stand.opa_pid())


def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class _Meddled(Stand):
    """A stand with an OPA of its own, and a meddler before it."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="tg-"))
        super().__init__(f"opa.address=unix:{folder / 'front.sock'}", "opa.timeout_seconds=0.3")
        self._stack.callback(shutil.rmtree, folder)
        self._place = folder
        self.meddler = Meddler(folder / "front.sock", folder / "own.sock")

    def start_sidecar(self) -> None:
        """Start OPA and the meddler before."""
        values = {"BUNDLE_URL": self.url, "BUNDLE_TOKEN": "none"}
        self._stack.enter_context(separate_opa("separate.yaml", self._place, self.key, values))
        self._stack.enter_context(self.meddler)
        super().start_sidecar()


@_fault("OPA slow", _Meddled)
def opa_slow(stand: Stand) -> Iterator[None]:
    """Hold OPA's answers back for longer than a query may take."""
    assert isinstance(stand, _Meddled)
    stand.meddler.delay = 1.0
    try:
        yield
    finally:
        stand.meddler.delay = 0.0


@_fault("OPA answers garbage", _Meddled)
def opa_garbage(stand: Stand) -> Iterator[None]:
    """Say something else in place of what OPA answers."""
    assert isinstance(stand, _Meddled)
    stand.meddler.garbage = True
    try:
        yield
    finally:
        stand.meddler.garbage = False


# ── what the sidecar lives on ───────────────────────────────────────────────────────────────────────────────────────────


@_fault("bundle server gone")
def bundle_server_gone(stand: Stand) -> Iterator[None]:
    """Kill the server of bundles, and start it again."""
    assert stand.bundle_server is not None
    stand.bundle_server.kill()
    stand.bundle_server.wait()
    try:
        yield
    finally:
        stand.start_bundle_server()


class _OnASmallDisk(Stand):
    """A stand whose sidecar has a small disk to itself."""

    def __init__(self) -> None:
        self.disk = Path(tempfile.mkdtemp(prefix="tg-disk-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", self.disk], check=True)
        super().__init__(state=self.disk / "s")
        self._stack.callback(self.disk.rmdir)
        self._stack.callback(self._unmount)

    def _unmount(self) -> None:
        subprocess.run(["umount", self.disk], check=True)


def _may_not_mount() -> str:
    return "" if os.geteuid() == 0 else "only root can mount a small disk"


@_fault("disk full", _OnASmallDisk, missing=_may_not_mount)
def disk_full(stand: Stand) -> Iterator[None]:
    """Fill the disk of the sidecar's state, and empty it again."""
    assert isinstance(stand, _OnASmallDisk)
    filler = stand.disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


class _WithAClock(Stand):
    """A stand whose sidecar has a clock that can be set, by a library that is loaded before all others."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="tg-clock-"))
        library = folder / "clock.so"
        source = REPOSITORY / "tests" / "faults" / "clock.c"
        subprocess.run([_COMPILER, "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        self.clock = folder / "ahead"
        super().__init__(environment={"LD_PRELOAD": str(library), "CLOCK_AHEAD_FILE": str(self.clock)})
        self._stack.callback(shutil.rmtree, folder)
        self.set(0)

    def set(self, ahead: int) -> None:
        """Set the clock ahead of the real one, in seconds."""
        scratch = self.clock.with_suffix(".scratch")
        scratch.write_text(f"{ahead}")
        self.truth.set_clock(ahead)
        scratch.replace(self.clock)


def _no_compiler() -> str:
    return "" if shutil.which(_COMPILER) else "needs a C compiler, for a clock that can be set"


@_fault("clock jumps 2 h ahead", _WithAClock, missing=_no_compiler)
def clock_ahead(stand: Stand) -> Iterator[None]:
    """Set the clock ahead, past the end of what is allowed for a time, and back."""
    yield from _jump(stand, 7200)


@_fault("clock jumps 2 h back", _WithAClock, missing=_no_compiler)
def clock_back(stand: Stand) -> Iterator[None]:
    """Set the clock back, before the beginning of what is allowed for a time, and ahead again."""
    yield from _jump(stand, -7200)


def _jump(stand: Stand, ahead: int) -> Iterator[None]:
    assert isinstance(stand, _WithAClock)
    stand.set(ahead)
    try:
        yield
    finally:
        stand.set(0)


class _Logging(Stand):
    """A stand whose sidecar writes its decision log to a collector that can be stopped, and has little room for records."""

    def __init__(self, on_full: str) -> None:
        super().__init__(
            f"audit.on_full={on_full}",
            "audit.http.url=http://127.0.0.1:" + str(collector_port := free_port()),
            "audit.http.pause_seconds=0.05",
            "audit.http.timeout_seconds=1",
            "audit.queue_records=1000",
        )
        command = [sys.executable, "-m", "tests.faults.collector", str(collector_port)]
        self.collector = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY)
        self._stack.callback(self._end_collector)
        assert self.collector.stdout is not None
        self.collector.stdout.readline()

    def _end_collector(self) -> None:
        self.collector.kill()
        self.collector.communicate()


def _logging_and_dropping() -> Stand:
    return _Logging("drop")


def _logging_and_blocking() -> Stand:
    return _Logging("block")


def _stuck(stand: Stand) -> Iterator[None]:
    assert isinstance(stand, _Logging)
    yield from _stopped(stand.collector.pid)


@_fault("log collector stuck, records dropped", _logging_and_dropping)
def collector_stuck_and_dropped(stand: Stand) -> Iterator[None]:
    """Stop the collector of the decision log, where records may be dropped: decisions go on."""
    yield from _stuck(stand)


@_fault("log collector stuck, calls blocked", _logging_and_blocking)
def collector_stuck_and_blocked(stand: Stand) -> Iterator[None]:
    """Stop the collector of the decision log, where no decision may leave without its record."""
    yield from _stuck(stand)


# ── the sidecar itself ──────────────────────────────────────────────────────────────────────────────────────────────────


@_fault("sidecar SIGTERM under load", changes=False)
def sidecar_terminated(stand: Stand) -> Iterator[None]:
    """Have the sidecar stop while it is asked, and start it again. Calls that it has begun to answer are answered."""
    process = stand.sidecar
    assert process is not None
    process.terminate()
    if process.wait(10) != 0:
        msg = f"the sidecar ended with {process.returncode}; its log ends: {stand.log.read_text()[-500:]}"
        raise AssertionError(msg)
    yield
    stand.start_sidecar()


@_fault("sidecar killed", changes=False)
def sidecar_killed(stand: Stand) -> Iterator[None]:
    """Kill the sidecar, with which its OPA ends, and start it again."""
    process = stand.sidecar
    assert process is not None
    process.kill()
    process.wait()
    yield
    stand.start_sidecar()


# ── callers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@_fault("client that never reads")
def deaf_client(stand: Stand) -> Iterator[None]:
    """Have a client ask a lot, and stop its process before it has read the answers."""
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.deaf", stand.socket], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert client.stdout is not None
    client.stdout.readline()
    client.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


@_fault("10,000 connections opened and dropped", momentary=True)
def connections_dropped(stand: Stand) -> Iterator[None]:
    """Open connections and close them at once, some in the middle of a greeting."""
    for number in range(10_000):
        connection = socket.socket(socket.AF_UNIX)
        with suppress(OSError), connection:
            connection.settimeout(1.0)
            connection.connect(str(stand.socket))
            connection.sendall(_PREFACE[: number % len(_PREFACE)] or b"\x00")
    yield


@_fault("slow-loris")
def slow_loris(stand: Stand) -> Iterator[None]:
    """Open many connections that say a byte from time to time."""
    with ExitStack() as stack:
        slow = []
        for _ in range(500):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(1.0)
            connection.connect(str(stand.socket))
            slow.append(connection)
        for byte in _PREFACE[: int(HOLD * 4)]:
            for connection in slow:
                with suppress(OSError):
                    connection.sendall(bytes([byte]))
            stand.hold(0.25)
        yield


def soak(stand: Stand, seconds: float) -> Resident:
    """Let callers call for a long time; watch the memory of the sidecar and its OPA meanwhile."""
    resident = Resident()
    assert stand.sidecar is not None
    opa = stand.opa_pid()
    every = max(1.0, seconds / 120)
    for _ in range(int(seconds / every)):
        stand.hold(every)
        stand.in_force(stand.publish())
        resident.add(stand.sidecar.pid, opa)
    return resident
