"""A real Envoy with the configuration of the docs: what is not allowed never reaches the server behind it."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.identity.development import DevelopmentIssuer
from sidecar.server import Sidecar
from sidecar.settings import load
from tests.support import ext_authz
from tests.support.envoy import running_gateway, why_missing
from tests.support.exports import write_export
from tests.support.processes import OPA, REPOSITORY, build_bundle, running_sidecar, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.settings import Settings
    from tests.support.envoy import Gateway

pytestmark = pytest.mark.skipif(bool(why_missing()), reason=why_missing())

LOOKUP = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "order-lookup", "arguments": {}}}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a path that leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def issuer(folder: Path) -> DevelopmentIssuer:
    """The issuer whose tokens are believed."""
    return DevelopmentIssuer(folder / "issuer")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    """The bundle of the registry of the door's cases."""
    return build_bundle(write_export(folder / "export", ext_authz.registry()), folder / "bundle.tar.gz")


@pytest.fixture(scope="module")
def alice(issuer: DevelopmentIssuer) -> dict[str, str]:
    """The header with a token of a user of acme."""
    return {"authorization": f"Bearer {issuer.mint('acme', 'alice', 'agent:order-bot')}"}


def example_settings(state: Path, bundle: Path, issuer: DevelopmentIssuer) -> Settings:
    """Give the settings of the example, with another place, registry and issuer."""
    given = {
        "state_dir": state,
        "opa.bundle": bundle,
        "opa.binary": OPA,
        "identity.issuers": json.dumps([issuer.settings()]),
    }
    flags = [f"{name}={value}" for name, value in given.items()]
    return load(REPOSITORY / "examples" / "envoy" / "tenantgate.yaml", {}, flags)


@pytest.fixture(scope="module")
def gateway(folder: Path, bundle: Path, issuer: DevelopmentIssuer) -> Iterator[Gateway]:
    """The example: an Envoy and its sidecar."""
    settings = example_settings(folder / "s", bundle, issuer)
    assert settings.socket_path is not None
    with running_sidecar(settings), running_gateway(folder, settings.socket_path) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _nothing_has_reached_it(gateway: Gateway) -> None:
    gateway.reached()


