"""The door for Envoy, asked as Envoy asks: whatever comes is answered, and goes on only where it was allowed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from structlog.testing import capture_logs

from sidecar.errors import SettingsError
from sidecar.identity.development import DevelopmentIssuer
from sidecar.settings import load
from tests.support import ext_authz
from tests.support.exports import write_export
from tests.support.ext_authz import check_request, headers_of, load_case, masked, metadata_of, outcome
from tests.support.metrics import samples
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.server import Sidecar

CHECK = "/envoy.service.auth.v3.Authorization/Check"
TENANTS = ("acme", "globex", "gone", "münchen")
TOOL = {"resource_id": "agent:tool:order-lookup"}


@dataclass
class Door:
    """A sidecar that answers Envoy, and tokens of users of its tenants."""

    sidecar: Sidecar
    channel: grpc.Channel
    tokens: dict[str, str]

    def ask(self, request: CheckRequest) -> CheckResponse:
        """Ask as Envoy does."""
        response: CheckResponse = AuthorizationStub(self.channel).Check(request, timeout=20)
        return response

    def ask_as_alice(self, path: str, body: Any = None, **given: Any) -> CheckResponse:
        """Ask with a token of a user of acme."""
        headers = {"authorization": f"Bearer {self.tokens['acme']}"} | given.pop("headers", {})
        text = None if body is None else json.dumps(body).encode()
        return self.ask(check_request(path, text, headers=headers, **given))


class Doors(dict[str, Door]):
    """A door for each file of cases, opened when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="tg-")
        self._running: list[Any] = []

    def __enter__(self) -> Self:
        self.folder = Path(self._folder.name)
        self.issuer = DevelopmentIssuer(self.folder / "issuer")
        self.tokens = {tenant: self.issuer.mint(tenant, "alice", "agent:order-bot") for tenant in TENANTS}
        export = write_export(self.folder / "export", ext_authz.registry())
        self.bundle = build_bundle(export, self.folder / "bundle.tar.gz")
        return self

    def __missing__(self, file: str) -> Door:
        given = {"identity.mode": "verified"} | ext_authz.file_settings(file)
        if given["identity.mode"] == "verified":
            given["identity.issuers"] = [self.issuer.settings()]
        self[file] = self.open(file, self.bundle, **given)
        return self[file]

    def open(self, name: str, bundle: Path | None, **given: Any) -> Door:
        """Start a sidecar that answers Envoy; settings are dotted names."""
        overrides = {"ext_authz.enabled": True, "listen.admin": "127.0.0.1:0"} | given
        settings = sidecar_settings(
            self.folder / name, bundle, **{key.replace(".", "__"): value for key, value in overrides.items()}
        )
        context = running_sidecar(settings)
        sidecar, channel = context.__enter__()
        self._running.append(context)
        return Door(sidecar, channel, self.tokens)

    def __exit__(self, *fault: object) -> None:
        for running in reversed(self._running):
            running.__exit__(None, None, None)
        self._folder.cleanup()


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    """The doors, by the files of cases."""
    with Doors() as doors:
        yield doors


@pytest.mark.parametrize(("file", "name"), [pytest.param(*key, id=": ".join(key)) for key in ext_authz.case_names()])
def test_a_question_of_envoy_is_answered_as_expected(file: str, name: str, doors: Doors) -> None:
    case = load_case(file, name, doors.tokens)

    response = doors[file].ask(case.request)

    assert outcome(response) == case.expect
    headers = headers_of(response)
    if case.expect == "goes on":
        assert headers["x-tenant-id"] == "acme"
        assert "x-amzn-bedrock-agentcore-runtime-custom-tenantid" in response.ok_response.headers_to_remove
        assert headers["x-decision-id"] == metadata_of(response)["decision_id"]
    else:
        body = json.loads(response.denied_response.body)
        assert headers["content-type"] == "application/json"
        assert headers["x-decision-id"] in response.denied_response.body
        assert case.answer is None or masked(body) == case.answer
    assert case.told is None or masked(headers) == case.told
    assert case.challenge is None or headers["www-authenticate"] == case.challenge
    assert ("www-authenticate" in headers) == case.expect.startswith("401")


