"""The project's images as containers, run as they are meant to be: read-only, without capabilities, as the user of the image."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

# Its image cannot always be had; every container here ends with its block.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
# Where the tests are in a container themselves, so is the engine that they talk to.
os.environ["TESTCONTAINERS_CONNECTION_MODE"] = "docker_host"

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

if TYPE_CHECKING:
    from pathlib import Path

SIDECAR, OPA, DYNAMODB = "tenantgate", "tenantgate-opa", "tenantgate-dynamodb-local"
NOBODY = "65532"
"""The user of all images, who has neither name nor rights."""

GIVEN = "/given"
"""Where containers find the folder that a test gives them."""


def confined(image: str, folder: Path | None = None, **environment: str) -> DockerContainer:
    """Prepare a container that may write to the volumes of its image and to /tmp, and reads what is in ``folder``."""
    container = DockerContainer(image).with_kwargs(
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
    )
    container.tmpfs = {"/tmp": "exec"}
    if folder is not None:
        folder.chmod(0o755)  # made for this user alone, as temporary folders are
        container.with_volume_mapping(folder, GIVEN, "ro")
    return container.with_envs(**environment)


def sidecar(folder: Path, **settings: Any) -> DockerContainer:
    """Prepare a sidecar. Settings have ``__`` for the dot."""
    environment = {f"TENANTGATE_{name.upper()}": json.dumps(value) for name, value in settings.items()}
    return confined(SIDECAR, folder, **environment)


def published(container: DockerContainer, port: int) -> DockerContainer:
    """Have a port of it published on loopback, and nowhere else."""
    container.ports[str(port)] = ("127.0.0.1",)  # type: ignore[assignment]  # docker-py takes it; the type says less
    return container


def until_healthy(container: DockerContainer) -> DockerContainer:
    """Have its start wait until its own health check says that it is well."""
    return container.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(60))


def run_in(container: DockerContainer, *command: str) -> tuple[int, str]:
    """Run a command in it; give exit status and output."""
    result = container.get_wrapped_container().exec_run([*command])
    return result.exit_code, result.output.decode()


def inspected(name: str) -> Any:
    """Give what the engine knows of a container or image."""
    (found,) = json.loads(docker("inspect", name))
    return found


def docker(*words: str | Path) -> str:
    """Run the engine's command; give what it prints."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
