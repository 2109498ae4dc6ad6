"""The bench of scale runs, and writes the rows that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = {
    "tenants": int,
    "rules_per_tenant": int,
    "compile_s": float,
    "compile_peak_mb": float,
    "activate_s": float,
    "opa_rss_mb": float,
    "authorize_p50_us": float,
}


def test_the_bench_of_scale_writes_a_row_for_each_size(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = [sys.executable, str(REPOSITORY / "tests" / "bench" / "scale.py"), "--quick", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(out.read_text())
    assert [{name: type(value) for name, value in row.items()} for row in rows] == [COLUMNS] * 3
    assert [(row["tenants"], row["rules_per_tenant"]) for row in rows] == [(10, 9), (50, 9), (10, 30)]
    assert all(value > 0 for row in rows for value in row.values())
