"""How long a sidecar takes from the start of its process to its first decision, and what it is doing meanwhile.

The parts are seen from outside: files and sockets that appear in its state directory, and OPA's own health check.
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from msgspec import Struct

from sidecar.engine.opa import OpaClient
from sidecar.errors import EngineError
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest

COMMAND = Path(sys.executable).with_name("tenantgate")
LONGEST = 120.0  # seconds
PAUSE = 0.002  # seconds


class Started(Struct, frozen=True):
    """How long each part of a start took, in seconds: one after the other, up to the first decision."""

    python_s: float
    opa_version_s: float
    opa_process_s: float
    opa_bundle_s: float
    serve_s: float

    @property
    def total_s(self) -> float:
        """The time to the first decision."""
        return self.python_s + self.opa_version_s + self.opa_process_s + self.opa_bundle_s + self.serve_s


def time_start(arguments: list[str], folder: Path, question: AuthorizeRequest, token: str) -> Started:
    """Start ``tenantgate serve`` with arguments that name ``folder`` as its state directory; ask it, and stop it."""
    opa = OpaClient(f"unix:{folder / 'opa.sock'}", connections=1, timeout=1, max_answer_bytes=1 << 20)
    moments = [time.perf_counter()]
    process = subprocess.Popen([COMMAND, "serve", *arguments])

    def note_when(condition: Callable[[], bool]) -> None:
        while not condition():
            if process.poll() is not None or time.perf_counter() - moments[0] > LONGEST:
                msg = "the sidecar does not start"
                raise SystemExit(msg)
            time.sleep(PAUSE)
        moments.append(time.perf_counter())

    try:
        note_when((folder / "lock").exists)
        note_when((folder / "opa.yaml").exists)
        note_when((folder / "opa.sock").exists)
        note_when(lambda: _is_active(opa))
        note_when((folder / "tenantgate.sock").exists)
        with grpc.insecure_channel(f"unix:{folder / 'tenantgate.sock'}") as channel:
            ask = AuthorizationServiceStub(channel).Authorize
            ask(question, metadata=[("authorization", f"Bearer {token}")], timeout=10, wait_for_ready=True)
        moments[-1] = time.perf_counter()
    finally:
        opa.close()
        process.terminate()
        process.wait()
    return Started(*(after - before for before, after in pairwise(moments)))


def _is_active(opa: OpaClient) -> bool:
    try:
        return opa.bundles_active(time.monotonic() + 1)
    except EngineError:
        return False
