"""The ECS example is what AWS takes, confines what it runs, and its settings are those of the sidecar."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from sidecar.seal import read_public_key
from sidecar.settings import Settings, load
from tests.support.deploying import (
    COMMANDS,
    DEPLOY,
    IMAGE_SETTINGS,
    IMAGE_USER,
    IMAGE_VOLUMES,
    tenantgate_environment,
    tool,
)

if TYPE_CHECKING:
    from pathlib import Path

TASK: dict[str, Any] = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
CONTAINERS = {container["name"]: container for container in TASK["containerDefinitions"]}
SIDECAR, AGENT = CONTAINERS["tenantgate"], CONTAINERS["agent"]


@pytest.fixture(scope="module")
def settings() -> Settings:
    """The settings that the sidecar comes to."""
    return load(None, IMAGE_SETTINGS | {entry["name"]: entry["value"] for entry in SIDECAR["environment"]})


def test_aws_takes_the_task_definition() -> None:
    shape = (
        botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    )
    assert shape is not None
    report = ParamValidator().validate(TASK, shape)
    assert not report.has_errors(), report.generate_report()


def test_what_the_model_of_the_api_does_not_say_holds_too() -> None:
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
    assert (TASK["networkMode"], TASK["requiresCompatibilities"]) == ("awsvpc", ["FARGATE"])
    assert int(TASK["memory"]) in range(2048, 8193, 1024)  # with 1 vCPU
    assert TASK["cpu"] == "1024"
    for container in CONTAINERS.values():
        assert container["essential"]
        assert container["stopTimeout"] <= 120
        assert container["logConfiguration"]["options"]["mode"] == "non-blocking"
        assert {mount["sourceVolume"] for mount in container["mountPoints"]} <= {
            volume["name"] for volume in TASK["volumes"]
        }
    check = SIDECAR["healthCheck"]
    assert check["timeout"] <= check["interval"] <= 300
    assert check["startPeriod"] <= 300


def test_everything_is_confined() -> None:
    for container in CONTAINERS.values():
        assert container["readonlyRootFilesystem"]
        assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
        assert not container.get("privileged")
    assert SIDECAR["user"] == f"{IMAGE_USER}:{IMAGE_USER}"
    user, group = AGENT["user"].split(":")
    # another user, who is let in by the group of the socket
    assert user not in {"0", IMAGE_USER}
    assert group == IMAGE_USER


def test_the_settings_name_what_is_mounted(settings: Settings) -> None:
    there = {mount["sourceVolume"]: mount for mount in SIDECAR["mountPoints"]}
    assert settings.state_dir == there["state"]["containerPath"]
    assert settings.socket_path is not None
    assert str(settings.socket_path.parent) == there["socket"]["containerPath"]
    assert not any(mount["readOnly"] for mount in there.values())
    # elsewhere, volumes of Fargate are root's
    assert {mount["containerPath"] for mount in there.values()} <= {*IMAGE_VOLUMES}
    (shared,) = AGENT["mountPoints"]
    assert shared == there["socket"] | {"readOnly": True}
    assert {"name": "SIDECAR_ADDRESS", "value": f"unix:{settings.socket_path}"} in AGENT["environment"]


def test_the_role_that_all_containers_have_is_not_what_opens_the_data(settings: Settings) -> None:
    assert settings.credentials.role_arn is not None
    assert settings.credentials.method == "web_identity"


def test_the_agent_starts_after_the_sidecar_is_healthy_and_the_sidecar_has_time_to_drain(settings: Settings) -> None:
    assert AGENT["dependsOn"] == [{"containerName": "tenantgate", "condition": "HEALTHY"}]
    assert SIDECAR["healthCheck"]["command"] == ["CMD", "tenantgate", "status"]
    assert SIDECAR["stopTimeout"] > 2 * settings.lifecycle.drain_seconds


def test_the_command_writes_the_key_where_the_settings_say_and_becomes_the_sidecar(tmp_path: Path) -> None:
    tool([COMMANDS / "tenantgate", "bundle", "keygen", tmp_path / "release"])
    (tmp_path / "state").mkdir()
    (command,) = SIDECAR["command"]
    # in place of the sidecar, what shows which process it is and what it was given
    stand_in = tmp_path / "bin" / "tenantgate"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$$ $* ${RELEASE_PUB-unset}"\n')
    stand_in.chmod(0o755)
    environment = tenantgate_environment(RELEASE_PUB=(tmp_path / "release.pub").read_text().strip())
    environment["PATH"] = f"{stand_in.parent}:{environment['PATH']}"
    command = command.replace(IMAGE_SETTINGS["TENANTGATE_STATE_DIR"], str(tmp_path / "state"))
    with subprocess.Popen(
        [*SIDECAR["entryPoint"], command], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.communicate(timeout=30)[0] == f"{process.pid} serve unset\n"
    written = tmp_path / "state" / "release.pub"
    assert read_public_key(written).id == read_public_key(tmp_path / "release.pub").id
    assert load(None, {entry["name"]: entry["value"] for entry in SIDECAR["environment"]}).bundles.keys == (
        f"{IMAGE_SETTINGS['TENANTGATE_STATE_DIR']}/release.pub",
    )
