"""Whatever Envoy hands over: no exception, an answer of its form, and nothing goes on that was not allowed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from sidecar.audit.decision_log import OFF
from sidecar.doors.ext_authz.servicer import ExtAuthzServicer
from sidecar.doors.metrics import CallMetrics
from sidecar.engine.cache import Held
from sidecar.errors import EngineUnavailableError, UnauthenticatedError
from sidecar.identity import Caller, named_tenants
from sidecar.model import Decision, Identity, Principal, Question, Subject, Tenant
from sidecar.settings import Settings, load
from tests.support.ext_authz import check_request, outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage

HEADERS = ("x-tenant-id",)
PASSING = {
    "initialize",
    "server/discover",
    "ping",
    "logging/setLevel",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
}
ASKING = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
}
SETTINGS: Settings = load(
    None,
    {},
    [
        'ext_authz.routes=[{"path": "/mcp", "mcp": true}, {"path": "/tools/{tool}", "resource_id": "tool:{tool}"}]',
        "log.access=false",
    ],
)


class Recording:
    """Allows what is good, by its id, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def decide_held(self, question: Question, _decision_id: str, _deadline: float) -> Held[Decision]:
        """Decide by the id; there is no decision about what is broken."""
        self.asked.append(question)
        (item,) = question.items
        if "broken" in item.resource.id:
            raise EngineUnavailableError
        good = item.resource.id.endswith("good") and question.identity.tenant.named in {(), ("acme",)}
        decision = Decision(
            effect="ALLOW" if good else "DENY",
            code="ALLOWED" if good else "NO_MATCHING_RULE",
            reason="",
            revision="r",
            as_of=0,
            depends_on=(),
        )
        return Held(decision)


class Anyone:
    """Knows everyone with a token as alice of acme."""

    def establish(self, _stated: IdentityMessage, metadata: Mapping[str, Sequence[str]]) -> Caller:
        """Believe any token."""
        if not metadata.get("authorization"):
            message, reason = "no", "TOKEN_MISSING"
            raise UnauthenticatedError(message, reason)
        tenant = Tenant("acme", named_tenants(metadata, HEADERS))
        return Caller(Identity(tenant, Principal("agent:bot"), Subject("alice")))

    def close(self) -> None:
        """Do nothing."""


def ask(request: object) -> tuple[str, list[Question]]:
    """Give the answer in short, and what was decided on the way."""
    decider: Any = Recording()
    servicer: Any = ExtAuthzServicer(
        decider,
        Anyone(),
        SETTINGS.ext_authz,
        HEADERS,
        SETTINGS.request_limits,
        default_deadline=1,
        access_log=False,
        metrics=CallMetrics(CollectorRegistry()),
        audit=OFF,
    )
    context: Any = SimpleNamespace(
        invocation_metadata=lambda: (), time_remaining=lambda: None, set_trailing_metadata=lambda _pairs: None
    )
    return outcome(servicer.Check(request, context, read=_as_it_is, write=_as_it_is)), decider.asked


