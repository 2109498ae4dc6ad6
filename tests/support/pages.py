"""The commands of a page of the docs, run in a folder that looks like a clone."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def like_a_clone(folder: Path, names: Iterable[str] = (".venv", ".tools", "examples", "policies", "opa")) -> Path:
    """Put into a folder what commands find in a clone, and a folder to build in. They may write into its policies."""
    for name in names:
        if name == "policies":
            shutil.copytree(REPOSITORY / name, folder / name)
        else:
            (folder / name).symlink_to(REPOSITORY / name)
    (folder / "build").mkdir()
    return folder


def run(command: str, folder: Path, environment: Mapping[str, str], seconds: float = 60, status: int = 0) -> str:
    """Run a command that ends by itself, with an exit status; give what it prints."""
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == status, f"{command}\n{done.stdout}"
    return done.stdout