# ── what else is told ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_filters_and_access_logs_of_envoy_are_told_who_asked_and_what_was_decided(doors: Doors) -> None:
    door = doors["mcp"]
    closed = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "order-close"}}
    begun = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}

    allowed = metadata_of(door.ask_as_alice("/mcp", closed))
    denied = metadata_of(door.ask_as_alice("/x", {}, extensions={"resource_id": "agent:tool:open-admin"}))
    passed = metadata_of(door.ask_as_alice("/mcp", begun))
    refused = metadata_of(door.ask_as_alice("/elsewhere", {}))

    revision = allowed.pop("revision")
    who = {"tenant_id": "acme", "principal_id": "agent:order-bot", "subject_id": "alice"}
    assert masked(allowed) == {
        "decision_id": "<id>",
        **who,
        "effect": "ALLOW",
        "code": "ALLOWED",
        "policy_id": "main",
        "rule_id": "logged",
        "obligations": [{"type": "LOG", "to": "audit"}],
    }
    assert masked(denied) == {
        "decision_id": "<id>",
        **who,
        "effect": "DENY",
        "code": "DENIED_BY_RULE",
        "policy_id": "main",
        "rule_id": "no-admin",
        "revision": revision,
        "obligations": [],
        "refused": "DENIED_BY_RULE",
    }
    assert masked(passed) == {"decision_id": "<id>", **who}
    assert masked(refused) == {"decision_id": "<id>", "refused": "ROUTE_UNKNOWN"}


def test_every_answer_is_a_line_of_the_access_log_and_nothing_secret_is(doors: Doors) -> None:
    door = doors["http"]
    secret = "hunter2"
    with capture_logs() as lines:
        answers = [
            door.ask_as_alice("/tools/order-lookup", {"password": secret}),
            door.ask_as_alice("/tools/open-admin", {"password": secret}),
            door.ask_as_alice("/elsewhere", {"password": secret}),
            door.ask(check_request("/tools/x", b"{" + secret.encode(), headers={"authorization": f"Bearer {secret}"})),
            door.ask_as_alice("/tools/x", None, method="GET", headers={"cookie": secret, "x-tenant-id": "globex"}),
        ]

    calls = [line for line in lines if line["event"] == "call"]
    assert [line["method"] for line in calls] == ["Check"] * 5
    assert [line["decision_id"] for line in calls] == [headers_of(answer)["x-decision-id"] for answer in answers]
    assert [line["request_id"] for line in calls] == ["request-1"] * 5
    assert [line.get("code") for line in calls] == ["ALLOWED", "DENIED_BY_RULE", None, None, "TENANT_MISMATCH"]
    assert [line.get("refused") for line in calls] == [None, None, "ROUTE_UNKNOWN", None, None]
    assert [line["status"] for line in calls] == ["OK", "OK", "OK", "CALLER_UNAUTHENTICATED", "OK"]
    assert calls[3]["token"] == "TOKEN_MALFORMED"
    assert [line for line in lines if secret in str(line) or door.tokens["acme"] in str(line)] == []


def test_decisions_and_refusals_are_counted(doors: Doors) -> None:
    door = doors["http"]

    def counted(name: str, **labels: str) -> float:
        return sum(sample.value for sample in samples(door.sidecar, name, method="Check", **labels))

    def all_counted() -> list[float]:
        return [
            counted("tenantgate_decisions_total", effect="ALLOW"),
            counted("tenantgate_decisions_total", code="DENIED_BY_RULE"),
            counted("tenantgate_errors_total", reason="ROUTE_UNKNOWN"),
            counted("tenantgate_errors_total", reason="CALLER_UNAUTHENTICATED"),
            counted("tenantgate_call_seconds_count"),
        ]

    before = all_counted()
    door.ask_as_alice("/tools/order-lookup", {})
    door.ask_as_alice("/tools/open-admin", {})
    door.ask_as_alice("/elsewhere", {})
    door.ask(check_request("/tools/order-lookup", b"{}"))

    assert [after - then for after, then in zip(all_counted(), before, strict=True)] == [1, 1, 1, 1, 4]


# ── when things fail ────────────────────────────────────────────────────────────────────────────────────────────────────


def _send(door: Door, body: bytes) -> CheckResponse:
    method: Any = door.channel.unary_unary(CHECK, response_deserializer=CheckResponse.FromString)
    response: CheckResponse = method(body, timeout=20)
    return response


@pytest.mark.parametrize(
    "body", [b"\xff", b"\x0a\x05", CheckRequest().SerializeToString(), b"\x0a\x08\x22\x06\x12\x04\x22\x02\xff\xff"]
)
def test_what_is_no_question_is_denied(doors: Doors, body: bytes) -> None:
    assert outcome(_send(doors["http"], body)) in {"400 REQUEST_INVALID", "401 CALLER_UNAUTHENTICATED"}


def test_headers_that_are_no_text_are_read_as_something_else(doors: Doors) -> None:
    door = doors["http"]
    headers = {"authorization": f"Bearer {door.tokens['acme']}"}
    request = check_request("/tools/order-lookup", b"{}", headers=headers)
    request.attributes.request.http.header_map.headers.add(key="x-tenant-id", raw_value=b"acme\xff")

    assert outcome(door.ask(request)) == "403 TENANT_MISMATCH"


