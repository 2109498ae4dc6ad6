"""The commands of docs/transport-security.md, read from the page, do what it says, with the settings of the page."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import OPA, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (REPOSITORY / "docs" / "transport-security.md").read_text()
BLOCKS = re.findall(r"^```(sh|yaml|console)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TENANTGATE = Path(sys.executable).with_name("tenantgate")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def _blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module")
def clone(sample_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A folder with the files and settings of the page in which a sidecar serves, and its port."""
    folder = tmp_path_factory.mktemp("d")
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    for text in _blocks("sh"):
        subprocess.run(["bash", "-euc", text], cwd=folder, capture_output=True, timeout=60, check=True)
    (settings,) = _blocks("yaml")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "settings.yaml").write_text(settings.replace("0.0.0.0:7443", f"127.0.0.1:{port}"))
    command: list[str | Path] = [TENANTGATE, "serve", "--config", "settings.yaml", "--bundle", sample_bundle]
    command += ["--set", f"opa.binary={OPA}", "--set", "identity.mode=asserted"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any('"serving"' in line for line in process.stderr)
            yield folder, port
        finally:
            process.terminate()


@pytest.mark.parametrize("block", _blocks("console"), ids=lambda block: block.splitlines()[0][:60])
def test_what_the_page_shows_is_what_is_said(clone: tuple[Path, int], block: str) -> None:
    folder, port = clone
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
    shown = re.sub(r"^\$ (?:.*\\\n)*.*\n", "", block, flags=re.MULTILINE).splitlines()
    said = ""
    for command in commands:
        command_here = command.replace("7443", str(port))
        done = subprocess.run(
            ["bash", "-euc", command_here], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        said = done.stdout + done.stderr
    said = " ".join(MOMENT.sub("MOMENT", said.replace(str(port), "7443")).split())

    for line in shown:
        if line != "...":
            assert " ".join(MOMENT.sub("MOMENT", line).split()) in said
