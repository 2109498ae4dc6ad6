"""The image of the sidecar: it decides with nothing but a bundle and the keys of an issuer, and can write hardly anywhere."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.identity.development import DevelopmentIssuer
from tests.support.bundles import Key, Publisher
from tests.support.containers import GIVEN, NOBODY, SIDECAR, confined, inspected, run_in, sidecar
from tests.support.processes import REPOSITORY, build_bundle, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testcontainers.core.container import DockerContainer

SAMPLE = REPOSITORY / "examples" / "quickstart" / "export"


class Given:
    """A folder with what a sidecar is given: the keys of an issuer, and tokens of it by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "given"
        self.folder.mkdir()
        issuer = DevelopmentIssuer(folder / "issuer")
        (self.folder / "jwks.json").write_bytes((folder / "issuer" / "jwks.json").read_bytes())
        self.issuers = [{**issuer.settings(), "jwks": f"{GIVEN}/jwks.json"}]
        token = issuer.mint("acme", "alice", "agent:order-bot", scopes=["tools:read", "tools:write"])
        head, claims, signature = token.split(".")
        edited = base64.urlsafe_b64encode(base64.urlsafe_b64decode(claims + "==").replace(b'"acme"', b'"globex"'))
        (self.folder / "alice.jwt").write_text(token)
        (self.folder / "edited.jwt").write_text(".".join([head, edited.rstrip(b"=").decode(), signature]))


def authorize(container: DockerContainer, resource: str, token: str = "alice", *words: str) -> tuple[int, str]:
    """Ask through the socket of the container; give exit status and output."""
    return run_in(container, "tenantgate", "authorize", resource, "--token-file", f"{GIVEN}/{token}.jwt", *words)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerContainer]:
    """A sidecar with an OPA inside, that serves the sample bundle to callers who bring tokens."""
    given = Given(tmp_path_factory.mktemp("sidecar"))
    build_bundle(SAMPLE, given.folder / "bundle.tar.gz").chmod(0o644)
    with sidecar(given.folder, opa__bundle=f"{GIVEN}/bundle.tar.gz", identity__issuers=given.issuers) as container:
        assert run_in(container, "tenantgate", "status", "--wait", "60")[0] == 0
        yield container


@pytest.mark.parametrize(
    ("resource", "words", "status", "code"),
    [
        ("agent:tool:order-lookup", (), 0, "ALLOWED"),
        ("agent:tool:admin-refund", (), 1, "DENIED_BY_RULE"),
        ("agent:tool:refund-create", ("--arg", "amount=900"), 1, "CONDITION_NOT_MET"),
        ("agent:tool:order-lookup", ("--tenant", "globex"), 1, "TENANT_MISMATCH"),
    ],
)
def test_it_decides_for_the_bearer_of_a_token(
    running: DockerContainer, resource: str, words: tuple[str, ...], status: int, code: str
) -> None:
    ended, output = authorize(running, resource, "alice", "--json", *words)
    decision: dict[str, Any] = json.loads(output)
    assert (ended, decision["code"]) == (status, f"DECISION_CODE_{code}")


def test_it_believes_no_token_that_was_edited(running: DockerContainer) -> None:
    status, output = authorize(running, "agent:tool:order-lookup", "edited")
    assert status == 2
    assert "the signature of the token is not its issuer's" in output


def test_it_runs_as_nobody_and_can_write_only_where_it_must(running: DockerContainer) -> None:
    assert run_in(running, "id", "-u") == (0, f"{NOBODY}\n")
    assert inspected(SIDECAR)["Config"]["User"] == f"{NOBODY}:{NOBODY}"
    (capabilities,) = [line for line in run_in(running, "cat", "/proc/1/status")[1].splitlines() if "CapEff" in line]
    assert int(capabilities.split()[1], 16) == 0
    for place in ("/", "/opt/tenantgate", "/usr/local/bin", "/etc", GIVEN):
        assert run_in(running, "touch", f"{place}/written")[0] == 1, place


def test_nobody_could_replace_its_program_where_the_root_can_be_written_to() -> None:
    with confined(SIDECAR).with_kwargs(entrypoint=["sleep", "60"]) as container:
        theirs = ("find", "/opt/tenantgate", "/usr/local/bin", "-writable", "-not", "-type", "l")
        assert run_in(container, *theirs) == (0, "")


def test_it_has_the_extras_that_doors_and_tracing_need(running: DockerContainer) -> None:
    extras = "import envoy.service.auth.v3.external_auth_pb2_grpc, opentelemetry.exporter.otlp.proto.http"
    assert run_in(running, "python3", "-c", extras) == (0, "")


def test_it_ends_in_order_when_it_is_told_to(running: DockerContainer) -> None:
    # the last of this module: what it stops is the module's
    wrapped = running.get_wrapped_container()
    wrapped.kill("SIGTERM")
    assert wrapped.wait(timeout=20)["StatusCode"] == 0
    assert '"event":"stopped"' in running.get_logs()[1].decode()


def test_it_follows_bundles_that_its_key_has_signed_and_no_others(sample_bundle: Path, tmp_path: Path) -> None:
    given = Given(tmp_path)
    (given.folder / "keys").mkdir()
    key = Key(given.folder / "keys")
    publisher = Publisher(sample_bundle, given.folder / "published", key)
    first = publisher.base(0)
    settings: dict[str, Any] = {
        "bundles__source": f"{GIVEN}/published",
        "bundles__keys": [f"{GIVEN}/keys/ours.pub"],
        "identity__issuers": given.issuers,
    }
    with sidecar(given.folder, **settings) as container:

        def state() -> Any:
            return json.loads(run_in(container, "tenantgate", "status", "--json")[1])

        assert run_in(container, "tenantgate", "status", "--wait", "60")[0] == 0
        assert state()["revision"] == first
        forged = Publisher(sample_bundle, given.folder / "published", Key(tmp_path, "ours"))
        forged.base(20)
        wait_until(lambda: any(bundle.get("refused") for bundle in state()["bundles"]), 60)
        assert state()["revision"] == first
        second = publisher.base(30)
        wait_until(lambda: state()["revision"] == second, 60)


def test_the_commands_of_the_page_run_it_without_any_tool(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "containers.md").read_text()
    block = re.findall(r"```console\n(.*?)```", page, re.DOTALL)[-1]
    given = Given(tmp_path)
    build_bundle(SAMPLE, given.folder / "bundle.tar.gz").chmod(0o644)
    settings = {"opa": {"bundle": f"{GIVEN}/bundle.tar.gz"}, "identity": {"issuers": given.issuers}}
    (given.folder / "tenantgate.yaml").write_text(json.dumps(settings))
    (tmp_path / "build").mkdir()
    given.folder.rename(tmp_path / "build" / "given")
    tmp_path.chmod(0o755)

    script = "\n".join(re.findall(r"^\$ (.*)$", block, re.MULTILINE))
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