# ── an MCP server ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_allowed_call_goes_on_with_the_tenant_and_the_decision(gateway: Gateway, alice: dict[str, str]) -> None:
    answer = gateway.send("/mcp", LOOKUP, headers=alice)

    assert answer.json() == {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
    (reached,) = gateway.reached()
    assert json.loads(reached.body) == LOOKUP
    assert reached.values("x-tenant-id") == ["acme"]
    assert reached.values("authorization") == [alice["authorization"]]
    (decision_id,) = reached.values("x-decision-id")
    assert ext_authz.masked(decision_id) == "<id>"


def test_a_denied_call_is_a_result_for_the_model_and_reaches_nobody(gateway: Gateway, alice: dict[str, str]) -> None:
    answer = gateway.send("/mcp", LOOKUP | {"params": {"name": "open-admin"}}, headers=alice)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert ext_authz.masked(answer.json()["result"]) == {
        "content": [{"type": "text", "text": "Access denied: No admins (DENIED_BY_RULE, decision <id>)"}],
        "isError": True,
    }
    assert answer.headers["x-decision-id"] in answer.data.decode()
    assert gateway.reached() == []


def test_arguments_decide(gateway: Gateway, alice: dict[str, str]) -> None:
    for amount in (500, 501):
        call = LOOKUP | {"params": {"name": "refund-create", "arguments": {"amount": amount}}}
        gateway.send("/mcp", call, headers=alice)

    assert [json.loads(reached.body)["params"]["arguments"] for reached in gateway.reached()] == [{"amount": 500}]


def test_a_body_in_chunks_is_looked_at_whole(gateway: Gateway, alice: dict[str, str]) -> None:
    for amount in (500, 501):
        call = json.dumps(LOOKUP | {"params": {"name": "refund-create", "arguments": {"amount": amount}}}).encode()
        gateway.send("/mcp", [call[:30], call[30:]], headers=alice)

    assert [json.loads(reached.body)["params"]["arguments"] for reached in gateway.reached()] == [{"amount": 500}]


def test_a_stream_and_the_end_of_a_session_need_a_token(gateway: Gateway, alice: dict[str, str]) -> None:
    for method in ("GET", "DELETE"):
        assert gateway.send("/mcp", method=method).status == 401
    assert gateway.reached() == []

    stream = gateway.send("/mcp", method="GET", headers=alice)
    assert (stream.headers["content-type"], stream.data) == ("text/event-stream", b"data: {}\n\n")
    assert gateway.send("/mcp", method="DELETE", headers=alice).status == 200
    assert [(reached.method, reached.values("x-tenant-id")) for reached in gateway.reached()] == [
        ("GET", ["acme"]),
        ("DELETE", ["acme"]),
    ]


def test_what_passes_without_a_question_is_told_the_tenant(gateway: Gateway, alice: dict[str, str]) -> None:
    gateway.send("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=alice)

    (reached,) = gateway.reached()
    assert reached.values("x-tenant-id") == ["acme"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ([LOOKUP], {}),
        (b"not JSON", {}),
        (gzip.compress(json.dumps(LOOKUP).encode()), {"content-encoding": "gzip"}),
        (LOOKUP, {"content-type": "text/plain"}),
        (LOOKUP, {"x-tenant-id": "globex"}),
        (LOOKUP, {"x-tenant-id": ["acme", "globex"]}),
        (LOOKUP, {"x-amzn-bedrock-agentcore-runtime-custom-tenantid": "globex"}),
        (LOOKUP, {"x_tenant_id": "acme"}),
        (LOOKUP, {"authorization": ["Bearer a.b.c", "Bearer a.b.c"]}),
        (LOOKUP | {"params": {"name": "order-lookup", "padding": "x" * 70_000}}, {}),
        (
            LOOKUP | {"params": {"name": "order-lookup", "padding": "x" * 70_000}},
            {"x-envoy-auth-partial-body": "false"},
        ),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "method": "tools/call", "params": {"name": "open-admin"}}',
            {},
        ),
    ],
    ids=[
        "a batch",
        "no JSON",
        "compressed",
        "no JSON by its type",
        "another tenant",
        "another tenant beside the right one",
        "another tenant for AgentCore",
        "a header with underscores",
        "two tokens",
        "more than is buffered",
        "more than is buffered that says it is whole",
        "a method that is there twice",
    ],
)
def test_what_is_refused_reaches_nobody(
    gateway: Gateway, alice: dict[str, str], body: Any, headers: dict[str, Any]
) -> None:
    answer = gateway.send("/mcp", body, headers=alice | headers)

    assert answer.status >= 400 or b'"error":{' in answer.data or b'"isError":true' in answer.data
    assert gateway.reached() == []


def test_without_a_token_nobody_is_reached_and_the_client_is_told_to_bring_one(gateway: Gateway) -> None:
    answer = gateway.send("/mcp", LOOKUP)

    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["data"]["reason"] == "CALLER_UNAUTHENTICATED"
    assert gateway.reached() == []


def test_headers_that_a_caller_makes_up_do_not_reach_the_server(gateway: Gateway, alice: dict[str, str]) -> None:
    spoofed = {
        "X-Tenant-Id": ["acme", "acme"],
        "x-amzn-bedrock-agentcore-runtime-custom-tenantid": "acme",
        "X-Decision-Id": ["made-up", "made-up"],
    }
    gateway.send("/mcp", LOOKUP, headers=alice | spoofed)

    (reached,) = gateway.reached()
    assert reached.values("x-tenant-id") == ["acme"]
    assert reached.values("x-amzn-bedrock-agentcore-runtime-custom-tenantid") == []
    assert [ext_authz.masked(value) for value in reached.values("x-decision-id")] == ["<id>"]


# ── tools over HTTP, agents, and the rest ───────────────────────────────────────────────────────────────────────────────


def test_a_tool_over_http_is_named_by_its_path(gateway: Gateway, alice: dict[str, str]) -> None:
    answers = [
        gateway.send(path, body, headers=alice).status
        for path, body in (
            ("/tools/refund-create", {"amount": 500}),
            ("/tools/refund-create", {"amount": 501}),
            ("/tools/refund-create?amount=501", {"amount": 500}),
            ("/tools/open-admin", {}),
            ("/tools/open-%61dmin", {}),
            ("/tools/open-x/../open-admin", {}),
            ("/tools/open-x%2fy", {}),
            ("/tools//open-admin", {}),
        )
    ]

    assert answers == [200, 403, 403, 403, 403, 403, 400, 403]
    assert [reached.path for reached in gateway.reached()] == ["/tools/refund-create"]


