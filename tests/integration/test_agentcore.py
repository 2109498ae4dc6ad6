"""The interceptor of AgentCore Gateway: every event has an answer of AWS's shape, and nothing passes that was not allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from structlog.testing import capture_logs

from sidecar.agentcore_lambda import Interceptor
from sidecar.doors.agentcore.authorizer import SidecarAuthorizer
from sidecar.doors.agentcore.door import Door
from sidecar.errors import SettingsError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import authorization_service_pb2_grpc, decision_pb2
from sidecar.identity.development import DevelopmentIssuer
from sidecar.settings import load
from tests.support import agentcore
from tests.support.agentcore import checked, http_request, masked, mcp_request, mcp_response, tool_call
from tests.support.exports import write_export
from tests.support.processes import OPA, REPOSITORY, build_bundle, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.server import Sidecar
    from tests.support.agentcore import Case

DEADLINE = 20.0
LOOKUP = "orders___order-lookup"
BEARER = {"Authorization": "Bearer a.b.c"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for a sidecar and an issuer, with a path that leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def issuer(folder: Path) -> DevelopmentIssuer:
    """The issuer whose tokens the sidecar believes."""
    return DevelopmentIssuer(folder / "issuer")


@pytest.fixture(scope="module")
def tokens(issuer: DevelopmentIssuer) -> dict[str, str]:
    """Tokens of users of three tenants, each through an agent."""
    tenants = {"alice": "acme", "bob": "globex", "carol": "gone"}
    return {user: issuer.mint(tenant, user, "agent:order-bot") for user, tenant in tenants.items()}


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    """The bundle of the registry of the cases."""
    return build_bundle(write_export(folder / "export", agentcore.registry()), folder / "bundle.tar.gz")


@pytest.fixture(scope="module")
def sidecar(folder: Path, bundle: Path, issuer: DevelopmentIssuer) -> Iterator[Sidecar]:
    """A sidecar that serves the registry of the cases."""
    settings = sidecar_settings(
        folder / "state", bundle, identity__mode="verified", identity__issuers=[issuer.settings()]
    )
    with running_sidecar(settings) as (sidecar, _):
        yield sidecar


@pytest.fixture(scope="module")
def authorizer(sidecar: Sidecar) -> Iterator[SidecarAuthorizer]:
    """What asks that sidecar."""
    authorizer = SidecarAuthorizer(sidecar.addresses[0], DEADLINE, items=1000)
    yield authorizer
    authorizer.close()


@pytest.fixture(scope="module")
def cases(tokens: dict[str, str]) -> dict[tuple[str, str], Case]:
    """The cases by file and name."""
    return {(case.file, case.name): case for case in agentcore.load_cases(tokens)}


def door(authorizer: Any, *flags: str) -> Door:
    """Make a door with some settings."""
    settings = load(None, {}, flags)
    return Door(settings.agentcore, settings.identity.tenant_headers, authorizer)


@pytest.mark.parametrize(("file", "name"), [pytest.param(*key, id=": ".join(key)) for key in agentcore.case_names()])
def test_an_event_is_answered_as_expected(
    file: str, name: str, cases: dict[tuple[str, str], Case], authorizer: SidecarAuthorizer
) -> None:
    case = cases[file, name]
    before = json.dumps(case.event)

    output = door(authorizer, *case.flags).answer(case.event, case.context)

    assert masked(output) == case.output
    checked(output)
    assert json.dumps(case.event) == before


# ── what the log says ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_tools_of_two_targets_with_one_id_are_told(authorizer: SidecarAuthorizer, tokens: dict[str, str]) -> None:
    request = mcp_request(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, {"Authorization": f"Bearer {tokens['alice']}"}
    )
    tools = [{"name": LOOKUP}, {"name": "archive___order-lookup"}, {"name": LOOKUP}, {"name": "orders___wipe"}]

    with capture_logs() as lines:
        door(authorizer).answer(mcp_response(request, {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}))
        door(authorizer, "agentcore.tool_template='{target}:{tool}'").answer(
            mcp_response(request, {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}})
        )

    warnings = [line for line in lines if line["event"] == "ambiguous_tools"]
    assert [(line["resource_id"], line["names"]) for line in warnings] == [
        ("agent:tool:order-lookup", ["archive___order-lookup", LOOKUP])
    ]
    assert "{target}" in warnings[0]["remedy"]


def test_no_header_and_no_argument_is_ever_logged(
    authorizer: SidecarAuthorizer, cases: dict[tuple[str, str], Case]
) -> None:
    secret = "hunter2"
    headers = {"Authorization": f"Bearer {secret}.{secret}.{secret}", "X-Secret": secret, "X-Tenant-Id": secret}
    calls = [
        tool_call(LOOKUP, {"password": secret}),
        tool_call(LOOKUP, {"password": "\ud800" + secret}),
        [secret],
        secret,
    ]

    with capture_logs() as lines:
        for call in calls:
            door(authorizer).answer(mcp_request(call, headers))
            door(_Broken()).answer(mcp_request(call, headers))
        for case in cases.values():
            door(authorizer, *case.flags).answer(case.event, case.context)

    assert lines
    assert [line for line in lines if secret in str(line) or "Bearer" in str(line) or "eyJ" in str(line)] == []


class _Broken:
    """An authorizer with a fault, whose message holds what it was given."""

    def call(self, *given: Any) -> Any:
        raise RuntimeError(*given)

    filter = call


@pytest.mark.parametrize(
    "event",
    [
        mcp_request(tool_call(LOOKUP), BEARER),
        mcp_response(
            mcp_request({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, BEARER),
            {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": LOOKUP}]}},
        ),
        http_request("/free-agent/invocations", {}, BEARER),
    ],
    ids=["a call", "a list", "a call over HTTP"],
)
def test_a_fault_of_our_own_is_a_refusal_and_is_logged(event: Any) -> None:
    with capture_logs() as lines:
        output = door(_Broken()).answer(event)

    assert not checked(output).goes_on
    assert "something went wrong in the interceptor; no decision was made (INTERNAL)" in str(masked(output))
    assert [(line["event"], line["fault"]) for line in lines if "fault" in line] == [("unexpected", "RuntimeError")]


# ── a sidecar that is not as it should be ───────────────────────────────────────────────────────────────────────────────


def test_without_a_sidecar_nothing_passes_but_what_passes_anyway(short_path: Path) -> None:
    authorizer = SidecarAuthorizer(f"unix:{short_path}/none.sock", 5.0, items=1000)
    ask = door(authorizer).answer
    listing = mcp_request({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, BEARER)

    called = masked(ask(mcp_request(tool_call(LOOKUP), BEARER)))
    listed = masked(ask(mcp_response(listing, {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": LOOKUP}]}})))
    invoked = masked(ask(http_request("/free-agent/invocations", {}, BEARER)))

    text = "the sidecar does not answer as it should; no decision was made (UNAVAILABLE)"
    assert called["mcp"]["transformedGatewayResponse"]["body"]["result"] == {
        "content": [{"type": "text", "text": text}],
        "isError": True,
    }
    assert listed["mcp"]["transformedGatewayResponse"]["body"]["error"] == {
        "code": -32003,
        "message": text,
        "data": {"reason": "UNAVAILABLE"},
    }
    assert invoked["http"]["transformedGatewayResponse"] == {
        "contentType": "application/json",
        "statusCode": 503,
        "body": {"message": text, "reason": "UNAVAILABLE"},
    }
    assert checked(ask(listing)).goes_on
    authorizer.close()


ALLOWED = decision_pb2.Decision(
    effect=decision_pb2.EFFECT_ALLOW, code=decision_pb2.DECISION_CODE_ALLOWED, tenant_id="acme", decision_id="d"
)


def _but(**fields: Any) -> decision_pb2.Decision:
    decision = decision_pb2.Decision()
    decision.CopyFrom(ALLOWED)
    decision.MergeFrom(decision_pb2.Decision(**{name: value for name, value in fields.items() if value}))
    for name, value in fields.items():
        if not value:
            decision.ClearField(name)
    return decision


def _state(state: Any, tool_id: str = "agent:tool:order-lookup", **fields: Any) -> pb.FilteredTool:
    return pb.FilteredTool(id=tool_id, state=state, **fields)


class _Answering(authorization_service_pb2_grpc.AuthorizationServiceServicer):
    """A sidecar that answers whatever it is told to."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def Authorize(self, _request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        return self._answer(context) if callable(self._answer) else self._answer

    FilterTools = Authorize


