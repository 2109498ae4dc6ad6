"""The commands of docs/deploy.md, read from the page, run; a cluster and AWS have stand-ins that know their formats."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.support.deploying import DEPLOY
from tests.support.dynamodb import CREDENTIALS, ENVIRONMENT
from tests.support.iam import ACCOUNT
from tests.support.pages import like_a_clone, run
from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text()
COMMANDS = [
    command
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
]

KUBECTL = """#!/bin/sh
# `kubectl apply -k FOLDER`: what is sent, and whether Kubernetes knows it.
set -eu
[ "$1 $2" = "apply -k" ]
.tools/kustomize build "$3" >build/applied.yaml
.tools/checks/bin/kubernetes-validate --strict build/applied.yaml
"""

# `aws SERVICE OPERATION`, whose options are what the operation takes by AWS's model of it, asked of moto.
AWS = f"""#!{sys.executable}
import json, pathlib, sys
import boto3
from botocore import xform_name

service, operation, *words = sys.argv[1:]
client = boto3.client(service)
method = operation.replace("-", "_")
takes = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape.members
options = {{"--" + xform_name(name, "-"): name for name in takes}}
asked = {{}}
for option, value in zip(words[::2], words[1::2], strict=True):
    text = pathlib.Path(value.removeprefix("file://")).read_text() if value.startswith("file://") else value
    asked |= json.loads(text) if option == "--cli-input-json" else {{options[option]: text}}
getattr(client, method)(**asked)
"""

# `terraform`, as far as names go: variables that are declared, and all that are needed; outputs that are declared, once applied.
TERRAFORM = f"""#!{sys.executable}
import json, pathlib, sys

applied = pathlib.Path("applied")
verb, *words = sys.argv[1:]
if verb == "apply":
    from tests.support.deploying import terraform_blocks

    blocks = terraform_blocks(pathlib.Path.cwd())
    options, given = words[::2], [word.partition("=")[0] for word in words[1::2]]
    assert {{*options}} == {{"-var"}}
    needed = {{name for name, block in blocks.items() if name.startswith("var.") and "default" not in block}}
    assert needed <= {{"var." + name for name in given}} <= blocks.keys()
    for file in pathlib.Path.cwd().glob("*.tf.json"):
        for kind, named in json.loads(file.read_text())["resource"].items():
            assert not [name for name in named if kind + "." + name in blocks]
    applied.write_text(json.dumps([*blocks]))
elif verb == "output":
    flag, name = words
    assert flag == "-raw" and "output." + name in json.loads(applied.read_text())
    role = "arn:aws:iam::{ACCOUNT}:role/"
    values = {{"release_pub": "PEM", "tenant_role": role + "tenant-data", "sidecar_role": role + "tenantgate-sidecar"}}
    print(values[name], end="")
else:
    assert (verb, words) in [("init", []), ("validate", [])]
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The address of an AWS by moto."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def clone(aws: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, in which the commands of the page have been run, in their order."""
    folder = tmp_path_factory.mktemp("clone")
    names = (".venv", ".tools", "policies", "opa", "scripts", "requirements", "Makefile", "pyproject.toml")
    like_a_clone(folder, names)
    shutil.copytree(DEPLOY, folder / "deploy")
    (folder / "bin").mkdir()
    for name, text in {"kubectl": KUBECTL, "aws": AWS, "terraform": TERRAFORM}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "AWS_ENDPOINT_URL": aws,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    for command in COMMANDS:
        run(command, folder, environment, seconds=100)
    return folder


def test_the_key_that_terraform_tells_reaches_the_pods_and_the_parameter(clone: Path, aws: str) -> None:
    applied = {item["kind"]: item for item in yaml.safe_load_all((clone / "build" / "applied.yaml").read_text())}
    assert applied["ConfigMap"]["data"]["release.pub"] == "PEM"
    ssm: Any = boto3.client("ssm", endpoint_url=aws, **CREDENTIALS)  # type: ignore[call-overload]
    task = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
    (wanted,) = [secret["valueFrom"] for secret in task["containerDefinitions"][0]["secrets"]]
    name = wanted.partition(":parameter")[2]
    assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == "PEM"
    ssm.close()


def test_the_task_is_registered(clone: Path, aws: str) -> None:
    del clone
    ecs: Any = boto3.client("ecs", endpoint_url=aws, **CREDENTIALS)  # type: ignore[call-overload]
    registered = ecs.describe_task_definition(taskDefinition="agent")["taskDefinition"]
    assert [container["name"] for container in registered["containerDefinitions"]] == ["tenantgate", "agent"]
    ecs.close()


def test_the_role_of_the_tenants_data_is_written_for_terraform(clone: Path) -> None:
    # that for ECS, the last on the page: who brings a token of the issuer
    role = json.loads((clone / "deploy" / "terraform" / "tenant-role.tf.json").read_text())["resource"]["aws_iam_role"]
    assert role["tenant"]["name"] == "tenant-data"
    assert "sts:AssumeRoleWithWebIdentity" in role["tenant"]["assume_role_policy"]


def test_the_bill_of_materials_is_made(clone: Path) -> None:
    assert json.loads((clone / "build" / "sbom.json").read_text())["bomFormat"] == "CycloneDX"


def test_the_page_names_what_is_in_the_folder() -> None:
    named = {*re.findall(r"^\| \[`deploy/([a-z]+)`\]", PAGE, re.MULTILINE)}
    assert named >= {"agentcore", "ecs", "images", "kubernetes", "terraform"}
