"""Running one load against one server, with ghz or ``load``, and what comes out of it."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.bench.machine import LOAD_CORE, SERVER_CORE, core_seconds, cpu_seconds, on_core
from tests.support.processes import REPOSITORY

GHZ = REPOSITORY / ".tools" / "ghz"
LOAD = REPOSITORY / ".tools" / "load"
PROTO = REPOSITORY / "proto"
SERVICE = PROTO / "tenantgate" / "v1" / "authorization_service.proto"
ECHO = REPOSITORY / "tests" / "bench" / "echo.proto"


class Server(Struct, frozen=True):
    """A server under test: its Unix socket, and its processes, of a sidecar first its own and then OPA's."""

    socket: Path
    pids: Sequence[int]


class Sample(Struct, frozen=True):
    """What a run showed.

    ``cpu_us`` is what a call cost all processes of the server together, ``opa_us`` the OPA of a sidecar alone. ``others`` is the
    part of the work of the server's core that was for anyone else.
    """

    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    opa_us: float
    others: float


class Workload(Struct):
    """A kind of call to a server: a command that makes them, without how many and how long.

    ``items`` is how many decisions a call asks for. ``refresh`` writes new requests for so many calls, where no two runs may
    ask the same.
    """

    server: Server
    command: Sequence[str | Path]
    target: str
    items: int = 1
    refresh: Callable[[int], None] | None = None

    def run(self, in_flight: int, seconds: float, rate: float = 0.0) -> Sample:
        """Call, with so many in flight; or with ``rate`` begin so many a second, whether or not others have ended."""
        if self.refresh is not None:
            self.refresh(int(_MOST_PER_SECOND * seconds))
        flags = ["-c", str(in_flight), "-z", f"{seconds}s"]
        if rate:
            flags += ["--rps", str(max(1, int(rate))), "--async"]
        before = self._spent()
        with on_core(LOAD_CORE):
            ended = subprocess.run(
                [*self.command, *flags, self.target], capture_output=True, text=True, check=False, timeout=seconds + 60
            )
        cpu, opa, core = (after - spent for after, spent in zip(self._spent(), before, strict=True))
        if ended.returncode:
            msg = f"{self.command[0]} ended with {ended.returncode}: {ended.stderr}{ended.stdout}"
            raise SystemExit(msg)
        report = json.loads(ended.stdout)
        if {*report["statusCodeDistribution"]} != {"OK"}:
            msg = f"not every call succeeded: {report['statusCodeDistribution']} {report.get('errorDistribution')}"
            raise SystemExit(msg)
        latency = {entry["percentage"]: entry["latency"] / 1000 for entry in report["latencyDistribution"]}
        return Sample(
            per_second=report["rps"],
            p50_us=latency[50],
            p99_us=latency[99],
            cpu_us=cpu / report["count"] * 1e6,
            opa_us=opa / report["count"] * 1e6,
            others=max(0.0, core - cpu) / max(core, cpu, 0.01),
        )

    def _spent(self) -> tuple[float, float, float]:
        """Give the seconds that the server, its OPA and its core have worked so far."""
        pids = self.server.pids
        return cpu_seconds(pids), cpu_seconds(pids[1:]), core_seconds(SERVER_CORE)


_MOST_PER_SECOND = 7_000  # more than a server in Python answers


def over_grpc(
    server: Server, call: str, requests: Path, metadata: Path, *, proto: Path = SERVICE, items: int = 1
) -> Workload:
    """Have ghz send the requests of a file in turns, all with the same metadata."""
    command: list[str | Path] = [
        GHZ,
        "--insecure",
        "--format",
        "json",
        "--duration-stop",
        "wait",
        "--proto",
        proto,
        "-i",
        PROTO,
    ]
    return Workload(
        server, [*command, "--call", call, "-B", requests, "-M", metadata], f"unix://{server.socket}", items
    )


def with_tokens(server: Server, call: str, requests: Path, tokens: Path, refresh: Callable[[int], None]) -> Workload:
    """Have ``load`` send the requests of a file in turns, each with its own token."""
    command: list[str | Path] = [
        LOAD,
        "grpc",
        "-proto",
        SERVICE,
        "-imports",
        PROTO,
        "-call",
        call,
        "-requests",
        requests,
    ]
    return Workload(server, [*command, "-tokens", tokens], f"unix://{server.socket}", refresh=refresh)


def over_http(server: Server, path: str, bodies: Path) -> Workload:
    """Have ``load`` post the lines of a file in turns."""
    return Workload(server, [LOAD, "http", "-path", path, "-requests", bodies], str(server.socket))


def median(samples: Sequence[Sample]) -> Sample:
    """Give the median of each number for itself."""
    names = [field.name for field in msgspec.structs.fields(Sample)]
    return Sample(**{name: statistics.median(getattr(sample, name) for sample in samples) for name in names})
