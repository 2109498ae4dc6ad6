"""The promises of the AuthZEN door: many are a map of singles, a search says what evaluations say, and no body upsets it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from google.protobuf.struct_pb2 import Struct as PbStruct
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from sidecar.audit.decision_log import OFF
from sidecar.doors.authzen.application import AuthZen
from sidecar.doors.authzen.callers import Asking
from sidecar.doors.authzen.requests import Asked, Batch, Reader, Sought, read_body
from sidecar.doors.grpc_calls import Call
from sidecar.doors.metrics import CallMetrics
from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.identity import Asserted
from sidecar.settings import load
from sidecar.translate import Limits, item_from, plain_object
from tests.support.registries import compiled
from tests.support.strategies import AGENTS, IDS, OBLIGATIONS, USERS, identities, items, mostly, registries

if TYPE_CHECKING:
    from sidecar.doors.authzen.requests import Kind
    from sidecar.model import Identity, Item, Tenant
    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(300)
thorough = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

Registry = list[dict[str, Any]]
CANDIDATES = {"subjects": sorted({*USERS, *AGENTS} - {""}), "resources": IDS, "actions": ["invoke", "read", "write"]}


class Door:
    """The door in front of an OPA, without HTTP between."""

    def __init__(self, opa: PolicyOpa, registry: Registry, identity: Identity, page_size: int = 100) -> None:
        opa.put("registry/base", compiled(registry))
        given = load(None, {}, ["identity.mode=asserted", f"authzen.page_size={page_size}"])
        callers = Asserted((), given.request_limits)
        self._door = AuthZen(opa.decider(), callers, given, CallMetrics(CollectorRegistry()), OFF)
        self._asking = Asking(identity, (), (), frozenset())

    def evaluation(self, body: Any) -> dict[str, Any]:
        """Decide one question; one that is malformed has no code."""
        try:
            return _without_id(self._door.evaluation(body, self._asking, _call()))
        except InvalidRequestError:
            return {"decision": False, "context": {}}

    def evaluations(self, body: Any) -> list[dict[str, Any]]:
        """Decide many."""
        answers: Any = self._door.evaluations(body, self._asking, _call())["evaluations"]
        return [_without_id(answer) for answer in answers]

    def search(self, kind: Kind, body: dict[str, Any], limit: int) -> list[str]:
        """Search, page by page."""
        method = getattr(self._door, f"search_{kind.removesuffix('s')}")
        page: dict[str, Any] = {"limit": limit}
        results: list[str] = []
        while True:
            answer = method(body | {"page": page}, self._asking, _call())
            assert len(answer["results"]) <= limit
            results += [entry.get("id") or entry["name"] for entry in answer["results"]]
            if not answer["page"]["next_token"]:
                return results
            page["token"] = answer["page"]["next_token"]


def _call() -> Call:
    return Call("property", {}, time.monotonic() + 20, {})


def _without_id(answer: dict[str, Any]) -> dict[str, Any]:
    context = {name: value for name, value in answer["context"].items() if name not in {"id", "error"}}
    return {"decision": answer["decision"], "context": context}


def asked(identity: Identity, item: Item, accepts: list[str], who: str) -> dict[str, Any]:
    """Write a question as enforcement points do."""
    return {
        "subject": {"type": "user", "id": who, "properties": identity.subject.properties},
        "resource": msgspec.to_builtins(item.resource),
        "action": msgspec.to_builtins(item.action),
        "context": {**item.context, "arguments": item.arguments, "accepted_obligations": accepts},
    }


bodies = st.builds(
    asked, identities, items, mostly(OBLIGATIONS, [], ["LOG"], weight=2), st.sampled_from([*USERS[:2], "carol", ""])
)


@thorough
@given(registries, identities, st.lists(bodies, min_size=1, max_size=4), st.data())
def test_evaluations_are_a_map_of_evaluation(
    policy_opa: PolicyOpa, registry: Registry, identity: Identity, entries: list[dict[str, Any]], data: st.DataObject
) -> None:
    door = Door(policy_opa, registry, identity)
    singles = [door.evaluation(entry) for entry in entries]
    names = data.draw(st.sets(st.sampled_from(["subject", "resource", "action", "context"])))
    shared = {name: entries[0][name] for name in names}
    shortened = [
        {name: value for name, value in entry.items() if shared.get(name, object) != value} for entry in entries
    ]
    assert door.evaluations({"evaluations": entries}) == singles
    assert door.evaluations({**shared, "evaluations": shortened}) == singles


@thorough
@given(registries, identities, bodies, st.sampled_from([*CANDIDATES]), st.integers(1, 4), st.integers(1, 3))
def test_a_search_finds_what_evaluations_allow_of_all_that_the_registry_names(  # noqa: PLR0917 - drawn
    policy_opa: PolicyOpa,
    registry: Registry,
    identity: Identity,
    body: dict[str, Any],
    kind: Kind,
    limit: int,
    page_size: int,
) -> None:
    name = kind.removesuffix("s")
    body[name]["name" if kind == "actions" else "id"] = "any"
    if not body["subject"]["id"]:
        body["subject"]["id"] = "nobody"
    door = Door(policy_opa, registry, identity, page_size)
    results = door.search(kind, body, limit)

    if kind == "actions":
        body["action"]["properties"] = {}
    key = "name" if kind == "actions" else "id"
    allowed = [
        candidate
        for candidate in sorted(CANDIDATES[kind])
        if door.evaluation({**body, name: {**body[name], key: candidate}})["decision"]
    ]
    assert results == sorted(set(results))
    assert set(results) <= {*allowed}
    assert set(results) >= {*allowed} & _named(registry, identity.tenant, kind, body["resource"]["type"])


def _named(registry: Registry, tenant: Tenant, kind: Kind, resource_type: str) -> set[str]:
    """List what the tenant's own items name, of those that a search looks at whatever the resource."""
    prefix = {"subjects": "USER#", "resources": f"RESOURCE#{resource_type}#", "actions": "-"}[kind]
    own = [item["sk"] for item in registry if item["pk"] == f"TENANT#{tenant.id}"]
    return {sk.removeprefix(prefix) for sk in own if sk.startswith(prefix)}


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abc"), trees, max_size=3))
@example({"a": 12345678901234567890, "b": 0.1, "c": -0.0})
@example({"a": 2**53 + 1, "b": 1e300, "c": 5e-324})
@example({"a": [[]], "b": {}, "c": 1.0})
def test_json_holds_the_same_for_this_door_as_for_grpc(value: dict[str, Any]) -> None:
    message = pb.AuthorizeRequest(resource={"type": "t", "id": "i"})
    context = PbStruct()
    context.update(value)
    message.context.CopyFrom(context)
    by_grpc = item_from("", message, Limits()).context
    by_json = plain_object("context", value, Limits())
    # as written: 1, 1.0 and true are equal in Python
    assert msgspec.json.encode(by_json, order="sorted") == msgspec.json.encode(by_grpc, order="sorted")


