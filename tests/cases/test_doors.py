"""Every case of the corpus through every front door that can express it: the same effect for the same reason.

A door is a row of ``DOORS``. The sidecar believes tokens alone, so the identity of a case comes as one. Each case is asked about
twice, of a sidecar that remembers decisions and of one that does not.
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import grpc
import pytest
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from google.protobuf.json_format import MessageToDict
from msgspec import UNSET

from sidecar.doors.agentcore.authorizer import SidecarAuthorizer
from sidecar.doors.agentcore.door import Door as AgentCoreDoor
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.decision_pb2 import EFFECT_ALLOW, DecisionCode
from sidecar.identity.development import DevelopmentIssuer
from sidecar.model import Actor
from sidecar.settings import load
from tests.support import authzen, ext_authz
from tests.support.agentcore import checked, mcp_request, tool_call
from tests.support.cases import load_files
from tests.support.exports import write_export
from tests.support.processes import build_bundle, running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.server import Sidecar
    from tests.support.cases import Case, CaseFile

DEADLINE = 20.0


class Told(NamedTuple):
    """What a door tells its caller. Code and reason are empty where it tells neither."""

    allowed: bool
    code: str = ""
    reason: str = ""


class Door(Protocol):
    """How cases go through a front door of a sidecar."""

    def __init__(self, sidecar: Sidecar) -> None:
        """Open it."""

    def close(self) -> None:
        """Close it."""

    @staticmethod
    def expresses(case: Case) -> bool:
        """Tell whether a caller of this door can ask such a thing at all."""

    def ask(self, case: Case, token: str) -> Told:
        """Ask it."""


def is_plain(case: Case) -> bool:
    """Tell whether a case says nothing but who asks, what for, and with which arguments."""
    request = case.request
    beyond = (
        request.context,
        request.action.properties,
        request.resource.properties,
        request.accepted_obligations,
        request.identity.subject.properties,
    )
    return not any(beyond)


class AgentCore:
    """Asks as a gateway does that is about to call a tool."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._authorizer = SidecarAuthorizer(sidecar.addresses[0], DEADLINE, items=1000)
        settings = load(None, {}, ["agentcore.tool_template='{tool}'"])
        self._door = AgentCoreDoor(settings.agentcore, settings.identity.tenant_headers, self._authorizer)

    def close(self) -> None:
        self._authorizer.close()

    @staticmethod
    def expresses(case: Case) -> bool:
        request = case.request
        return request.resource.type == "TOOL" and request.action.name in {"", "invoke"} and is_plain(case)

    def ask(self, case: Case, token: str) -> Told:
        headers = {"Authorization": f"Bearer {token}"}
        if case.tenant_header is not None:
            headers["X-Tenant-Id"] = case.tenant_header
        call = tool_call(f"target___{case.request.resource.id}", MessageToDict(case.request.arguments))
        output = self._door.answer(mcp_request(call, headers))
        if checked(output).goes_on:
            return Told(allowed=True, code="ALLOWED")
        [content] = output["mcp"]["transformedGatewayResponse"]["body"]["result"]["content"]
        denied = re.fullmatch(r"Access denied: (.*) \((\w+), decision .*\)", content["text"], re.DOTALL)
        return Told(allowed=False, code=denied[2], reason=denied[1]) if denied else Told(allowed=False)


class AuthZen:
    """Asks as an enforcement point does that speaks the Authorization API."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def close(self) -> None:
        """Do nothing: every request has a connection of its own."""

    @staticmethod
    def expresses(case: Case) -> bool:
        return bool(case.request.identity.subject.id)

    def ask(self, case: Case, token: str) -> Told:
        request, headers = MessageToDict(case.request), {"authorization": f"Bearer {token}"}
        if case.tenant_header is not None:
            headers["x-tenant-id"] = case.tenant_header
        body = {
            "subject": {"type": "user", **request["identity"]["subject"]},
            "action": {"name": "invoke", **request.get("action", {})},
            "resource": request["resource"],
            "context": {
                **request.get("context", {}),
                "arguments": request.get("arguments", {}),
                "accepted_obligations": request.get("acceptedObligations", []),
            },
        }
        answer = authzen.post(self._sidecar, authzen.EVALUATION, body, **headers)
        if answer.status != 200:
            return Told(allowed=False)
        decision = answer.json()
        [reason] = decision["context"]["reason_admin"].values()
        return Told(decision["decision"], decision["context"]["code"], reason)


class ExtAuthz:
    """Asks as Envoy does on a route that says what it is about."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._channel = grpc.insecure_channel(sidecar.addresses[0])

    def close(self) -> None:
        self._channel.close()

    @staticmethod
    def expresses(case: Case) -> bool:
        return is_plain(case)

    def ask(self, case: Case, token: str) -> Told:
        resource, action = case.request.resource, case.request.action.name
        question = ext_authz.check_request(
            "/",
            json.dumps(MessageToDict(case.request.arguments)).encode(),
            headers={"authorization": f"Bearer {token}", "x-tenant-id": case.tenant_header},
            extensions={"resource_type": resource.type, "resource_id": resource.id}
            | ({"action": action} if action else {}),
        )
        response = AuthorizationStub(self._channel).Check(question, timeout=DEADLINE)
        if ext_authz.outcome(response) == "goes on":
            return Told(allowed=True, code="ALLOWED")
        message = json.loads(response.denied_response.body)["message"]
        denied = re.fullmatch(r"Access denied: (.*) \((\w+), decision .*\)", message, re.DOTALL)
        return Told(allowed=False, code=denied[2], reason=denied[1]) if denied else Told(allowed=False)


