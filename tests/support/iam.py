"""A simulator of IAM, which says what AWS would say to requests under the policies that tenantgate writes."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, UnsetType, to_builtins

from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

SIMULATOR = REPOSITORY / ".tools" / "iam-simulate"
SCRIPT = REPOSITORY / "tests" / "iam" / "simulate.mjs"

ACCOUNT = "123456789012"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/tenant-data/decision"


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked of AWS, and the policies that it is asked under: of the principal, of its session, and of the resource."""

    principal: str = SESSION
    action: str
    resource: str
    context: dict[str, Any]
    identity: dict[str, Any] | UnsetType = UNSET
    session: dict[str, Any] | UnsetType = UNSET
    trust: dict[str, Any] | UnsetType = UNSET


class Verdict(Struct, frozen=True):
    """What IAM says: ``Allowed``, ``ImplicitlyDenied`` or ``ExplicitlyDenied``.

    ``ignored`` are the keys of the context that the service does not have for the action.
    """

    result: str
    ignored: tuple[str, ...]


def why_missing() -> str | None:
    """Say why there is no simulator, if there is none."""
    if not SIMULATOR.is_dir():
        return "the IAM simulator is not installed: `make .tools/iam-simulate`, which needs Node and npm"
    return None if shutil.which("node") else "the IAM simulator needs Node"


def simulate(requests: Sequence[Request]) -> list[Verdict]:
    """Ask for many verdicts at once."""
    # The defaults are written out: only what is unset is left out.
    asked = json.dumps([{"principal": SESSION, "account": ACCOUNT, **to_builtins(request)} for request in requests])
    done = subprocess.run(
        ["node", SCRIPT], cwd=SIMULATOR, input=asked, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return [Verdict(answer["result"], tuple(answer["ignored"])) for answer in json.loads(done.stdout)]