@contextmanager
def _answering(folder: Path, answer: Any, timeout: float = 5.0) -> Iterator[Callable[[Any], Any]]:
    """Give a door that asks a sidecar which answers so."""
    server = grpc.server(ThreadPoolExecutor(2))
    authorization_service_pb2_grpc.add_AuthorizationServiceServicer_to_server(_Answering(answer), server)
    address = f"unix:{folder}/s.sock"
    server.add_insecure_port(address)
    server.start()
    authorizer = SidecarAuthorizer(address, timeout, items=2)
    try:
        yield door(authorizer).answer
    finally:
        authorizer.close()
        server.stop(None).wait()


def test_an_allow_of_the_documented_form_is_one(short_path: Path) -> None:
    with _answering(short_path, pb.AuthorizeResponse(decision=ALLOWED)) as ask:
        output = checked(ask(mcp_request(tool_call(LOOKUP), BEARER)))

    assert output.goes_on


@pytest.mark.parametrize(
    "response",
    [
        pb.AuthorizeResponse(),
        pb.AuthorizeResponse(decision=_but(effect=0)),
        pb.AuthorizeResponse(decision=_but(effect=decision_pb2.EFFECT_DENY)),
        pb.AuthorizeResponse(decision=_but(effect=17)),
        pb.AuthorizeResponse(decision=_but(code=0)),
        pb.AuthorizeResponse(decision=_but(code=decision_pb2.DECISION_CODE_NO_MATCHING_RULE)),
        pb.AuthorizeResponse(decision=_but(code=99)),
        pb.AuthorizeResponse(decision=_but(tenant_id="")),
        pb.AuthorizeResponse(decision=_but(tenant_id="acme\u00e9")),
        pb.AuthorizeResponse(decision=_but(tenant_id="acme\r\nX-Tenant-Id: globex")),
        pb.AuthorizeResponse(decision=_but(obligations=[decision_pb2.Obligation(type="REQUIRE_APPROVAL")])),
        pytest.param(lambda context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "no"), id="permission denied"),
        pytest.param(lambda context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?"), id="unauthenticated"),
        pytest.param(
            lambda _: pb.FilterToolsResponse(decision_id="x", tools=[_state(pb.TOOL_STATE_ALLOWED)]),
            id="another answer",
        ),
        pytest.param(lambda _: 1 / 0, id="a fault"),
    ],
    ids=lambda response: repr(response).replace("\n", " ")[:60],
)
def test_anything_but_an_allow_of_the_documented_form_is_a_refusal(short_path: Path, response: Any) -> None:
    with _answering(short_path, response) as ask:
        called = checked(ask(mcp_request(tool_call(LOOKUP), BEARER)))
        invoked = checked(ask(http_request("/free-agent/invocations", {}, BEARER)))

    assert not called.goes_on
    assert not invoked.goes_on


