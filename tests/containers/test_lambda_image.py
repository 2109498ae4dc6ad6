"""The image of the Lambda function: its handler answers events, with the OPA and the keys that are in it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from sidecar.identity.development import DevelopmentIssuer
from tests.support.agentcore import checked, mcp_request, registry, tool_call
from tests.support.bundles import Key, Publisher
from tests.support.containers import GIVEN, docker, inspected
from tests.support.exports import write_export
from tests.support.processes import REPOSITORY, build_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

IMAGE = "tenantgate-agentcore"

# AWS's image, as far as the Dockerfile goes: it has a `python` that packages may be installed with.
BASE = "FROM tenantgate-python\nRUN python3 -m venv /var/lang\nENV PATH=/var/lang/bin:$PATH\n"

# What the runtime of AWS Lambda does with the handler of the image.
RUNTIME = """
import json, os, sys
from importlib import import_module
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
module, _, name = sys.argv[1].rpartition(".")
print(json.dumps([getattr(import_module(module), name)(event, None) for event in json.load(sys.stdin)]), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    """A key whose public half is where the Dockerfile finds it."""
    key = Key(tmp_path_factory.mktemp("key"), "lambda-test")
    beside = REPOSITORY / "build" / key.public.name
    beside.write_bytes(key.public.read_bytes())
    yield key
    beside.unlink()


@pytest.fixture(scope="module")
def image(key: Key, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, with that key."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "Dockerfile").write_text(BASE)
    docker("build", "--quiet", "--tag", f"{IMAGE}-base", folder)
    given = {"BASE": f"{IMAGE}-base", "OPA": "build/opa", "KEYS": f"build/{key.public.name}"}
    given |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/build"}
    arguments = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    dockerfile = REPOSITORY / "deploy" / "agentcore" / "Dockerfile"
    docker("build", "--quiet", "--file", dockerfile, "--tag", IMAGE, *arguments, REPOSITORY)
    return IMAGE


def test_the_handler_allows_and_denies_under_a_bundle_that_its_key_has_signed(
    image: str, key: Key, tmp_path: Path
) -> None:
    issuer = DevelopmentIssuer(tmp_path / "issuer")
    given = tmp_path / "given"
    given.mkdir(mode=0o755)
    sample = build_bundle(write_export(tmp_path / "export", registry()), tmp_path / "bundle.tar.gz")
    Publisher(sample, given / "published", key).base(0)
    (given / "jwks.json").write_bytes((tmp_path / "issuer" / "jwks.json").read_bytes())
    environment = {
        "TENANTGATE_BUNDLES__SOURCE": f"{GIVEN}/published",
        "TENANTGATE_BUNDLES__KEYS": f"[/var/task/keys/{key.public.name}]",
        "TENANTGATE_IDENTITY__ISSUERS": json.dumps([{**issuer.settings(), "jwks": f"{GIVEN}/jwks.json"}]),
    }
    headers = {"Authorization": f"Bearer {issuer.mint('acme', 'alice', 'agent:order-bot')}"}
    events = [
        mcp_request(tool_call("orders___order-lookup"), headers),
        mcp_request(tool_call("orders___no-such-tool"), headers),
    ]
    command = [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp",
        "--user=993:990",
    ]
    command += ["--cap-drop=ALL", f"--volume={given}:{GIVEN}:ro", "--entrypoint=python"]
    command += [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    (handler,) = inspected(image)["Config"]["Cmd"]

    done = subprocess.run(
        [*command, image, "-c", RUNTIME, handler],
        input=json.dumps(events),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    allowed, denied = [checked(output) for output in json.loads(done.stdout)]
    assert allowed.goes_on
    assert not denied.goes_on
    assert "NO_MATCHING_RULE" in done.stdout
