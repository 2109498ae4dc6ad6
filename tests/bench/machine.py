"""What the machine has, and what processes take of it. Source: proc(5)."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
"""Where servers run, and where what asks them: the same where there is one core only."""

_TICKS = os.sysconf("SC_CLK_TCK")
_WORKING = ("user", "nice", "system", "irq", "softirq", "steal")
_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have the processes that are started meanwhile, and theirs, run on one core alone."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Give the CPU time that processes have taken so far, in seconds."""
    return sum(sum(map(int, _stat(pid)[11:13])) for pid in pids) / _TICKS


def core_seconds(core: int) -> float:
    """Give how long a core has worked so far, whoever for, in seconds."""
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    ticks = next(line[1:] for line in lines if line[0] == f"cpu{core}")
    return sum(int(tick) for name, tick in zip(_COLUMNS, ticks, strict=False) if name in _WORKING) / _TICKS


def memory_mb(pids: Sequence[int]) -> float:
    """Give the resident memory of processes, in MB."""
    fields = (line.split() for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(field[1]) for field in fields if field[0] == "VmRSS:") / 1024


def children(pid: int) -> list[int]:
    """Give the processes that a process has started and that still run."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(path) == pid]


def describe() -> dict[str, str | int]:
    """Name what the numbers hang on."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    processor = next((value.strip() for name, _, value in lines if name.strip() == "model name"), platform.machine())
    return {"cores": len(CORES), "processor": processor, "python": platform.python_version()}


def _parent(path: Path) -> int:
    try:
        return int(_stat(int(path.name))[1])
    except OSError:  # it has ended meanwhile
        return 0


def _stat(pid: int) -> list[str]:
    """Give the fields from the third on: those after the name, which may have spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