@pytest.mark.parametrize(
    "tools",
    [
        [],
        [_state(pb.TOOL_STATE_UNSPECIFIED)],
        [_state(pb.TOOL_STATE_DENIED)],
        [_state(99)],
        [_state(pb.TOOL_STATE_ALLOWED, error=pb.ItemError(reason="REQUEST_INVALID"))],
        [_state(pb.TOOL_STATE_ALLOWED, "agent:tool:other")],
        [_state(pb.TOOL_STATE_ALLOWED)] * 2,
    ],
    ids=lambda tools: repr(tools).replace("\n", " ")[:60],
)
def test_a_tool_stays_in_a_list_only_if_it_was_answered_for(short_path: Path, tools: list[pb.FilteredTool]) -> None:
    request = mcp_request({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, BEARER)
    result = {"tools": [{"name": LOOKUP}]}

    with _answering(short_path, pb.FilterToolsResponse(tools=tools)) as ask:
        output = ask(mcp_response(request, {"jsonrpc": "2.0", "id": 1, "result": result}))

    checked(output)
    assert LOOKUP not in json.dumps(output)


def test_a_sidecar_that_is_slow_is_not_waited_for(short_path: Path) -> None:
    nobody_waits = threading.Event()

    def late(_: Any) -> pb.AuthorizeResponse:
        nobody_waits.wait(DEADLINE)
        return pb.AuthorizeResponse(decision=ALLOWED)

    with _answering(short_path, late, timeout=0.2) as ask:
        output = ask(mcp_request(tool_call(LOOKUP), BEARER))
        nobody_waits.set()

    assert not checked(output).goes_on
    assert "no decision was made (DEADLINE_EXCEEDED)" in str(output)


def test_a_long_list_is_asked_about_in_parts(authorizer: SidecarAuthorizer, tokens: dict[str, str]) -> None:
    request = mcp_request(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, {"Authorization": f"Bearer {tokens['bob']}"}
    )
    tools = [{"name": f"orders___{kind}-{number}"} for number in range(1100) for kind in ("order", "other")]
    result = {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}

    output = door(authorizer).answer(mcp_response(request, result))

    kept = output["mcp"]["transformedGatewayResponse"]["body"]["result"]["tools"]
    assert kept == tools[::2]


# ── the function ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "method", ["tools/call", "prompts/get", "resources/read", "tools/list", "resources/templates/list"]
)
def test_what_the_door_decides_on_cannot_be_let_through_by_a_setting(method: str) -> None:
    with pytest.raises(SettingsError, match=rf"agentcore\.methods: {method} cannot pass"):
        door(_Broken(), f"agentcore.methods={{{method}: pass}}")


