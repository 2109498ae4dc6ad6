"""What is deployed beside an AgentCore Gateway: the package runs as AWS Lambda runs it, and the rest is of AWS's shapes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from sidecar.identity.development import DevelopmentIssuer
from sidecar.settings import load
from tests.support import agentcore
from tests.support.agentcore import checked, mcp_request, tool_call
from tests.support.exports import write_export
from tests.support.processes import OPA, REPOSITORY, build_bundle

DEPLOY = REPOSITORY / "deploy" / "agentcore"
BUILD = DEPLOY / "build.py"

# As the runtime of AWS Lambda does it: the package and the standard library, and nothing that is installed here.
_RUNTIME = """
import json, os, sys
sys.path[:] = sys.argv[1:3]
sys.path.append(sys.argv[3])
from importlib import import_module
module, _, name = sys.argv[4].rpartition(".")
output = getattr(import_module(module), name)(json.load(sys.stdin), None)
places = {sys.modules[part].__file__ for part in ("sidecar", "grpc", "msgspec", "jwt")}
assert all(place.startswith(sys.argv[1]) for place in places), places
print(json.dumps(output), flush=True)
os._exit(0)
"""


class _Tags(yaml.SafeLoader):
    """Reads CloudFormation, whose short functions become their arguments."""


_Tags.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def template() -> Any:
    """Read the template."""
    return yaml.load((DEPLOY / "template.yaml").read_text(), _Tags)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, for this Python, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    key = folder / "release.pub"
    key.write_text("a key")
    machine = "arm64" if sysconfig.get_platform().endswith("aarch64") else "x86_64"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command: list[str | Path] = [
        sys.executable,
        BUILD,
        key,
        "--python",
        version,
        "--architecture",
        machine,
        "--out",
        folder / "f.zip",
    ]
    subprocess.run(command, check=True, timeout=280)
    unpacked = folder / "task"
    with zipfile.ZipFile(folder / "f.zip") as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, unpacked))
            path.chmod(entry.external_attr >> 16)
    return unpacked


@pytest.mark.timeout(300)
def test_the_handler_of_the_package_answers_an_event(package: Path, short_path: Path) -> None:
    issuer = DevelopmentIssuer(short_path / "issuer")
    headers = {"Authorization": f"Bearer {issuer.mint('acme', 'alice', 'agent:order-bot')}"}
    event = mcp_request(tool_call("orders___order-lookup"), headers)
    environment = {
        "TENANTGATE_STATE_DIR": str(short_path / "state"),
        "TENANTGATE_OPA__BINARY": str(package / "bin" / "opa"),
        "TENANTGATE_OPA__BUNDLE": str(
            build_bundle(write_export(short_path / "export", agentcore.registry()), short_path / "bundle.tar.gz")
        ),
        "TENANTGATE_IDENTITY__ISSUERS": json.dumps([issuer.settings()]),
    }
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED")]
    handler = template()["Resources"]["Function"]["Properties"]["Handler"]

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _RUNTIME, package, *paths, handler],
        cwd=short_path,
        env=environment,
        input=json.dumps(event),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert checked(output).goes_on
    assert output["mcp"]["transformedGatewayRequest"]["headers"] == {**headers, "x-tenant-id": "acme"}
    assert (package / "keys" / "release.pub").read_text() == "a key"


@pytest.mark.parametrize(
    ("opa", "fault"),
    [(REPOSITORY / "pyproject.toml", "is no program for Linux on x86_64"), (REPOSITORY / "none", "no such file")],
    ids=["not a program", "not there"],
)
def test_a_package_is_not_built_with_an_opa_that_cannot_run(opa: Path, fault: str) -> None:
    done = subprocess.run([sys.executable, BUILD, "--opa", opa], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert fault in done.stderr


def test_a_package_is_not_built_with_an_opa_for_another_architecture(tmp_path: Path) -> None:
    other = tmp_path / "opa"
    head = bytearray(OPA.read_bytes()[:64])
    head[18:20] = (0xF3).to_bytes(2, "little")  # RISC-V
    other.write_bytes(head)

    done = subprocess.run([sys.executable, BUILD, "--opa", other], capture_output=True, text=True, check=False)

    assert "is no program for Linux on x86_64" in done.stderr


def test_the_template_is_one_of_cloudformation() -> None:
    command: list[str | Path] = [
        Path(sys.executable).with_name("cfn-lint"),
        "-r",
        "eu-west-1",
        "-t",
        DEPLOY / "template.yaml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_settings_of_the_template_and_of_the_image_are_settings() -> None:
    variables = template()["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    given = {
        "TENANTGATE_BUNDLES__SOURCE": "s3://bundles/prefix",
        "TENANTGATE_BUNDLES__KEYS": template()["Parameters"]["BundleKeys"]["Default"],
        "TENANTGATE_IDENTITY__ISSUERS": re.search(
            r"such as (\[.*\])", template()["Parameters"]["Issuers"]["Description"]
        )[1],  # type: ignore[index]
        "TENANTGATE_FRESHNESS__MAX_STALENESS_SECONDS": template()["Parameters"]["MaxStalenessSeconds"]["Default"],
    }
    settings = load(None, variables | given)
    image = dict(re.findall(r"(TENANTGATE_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))

    assert settings.identity.issuers[0].issuer == "https://idp.example.com"
    assert settings.freshness.max_staleness_seconds is None
    assert image.items() <= variables.items()
    assert len(image) == 4
    assert settings.decision_log_path is None


def test_the_gateway_takes_the_interceptor_configurations_of_the_template() -> None:
    text = template()["Outputs"]["InterceptorConfigurations"]["Value"]
    configurations = json.loads(text.replace("${Function.Arn}", "arn:aws:lambda:eu-west-1:123456789012:function:f"))
    model = botocore.session.get_session().get_service_model("bedrock-agentcore-control")
    shape: Any = model.shape_for("GatewayInterceptorConfigurations")
    points: Any = model.shape_for("GatewayInterceptionPoint")

    report = ParamValidator().validate(configurations, shape)

    assert not report.has_errors(), report.generate_report()
    [configuration] = configurations
    assert {*configuration["interceptionPoints"]} == {*points.enum}
    assert configuration["inputConfiguration"]["passRequestHeaders"] is True


def test_the_gateway_may_invoke_this_function_alone() -> None:
    [statement] = template()["Resources"]["GatewayMayInvoke"]["Properties"]["PolicyDocument"]["Statement"]

    assert statement == {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "Function.Arn"}


def test_the_image_has_the_same_handler_and_is_made_from_what_is_there() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    handler = template()["Resources"]["Function"]["Properties"]["Handler"]
    copied = [name for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]]

    assert f'CMD ["{handler}"]' in dockerfile
    # what is named by a pattern may be there or not
    needed = [name for name in copied if not name.startswith("$") and "[" not in name]
    assert [name for name in needed if not (REPOSITORY / name).exists()] == []
