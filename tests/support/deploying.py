"""What the examples in deploy/ are held against: the image of the sidecar, and the tools that know their formats."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.processes import OPA, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHECKS = REPOSITORY / ".tools" / "checks" / "bin"
KUSTOMIZE = REPOSITORY / ".tools" / "kustomize"
DEPLOY = REPOSITORY / "deploy"
COMMANDS = REPOSITORY / ".venv" / "bin"

_DOCKERFILE = (DEPLOY / "images" / "sidecar.Dockerfile").read_text()
IMAGE_SETTINGS = dict(re.findall(r"(TENANTGATE_[A-Z_]+)=(\S+)", _DOCKERFILE))
"""The settings that the image has in its environment, by their names there."""

IMAGE_VOLUMES = tuple(json.loads(re.findall(r"^VOLUME (.*)$", _DOCKERFILE, re.MULTILINE)[-1]))
"""The folders that volumes are meant for, and take their owner from."""

IMAGE_USER = re.findall(r"^USER (\d+):\1$", _DOCKERFILE, re.MULTILINE)[-1]
"""The user, and the group of the same number, that the image runs as."""


def tool(command: Sequence[str | Path], *, fails: bool = False) -> str:
    """Run a tool to its end, which is to succeed, or else to fail; give what it prints."""
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110, check=False
    )
    assert (done.returncode != 0) is fails, done.stdout
    return done.stdout


def tenantgate_environment(**settings: str) -> dict[str, str]:
    """Give an environment that finds `tenantgate` as the image does, with settings and none of the developer's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TENANTGATE_")}
    return {**own, "PATH": f"{COMMANDS}:{own['PATH']}", "TENANTGATE_OPA__BINARY": str(OPA), **settings}


def terraform_blocks(folder: Path) -> dict[str, dict[str, Any]]:
    """Read a folder of Terraform's: its blocks, by what they are referred to by, and outputs by ``output.NAME``."""
    prefixes = {"resource": "", "data": "data.", "variable": "var.", "output": "output."}
    found: dict[str, dict[str, Any]] = {}
    options = ["--quiet", "--ndjson", "--strip-string-quotes", "--no-explicit-blocks"]
    for line in tool([CHECKS / "hcl2tojson", *options, *sorted(folder.glob("*.tf"))]).splitlines():
        said = json.loads(line)
        del said["__file__"]
        for kind, blocks in said.items():
            for name, body in (entry for block in blocks for entry in block.items()):
                if kind in {"resource", "data"}:
                    found |= {f"{prefixes[kind]}{name}.{own}": inner for own, inner in body.items()}
                elif kind in prefixes:
                    found[prefixes[kind] + name] = body
                elif kind == "locals":
                    found[f"local.{name}"] = {"value": body}
    return found
