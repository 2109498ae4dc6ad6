"""The commands of docs/operations.md, read from the page, bring a sidecar up and shut things off: with a real table."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import pytest

from sidecar.gen.tenantgate.v1.decision_pb2 import DecisionCode
from sidecar.identity.development import DevelopmentIssuer
from tests.support import wire
from tests.support.dynamodb import ENVIRONMENT, JARS, running_dynamodb, why_missing
from tests.support.pages import like_a_clone, run
from tests.support.processes import REPOSITORY, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
GO_ON = ("bundle watch", "serve ")
REFUND = "agent:tool:refund-create"


def _code(clone: Path) -> str:
    """Ask whether alice may refund a little."""
    token = DevelopmentIssuer(clone / ".tenantgate" / "issuer").mint(
        "acme", "alice", "agent:order-bot", scopes=("tools:read", "tools:write")
    )
    request = wire.question(REFUND, {"amount": 1}, identity=None)
    with grpc.insecure_channel(f"unix:{clone / 'build' / 'state' / 'tenantgate.sock'}") as channel:
        decision = wire.authorize(channel, request, metadata=[("authorization", f"Bearer {token}")])
    return DecisionCode.Name(decision.code).removeprefix("DECISION_CODE_")


@pytest.mark.timeout(180)
def test_the_commands_of_the_page_do_what_it_says(short_path: Path) -> None:
    if missing := why_missing():
        pytest.skip(missing)
    clone = like_a_clone(short_path)
    with ExitStack() as stack:
        url = stack.enter_context(running_dynamodb(JARS)).url
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "AWS_ENDPOINT_URL_DYNAMODB": url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": url,
        }
        codes = []
        for command in COMMANDS:
            if any(word in command for word in GO_ON):
                process = subprocess.Popen(
                    ["bash", "-euc", f"exec {command}"], cwd=clone, env=environment, stderr=subprocess.DEVNULL
                )
                stack.callback(process.wait, 20)
                stack.callback(process.send_signal, signal.SIGTERM)
                continue
            run(command, clone, environment)
            if "suspend tool" in command:
                wait_until(lambda: _code(clone) == "RESOURCE_SUSPENDED", 20)
                codes.append("suspended")
            elif "resume tool" in command or "status" in command:
                wait_until(lambda: _code(clone) == "ALLOWED", 20)
                codes.append("allowed")
    assert codes == ["allowed", "suspended", "allowed"]