def test_without_opa_everything_is_denied_as_unavailable(doors: Doors) -> None:
    door = doors.open(
        "gone",
        doors.bundle,
        **{"identity.issuers": [doors.issuer.settings()], "identity.mode": "verified", "cache.bytes": 0},
    )
    assert outcome(door.ask_as_alice("/x", {}, extensions=TOOL)) == "goes on"

    assert door.sidecar._opa is not None
    door.sidecar._opa.stop(timeout=2.0)

    response = door.ask_as_alice("/x", {}, extensions=TOOL)
    assert outcome(response) == "503 POLICY_ENGINE_UNAVAILABLE"
    assert "no decision was made" in response.denied_response.body
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "order-lookup"}}
    told = door.ask_as_alice("/x", call, extensions={"mcp": "true"})
    assert outcome(told) == "503 POLICY_ENGINE_UNAVAILABLE"
    assert json.loads(told.denied_response.body)["id"] == 7


def test_a_fault_of_our_own_is_denied_as_unavailable(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    door = doors["http"]

    def break_down(*_given: object) -> Any:
        raise RuntimeError

    monkeypatch.setattr("sidecar.doors.ext_authz.requests.context", break_down)
    with capture_logs() as lines:
        response = door.ask_as_alice("/tools/order-lookup", {})

    assert outcome(response) == "503 INTERNAL"
    assert [line["event"] for line in lines] == ["unexpected", "call"]


def test_envoy_finds_the_service_by_reflection(doors: Doors) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: PLC0415 - used here alone

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(doors["http"].channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=20)

    assert "envoy.service.auth.v3.Authorization" in [s.name for s in answer.list_services_response.service]


def test_a_sidecar_that_is_not_told_to_does_not_answer_envoy(sample: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        AuthorizationStub(sample).Check(CheckRequest(), timeout=20)

    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_sidecar_without_the_extra_says_which_it_needs(sample_bundle: Path, short_path: Path) -> None:
    program = "import sys; sys.modules['envoy.service.auth.v3'] = None\nfrom sidecar.cli import main; main()"
    flags = {
        "state_dir": short_path,
        "opa.bundle": sample_bundle,
        "identity.mode": "asserted",
        "ext_authz.enabled": "true",
    }
    sets = [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", *sets],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "tenantgate[ext-authz]" in done.stderr
    assert "Traceback" not in done.stderr


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ({"mcp": True}, "path: is missing"),
        ({"path": "mcp", "mcp": True}, "path: must be segments"),
        ({"path": "/a%2fb", "mcp": True}, "path: must be segments"),
        ({"path": "/x-{tool}", "resource_id": "{tool}"}, "path: must be segments"),
        ({"path": "/{0}", "resource_id": "x"}, "path: must be segments"),
        ({"path": "/{a}/{a}", "resource_id": "{a}"}, "path: has a {NAME} twice"),
        ({"path": "/{tool}/mcp", "mcp": True}, "path: must not have {tool}"),
        ({"path": "/x"}, "resource_id: is missing"),
        ({"path": "/x", "resource_id": "{tool}"}, "resource_id: has a {NAME}"),
        ({"path": "/x", "mcp": True, "resource_id": "agent:tool:x"}, "resource_id: must have {tool}"),
        ({"path": "/x", "mcp": True, "resource_id": "{server}:{tool}"}, "resource_id: has a {NAME}"),
        ({"path": "/x", "mcp": True, "action": "read"}, "mcp: messages say"),
        ({"path": "/x", "mcp": True, "body": False}, "mcp: messages say"),
    ],
)
def test_a_route_that_cannot_be_meant_is_refused(route: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError, match=r"ext_authz.routes\[0\]") as refused:
        load(None, {}, [f"ext_authz.routes={json.dumps([route])}"])

    assert f"ext_authz.routes[0].{fault}" in str(refused.value)


def test_the_header_that_tells_the_tenant_must_be_one_that_is_compared() -> None:
    with pytest.raises(SettingsError, match=r"ext_authz.tenant_header: 'x-customer' is none of"):
        load(None, {}, ["ext_authz.tenant_header=x-customer"])


def test_a_method_that_uses_what_is_decided_on_cannot_pass(doors: Doors) -> None:
    with pytest.raises(SettingsError, match=r"ext_authz.methods: tools/call cannot pass"):
        doors.open("passing", doors.bundle, **{"ext_authz.methods": {"tools/call": "pass"}})


def test_another_header_may_tell_the_tenant(doors: Doors) -> None:
    given = {"identity.tenant_headers": ["x-tenant-id", "x-customer"], "ext_authz.tenant_header": "x-customer"}
    door = doors.open(
        "customer",
        doors.bundle,
        **given,
        **{"identity.mode": "verified", "identity.issuers": [doors.issuer.settings()]},
    )

    response = door.ask_as_alice("/x", {}, extensions=TOOL)

    assert masked(headers_of(response)) == {"x-customer": "acme", "x-decision-id": "<id>"}
    assert [*response.ok_response.headers_to_remove] == ["x-tenant-id"]
