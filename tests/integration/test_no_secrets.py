"""No token, credential or argument comes out of a sidecar that is made to say all it can, whatever is sent to whichever door."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import urllib3
from envoy.service.auth.v3 import external_auth_pb2_grpc
from google.protobuf.struct_pb2 import Struct

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2, decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.credential_service_pb2_grpc import CredentialServiceStub
from sidecar.identity.development import DevelopmentIssuer
from tests.support import agentcore, authzen, wire
from tests.support.collector import running_collector
from tests.support.exchanges import MEMORY, READ_MEMORY, registry_items
from tests.support.exports import write_export
from tests.support.ext_authz import check_request
from tests.support.processes import OPA, build_bundle, wait_until
from tests.support.sts import ROLE, refusal, running_sts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.collector import Collector
    from tests.support.sts import RecordingSts

TOOL = "agent:tool:order-lookup"
ARGUMENT = "argument-4f6d2b91"
KEY = "aws-secret-access-key-8c1e55d0"
JUNK = "bearer-of-no-form-77aa01fe"
CONDITION = {
    "ruleId": "by-argument",
    "effect": "ALLOW",
    "resourceType": "TOOL",
    "resources": ["agent:tool:*"],
    "conditions": [{"path": "/arguments/card", "op": "prefix", "value": "argument"}],
}
LAMBDA = "import json, sys; from sidecar.agentcore_lambda import answer; [answer(json.loads(line), None) for line in sys.stdin]"


class _Loud:
    """A sidecar in a process of its own that says all it can, and everything that it says."""

    def __init__(self, folder: Path, collector: Collector, sts: RecordingSts) -> None:
        self.folder = folder
        self.collector = collector
        self.sts = sts
        self.issuer = DevelopmentIssuer(folder / "issuer")
        self.token = self.issuer.mint("acme", "alice", "agent:order-bot", scopes=("tools:read",), secret=ARGUMENT)
        self.socket = f"unix:{folder}/state/tenantgate.sock"
        self.given: list[str] = []
        bundle = build_bundle(
            write_export(folder / "export", registry_items(READ_MEMORY, CONDITION)), folder / "bundle.tar.gz"
        )
        settings: dict[str, Any] = {
            "state_dir": str(folder / "state"),
            "listen": {"admin": "127.0.0.1:0"},
            "identity": {"issuers": [self.issuer.settings()]},
            "opa": {"binary": str(OPA), "bundle": str(bundle)},
            "credentials": {"role_arn": ROLE, "endpoint_url": sts.url, "region": "eu-west-1"},
            "ext_authz": {"enabled": True, "routes": [{"path": "/tools/{tool}", "resource_id": "agent:tool:{tool}"}]},
            "authzen": {"listen": "127.0.0.1:0"},
            "audit": {"stdout": True},
            "log": {"level": "debug", "opa_decisions": True},
            "tracing": {"enabled": True},
        }
        (folder / "settings.yaml").write_text(json.dumps(settings))
        self.environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("tenantgate"), "serve", "--config", folder / "settings.yaml"],
                env=self.environment,
                stdout=out,
                stderr=err,
            )

    def start(self) -> None:
        """Wait until it serves."""
        wait_until(lambda: self.lines("serving"), timeout=60.0)
        (serving,) = self.lines("serving")
        self.admin, self.authzen = serving["admin"], serving["authzen"]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Give the lines of the log that are about something."""
        lines = [line for line in (self.folder / "err").read_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def asks_over_http(self, path: str, body: bytes, token: str) -> None:
        """Ask the AuthZEN door."""
        headers = {"content-type": "application/json", "authorization": token}
        urllib3.request("POST", self.authzen + path, body=body, headers=headers, retries=False, timeout=20)

    def said(self) -> str:
        """Give all that came out of it in any way."""
        files = [self.folder / "out", self.folder / "err", self.folder / "lambda"]
        return "\n".join(
            [
                *(file.read_text() for file in files),
                *self.given,
                *(body.decode("latin-1") for body in self.collector.bodies),
            ]
        )


@pytest.fixture
def loud(short_path: Path) -> Iterator[_Loud]:
    """A sidecar that says all it can."""
    with running_collector() as collector, running_sts() as sts:
        loud = _Loud(short_path, collector, sts)
        try:
            loud.start()
            yield loud
        finally:
            loud.process.kill()
            loud.process.wait()


def _over_grpc(loud: _Loud, channel: grpc.Channel) -> None:
    stub: Any = AuthorizationServiceStub(channel)
    card = Struct()
    card.update({"card": ARGUMENT, "deep": [{"x": ARGUMENT}]})
    deep: Any = ARGUMENT
    for _ in range(40):
        deep = [deep]
    too_deep = Struct()
    too_deep.update({"deep": deep})
    asked: dict[str, Any] = {"resource": wire.resource(TOOL), "context": card}
    requests = [
        pb.AuthorizeRequest(arguments=card, **asked),
        pb.AuthorizeRequest(arguments=card, explain=True, **asked),
        pb.AuthorizeRequest(arguments=too_deep, **asked),
        pb.AuthorizeRequest(identity=decision_pb2.Identity(subject={"id": "alice", "properties": card}), **asked),
    ]
    good = f"Bearer {loud.token}"
    bad = [f"Bearer {loud.token[:-6]}AAAAAA", f"Bearer {JUNK}", f"Basic {JUNK}", f"bearer {loud.token} {JUNK}", JUNK]
    for authorization in (good, good, *bad):
        for request in requests:
            with suppress(grpc.RpcError):
                stub.Authorize(request, timeout=wire.DEADLINE, metadata=(("authorization", authorization),))
    items = [pb.BatchAuthorizeItem(resource=wire.resource(TOOL), arguments=given) for given in (card, too_deep)]
    metadata = (("authorization", good), ("x-secret", JUNK))
    stub.BatchAuthorize(pb.BatchAuthorizeRequest(items=items), timeout=wire.DEADLINE, metadata=metadata)
    stub.FilterTools(
        pb.FilterToolsRequest(tools=[wire.resource(TOOL)], context=card), timeout=wire.DEADLINE, metadata=metadata
    )
    raw: Any = channel.unary_unary("/tenantgate.v1.AuthorizationService/Authorize")
    with suppress(grpc.RpcError):
        raw(b"\xff\xff" + ARGUMENT.encode(), timeout=wire.DEADLINE, metadata=metadata)


def _for_credentials(loud: _Loud, channel: grpc.Channel) -> list[str]:
    """Exchange the token, and have STS refuse with a message that repeats it; give what STS has given."""
    stub: Any = CredentialServiceStub(channel)
    request = credential_service_pb2.ExchangeTokenRequest(
        resource=wire.resource(MEMORY, "MEMORY"), action=decision_pb2.Action(name="read")
    )
    metadata = (("authorization", f"Bearer {loud.token}"),)
    given = stub.ExchangeToken(request, timeout=30, metadata=metadata).credentials
    loud.sts.answer = lambda _: refusal("AccessDenied", "not you\nWebIdentityToken=" + loud.token)
    other = loud.issuer.mint("acme", "bob", "agent:order-bot", scopes=("tools:read",))
    with suppress(grpc.RpcError):
        stub.ExchangeToken(request, timeout=30, metadata=(("authorization", f"Bearer {other}"),))
    assert given.secret_access_key
    return [given.secret_access_key, given.session_token]


def _over_http(loud: _Loud) -> None:
    asked = authzen.evaluation("alice", "invoke", TOOL, card=ARGUMENT)
    asked["resource"] = {"type": "TOOL", "id": TOOL, "properties": {"card": ARGUMENT}}
    body = json.dumps(asked).encode()
    for token in (f"Bearer {loud.token}", f"Bearer {JUNK}", ""):
        for sent in (
            body,
            body[:-1],
            b'{"a": 1, "a": "' + ARGUMENT.encode() + b'"}',
            json.dumps({"evaluations": [asked, {}]}).encode(),
        ):
            loud.asks_over_http(authzen.EVALUATION, sent, token)
            loud.asks_over_http(authzen.EVALUATIONS, sent, token)
        loud.asks_over_http(f"{authzen.EVALUATION}?access_token={JUNK}", body, token)
        loud.asks_over_http(f"{authzen.SEARCH}subject", body, token)


def _from_envoy(loud: _Loud, channel: grpc.Channel) -> None:
    stub: Any = external_auth_pb2_grpc.AuthorizationStub(channel)
    body = json.dumps({"card": ARGUMENT}).encode()
    for token in (loud.token, JUNK):
        headers = {"authorization": f"Bearer {token}", "cookie": f"session={JUNK}", "x-api-key": JUNK}
        for path in ("/tools/order-lookup", f"/tools/order-lookup?key={JUNK}", "/elsewhere"):
            for sent in (body, body[:-1]):
                with suppress(grpc.RpcError):
                    stub.Check(check_request(path, sent, headers=headers), timeout=wire.DEADLINE)


def _from_agentcore(loud: _Loud) -> None:
    events = [
        agentcore.mcp_request(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": method,
                "params": {"name": "orders___order-lookup", "arguments": {"card": ARGUMENT}},
            },
            {"Authorization": f"Bearer {token}", "Cookie": JUNK},
        )
        for token in (loud.token, JUNK)
        for method in ("tools/call", "tools/list", "initialize", ARGUMENT)
    ]
    settings = {"TENANTGATE_AGENTCORE__ADDRESS": loud.socket, "TENANTGATE_LOG__LEVEL": "debug"}
    with (loud.folder / "lambda").open("wb") as out:
        subprocess.run(
            [sys.executable, "-c", LAMBDA],
            input="\n".join(map(json.dumps, events)).encode(),
            env={**loud.environment, **settings},
            stdout=out,
            stderr=out,
            check=True,
            timeout=60,
        )