READER = Reader(Limits(json_depth=3, json_bytes=50, list_entries=2, batch_items=3), ("user",))
known = st.sampled_from(
    [
        "subject",
        "action",
        "resource",
        "context",
        "evaluations",
        "options",
        "page",
        "type",
        "id",
        "name",
        "properties",
        "arguments",
        "tenant_id",
        "accepted_obligations",
        "evaluations_semantic",
        "token",
        "limit",
    ]
)
near = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(known, inner)), max_leaves=30
)


@given(st.dictionaries(known, near), st.sampled_from(["subjects", "resources", "actions"]))
def test_a_body_is_read_or_refused_and_nothing_else(body: dict[str, Any], kind: Kind) -> None:
    for read, shapes in (
        (READER.evaluation, (Asked,)),
        (READER.batch, (Batch, type(None))),
        (lambda body: READER.search(kind, body), (Sought,)),
    ):
        try:
            assert isinstance(read(body), shapes)
        except InvalidRequestError as fault:
            assert fault.field  # noqa: PT017 - either is right


@given(st.binary(max_size=64) | near.map(msgspec.json.encode))
def test_bytes_are_an_object_or_are_refused(body: bytes) -> None:
    try:
        assert isinstance(read_body(body), dict)
    except InvalidRequestError as fault:
        assert fault.field == "body"  # noqa: PT017
