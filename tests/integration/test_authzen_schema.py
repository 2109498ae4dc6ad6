"""The AuthZEN door keeps what its OpenAPI description says, whatever is sent: schemathesis makes it up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.identity.development import DevelopmentIssuer
from tests.support.authzen import registry, send, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.server import Sidecar

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# In CI a failure must be due to the change at hand; elsewhere chance may find something new.
CHANCE = ["--seed", "1"] if os.environ.get("CI") else []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Sidecar, str]]:
    """A sidecar that believes tokens alone, and a token."""
    issuer = DevelopmentIssuer(tmp_path / "issuer")
    with serving(
        registry("authzen-certification"),
        identity__mode="verified",
        identity__issuers=[issuer.settings()],
        authzen__principal=None,
    ) as sidecar:
        yield sidecar, issuer.mint("cert", "alice", "agent:gateway")


def described(sidecar: Sidecar) -> Any:
    """Give the description that the door serves."""
    answer = send(sidecar, "/openapi.json", None, method="GET")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


@pytest.mark.timeout(300)
def test_no_request_brings_about_a_server_error_or_an_answer_that_is_not_described(
    served: tuple[Sidecar, str], tmp_path: Path
) -> None:
    sidecar, token = served
    description = described(sidecar)
    # Which tokens of pages are good cannot be described: those are tried in test_authzen.py.
    schemas = description["components"]["schemas"]
    del schemas["PageAsked"]["properties"]["token"]
    # What schemathesis makes for \p{M} is not always a mark: some of it is no character yet.
    schemas["Id"]["pattern"] = schemas["Id"]["pattern"].replace("[", "(?:(?![\u20f1-\u20ff])[", 1).replace("]+", "])+")
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(description))

    command: list[str | Path] = [SCHEMATHESIS, "run", file, "--url", sidecar.authzen_url, "--checks", "all"]
    command += ["--header", f"Authorization: Bearer {token}", "--phases", "coverage,fuzzing", "--max-examples", "10"]
    done = subprocess.run([*command, *CHANCE], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Selected: 12/12" in done.stdout
    assert "No issues found" in done.stdout


def test_the_description_says_where_and_with_what_callers_come(served: tuple[Sidecar, str]) -> None:
    sidecar, _ = served
    of_verified = described(sidecar)
    with serving(registry("authzen-certification"), authzen__base_url="https://pdp.example.com") as other:
        of_asserted = described(other)

    assert of_verified["servers"] == [{"url": sidecar.authzen_url}]
    assert of_asserted["servers"] == [{"url": "https://pdp.example.com"}]
    assert (of_verified["security"], of_asserted["security"]) == ([{"bearer": []}], [])
