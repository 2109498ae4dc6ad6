"""Where the Python of a sidecar spends its time, by py-spy: the stack of the thread that holds the interpreter, over and over."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.machine import LOAD_CORE, on_core

if TYPE_CHECKING:
    from tests.bench.loads import Workload

SHOWN = 60  # functions
PER_SECOND = 250


def sample(workload: Workload, in_flight: int, seconds: float) -> str:
    """Call for some seconds; give a table of functions: the part of the time within each, and in what it does itself."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        msg = "--profile needs py-spy: .venv/bin/python -m pip install py-spy"
        raise SystemExit(msg)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stacks"
        flags = [
            "--gil",
            "--nonblocking",
            "--rate",
            str(PER_SECOND),
            "--duration",
            str(int(seconds)),
            "--format",
            "raw",
        ]
        with on_core(LOAD_CORE):
            spy = subprocess.Popen(
                [program, "record", *flags, "--output", out, "--pid", str(workload.server.pids[0])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        called = workload.run(in_flight, seconds + 1)
        _, said = spy.communicate()
        if spy.returncode:
            msg = f"py-spy ended with {spy.returncode}: {said}"
            raise SystemExit(msg)
        within, itself = _count(out.read_text().splitlines())
    total = itself.total()
    return "\n".join(
        (
            f"{called.cpu_us:,.0f} µs of CPU a call, {called.opa_us:,.0f} µs of them OPA's; {total:,} samples of Python",
            "within  itself",
            *(
                f"{count / total:6.1%}  {itself[name] / total:6.1%}  {name}"
                for name, count in within.most_common(SHOWN)
            ),
        )
    )


def _count(lines: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Count the samples within each function, and those in what it does itself. A line is a stack, outermost first."""
    within: Counter[str] = Counter()
    itself: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        names = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        within.update(dict.fromkeys(names, int(count)))
        itself[names[-1]] += int(count)
    return within, itself