def test_a_denial_over_http_says_why(gateway: Gateway, alice: dict[str, str]) -> None:
    answer = gateway.send("/tools/open-admin", {}, headers=alice)

    assert ext_authz.masked(answer.json()) == {
        "message": "Access denied: No admins (DENIED_BY_RULE, decision <id>)",
        "reason": "DENIED_BY_RULE",
        "decisionId": "<id>",
    }


def test_an_agent_is_named_by_its_route_whatever_is_said_to_it(gateway: Gateway, alice: dict[str, str]) -> None:
    large = b"x" * 100_000
    answer = gateway.send(
        "/agents/report-bot?resource_id=agent:tool:open-admin",
        large,
        headers=alice | {"content-type": "text/plain", "resource-id": "agent:tool:open-admin"},
    )

    assert answer.status == 200
    (reached,) = gateway.reached()
    assert (reached.body, reached.values("x-tenant-id")) == (large, ["acme"])


def test_a_path_that_nothing_is_said_about_is_closed(gateway: Gateway, alice: dict[str, str]) -> None:
    answer = gateway.send("/elsewhere", {}, headers=alice)

    assert (answer.status, answer.json()["reason"]) == (403, "ROUTE_UNKNOWN")
    assert gateway.reached() == []


def test_envoys_access_log_names_decision_tenant_and_rule(gateway: Gateway, alice: dict[str, str]) -> None:
    gateway.send("/tools/order-lookup", {}, headers=alice)
    (reached,) = gateway.reached()
    (decision_id,) = reached.values("x-decision-id")

    wait_until(lambda: decision_id in gateway.log.read_text())
    line = next(json.loads(line) for line in gateway.log.read_text().splitlines() if decision_id in line)
    assert line["status"] == 200
    assert line["decision"]["tenant_id"] == "acme"
    assert line["decision"]["rule_id"] == "look-up"


# ── when things fail ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("failure_mode", ["failure_mode_allow: false", "failure_mode_allow: true"])
def test_without_a_decision_nobody_is_reached_even_where_envoy_would_let_faults_pass(
    short_path: Path, bundle: Path, issuer: DevelopmentIssuer, alice: dict[str, str], failure_mode: str
) -> None:
    settings = example_settings(short_path / "s", bundle, issuer)
    assert settings.socket_path is not None
    replaced = {"failure_mode_allow: false": failure_mode}
    with (
        running_sidecar(settings) as (sidecar, _),
        running_gateway(short_path, settings.socket_path, **replaced) as gateway,
    ):
        assert sidecar._opa is not None
        sidecar._opa.stop(timeout=2.0)

        answer = gateway.send("/tools/order-lookup", {}, headers=alice)

        assert (answer.status, answer.json()["reason"]) == (503, "POLICY_ENGINE_UNAVAILABLE")
        assert gateway.reached() == []


def test_without_a_sidecar_nobody_is_reached(short_path: Path, alice: dict[str, str]) -> None:
    with running_gateway(short_path, short_path / "nobody.sock") as gateway:
        assert gateway.send("/mcp", LOOKUP, headers=alice).status == 503
        assert gateway.send("/agents/report-bot", {}, headers=alice).status == 503
        assert gateway.reached() == []


def test_a_sidecar_that_comes_back_is_asked_again(
    short_path: Path, bundle: Path, issuer: DevelopmentIssuer, alice: dict[str, str]
) -> None:
    settings = example_settings(short_path / "s", bundle, issuer)
    assert settings.socket_path is not None
    with running_gateway(short_path, settings.socket_path) as gateway:
        assert gateway.send("/tools/order-lookup", {}, headers=alice).status == 503

        sidecar = Sidecar(settings)
        sidecar.start()
        try:
            wait_until(lambda: gateway.send("/tools/order-lookup", {}, headers=alice).status == 200)
        finally:
            sidecar.stop()
        assert gateway.send("/tools/order-lookup", {}, headers=alice).status == 503
