"""What a sink is given is in the file, the pipe or the event as it was, whole, and once."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.audit.opa_events import event
from sidecar.audit.sinks import RotatingFile, StandardOutput
from sidecar.audit.uploads import object_key
from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

LINES = [b'{"n":%d}\n' % number for number in range(9)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_rotated_before_it_is_too_large_and_as_many_are_kept_as_is_said(tmp_path: Path) -> None:
    sink = RotatingFile(tmp_path / "d.jsonl", 16, 2)
    for line in LINES:
        sink.write([line])
    sink.close()

    assert files(tmp_path) == {
        "d.jsonl": LINES[8],
        "d.jsonl.1": LINES[6] + LINES[7],
        "d.jsonl.2": LINES[4] + LINES[5],
    }
    assert (tmp_path / "d.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_file_of_which_none_is_kept_begins_anew(tmp_path: Path) -> None:
    sink = RotatingFile(tmp_path / "d.jsonl", 16, 0)
    for line in LINES[:3]:
        sink.write([line])
    sink.close()

    assert files(tmp_path) == {"d.jsonl": LINES[2]}


def test_a_file_that_somebody_else_has_renamed_is_let_go(tmp_path: Path) -> None:
    sink = RotatingFile(tmp_path / "d.jsonl", 1000, 2)
    sink.write(LINES[:1])
    (tmp_path / "d.jsonl").rename(tmp_path / "taken")
    sink.write(LINES[1:2])
    (tmp_path / "d.jsonl").unlink()
    sink.write(LINES[2:3])
    sink.close()

    assert files(tmp_path) == {"taken": LINES[0], "d.jsonl": LINES[2]}


def test_after_half_a_line_the_next_begins_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"n":')
    sink = RotatingFile(tmp_path / "d.jsonl", 1000, 2)
    sink.write(LINES[:1])
    sink.close()

    assert files(tmp_path) == {"d.jsonl": b'{"n":\n' + LINES[0]}


def test_lines_that_the_disk_has_no_room_for_leave_nothing_of_them(tmp_path: Path) -> None:
    sink = RotatingFile(tmp_path / "d.jsonl", 1 << 20, 2)
    sink.write(LINES[:1])
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from sidecar.audit.sinks import RotatingFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "sink = RotatingFile(Path(sys.argv[1]), 1 << 20, 2)\n"
        "try:\n"
        "    sink.write([b'x' * 150 + b'\\n'])\n"
        "except OSError:\n"
        "    sink.write([b'y\\n'])\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "d.jsonl"], check=True, cwd=REPOSITORY)
    sink.write(LINES[1:2])
    sink.close()

    assert files(tmp_path) == {"d.jsonl": LINES[0] + b"y\n" + LINES[1]}


def test_several_processes_share_a_file_and_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sidecar.audit.sinks import RotatingFile\n"
        "sink = RotatingFile(Path(sys.argv[1]), 4096, 1000)\n"
        "for number in range(300):\n"
        "    sink.write([f'{sys.argv[2]} {number}\\n'.encode(), b'-\\n'])\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path / "d.jsonl", name], cwd=REPOSITORY) for name in "abc"
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = [line for text in files(tmp_path).values() for line in text.decode().splitlines()]

    assert sorted(line for line in lines if line != "-") == sorted(f"{name} {n}" for name in "abc" for n in range(300))
    assert all(path.stat().st_size <= 4096 for path in tmp_path.iterdir())


def test_standard_output_goes_on_where_it_was_stopped() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = StandardOutput(writing)
    lines = [b"%06d\n" % number for number in range(40_000)]
    got = b""
    with pytest.raises(BlockingIOError):
        sink.write(lines)
    while len(got) < 7 * len(lines):
        got += os.read(reading, 1 << 20)
        try:
            sink.write(lines)
        except BlockingIOError:
            continue
        os.close(writing)
        while more := os.read(reading, 1 << 20):
            got += more
    os.close(reading)

    assert got == b"".join(lines)


RECORD = {
    "time": "2026-11-24T14:05:06.000007Z",
    "decision_id": "01a2-3",
    "method": "Authorize",
    "ms": 1.5,
    "cached": False,
    "trace_id": "ab",
    "tenant_id": "acme",
    "effect": "DENY",
    "code": "NO_MATCHING_RULE",
    "revision": "r1",
}


def test_an_object_is_named_by_the_moment_the_host_and_the_decision() -> None:
    line = b'{"time":"2026-11-24T14:05:06.000007Z","decision_id":"01a2-3"}'

    assert object_key(line, "h") == "2026/11/24/14/20261124T140506.000007Z-h-01a2-3.jsonl.gz"


def test_a_record_becomes_an_event_of_opa() -> None:
    assert event(RECORD, {"id": "h"}) == {
        "labels": {"id": "h"},
        "decision_id": "01a2-3",
        "trace_id": "ab",
        "bundles": {"registry": {"revision": "r1"}},
        "path": "tenantgate/authorize/decision",
        "input": {"tenant_id": "acme"},
        "result": {"effect": "DENY", "code": "NO_MATCHING_RULE", "cached": False},
        "timestamp": "2026-11-24T14:05:06.000007Z",
        "metrics": {"timer_server_handler_ns": 1_500_000},
        "custom": {"method": "Authorize"},
    }


def test_an_error_becomes_an_event_without_a_result() -> None:
    made = event({**RECORD, "error": "CALLER_UNAUTHENTICATED", "cause": "TOKEN_EXPIRED"}, {})

    assert "result" not in made
    assert made["error"] == {"code": "CALLER_UNAUTHENTICATED", "message": "TOKEN_EXPIRED"}
