"""Every command and every piece of Python in the docs runs, in the order of its page, against a sidecar of the quickstart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.identity.development import DevelopmentIssuer
from tests.support.pages import like_a_clone, run
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "policies").rglob("*.md")),
]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAMPLE = REPOSITORY / "examples" / "quickstart" / "export"
BLOCKS = [
    pytest.param(language, text, id=f"{page.relative_to(REPOSITORY)}: {text.splitlines()[0][:60]}")
    for page in PAGES
    for language, text in BLOCK.findall(page.read_text())
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like a clone in which `make run` serves."""
    folder = tmp_path_factory.mktemp("d")
    like_a_clone(folder)
    bundle = build_bundle(SAMPLE, folder / "build" / "quickstart.tar.gz")
    before = os.getcwd()  # noqa: PTH109 - relative paths keep the socket's short
    os.chdir(folder)
    try:
        issuer = DevelopmentIssuer(folder / ".tenantgate" / "issuer")
        token = issuer.mint("acme", "alice", "agent:order-bot", scopes=("tools:read", "tools:write"))
        (folder / ".tenantgate" / "alice.jwt").write_text(token)
        settings = sidecar_settings(
            folder / ".tenantgate", bundle, identity__mode="verified", identity__issuers=[issuer.settings()]
        )
        with running_sidecar(settings):
            yield folder
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_what_the_docs_say_runs(clone: Path, language: str, text: str) -> None:
    command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_example_of_an_extension_becomes_ones_own(tmp_path: Path) -> None:
    like_a_clone(tmp_path)
    page = (REPOSITORY / "policies" / "custom" / "README.md").read_text()
    commands = "".join(text for language, text in BLOCK.findall(page) if language == "sh")
    told = run(commands, tmp_path, {**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert re.search(r"PASS: [1-9]", told), told
    assert "With the extensions change_freeze." in told


def test_every_decision_code_is_documented() -> None:
    from sidecar.model import CODES  # noqa: PLC0415 - used here alone

    table = (REPOSITORY / "docs" / "decision-table.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in table] == []


def test_the_quickstart_shows_every_kind_of_answer_and_stops() -> None:
    command = [sys.executable, "examples/quickstart/run.py", "--once", "--state", "build/q"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        "ALLOWED",
        "DENIED_BY_RULE",
        "Insufficient privileges",
        "NO_MATCHING_RULE",
        "SCOPE_INSUFFICIENT",
        "CONDITION_NOT_MET",
        "TENANT_SUSPENDED",
        "IMPERSONATION",
        "TENANT_MISMATCH",
        "UNAUTHENTICATED",
    ):
        assert word in done.stdout


def test_the_quickstart_export_holds_its_registry() -> None:
    import yaml  # noqa: PLC0415 - used here alone

    from sidecar.registry.exports import Export  # noqa: PLC0415

    registry = yaml.safe_load((SAMPLE.parent / "registry.yaml").read_text())
    exported = list(Export(str(SAMPLE)).items())
    assert sorted(map(repr, exported)) == sorted(map(repr, registry))
