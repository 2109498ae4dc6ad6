"""What faults are done to: a sidecar with its OPA and the server of its bundles, as processes of their own, and those who ask it.

The registry that is published has generations, one for each second after ``bundles.NOW``; what it says is known for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import urllib3

from sidecar.gen.tenantgate.v1.status_service_pb2 import GetStatusRequest
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from tests.faults.callers import Callers
from tests.faults.truth import Truth, registry
from tests.support.bundles import Key, Publisher
from tests.support.exports import write_export
from tests.support.processes import OPA, REPOSITORY, build_bundle, free_port, wait_until

if TYPE_CHECKING:
    from typing import Self

    from sidecar.gen.tenantgate.v1.status_service_pb2 import Status

TENANTGATE = Path(sys.executable).with_name("tenantgate")
START_SECONDS = 30.0


class Stand:
    """The processes, and the callers. A fault may have ``settings`` and an ``environment`` of its own for the sidecar.

    Where OPA is one of its own, at a socket, ``opa`` names it.
    """

    def __init__(self, *settings: str, environment: dict[str, str] | None = None, state: Path | None = None) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-")))
        self.log = self.folder / "sidecar.log"
        self.truth = Truth()
        self._settings = settings
        self._environment = {**os.environ, **(environment or {})}
        self._state = state or self.folder / "s"
        self._port = free_port()
        key = Key(self.folder)
        self.key = key.public
        samples = [_sample(self.folder / f"sample{generation}", generation) for generation in (0, 1)]
        self._publishers = [Publisher(sample, self.folder / "published", key) for sample in samples]
        self.bundle_server: subprocess.Popen[bytes] | None = None
        self.sidecar: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start everything, and have the callers begin."""
        with ExitStack() as starting:
            starting.callback(self._tell_log)
            starting.callback(self.__exit__)
            self.publish()
            self.start_bundle_server()
            self.start_sidecar()
            self.callers = self._stack.enter_context(Callers(self.socket, self.truth))
            starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._said = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-20:])
        self._stack.callback(self._kill)
        self._stack.close()

    def _tell_log(self) -> None:
        """Say what the sidecar said, of which nothing is left otherwise."""
        sys.stderr.write(self._said)

    def _kill(self) -> None:
        for process in (self.sidecar, self.bundle_server):
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()

    @property
    def socket(self) -> Path:
        """Where the sidecar listens."""
        return self._state / "tenantgate.sock"

    @property
    def url(self) -> str:
        """Where bundles are served."""
        return f"http://127.0.0.1:{self._port}"

    def publish(self) -> int:
        """Publish the next generation; give its number."""
        generation = self.truth.next()
        self._publishers[generation % 2].base(generation)
        return generation

    def start_bundle_server(self) -> None:
        """Start the server of bundles, always at the same address."""
        command: list[str | Path] = [
            TENANTGATE,
            "bundle",
            "serve",
            self.folder / "published",
            "--listen",
            f"127.0.0.1:{self._port}",
        ]
        self.bundle_server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._serves_bundles, START_SECONDS)

    def _serves_bundles(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return urllib3.request("GET", f"{self.url}/base.tar.gz", retries=False, timeout=2).status == 200
        return False

    def start_sidecar(self) -> None:
        """Start the sidecar; do not wait."""
        flags = [
            f"state_dir={self._state}",
            "identity.mode=asserted",
            "log.access=false",
            "opa.timeout_seconds=0.5",
            *self._settings,
        ]
        if not any(flag.startswith("opa.address=") for flag in flags):
            flags += [f"bundles.source={self.url}", f"bundles.keys=[{self.key}]", f"opa.binary={OPA}"]
        words = chain.from_iterable(("--set", flag) for flag in flags)
        with self.log.open("ab") as log:
            self.sidecar = subprocess.Popen(
                [TENANTGATE, "serve", *words], env=self._environment, stderr=log, stdout=log, cwd=REPOSITORY
            )

    def status(self) -> Status:
        """Ask the sidecar for its state."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            status: Status = StatusServiceStub(channel).GetStatus(GetStatusRequest(), timeout=5).status
            return status

    def opa_pid(self) -> int:
        """Name the process of the sidecar's OPA."""
        return int(self.status().opa.pid)

    def in_force(self, generation: int, seconds: float = 30.0) -> float:
        """Wait until a generation is what callers are answered by; give how long that took, in seconds."""
        began = time.monotonic()
        wait_until(lambda: self.truth.served >= generation, seconds)
        return time.monotonic() - began

    def hold(self, seconds: float) -> None:
        """Let callers call for so long, with whatever is wrong."""
        threading.Event().wait(seconds)


class Resident:
    """The most memory that processes had, in MB, in each part of a time."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    def add(self, *pids: int) -> None:
        """Look once."""
        total = 0
        for pid in pids:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        self.samples.append(total / 1024)

    def peak(self, part: int, of: int = 3) -> float:
        """Give the most in one part of the time."""
        size = max(1, len(self.samples) // of)
        return max(self.samples[part * size : (part + 1) * size])


def _sample(folder: Path, generation: int) -> Path:
    return build_bundle(write_export(folder, registry(generation)), folder / "bundle.tar.gz")
