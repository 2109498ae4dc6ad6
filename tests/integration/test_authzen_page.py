"""The commands of the section on AuthZEN in docs/doors.md, read from the page, print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.identity.development import DevelopmentIssuer
from sidecar.settings import load
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.server import Sidecar

PAGE = (REPOSITORY / "docs" / "doors.md").read_text()
SECTION = re.split(r"^## ", PAGE.partition("\n## AuthZEN\n")[2], flags=re.MULTILINE)[0]
[BLOCK] = re.findall(r"^```console\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ (.*?)\n(?=\S)(.*?)(?=^\$ |\Z)", BLOCK, re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8180"


@pytest.fixture
def clone() -> Iterator[tuple[Path, Sidecar]]:
    """A folder that looks like a clone in which `make run` serves, with the door at another port."""
    with tempfile.TemporaryDirectory(prefix="tg-") as name:
        folder = Path(name)
        (folder / ".venv").symlink_to(REPOSITORY / ".venv")
        bundle = build_bundle(REPOSITORY / "examples" / "quickstart" / "export", folder / "bundle.tar.gz")
        issuer = DevelopmentIssuer(folder / ".tenantgate" / "issuer")
        token = issuer.mint("acme", "alice", "agent:order-bot", scopes=("tools:read", "tools:write"))
        (folder / ".tenantgate" / "alice.jwt").write_text(token)
        settings = sidecar_settings(
            folder / ".tenantgate",
            bundle,
            identity__mode="verified",
            identity__issuers=[issuer.settings()],
            authzen__listen="127.0.0.1:0",
        )
        with running_sidecar(settings) as (sidecar, _):
            yield folder, sidecar


def test_the_commands_of_the_page_print_what_it_says(clone: tuple[Path, Sidecar]) -> None:
    folder, sidecar = clone
    assert len(COMMANDS) == BLOCK.count("$ curl")
    for command, expected in COMMANDS:
        assert ADDRESS in command
        command_here = command.replace(f"http://{ADDRESS}", sidecar.authzen_url)
        done = subprocess.run(["bash", "-euc", command_here], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        pattern = re.escape(expected.rstrip("\n")).replace(re.escape("..."), '[^"]+')
        assert re.fullmatch(pattern, done.stdout.rstrip("\n")), done.stdout


def test_the_setting_of_the_page_is_one() -> None:
    environment = dict(re.findall(r"(TENANTGATE_\w+)=(\S+) make run", SECTION))

    assert load(None, environment).authzen.listen == ADDRESS
    assert environment.keys().isdisjoint(os.environ)
