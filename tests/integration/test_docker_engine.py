"""Where there is no Docker engine, `scripts/docker-engine` says why, by an exit status that `make ci` knows from a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = REPOSITORY / "scripts" / "docker-engine"


def run(**environment: str) -> tuple[int, str]:
    """Run the script; give exit status and what it says."""
    done = subprocess.run(
        [SCRIPT], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_an_engine_elsewhere_that_does_not_answer_is_not_replaced() -> None:
    nowhere = "tcp://127.0.0.1:1"
    assert run(DOCKER_HOST=nowhere) == (3, f"No Docker engine: nothing answers at DOCKER_HOST={nowhere}\n")


def test_none_is_started_where_none_is_installed_and_none_can_be(tmp_path: Path) -> None:
    for tool in ("sh", "dirname", "id", "timeout"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    status, said = run(PATH=str(tmp_path), DOCKER_HOST="")
    assert status == 3
    assert said.startswith("No Docker engine: none ")
