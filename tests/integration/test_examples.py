"""The examples for agents run as they are, each in a process of its own, against a sidecar of the quickstart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.identity.development import DevelopmentIssuer
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """A folder that looks like a clone in which `make run` serves."""
    with tempfile.TemporaryDirectory(prefix="tg-") as name:
        folder = Path(name)
        bundle = build_bundle(EXAMPLES / "quickstart" / "export", folder / "bundle.tar.gz")
        issuer = DevelopmentIssuer(folder / ".tenantgate" / "issuer")
        token = issuer.mint("acme", "alice", "agent:order-bot", scopes=("tools:read", "tools:write"))
        (folder / ".tenantgate" / "alice.jwt").write_text(token)
        settings = sidecar_settings(
            folder / ".tenantgate", bundle, identity__mode="verified", identity__issuers=[issuer.settings()]
        )
        with running_sidecar(settings):
            yield folder


def _run(served: Path, example: str, sent: str = "", *options: str) -> list[str]:
    command: list[str | Path] = [sys.executable, EXAMPLES / "agents" / example, *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=served, env=environment, input=sent, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines: list[str] = done.stdout.splitlines()
    return lines


def _ask_mcp(served: Path, *messages: dict[str, Any] | str, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    lines = [message if isinstance(message, str) else json.dumps({"jsonrpc": "2.0"} | message) for message in messages]
    return [json.loads(line) for line in _run(served, "mcp_server.py", "\n".join(lines) + "\n", *options)]


def _tool_call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": number, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def test_the_mcp_server_lists_the_tools_of_its_user_with_their_parameters(served: Path) -> None:
    begun, listed = _ask_mcp(
        served,
        {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    )

    assert begun["result"]["capabilities"] == {"tools": {}}
    assert listed["result"]["tools"] == [
        {
            "name": "order_lookup",
            "description": "Look up an order.",
            "inputSchema": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        },
        {
            "name": "refund_create",
            "description": "Refund an order.",
            "inputSchema": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}},
                "required": ["order_id", "amount"],
            },
        },
    ]


def test_the_mcp_server_calls_what_is_allowed_and_tells_the_model_what_is_not(served: Path) -> None:
    allowed, too_much, never = _ask_mcp(
        served,
        _tool_call(1, "refund_create", order_id="o-1", amount=120),
        _tool_call(2, "refund_create", order_id="o-1", amount=900),
        _tool_call(3, "admin_refund", order_id="o-1"),
    )
    told = [answer["result"]["content"][0]["text"] for answer in (allowed, too_much, never)]

    assert [answer["result"]["isError"] for answer in (allowed, too_much, never)] == [False, True, True]
    assert told[0] == "refunded 120 for order o-1 of acme"
    assert "CONDITION_NOT_MET" in told[1]
    assert "Access denied: Insufficient privileges (DENIED_BY_RULE" in told[2]


def test_the_mcp_server_calls_nothing_without_a_sidecar(served: Path) -> None:
    (answer,) = _ask_mcp(
        served, _tool_call(1, "order_lookup", order_id="o-1"), options=("--address", "unix:nowhere.sock")
    )

    assert answer["result"]["isError"] is True
    assert "of acme" not in str(answer)


def test_the_mcp_server_refuses_what_is_no_request_of_its_protocol(served: Path) -> None:
    answers = _ask_mcp(
        served,
        "not JSON",
        "[]",
        {"id": 1, "method": "tools/run"},
        _tool_call(2, "unheard_of"),
        _tool_call(3, "order_lookup", order="o-1"),
    )

    assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [
        (None, -32700),
        (None, -32600),
        (1, -32601),
        (2, -32602),
        (3, -32602),
    ]


def test_the_tools_for_strands_ask_and_have_a_human_approve(served: Path) -> None:
    looked_up, asked, cancelled, asked_again, *denied = _run(served, "strands_tools.py")

    assert [looked_up, asked, cancelled, asked_again] == [
        "10 lines of order o-1 of acme",
        "  team-lead, may order o-1 be cancelled? yes",
        "order o-1 of acme is cancelled",
        "  team-lead, may order o-2 be cancelled? no",
    ]
    assert "the obligation REQUIRE_APPROVAL was not carried out" in denied[0]
    assert "DENIED_BY_RULE" in denied[1]


def test_the_tools_for_langgraph_ask_without_what_the_graph_injects(served: Path) -> None:
    looked_up, refunded, denied = _run(served, "langgraph_tools.py")

    assert looked_up == "order o-1 of acme: shipped"
    assert refunded == "refunded 120 for order o-1 of acme, in turn 1"
    assert "CONDITION_NOT_MET" in denied
