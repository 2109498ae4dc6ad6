"""What a release is made of is listed, its licences are known, and what is known against it is asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.toolchain import pinned_version
from tests.support.deploying import CHECKS, tool
from tests.support.http import Handler, http_server
from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPTS = REPOSITORY / "scripts"
LOCK = (REPOSITORY / "requirements" / "run.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==([^ ]+)", LOCK, re.MULTILINE))


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bill of materials, as it is written twice."""
    files = [tmp_path_factory.mktemp("bill") / name for name in ("first.json", "again.json")]
    for file in files:
        tool([CHECKS / "python", SCRIPTS / "sbom", file])
    first, again = (file.read_bytes() for file in files)
    assert first == again
    return json.loads(first)


def test_the_bill_of_materials_has_every_package_by_version_and_hash(bill: Any) -> None:
    packages = {part["name"]: part for part in bill["components"] if part["type"] == "library"}
    assert {name: part["version"] for name, part in packages.items()} == LOCKED
    for part in packages.values():
        hashes = [h["content"] for reference in part["externalReferences"] for h in reference.get("hashes", [])]
        assert hashes
        assert all(f"sha256:{digest}" in LOCK for digest in hashes)


def test_the_bill_of_materials_has_opa_and_is_that_of_tenantgate(bill: Any) -> None:
    (opa,) = [part for part in bill["components"] if part["type"] == "application"]
    assert (opa["name"], opa["version"]) == ("opa", pinned_version())
    assert opa["purl"] == f"pkg:golang/github.com/open-policy-agent/opa@v{pinned_version()}"
    subject = bill["metadata"]["component"]
    assert (subject["name"], subject["type"]) == ("tenantgate", "application")
    assert {entry["ref"] for entry in bill["dependencies"]} >= {part["bom-ref"] for part in bill["components"]}


def test_every_licence_is_listed_and_allowed() -> None:
    listed = {line.split()[0].lower().replace("_", "-") for line in tool([SCRIPTS / "licences"]).splitlines()}
    assert LOCKED.keys() - listed == set()


# ── what is known against it ────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def osv(known: dict[str, Any], status: int = 200) -> Iterator[str]:
    """Answer as OSV does, for a while, from what is known by the name of the package; give the address."""

    class Answering(Handler):
        def do_POST(self) -> None:  # noqa: N802 - the name by which it is found
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(known.get(asked["package"]["name"], {})).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http_server(Answering) as url:
        yield f"{url}/v1/query"


def advisory(name: str, ecosystem: str) -> dict[str, Any]:
    """Give what OSV knows of a package for which there is one advisory."""
    versions = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}]
    affected = [{"package": {"name": name, "ecosystem": ecosystem}, "ranges": versions}]
    return {"vulns": [{"id": "TEST-2026-1", "summary": "a test", "affected": affected}]}


def audit(address: str) -> tuple[int, str]:
    """Run the audit with an OSV; give its exit status and what it says."""
    done = subprocess.run(
        [CHECKS / "python", SCRIPTS / "audit"],
        env={**os.environ, "PIP_AUDIT_OSV_URL": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout


def test_an_audit_that_finds_nothing_says_so() -> None:
    with osv({}) as address:
        assert audit(address) == (0, "nothing is known against any of it\n")


@pytest.mark.parametrize(
    ("name", "ecosystem", "line"),
    [
        ("pyjwt", "PyPI", f"pyjwt {LOCKED['pyjwt']}: TEST-2026-1, fixed in 999.0\n"),
        ("github.com/open-policy-agent/opa", "Go", f"opa {pinned_version()}: TEST-2026-1\n"),
    ],
)
def test_an_audit_fails_with_what_it_finds(name: str, ecosystem: str, line: str) -> None:
    with osv({name: advisory(name, ecosystem)}) as address:
        assert audit(address) == (1, line)


def test_an_audit_that_nobody_answers_is_neither_passed_nor_failed() -> None:
    with osv({}) as address:
        pass
    assert audit(address) == (77, f"{address} does not answer: nothing was audited\n")
    with osv({}, status=503) as address:
        assert audit(address) == (77, f"{address} does not answer: nothing was audited\n")


def test_make_check_tells_a_skipped_step_from_a_passed_one(tmp_path: Path) -> None:
    text = (SCRIPTS / "check").read_text()
    steps = "\n".join(line for line in text.splitlines() if not line.startswith('step "'))
    marker = '[ -z "$failed" ]'
    mine = 'step passes true\nstep unasked sh -c "echo nobody answers; exit 77"\n'
    script = tmp_path / "scripts" / "check"
    script.parent.mkdir()
    script.write_text(steps.replace(marker, f"{mine}{marker}"))
    assert tool(["sh", script]) == "ok      passes\nskipped unasked: nobody answers\n"
    script.write_text(steps.replace(marker, f"{mine}step fails false\n{marker}"))
    assert tool(["sh", script], fails=True).endswith("FAILED  fails\n\nFailed: fails\n")