def _as_it_is(message: Any) -> Any:
    """Do without the bytes between caller and door."""
    return message


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(["good", "bad", "broken", "x___good", "good\n", "", "{tool}"]) | st.text(max_size=6)
_methods = st.sampled_from([*PASSING, *ASKING, "tools/run", "tasks/get", "TOOLS/CALL"]) | st.text(max_size=6)
_params = st.fixed_dictionaries(
    {}, optional={"name": _names | _json, "uri": _names, "arguments": _json, "Name": _names, "ARGUMENTS": _json}
)
_messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | _json,
        "id": st.integers() | _json,
        "method": _methods | _json,
        "params": _params | _json,
        "result": _json,
        "error": _json,
        "Method": _methods,
    },
)
_whole = st.builds(
    lambda method, params, message_id: {"jsonrpc": "2.0", "method": method, "params": params} | message_id,
    _methods,
    _params,
    st.sampled_from([{"id": 1}, {"id": "a"}, {}]),
)
_bodies = st.none() | st.builds(
    lambda value: json.dumps(value).encode(errors="surrogatepass"), _whole | _messages | st.lists(_messages) | _json
)
_bodies |= st.binary(max_size=20)
_headers = st.fixed_dictionaries(
    {},
    optional={
        "authorization": st.just("Bearer x"),
        "x-tenant-id": st.sampled_from(["acme", "globex", "", ["acme", "acme"], ["acme", "globex"]]),
        "content-type": st.sampled_from(["application/json", "text/plain", ["application/json"] * 2, None]),
        "content-length": st.sampled_from(["0", "2", "-1", None]),
        "content-encoding": st.sampled_from(["identity", "gzip"]),
        "transfer-encoding": st.just("chunked"),
        "upgrade": st.just("websocket"),
        "x-envoy-auth-partial-body": st.sampled_from(["false", "true", None]),
    },
)
_paths = st.sampled_from(["/mcp", "/mcp?x", "/tools/good", "/tools/bad", "/tools/good?x=1", "/tools/%67ood", "/", ""])
_paths |= st.text(max_size=8).map(lambda text: f"/tools/{text}")
_requests = st.builds(
    check_request,
    _paths,
    _bodies,
    method=st.sampled_from(["POST", "GET", "DELETE", "PUT", "CONNECT"]),
    headers=st.just({"authorization": "Bearer x"}) | _headers,
    extensions=st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "mcp": st.sampled_from(["true", "false", ""]),
            "path": st.sampled_from(["/tools/{tool}", "/mcp", "{", "/{tool}/{tool}"]),
            "resource_id": st.sampled_from(["good", "bad", "{tool}", ""]),
            "resource_type": st.sampled_from(["AGENT", ""]),
            "action": st.sampled_from(["read", ""]),
            "body": st.sampled_from(["true", "false", "x"]),
            "tenant": st.text(max_size=3),
        },
    ),
    merged=st.booleans(),
)


def may_go_on(request: CheckRequest, asked: list[Question]) -> bool:
    """Tell whether a request may go on, as one who reads it plainly sees it."""
    http = request.attributes.request.http
    extensions = request.attributes.context_extensions
    if asked:
        (question,) = asked
        (item,) = question.items
        named = extensions.get("resource_id", "")
        if named in {"good", "bad"} and extensions.get("mcp") != "true":
            return bool(named == item.resource.id == "good")
        if extensions.get("mcp") == "true" or (http.path.startswith("/mcp") and not named):
            message = json.loads(http.raw_body)
            said = message["params"][ASKING[message["method"]]]
            return bool(item.resource.id.endswith(said) and said.endswith("good"))
        return bool(http.path.partition("?")[0] == "/tools/good")
    if http.method in {"GET", "DELETE"}:
        return "authorization" in str(request) and bool(extensions.get("mcp") == "true" or http.path.startswith("/mcp"))
    message = json.loads(http.raw_body)
    return ("method" not in message and "Method" not in message) or message.get("method") in PASSING


@settings(max_examples=1000)
@given(_requests)
@example(check_request("/tools/good", b"{}", headers={"authorization": "Bearer x"}))
@example(check_request("/tools/broken", b"{}", headers={"authorization": "Bearer x"}))
def test_nothing_goes_on_that_was_not_allowed(request: CheckRequest) -> None:
    answer, asked = ask(request)

    if answer == "goes on":
        assert may_go_on(request, asked)


@settings(max_examples=500)
@given(_requests, st.data())
def test_bytes_that_are_altered_on_the_way_are_answered_too(request: CheckRequest, data: st.DataObject) -> None:
    body = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        altered: object = CheckRequest.FromString(bytes(body))
    except DecodeError:
        return  # the server itself says so

    ask(altered)


@given(st.one_of(st.none(), st.text(), st.integers()))
def test_what_is_no_question_at_all_is_denied(request: object) -> None:
    answer, asked = ask(request)

    assert answer != "goes on"
    assert asked == []