def test_nothing_secret_comes_out_of_a_sidecar(loud: _Loud) -> None:
    with grpc.insecure_channel(loud.socket) as channel:
        _over_grpc(loud, channel)
        credentials = _for_credentials(loud, channel)
        _over_http(loud)
        _from_envoy(loud, channel)
        _from_agentcore(loud)
        status = wire.get_status(channel)
        os.kill(status.opa.pid, signal.SIGKILL)
        _over_grpc_while_it_is_gone(loud, channel)
        for path in ("/metrics", "/readyz"):
            answer = urllib3.request("GET", loud.admin + path, retries=False, timeout=20)
            loud.given.append(answer.data.decode())
        loud.given.append(str(status))
    loud.process.send_signal(signal.SIGTERM)
    loud.process.wait(30)
    said = loud.said()

    header, claims, signature = loud.token.split(".")
    secrets = [ARGUMENT, KEY, JUNK, *credentials, claims, signature, f"{header}.{claims[:8]}"]
    assert [secret for secret in secrets if secret in said] == []
    # it did say something, in each way
    calls = {line["method"] for line in loud.lines("call")}
    assert {"Authorize", "BatchAuthorize", "FilterTools", "ExchangeToken", "Check", "AuthZEN.evaluation"} <= {*calls}
    assert loud.lines("opa_decision")
    assert (loud.folder / "out").read_text().count("\n") > 20
    assert len(loud.collector.spans) > 20


def _over_grpc_while_it_is_gone(loud: _Loud, channel: grpc.Channel) -> None:
    arguments = Struct()
    arguments.update({"card": ARGUMENT, "once": "more"})
    request = pb.AuthorizeRequest(resource=wire.resource(TOOL), arguments=arguments)
    stub: Any = AuthorizationServiceStub(channel)
    with suppress(grpc.RpcError):
        stub.Authorize(request, timeout=wire.DEADLINE, metadata=(("authorization", f"Bearer {loud.token}"),))