class Native:
    """Asks as an agent does that has a sidecar beside it."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._channel = grpc.insecure_channel(sidecar.addresses[0])

    def close(self) -> None:
        self._channel.close()

    @staticmethod
    def expresses(_case: Case) -> bool:
        return True

    def ask(self, case: Case, token: str) -> Told:
        metadata = [("authorization", f"Bearer {token}")]
        if case.tenant_header is not None:
            metadata.append(("x-tenant-id", case.tenant_header))
        try:
            response = AuthorizationServiceStub(self._channel).Authorize(
                case.request, metadata=metadata, timeout=DEADLINE
            )
        except grpc.RpcError:
            return Told(allowed=False)
        decision = response.decision
        code = DecisionCode.Name(decision.code).removeprefix("DECISION_CODE_")
        return Told(decision.effect == EFFECT_ALLOW, code, decision.reason)


DOORS: dict[str, type[Door]] = {
    "agentcore": AgentCore,
    "authzen": AuthZen,
    "ext_authz": ExtAuthz,
    "native": Native,
}


# ── cases, and what serves them ─────────────────────────────────────────────────────────────────────────────────────────


def proven(case: Case) -> bool:
    """Tell whether a token can say who asks: it has an agent before any earlier one."""
    identity = case.request.identity
    return bool(identity.principal.id or not identity.delegation)


def mint(issuer: DevelopmentIssuer, case: Case) -> str:
    """Make the token that says who asks."""
    identity = case.request.identity
    return issuer.mint(
        identity.tenant_id,
        identity.subject.id,
        identity.principal.id,
        scopes=identity.scopes,
        roles=identity.subject.roles,
        delegation=[
            Actor(actor.id, tuple(actor.scopes.values) if actor.HasField("scopes") else UNSET)
            for actor in identity.delegation
        ],
    )


FILES = {file.name: file for file in load_files()}
CASES = [
    pytest.param(name, file, case, id=f"{name}: {file.name}: {case.name}")
    for name, door in DOORS.items()
    for file in FILES.values()
    for case in file.cases
    if proven(case) and door.expresses(case)
]


class Serving:
    """A sidecar for each file of the corpus, and its doors, started when they are first asked for."""

    def __init__(self, folder: Path, running: ExitStack, cache_bytes: int) -> None:
        self.issuer = DevelopmentIssuer(folder / "issuer")
        self._folder = folder
        self._running = running
        self._cache_bytes = cache_bytes
        self._sidecars: dict[str, Sidecar] = {}
        self._doors: dict[tuple[str, str], Door] = {}

    def door(self, name: str, file: CaseFile) -> Door:
        """Give a door of the sidecar that serves a file's registry."""
        if (name, file.name) not in self._doors:
            door = self._doors[name, file.name] = DOORS[name](self._sidecar(file))
            self._running.callback(door.close)
        return self._doors[name, file.name]

    def _sidecar(self, file: CaseFile) -> Sidecar:
        if file.name not in self._sidecars:
            folder = self._folder / str(len(self._sidecars))
            folder.mkdir()
            bundle = build_bundle(write_export(folder / "export", file.items), folder / "bundle.tar.gz")
            overrides: dict[str, Any] = {
                name.replace(".", "__"): int(value) if value.isdigit() else value
                for name, _, value in (flag.partition("=") for flag in file.flags)
            }
            settings = sidecar_settings(
                folder / "state",
                bundle,
                identity__mode="verified",
                identity__issuers=[self.issuer.settings()],
                authzen__listen="127.0.0.1:0",
                ext_authz__enabled=True,
                cache__bytes=self._cache_bytes,
                **overrides,
            )
            self._sidecars[file.name], _ = self._running.enter_context(running_sidecar(settings))
        return self._sidecars[file.name]


@pytest.fixture(scope="module", params=[1 << 26, 0], ids=["remembered", "asked each time"])
def serving(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """What serves the corpus."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder, ExitStack() as running:
        yield Serving(Path(folder), running, request.param)


@pytest.mark.parametrize(("name", "file", "case"), CASES)
def test_a_door_tells_what_the_case_expects(name: str, file: CaseFile, case: Case, serving: Serving) -> None:
    door, token = serving.door(name, file), mint(serving.issuer, case)
    told = door.ask(case, token)

    assert door.ask(case, token) == told
    if case.expect is None:
        assert not told.allowed
        return
    code = case.expect[0]
    assert (told.allowed, told.code) == (code == "ALLOWED", code)
    if case.reason is not None:
        assert told.reason == case.reason


@pytest.mark.parametrize("name", DOORS)
def test_a_door_is_asked_for_every_effect(name: str) -> None:
    cases = [case for file in FILES.values() for case in file.cases if proven(case) and DOORS[name].expresses(case)]
    codes = {case.expect[0] for case in cases if case.expect}

    assert {"ALLOWED", "DENIED_BY_RULE", "NO_MATCHING_RULE", "TENANT_MISMATCH", "DELEGATION_INVALID"} <= codes