@pytest.mark.parametrize(
    ("flag", "fault"),
    [
        ("agentcore.tenant_header=x-other", "is none of identity.tenant_headers"),
        ("agentcore.address=10.0.0.1:7443", "is on another host"),
        ("agentcore.address=sidecar", "agentcore.address: 'sidecar' is not HOST:PORT"),
        ("agentcore.tool_template=agent:tool:all", "agentcore.tool_template"),
        ("agentcore.agent_template=agent:runtime:all", "agentcore.agent_template"),
        ("agentcore.methods={ping: call}", "agentcore.methods"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(flag: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, {}, [flag])

    assert fault in str(refused.value)


def test_without_tenant_headers_no_target_is_told(authorizer: SidecarAuthorizer, tokens: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens['alice']}"}

    output = door(authorizer, "identity.tenant_headers=[]").answer(mcp_request(tool_call(LOOKUP), headers))

    assert output["mcp"]["transformedGatewayRequest"]["headers"] == headers


def test_a_function_has_a_sidecar_of_its_own(
    short_path: Path, bundle: Path, issuer: DevelopmentIssuer, tokens: dict[str, str]
) -> None:
    settings = sidecar_settings(short_path, bundle, identity__mode="verified", identity__issuers=[issuer.settings()])
    interceptor = Interceptor(settings)
    try:
        output = interceptor.start().answer(
            mcp_request(tool_call(LOOKUP), {"Authorization": f"Bearer {tokens['alice']}"})
        )
    finally:
        interceptor.stop()

    assert output["mcp"]["transformedGatewayRequest"]["headers"]["x-tenant-id"] == "acme"


def test_a_function_does_not_start_where_identities_are_asserted(short_path: Path, bundle: Path) -> None:
    with pytest.raises(SettingsError, match=r"identity\.mode"):
        Interceptor(sidecar_settings(short_path, bundle)).start()


def test_a_function_that_does_not_start_leaves_nothing_running(
    short_path: Path, bundle: Path, issuer: DevelopmentIssuer
) -> None:
    verified = {"identity__mode": "verified", "identity__issuers": [issuer.settings()]}
    wrong = sidecar_settings(short_path, bundle, **verified, agentcore__methods={"tools/call": "pass"})
    with pytest.raises(SettingsError, match="tools/call cannot pass"):
        Interceptor(wrong).start()

    with running_sidecar(sidecar_settings(short_path, bundle, **verified)) as (sidecar, _):
        assert sidecar.addresses


_FUNCTION = """
import json, os, sys
from sidecar.doors.agentcore import handler
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), None)), flush=True)
os._exit(0)  # as AWS Lambda ends it
"""


def _handled(environment: dict[str, str], *events: Any) -> tuple[list[Any], str]:
    """Hand events to the handler, in a process with such an environment; give the outputs and the log."""
    done = subprocess.run(
        [sys.executable, "-c", _FUNCTION],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], **environment},
        input="".join(f"{json.dumps(event)}\n" for event in events),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_handler_takes_its_settings_from_the_environment(
    short_path: Path, bundle: Path, issuer: DevelopmentIssuer, tokens: dict[str, str]
) -> None:
    environment = {
        "TENANTGATE_STATE_DIR": str(short_path),
        "TENANTGATE_OPA__BUNDLE": str(bundle),
        "TENANTGATE_OPA__BINARY": str(OPA),
        "TENANTGATE_IDENTITY__ISSUERS": json.dumps([issuer.settings()]),
    }
    headers = {"Authorization": f"Bearer {tokens['alice']}"}
    events = [mcp_request(tool_call(name), headers) for name in (LOOKUP, "orders___admin-refund")]

    (allowed, denied), log = _handled(environment, *events)

    assert allowed["mcp"]["transformedGatewayRequest"]["headers"] == {**headers, "x-tenant-id": "acme"}
    assert (
        "Insufficient privileges" in denied["mcp"]["transformedGatewayResponse"]["body"]["result"]["content"][0]["text"]
    )
    assert tokens["alice"] not in log
    assert '"code":"DENIED_BY_RULE"' in log


def test_a_function_that_cannot_start_refuses_and_says_why_in_its_log(short_path: Path) -> None:
    events = [mcp_request(tool_call(LOOKUP), BEARER), http_request("/free-agent/invocations", {}, BEARER), None]

    outputs, log = _handled({"TENANTGATE_STATE_DIR": str(short_path)}, *events)

    assert [checked(output).goes_on for output in outputs] == [False, False, False]
    assert all("the interceptor cannot start" in str(masked(output)) for output in outputs)
    assert "identity.issuers: name whose tokens are to be believed" in log
