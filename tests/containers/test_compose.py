"""compose.yaml as a whole: a change of the registry reaches the agent, and no container can do more than it must."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.containers import docker, inspected
from tests.support.processes import REPOSITORY, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

PROJECT = f"tenantgate-test-{os.getpid()}"
PAGE = (REPOSITORY / "docs" / "containers.md").read_text()
MADE, ASKED, _ = [
    re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
]
"""The commands of the page, block by block: those of make, those to ask and change, and those for an image alone."""

COMPOSE = REPOSITORY / "scripts" / "compose"
STAYING = {"dynamodb", "aws", "watcher", "publisher", "opa", "sidecar"}
JOBS = {"set-up", "tokens"}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the clone, with a project of our own for Docker Compose; give what came of it."""
    environment = os.environ | {"PROJECT": PROJECT}
    return subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def done(*words: str | Path) -> str:
    """Run it, and give what it prints; it must go well."""
    ended = run(*words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def as_agent(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of tenantgate where the agent runs, with what the agent has."""
    return run(COMPOSE, "run", "--rm", "--no-deps", "-T", "--entrypoint", "tenantgate", "agent", *words)


def decision(token: str = "alice") -> str:
    """Ask for the agent whether it may look up an order; give what is answered."""
    answer = as_agent("authorize", "agent:tool:order-lookup", "--token-file", f"tokens/{token}.jwt")
    return answer.stdout + answer.stderr


def containers() -> dict[str, Any]:
    """Give what the engine knows of the containers, by service."""
    names = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
    found = [inspected(name) for name in names]
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}


@pytest.fixture(scope="module")
def stack() -> Iterator[dict[str, Any]]:
    """The services of compose.yaml, up; what the engine knows of them."""
    up, _, down = MADE
    try:
        assert "serving" in done(*up.split())
        yield containers()
    finally:
        done(*down.split())


def test_the_agent_gets_decisions_and_credentials_and_no_more(stack: dict[str, Any]) -> None:
    assert MADE == ["make compose-up", "make compose-demo", "make compose-down"]
    assert set(stack) == STAYING | JOBS
    shown = done(*MADE[1].split())  # ends with 1 if one answer is not as it must be

    for code in ("ALLOWED", "DENIED_BY_RULE", "CONDITION_NOT_MET", "SUBJECT_NOT_MEMBER", "CALLER_UNAUTHENTICATED"):
        assert code in shown
    # what the table folds belongs together
    identity = "".join(re.findall(r"(\S+) +$", shown, re.MULTILINE))
    assert "arn:aws:sts::123456789012:assumed-role/tenant-data/" in identity


@pytest.mark.usefixtures("stack")
def test_the_commands_of_the_page_do_what_it_says() -> None:
    answers = [done(*command.split()) for command in ASKED]
    assert "serving" in answers[0]
    assert "ALLOWED" in answers[-1]


def test_no_container_can_do_more_than_it_must(stack: dict[str, Any]) -> None:
    for service, container in stack.items():
        config, host = container["Config"], container["HostConfig"]
        assert config["User"] == "65532:65532", service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["CapAdd"] is None, service
        assert not host["Privileged"], service
        assert not host["PortBindings"], service
    for service in JOBS:
        assert stack[service]["State"]["ExitCode"] == 0, service


@pytest.mark.usefixtures("stack")
def test_whatever_stays_says_of_itself_that_it_is_well() -> None:
    def well() -> set[str]:
        states = {service: container["State"] for service, container in containers().items()}
        return {service for service, state in states.items() if state.get("Health", {}).get("Status") == "healthy"}

    wait_until(lambda: well() == STAYING, 60)


def test_a_key_is_only_where_somebody_signs_with_it(stack: dict[str, Any]) -> None:
    with_volume = {
        name: {service for service, container in stack.items() if f"{PROJECT}_{name}" in mounted(container)}
        for name in ("keys", "issuer", "tokens", "agent-socket")
    }
    assert with_volume["keys"] == {"set-up", "watcher"}
    assert with_volume["issuer"] == {"tokens"}
    assert with_volume["tokens"] == {"tokens"}  # and the agent, which comes and goes
    assert with_volume["agent-socket"] == {"sidecar"}
    agent = run(
        COMPOSE,
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "--entrypoint",
        "find",
        "agent",
        "/var/lib/tenantgate",
        "-name",
        "*.key",
    )
    assert (agent.returncode, agent.stdout) == (0, "")


def mounted(container: Any) -> set[str]:
    """Give the names of the volumes that a container has."""
    return {mount["Name"] for mount in container["Mounts"] if mount["Type"] == "volume"}


@pytest.mark.usefixtures("stack")
def test_a_suspension_in_the_table_is_soon_what_the_agent_is_answered() -> None:
    assert "ALLOWED" in decision()
    done(COMPOSE, "exec", "-T", "watcher", "tenantgate", "registry", "suspend", "user", "alice", "--tenant", "acme")
    wait_until(lambda: "SUBJECT_NOT_MEMBER" in decision(), 60)
    done(COMPOSE, "exec", "-T", "watcher", "tenantgate", "registry", "resume", "user", "alice", "--tenant", "acme")
    wait_until(lambda: "ALLOWED" in decision(), 60)


@pytest.mark.usefixtures("stack")
def test_decisions_go_on_when_all_but_sidecar_and_opa_are_gone() -> None:
    done(COMPOSE, "stop", "--timeout", "5", "watcher", "publisher", "dynamodb", "aws")
    assert "ALLOWED" in decision()
    assert "SUBJECT_NOT_MEMBER" in decision("mallory")

    done(COMPOSE, "stop", "--timeout", "5", "opa")
    assert "UNAVAILABLE" in decision()
