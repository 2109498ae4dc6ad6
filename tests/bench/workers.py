"""What workers cost: how long a sidecar of several processes takes to serve, and the memory of each process.

    .venv/bin/python -m tests.bench.workers [N...]

Memory is what a process does not share with others, as the kernel counts it (Private_Clean and Private_Dirty of proc(5)): what
one more of it takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msgspec import Struct

from tests.bench.machine import children
from tests.support.processes import OPA, REPOSITORY, build_bundle

COMMAND = Path(sys.executable).with_name("tenantgate")
EXPORT = REPOSITORY / "examples" / "quickstart" / "export"


class Cost(Struct, frozen=True):
    """What a sidecar of so many workers takes: seconds until all serve, and the MB of its parent, of each worker, and of OPA."""

    workers: int
    seconds: float
    parent_mb: float
    worker_mb: float
    opa_mb: float


def measure(workers: int, bundle: Path) -> Cost:
    """Start a sidecar, and stop it."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        settings = {
            "state_dir": folder,
            "opa.binary": OPA,
            "opa.bundle": bundle,
            "identity.mode": "asserted",
            "listen.tcp": "127.0.0.1:0",
            "workers": workers,
        }
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        began = time.perf_counter()
        with subprocess.Popen([COMMAND, "serve", *flags], stderr=subprocess.PIPE) as parent:
            assert parent.stderr is not None
            try:
                for line in parent.stderr:
                    said = json.loads(line)
                    if said["event"] == "serving" and "worker" not in said:
                        break
                seconds = time.perf_counter() - began
                mine = children(parent.pid)
                those = [pid for pid in mine if b"sidecar.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
                (opa,) = {*mine} - {*those}
                each = [_private_mb(pid) for pid in those]
                return Cost(workers, seconds, _private_mb(parent.pid), sum(each) / max(len(each), 1), _private_mb(opa))
            finally:
                parent.terminate()
                parent.stderr.read()


def main() -> None:
    """Run as a command."""
    counts = [int(word) for word in sys.argv[1:]] or [1, 2, 4]
    rows = [
        "| workers | until all serve | the process that is started | each worker | OPA |",
        "| --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        bundle = build_bundle(EXPORT, Path(folder) / "bundle.tar.gz")
        for count in counts:
            cost = measure(count, bundle)
            each = f"{cost.worker_mb:.0f} MB" if count > 1 else ""
            rows.append(f"| {count} | {cost.seconds:.2f} s | {cost.parent_mb:.0f} MB | {each} | {cost.opa_mb:.0f} MB |")
    sys.stdout.write("\n".join([*rows, ""]))


def _private_mb(pid: int) -> float:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line[1]) for line in lines if line[0] in {"Private_Clean:", "Private_Dirty:"}) / 1024


if __name__ == "__main__":
    main()
