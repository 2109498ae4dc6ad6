"""The AuthZEN door over HTTP: the working group's published payloads, its certification scenario, errors, tenants, tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from sidecar.identity.development import DevelopmentIssuer
from tests.support.authzen import (
    EVALUATION,
    EVALUATIONS,
    PRINCIPAL,
    SEARCH,
    action,
    ask,
    evaluation,
    post,
    registry,
    resource,
    send,
    serving,
    subject,
)
from tests.support.registries import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.server import Sidecar

TODO = json.loads((DATA / "authzen-todo-decisions.json").read_text())
CERT = {"x_tenant_id": "cert"}
WELL_KNOWN = "/.well-known/authzen-configuration"

ALICE_READS = evaluation("alice", "read", "record-1")
BOB_WRITES = evaluation("bob", "write", "record-1")


@pytest.fixture(scope="module")
def todo() -> Iterator[Sidecar]:
    """A sidecar that serves the todo scenario."""
    with serving(registry("authzen-todo")) as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def cert() -> Iterator[Sidecar]:
    """A sidecar that serves the fixture of the certification scenario."""
    with serving(registry("authzen-certification")) as sidecar:
        yield sidecar


def decisions(answer: Any) -> list[bool]:
    """Give the decisions of an answer to many evaluations."""
    return [entry["decision"] for entry in answer["evaluations"]]


# ── the todo scenario, as it is published ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", TODO["evaluation"], ids=lambda case: json.dumps(case["request"])[-80:])
def test_a_published_evaluation_is_decided_as_published(todo: Sidecar, case: Any) -> None:
    assert ask(todo, f"/tenants/citadel{EVALUATION}", case["request"])["decision"] is case["expected"]


@pytest.mark.parametrize("case", TODO["evaluations"], ids=lambda case: case["request"]["subject"]["id"][4:8])
def test_a_published_batch_is_decided_as_published(todo: Sidecar, case: Any) -> None:
    answer = ask(todo, f"/tenants/citadel{EVALUATIONS}", case["request"])

    assert decisions(answer) == [expected["decision"] for expected in case["expected"]]


def test_all_published_payloads_are_tried() -> None:
    assert (len(TODO["evaluation"]), len(TODO["evaluations"])) == (40, 3)


# ── the certification scenario, section by section ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(ALICE_READS, True, id="2.2.1 permit"),
        pytest.param(BOB_WRITES, False, id="2.2.2 deny"),
        pytest.param(
            evaluation("alice", "read", "record-1", time="2025-06-27T18:03-07:00", ip="192.168.1.1"),
            True,
            id="2.2.3 context",
        ),
        pytest.param(evaluation("alice", "write", "record-1"), True, id="1.4 alice writes"),
        pytest.param(evaluation("bob", "read", "record-1"), True, id="1.4 bob reads"),
        pytest.param(
            evaluation("alice", "write", "record-2") | {"resource": resource("record-2", status="archived")},
            False,
            id="2.2.4 resource properties",
        ),
        pytest.param(
            {
                "subject": subject("bob", role="admin"),
                "action": action("write"),
                "resource": resource("record-2", status="archived"),
            },
            True,
            id="2.2.5 subject properties",
        ),
        pytest.param(
            evaluation("alice", "delete", "record-1") | {"action": action("delete", soft=True)},
            True,
            id="2.2.6 action properties",
        ),
        pytest.param(
            evaluation("alice", "delete", "record-1") | {"action": action("delete", soft=False)},
            False,
            id="2.2.7 action properties",
        ),
        pytest.param(
            {
                "subject": subject("alice", department="Sales", role="manager"),
                "action": action("read", method="GET"),
                "resource": resource("record-1", status="active", owner="bob"),
            },
            True,
            id="2.2.8 more properties",
        ),
        pytest.param(ALICE_READS | {"foo": "bar", "futureField": {"nested": True}}, True, id="2.2.9 unknown fields"),
    ],
)
def test_certification_of_an_evaluation(cert: Sidecar, body: Any, expected: bool) -> None:  # noqa: FBT001 - a decision
    first = ask(cert, EVALUATION, body, **CERT)

    assert first["decision"] is expected
    assert isinstance(first["context"], dict)
    assert [ask(cert, EVALUATION, body, **CERT)["decision"] for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            {
                "subject": subject("alice"),
                "action": action("read"),
                "evaluations": [{"resource": resource("record-1")}, {"resource": resource("record-2")}],
            },
            [True, True],
            id="3.2.1 defaults",
        ),
        pytest.param(
            {
                "subject": subject("bob"),
                "resource": resource("record-1"),
                "evaluations": [{"action": action("read")}, {"action": action("write")}],
            },
            [True, False],
            id="3.2.2 in order",
        ),
        pytest.param(
            {
                "subject": subject("alice"),
                "action": action("write"),
                "evaluations": [
                    {"resource": resource("record-1", status="active")},
                    {"resource": resource("record-2", status="archived")},
                ],
            },
            [True, False],
            id="3.2.3 resource properties",
        ),
        pytest.param(
            {
                "action": action("write"),
                "resource": resource("record-2", status="archived"),
                "evaluations": [{"subject": subject("alice")}, {"subject": subject("bob", role="admin")}],
            },
            [False, True],
            id="3.2.4 subject properties",
        ),
        pytest.param({"evaluations": [ALICE_READS, BOB_WRITES]}, [True, False], id="3.2.5 no defaults"),
        pytest.param(
            {
                "subject": subject("alice"),
                "action": action("read"),
                "context": {"time": "2025-06-27T18:03-07:00"},
                "evaluations": [
                    {"resource": resource("record-1")},
                    {
                        "resource": resource("record-2"),
                        "context": {"time": "2025-06-27T19:00-07:00", "source": "batch-override"},
                    },
                ],
            },
            [True, True],
            id="3.2.6 context",
        ),
        pytest.param(
            {
                "subject": subject("alice"),
                "action": action("write"),
                "resource": {"type": "record"},
                "evaluations": [
                    {"resource": {"id": "record-1", "properties": {"status": "active"}}},
                    {"resource": resource("record-2", status="archived")},
                ],
            },
            [True, False],
            id="3.2.7 merging",
        ),
        pytest.param(
            {
                "subject": subject("alice"),
                "action": action("read"),
                "evaluations": [{"resource": resource("record-1")}, {}],
            },
            [True, False],
            id="3.4.1 an evaluation that is malformed",
        ),
    ],
)
def test_certification_of_evaluations(cert: Sidecar, body: Any, expected: list[bool]) -> None:
    answer = ask(cert, EVALUATIONS, body, **CERT)

    assert decisions(answer) == expected
    assert "decision" not in answer


@pytest.mark.parametrize("more", [{}, {"evaluations": []}], ids=["3.4.2 none", "3.4.3 empty"])
def test_certification_of_evaluations_that_are_one(cert: Sidecar, more: dict[str, Any]) -> None:
    assert ask(cert, EVALUATIONS, ALICE_READS | more, **CERT)["decision"] is True


OF_RECORD_1 = {"subject": {"type": "user"}, "action": action("read"), "resource": resource("record-1")}


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        pytest.param("subject", OF_RECORD_1, ["alice", "bob"], id="4.2.1 subjects"),
        pytest.param("subject", OF_RECORD_1 | {"context": {"time": "now"}}, ["alice", "bob"], id="4.2.2 context"),
        pytest.param("subject", OF_RECORD_1 | {"subject": subject("eve")}, ["alice", "bob"], id="4.2.3 id"),
        pytest.param(
            "subject",
            {
                "subject": {"type": "user"},
                "action": action("write"),
                "resource": resource("record-2", status="archived"),
            },
            ["bob"],
            id="4.2.4 resource properties",
        ),
        pytest.param(
            "resource",
            {"subject": subject("alice"), "action": action("read"), "resource": {"type": "record"}},
            ["record-1", "record-2"],
            id="4.3.1 resources",
        ),
        pytest.param(
            "resource",
            {"subject": subject("alice"), "action": action("read"), "resource": resource("record-9")},
            ["record-1", "record-2"],
            id="4.3.2 id",
        ),
        pytest.param(
            "resource",
            {"subject": subject("bob", role="admin"), "action": action("write"), "resource": {"type": "record"}},
            ["record-2"],
            id="4.3.3 subject properties",
        ),
        pytest.param(
            "action",
            {"subject": subject("alice"), "resource": resource("record-1")},
            ["read", "write"],
            id="4.4.1 actions",
        ),
        pytest.param(
            "action",
            {"subject": subject("alice"), "resource": resource("record-1"), "context": {"ip": "::1"}},
            ["read", "write"],
            id="4.4.2 context",
        ),
        pytest.param(
            "action",
            {"subject": subject("bob", role="admin"), "resource": resource("record-2", status="archived")},
            ["read", "write"],
            id="4.4.3 properties",
        ),
        pytest.param(
            "action",
            {"subject": subject("nonexistent-user"), "resource": resource("record-1")},
            [],
            id="4.6.1 unknown subject",
        ),
        pytest.param("subject", OF_RECORD_1 | {"subject": {"type": "spaceship"}}, [], id="4.6.2 unknown type"),
        pytest.param(
            "resource",
            {"subject": subject("alice"), "action": action("read"), "resource": {"type": "spaceship"}},
            [],
            id="4.6.2 unknown type of resource",
        ),
    ],
)
def test_certification_of_a_search(cert: Sidecar, kind: str, body: Any, expected: list[str]) -> None:
    answer = ask(cert, SEARCH + kind, body, **CERT)

    wanted = [{"name": name} for name in expected]
    if kind != "action":
        wanted = [{"type": body[kind]["type"], "id": name} for name in expected]
    assert answer["results"] == wanted
    assert answer["page"] == {"next_token": "", "count": len(expected)}


def test_certification_of_pages(cert: Sidecar) -> None:
    first = ask(cert, f"{SEARCH}subject", OF_RECORD_1 | {"page": {"limit": 1}}, **CERT)
    token = first["page"]["next_token"]
    last = ask(cert, f"{SEARCH}subject", OF_RECORD_1 | {"page": {"token": token}}, **CERT)

    assert [entry["id"] for entry in first["results"] + last["results"]] == ["alice", "bob"]
    assert (first["page"]["count"], bool(token), last["page"]["next_token"]) == (1, True, "")


@pytest.mark.parametrize("url", ["https://pdp.example.com", None])
def test_certification_of_discovery(url: str | None) -> None:
    with serving(registry("authzen-certification"), authzen__base_url=url) as sidecar:
        whole, of_tenant = (
            send(sidecar, WELL_KNOWN + path, None, method="GET") for path in ("", "/tenants/A%2FS%20caf%C3%A9")
        )
        base = url or sidecar.authzen_url

    assert (whole.status, whole.headers["content-type"]) == (200, "application/json")
    assert whole.json() == {
        "policy_decision_point": base,
        "access_evaluation_endpoint": f"{base}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{base}/access/v1/evaluations",
        "search_subject_endpoint": f"{base}/access/v1/search/subject",
        "search_resource_endpoint": f"{base}/access/v1/search/resource",
        "search_action_endpoint": f"{base}/access/v1/search/action",
    }
    assert of_tenant.json()["policy_decision_point"] == f"{base}/tenants/A%2FS%20caf%C3%A9"
    assert of_tenant.json()["search_action_endpoint"] == f"{base}/tenants/A%2FS%20caf%C3%A9/access/v1/search/action"


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def without(path: str, body: dict[str, Any] = ALICE_READS) -> dict[str, Any]:
    """Give a body without what stands at a path."""
    name, _, rest = path.partition(".")
    return {key: without(rest, value) if key == name else value for key, value in body.items() if key != path}


def with_(path: str, value: Any, body: dict[str, Any] = ALICE_READS) -> dict[str, Any]:
    """Give a body with another value at a path."""
    name, _, rest = path.partition(".")
    return {**body, name: with_(rest, value, body.get(name, {})) if rest else value}


def nested(levels: int) -> dict[str, Any]:
    """Make an object of so many levels."""
    return {"x": nested(levels - 1)} if levels > 1 else {}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        *((EVALUATION, without(path), path) for path in ("subject", "action", "resource")),
        *((EVALUATION, without(f"subject.{name}"), f"subject.{name}") for name in ("type", "id")),
        (EVALUATION, without("action.name"), "action.name"),
        *((EVALUATION, without(f"resource.{name}"), f"resource.{name}") for name in ("type", "id")),
        (EVALUATION, with_("subject", "alice"), "subject"),
        (EVALUATION, with_("subject", None), "subject"),
        (EVALUATION, with_("subject", []), "subject"),
        (EVALUATION, with_("action", "read"), "action"),
        (EVALUATION, with_("action.name", 123), "action.name"),
        (EVALUATION, with_("action.name", None), "action.name"),
        (EVALUATION, with_("action.name", ""), "action.name"),
        (EVALUATION, with_("subject.id", 1), "subject.id"),
        (EVALUATION, with_("subject.id", "al\u200bice"), "subject.id"),
        (EVALUATION, with_("subject.type", ""), "subject.type"),
        (EVALUATION, with_("resource.id", "r" * 513), "resource.id"),
        (EVALUATION, with_("subject.properties", []), "subject.properties"),
        (EVALUATION, with_("subject.properties", None), "subject.properties"),
        (EVALUATION, with_("action.properties", "x"), "action.properties"),
        (EVALUATION, with_("resource.properties", 1), "resource.properties"),
        (EVALUATION, with_("resource.properties", nested(33)), "resource.properties"),
        (EVALUATION, with_("resource.properties", {"x": "y" * 65536}), "resource.properties"),
        (EVALUATION, with_("context", "now"), "context"),
        (EVALUATION, with_("context", None), "context"),
        (EVALUATION, with_("context.x", 10**400), "context"),
        (EVALUATION, with_("context.arguments", [1]), "context.arguments"),
        (EVALUATION, with_("context.tenant_id", 1), "context.tenant_id"),
        (EVALUATION, with_("context.accepted_obligations", "LOG"), "context.accepted_obligations"),
        (EVALUATION, with_("context.accepted_obligations", ["LOG", 1]), "context.accepted_obligations[1]"),
        (EVALUATION, with_("context.accepted_obligations", ["x"] * 257), "context.accepted_obligations"),
        (EVALUATIONS, without("subject"), "subject"),
        (EVALUATIONS, with_("evaluations", {}), "evaluations"),
        (EVALUATIONS, with_("evaluations", None), "evaluations"),
        (EVALUATIONS, with_("evaluations", [{}] * 1001), "evaluations"),
        (EVALUATIONS, with_("subject", "alice") | {"evaluations": [ALICE_READS]}, "subject"),
        (EVALUATIONS, with_("context", []) | {"evaluations": [ALICE_READS]}, "context"),
        (EVALUATIONS, with_("options", []) | {"evaluations": [{}]}, "options"),
        (
            EVALUATIONS,
            with_("options.evaluations_semantic", "any") | {"evaluations": [{}]},
            "options.evaluations_semantic",
        ),
        (
            EVALUATIONS,
            with_("options.evaluations_semantic", ["execute_all"]) | {"evaluations": [{}]},
            "options.evaluations_semantic",
        ),
        (f"{SEARCH}subject", without("subject", OF_RECORD_1), "subject"),
        (f"{SEARCH}subject", without("subject.type", OF_RECORD_1), "subject.type"),
        (f"{SEARCH}subject", without("action", OF_RECORD_1), "action"),
        (f"{SEARCH}subject", without("resource.id", OF_RECORD_1), "resource.id"),
        (f"{SEARCH}resource", without("subject"), "subject"),
        (f"{SEARCH}resource", without("subject.id"), "subject.id"),
        (f"{SEARCH}resource", without("resource.type"), "resource.type"),
        (f"{SEARCH}action", without("resource"), "resource"),
        (f"{SEARCH}action", without("subject.id"), "subject.id"),
        (f"{SEARCH}action", with_("page", []), "page"),
        (f"{SEARCH}action", with_("page.limit", -1), "page.limit"),
        (f"{SEARCH}action", with_("page.limit", 1.5), "page.limit"),
        (f"{SEARCH}action", with_("page.limit", "1"), "page.limit"),
        (f"{SEARCH}action", with_("page", {"limit": True}), "page.limit"),
        (f"{SEARCH}action", with_("page.token", None), "page.token"),
        (f"{SEARCH}action", with_("page.token", ""), "page.token"),
        (f"{SEARCH}action", with_("page.token", "e30"), "page.token"),
        (f"{SEARCH}action", with_("page.token", "caf\u00e9"), "page.token"),
    ],
)
def test_a_malformed_request_is_refused_with_the_field_that_is_wrong(
    cert: Sidecar, path: str, body: Any, field: str
) -> None:
    answer = post(cert, path, body, **CERT)

    assert (answer.status, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert answer.data.decode().startswith(f"REQUEST_INVALID: {field}: ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b'"alice"',
        b"{",
        b'{"subject": {"type": "user", "id": "alice"},}',
        b"{'subject': 1}",
        json.dumps(ALICE_READS).encode() + b"x",
        json.dumps(ALICE_READS).replace("alice", "\\ud800").encode(),
        json.dumps(ALICE_READS).encode().replace(b"alice", b"\xff"),
        json.dumps(ALICE_READS).encode("utf-16"),
        json.dumps(ALICE_READS).replace('"alice"', '"bob", "id": "alice"').encode(),
        json.dumps(ALICE_READS).replace('"alice"', '"bob", "i\\u0064": "alice"').encode(),
        json.dumps(ALICE_READS | {"context": {"x": 0}}).replace("0}", "NaN}").encode(),
        json.dumps(ALICE_READS | {"context": {"x": 0}}).replace("0}", "1e999}").encode(),
        json.dumps(ALICE_READS | {"context": {"x": 0}}).replace("0}", "9" * 5000 + "}").encode(),
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' * 100_000,
    ],
    ids=lambda body: repr(body[:60]),
)
def test_a_body_that_does_not_say_one_thing_is_refused(cert: Sidecar, body: bytes) -> None:
    answer = send(cert, EVALUATION, body, {"x-tenant-id": "cert"})

    assert answer.status == 400
    assert answer.data.startswith(b"REQUEST_INVALID: body: is ")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON ;charset=UTF-8", 200),
        ("text/plain", 400),
        ("text/json", 400),
        ("application/json-patch+json", 400),
        ("application/x-www-form-urlencoded", 400),
        ("", 400),
    ],
)
def test_only_json_is_read(cert: Sidecar, given: str, status: int) -> None:
    answer = send(cert, EVALUATION, json.dumps(ALICE_READS).encode(), {"x-tenant-id": "cert", "content-type": given})

    assert answer.status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", EVALUATION, 405),
        ("PUT", EVALUATIONS, 405),
        ("GET", f"/tenants/cert{EVALUATION}", 405),
        ("DELETE", f"{SEARCH}subject", 405),
        ("POST", WELL_KNOWN, 405),
        ("POST", "/openapi.json", 405),
        ("POST", f"{EVALUATION}/", 404),
        ("POST", "/access/v2/evaluation", 404),
        ("POST", f"{SEARCH}tenants", 404),
        ("POST", f"/tenant/cert{EVALUATION}", 404),
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", f"{WELL_KNOWN}/tenants/", 400),
        ("POST", f"/tenants/{EVALUATION}", 400),
        ("POST", f"/tenants/a%00b{EVALUATION}", 400),
        ("POST", f"/tenants/a%0Ab{EVALUATION}", 404),
    ],
)
def test_what_there_is_not_is_refused(cert: Sidecar, method: str, path: str, status: int) -> None:
    answer = send(cert, path, json.dumps(ALICE_READS).encode() if method == "POST" else None, method=method)

    assert answer.status == status
    assert "location" not in answer.headers
    if status == 405:
        assert ("POST" in answer.headers["allow"]) is (method != "POST")


def test_a_body_that_is_too_large_is_refused() -> None:
    with serving(registry("authzen-certification"), limits__message_bytes=2048) as sidecar:
        large = json.dumps(with_("context.x", "y" * 2048)).encode()
        whole = send(sidecar, EVALUATION, large, CERT)
        fits = ask(sidecar, EVALUATION, with_("context.x", "y" * 1500), **CERT)

    assert (whole.status, whole.data) == (413, b"REQUEST_INVALID: body: must have at most 2048 bytes\n")
    assert fits["decision"] is True


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (EVALUATION, ALICE_READS, 200),
        (EVALUATIONS, {"evaluations": [{}]}, 200),
        (f"{SEARCH}subject", OF_RECORD_1, 200),
        (EVALUATION, {}, 400),
        ("/nowhere", {}, 404),
    ],
)
def test_the_request_id_comes_back_as_it_went(cert: Sidecar, path: str, body: Any, status: int) -> None:
    answer = post(cert, path, body, x_request_id="bfe9eb29 {ab87} ~", **CERT)

    assert (answer.status, answer.headers["x-request-id"]) == (status, "bfe9eb29 {ab87} ~")
    assert "x-request-id" not in post(cert, path, body, **CERT).headers


# ── what an answer says ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_allow_says_by_which_rule_under_which_revision(cert: Sidecar) -> None:
    answer = post(cert, EVALUATION, ALICE_READS, **CERT)
    context = answer.json()["context"]

    assert context == {
        "id": answer.headers["x-decision-id"],
        "code": "ALLOWED",
        "reason_admin": {"200": 'allowed by rule "read" of policy "records"'},
        "policy_id": "records",
        "rule_id": "read",
        "revision": context["revision"],
        "as_of": "2026-11-24T00:00:00Z",
    }
    assert context["revision"].startswith("20261124T000000.000000Z-")


def test_what_a_rule_says_may_be_shown_and_what_the_policy_gives_away_may_not(cert: Sidecar) -> None:
    denied_by_rule = evaluation("alice", "write", "record-2") | {"resource": resource("record-2", status="archived")}
    by_rule = ask(cert, EVALUATION, denied_by_rule, **CERT)["context"]
    by_default = ask(cert, EVALUATION, evaluation("bob", "drop", "record-1"), **CERT)["context"]

    reason = 'denied by rule "alice-writes-nothing-archived" of policy "records"'
    assert (by_rule["code"], by_rule["reason_admin"], by_rule["reason_user"]) == (
        "DENIED_BY_RULE",
        {"403": reason},
        {"403": reason},
    )
    assert by_default["reason_admin"] == {"403": 'no rule allows drop on record "record-1"'}
    assert "reason_user" not in by_default


def test_each_of_many_has_an_id_of_its_own(cert: Sidecar) -> None:
    answer = post(cert, EVALUATIONS, {"evaluations": [ALICE_READS, {}, BOB_WRITES, 7]}, **CERT)
    entries = answer.json()["evaluations"]

    call = answer.headers["x-decision-id"]
    assert [entry["context"]["id"] for entry in entries] == [f"{call}.{number}" for number in range(4)]
    assert entries[1] == {
        "decision": False,
        "context": {"id": f"{call}.1", "error": {"status": 400, "message": "evaluations[1].resource: is missing"}},
    }
    assert entries[3]["context"]["error"]["message"] == "evaluations[3]: must be an object"


# ── many evaluations ────────────────────────────────────────────────────────────────────────────────────────────────────

DENY, ALLOW = {"action": action("drop")}, {"action": action("read")}


@pytest.mark.parametrize(
    ("semantic", "entries", "expected"),
    [
        ("execute_all", [ALLOW, DENY, ALLOW], [True, False, True]),
        ("deny_on_first_deny", [ALLOW, DENY, ALLOW], [True, False]),
        ("deny_on_first_deny", [ALLOW, ALLOW], [True, True]),
        ("deny_on_first_deny", [ALLOW, {"action": 7}, ALLOW], [True, False]),
        ("permit_on_first_permit", [DENY, ALLOW, DENY], [False, True]),
        ("permit_on_first_permit", [{"action": 7}, DENY], [False, False]),
        ("permit_on_first_permit", [ALLOW, DENY], [True]),
    ],
)
def test_evaluations_go_no_further_than_their_semantic_says(
    cert: Sidecar, semantic: str, entries: list[Any], expected: list[bool]
) -> None:
    body = {
        "subject": subject("alice"),
        "resource": resource("record-1"),
        "evaluations": entries,
        "options": {"evaluations_semantic": semantic, "another_option": "value"},
    }

    assert decisions(ask(cert, EVALUATIONS, body, **CERT)) == expected


def test_an_entity_of_its_own_replaces_the_default_as_a_whole(cert: Sidecar) -> None:
    body = {
        "subject": subject("bob", role="admin"),
        "action": action("write", soft=True),
        "resource": resource("record-2", status="archived"),
        "context": {"tenant_id": "nobody's"},
        "evaluations": [
            {"context": {}},
            {"context": {}, "subject": subject("zoe")},
            {"context": {}, "subject": {"id": "zoe"}},
            {"context": {}, "subject": {"id": "zoe", "properties": {"role": "admin"}}},
            {"context": {}, "action": {"properties": {}}},
            {},
        ],
    }
    answer = ask(cert, EVALUATIONS, body, **CERT)
    codes = [entry["context"].get("code") for entry in answer["evaluations"]]

    assert codes == [
        "ALLOWED",
        "SUBJECT_NOT_MEMBER",
        "SUBJECT_NOT_MEMBER",
        "SUBJECT_NOT_MEMBER",
        "ALLOWED",
        "TENANT_MISMATCH",
    ]


# ── tenants, where identities are asserted ──────────────────────────────────────────────────────────────────────────────


def item(tenant: str, kind: str, **fields: Any) -> dict[str, Any]:
    """Write an item of a tenant."""
    return {"pk": f"TENANT#{tenant}", "sk": kind, **fields}


def allow(resource_type: str, *resources: str, **narrowing: Any) -> dict[str, Any]:
    """Write a rule that allows."""
    return {"effect": "ALLOW", "resourceType": resource_type, "resources": [*resources], **narrowing}


TENANTS = [
    item("acme", "TENANT"),
    item("acme", "USER#alice", roles=["clerk"]),
    item("acme", "USER#service:billing"),
    item("acme", "USER#gone", status="SUSPENDED"),
    item("acme", f"AGENT#{PRINCIPAL}"),
    item("acme", "RESOURCE#invoice#inv-1", attributes={"owner": "alice"}),
    item("acme", "RESOURCE#invoice#inv-2", status="SUSPENDED"),
    item(
        "acme",
        "POLICY#p",
        rules=[
            allow("invoice", "inv-*", actions=["view"], principals=[PRINCIPAL]),
            allow("invoice", "inv-3", actions=["view"]),
            allow(
                "invoice",
                "inv-1",
                actions=["pay"],
                conditions=[{"path": "/arguments/amount", "op": "lte", "value": 100}],
                obligations=[{"type": "LOG"}],
            ),
            allow("invoice", "inv-1", actions=["approve"], subjects={"users": ["service:billing"]}),
        ],
    ),
    item("globex/eu", "TENANT", membership="OPTIONAL"),
    item("globex/eu", "USER#gert"),
    item("globex/eu", "RESOURCE#invoice#inv-77"),
    item("globex/eu", "POLICY#p", rules=[allow("invoice", "**", actions=["view", "shred"])]),
    {"pk": "SHARED", "sk": "RESOURCE#invoice#inv-shared"},
]


@pytest.fixture(scope="module")
def tenants() -> Iterator[Sidecar]:
    """A sidecar that serves two tenants, and asks nobody for a token."""
    with serving(TENANTS) as sidecar:
        yield sidecar


def view(invoice: str = "inv-1", who: str = "alice", **context: Any) -> dict[str, Any]:
    """Ask whether a user may view an invoice."""
    return evaluation(who, "view", invoice, **context) | {"resource": resource(invoice, "invoice")}


@pytest.mark.parametrize(
    ("path", "context", "headers", "code"),
    [
        ("/tenants/acme", {}, {}, "ALLOWED"),
        ("", {"tenant_id": "acme"}, {}, "ALLOWED"),
        ("", {}, {"x-tenant-id": "acme"}, "ALLOWED"),
        ("", {}, {"x-amzn-bedrock-agentcore-runtime-custom-tenantid": "acme"}, "ALLOWED"),
        ("/tenants/acme", {"tenant_id": "acme"}, {"x-tenant-id": "acme"}, "ALLOWED"),
        ("/tenants/globex%2Feu", {}, {}, "ALLOWED"),
        ("/tenants/globex/eu", {}, {}, "ALLOWED"),
        ("/tenants/acme", {"tenant_id": "globex/eu"}, {}, "TENANT_MISMATCH"),
        ("/tenants/globex%2Feu", {"tenant_id": "acme"}, {}, "TENANT_MISMATCH"),
        ("/tenants/acme", {}, {"x-tenant-id": "globex/eu"}, "TENANT_MISMATCH"),
        ("", {"tenant_id": "acme"}, {"x-tenant-id": "globex/eu"}, "TENANT_MISMATCH"),
        ("", {"tenant_id": "acme"}, {"x-tenant-id": "acme "}, "ALLOWED"),  # a header has no spaces at its ends
        ("/tenants/ACME", {}, {}, "TENANT_UNKNOWN"),
    ],
)
def test_the_tenant_is_the_one_that_all_name(
    tenants: Sidecar, path: str, context: dict[str, str], headers: dict[str, str], code: str
) -> None:
    body = json.dumps(view(**context)).encode()
    answer = send(tenants, path + EVALUATION, body, headers).json()

    assert (answer["decision"], answer["context"]["code"]) == (code == "ALLOWED", code)


def test_without_a_tenant_there_is_no_decision(tenants: Sidecar) -> None:
    answer = post(tenants, EVALUATION, view())
    batch = ask(tenants, EVALUATIONS, {"evaluations": [view(), view(tenant_id="acme")]})

    assert (answer.status, answer.data.decode().partition(": is missing")[0]) == (
        400,
        "REQUEST_INVALID: context.tenant_id",
    )
    assert decisions(batch) == [False, True]


def test_one_batch_may_be_about_many_subjects_tenants_and_capabilities(tenants: Sidecar) -> None:
    pay = {
        "subject": subject("alice"),
        "action": action("pay"),
        "resource": resource("inv-1", "invoice"),
    }
    entries = [
        view(tenant_id="acme"),
        view("inv-77", "gert", tenant_id="globex/eu"),
        view("inv-77", "gert", tenant_id="acme"),
        view("inv-1", "eve", tenant_id="acme"),
        pay | {"context": {"tenant_id": "acme", "arguments": {"amount": 100}, "accepted_obligations": ["LOG"]}},
        pay | {"context": {"tenant_id": "acme", "arguments": {"amount": 100}}},
        pay | {"context": {"tenant_id": "acme", "arguments": {"amount": 101}, "accepted_obligations": ["LOG"]}},
        pay | {"context": {"tenant_id": "acme", "amount": 1, "accepted_obligations": ["LOG"]}},
    ]
    answer = ask(tenants, EVALUATIONS, {"evaluations": entries})

    assert [entry["context"]["code"] for entry in answer["evaluations"]] == [
        "ALLOWED",
        "ALLOWED",
        "SUBJECT_NOT_MEMBER",
        "SUBJECT_NOT_MEMBER",
        "ALLOWED",
        "OBLIGATION_UNSUPPORTED",
        "CONDITION_NOT_MET",
        "CONDITION_NOT_MET",
    ]
    assert answer["evaluations"][4]["context"]["obligations"] == [{"type": "LOG"}]


@pytest.mark.parametrize(
    ("who", "code"),
    [
        (subject("alice"), "ALLOWED"),
        (subject("alice", "identity"), "ALLOWED"),
        (subject("billing", "service"), "ALLOWED"),
        (subject("alice", "service"), "SUBJECT_NOT_MEMBER"),
        (subject("alice", "User"), "SUBJECT_NOT_MEMBER"),
        (subject("gone"), "SUBJECT_NOT_MEMBER"),
        (subject("gateway", "agent"), "IMPERSONATION"),
    ],
)
def test_ids_of_other_types_than_users_are_their_own(tenants: Sidecar, who: dict[str, Any], code: str) -> None:
    answer = ask(tenants, f"/tenants/acme{EVALUATION}", view() | {"subject": who})

    assert answer["context"]["code"] == code


# ── searches ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def found(answer: Any) -> list[str]:
    """Give the ids or names of the results."""
    return [entry.get("id") or entry["name"] for entry in answer["results"]]


VIEWING = {"subject": subject("alice"), "action": action("view"), "resource": {"type": "invoice"}}


@pytest.mark.parametrize(
    ("tenant", "kind", "body", "expected"),
    [
        ("acme", "resource", VIEWING, ["inv-1", "inv-3", "inv-shared"]),
        ("acme", "resource", VIEWING | {"subject": subject("eve")}, []),
        ("globex/eu", "resource", VIEWING, ["inv-77", "inv-shared"]),
        ("nobody", "resource", VIEWING, []),
        ("acme", "subject", VIEWING | {"subject": {"type": "user"}, "resource": resource("inv-1", "invoice")},
         ["alice", "service:billing"]),
        ("acme", "subject", VIEWING | {"subject": {"type": "service"}, "resource": resource("inv-1", "invoice")},
         ["billing"]),
        ("acme", "subject", VIEWING | {"subject": {"type": "user"}, "resource": resource("inv-2", "invoice")}, []),
        ("globex/eu", "subject", VIEWING | {"subject": {"type": "user"}, "resource": resource("inv-1", "invoice")},
         ["gert"]),
        ("acme", "action", VIEWING | {"resource": resource("inv-1", "invoice")}, ["view"]),
        ("acme", "action",
         VIEWING | {"resource": resource("inv-1", "invoice"), "subject": subject("billing", "service")},
         ["approve", "view"]),
        ("acme", "action",
         VIEWING | {
             "resource": resource("inv-1", "invoice"),
             "context": {"arguments": {"amount": 1}, "accepted_obligations": ["LOG"]},
         },
         ["pay", "view"]),
        ("globex/eu", "action", VIEWING | {"resource": resource("x", "invoice")}, ["shred", "view"]),
    ],
)  # fmt: skip
def test_a_search_finds_what_the_tenants_own_registry_allows(
    tenants: Sidecar, tenant: str, kind: str, body: Any, expected: list[str]
) -> None:
    answer = ask(tenants, f"/tenants/{quote(tenant, safe='')}{SEARCH}{kind}", body)

    assert found(answer) == expected


def test_a_search_finds_nothing_where_two_tenants_are_named(tenants: Sidecar) -> None:
    answer = ask(tenants, f"/tenants/acme{SEARCH}resource", VIEWING, x_tenant_id="globex/eu")

    assert found(answer) == []


def pages(sidecar: Sidecar, kind: str, body: Any, limit: int | None) -> Iterator[list[str]]:
    """Give the results page by page."""
    page: dict[str, Any] = {} if limit is None else {"limit": limit}
    while True:
        answer = ask(sidecar, SEARCH + kind, body | {"page": page}, x_tenant_id="crowd")
        assert answer["page"]["count"] == len(answer["results"])
        yield found(answer)
        if not answer["page"]["next_token"]:
            return
        page["token"] = answer["page"]["next_token"]


CROWD = [
    item("crowd", "TENANT"),
    *(item("crowd", f"USER#u{number:02}", roles=["odd"] if number % 2 else []) for number in range(40)),
    item("crowd", "POLICY#p", rules=[allow("room", "hall"), allow("room", "den", subjects={"roles": ["odd"]})]),
]
OF_ROOM = {"subject": {"type": "user"}, "action": action("enter"), "resource": resource("hall", "room")}
ODD = [f"u{number:02}" for number in range(40) if number % 2]


@pytest.fixture(scope="module")
def crowd() -> Iterator[Sidecar]:
    """A sidecar that serves a tenant of forty, ten to a page, and looks at twenty for one page."""
    with serving(CROWD, authzen__page_size=10, limits__batch_items=20) as sidecar:
        yield sidecar


@pytest.mark.parametrize(
    ("room", "limit", "sizes"),
    [
        ("hall", None, [10, 10, 10, 10]),
        ("hall", 7, [7, 7, 7, 7, 7, 5]),
        ("hall", 100, [10, 10, 10, 10]),
        ("den", None, [10, 10]),
        ("den", 3, [3, 3, 3, 3, 3, 3, 2]),
        ("attic", None, [0, 0]),
    ],
)
def test_the_pages_of_a_search_hold_every_result_once(
    crowd: Sidecar, room: str, limit: int | None, sizes: list[int]
) -> None:
    read = list(pages(crowd, "subject", OF_ROOM | {"resource": resource(room, "room")}, limit))

    assert [len(page) for page in read] == sizes
    everyone = {"hall": [f"u{number:02}" for number in range(40)], "den": ODD, "attic": []}
    assert [name for page in read for name in page] == everyone[room]


def test_a_page_without_room_leads_on(crowd: Sidecar) -> None:
    answer = ask(crowd, f"{SEARCH}subject", OF_ROOM | {"page": {"limit": 0}}, x_tenant_id="crowd")

    assert answer["results"] == []
    assert answer["page"]["next_token"]


@pytest.mark.parametrize(
    ("change", "tenant", "page", "field"),
    [
        ({"resource": resource("den", "room")}, "crowd", {}, "page.token"),
        ({"context": {"x": 1}}, "crowd", {}, "page.token"),
        ({"unknown": 1}, "crowd", {}, "page.token"),
        ({}, "other", {}, "page.token"),
        ({}, "crowd", {"limit": 6}, "page.limit"),
    ],
)
def test_a_token_is_good_for_the_same_search_alone(
    crowd: Sidecar, change: dict[str, Any], tenant: str, page: dict[str, Any], field: str
) -> None:
    first = ask(crowd, f"{SEARCH}subject", OF_ROOM | {"page": {"limit": 5}}, x_tenant_id="crowd")
    token = first["page"]["next_token"]
    same = ask(crowd, f"{SEARCH}subject", OF_ROOM | {"page": {"limit": 5, "token": token}}, x_tenant_id="crowd")
    other = post(crowd, f"{SEARCH}subject", OF_ROOM | change | {"page": {**page, "token": token}}, x_tenant_id=tenant)

    assert found(same) == ["u05", "u06", "u07", "u08", "u09"]
    assert other.status == 400
    assert other.data.decode().startswith(f"REQUEST_INVALID: {field}: ")


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

WITH_TOKENS = [
    item("acme", "TENANT"),
    *(item("acme", f"USER#{name}") for name in ("alice", "bob")),
    item("acme", "AGENT#agent:gateway", scopes=["tools:read", "tools:write"]),
    item("acme", "AGENT#agent:reader", scopes=["tools:read"]),
    item("acme", "RESOURCE#invoice#inv-1", access="READ"),
    item("acme", "RESOURCE#invoice#inv-w", access="WRITE"),
    item(
        "acme",
        "POLICY#p",
        rules=[
            allow("invoice", "inv-*", actions=["view"]),
            allow("invoice", "inv-1", actions=["audit"], subjects={"roles": ["auditor"]}),
            allow(
                "invoice",
                "inv-1",
                actions=["sign"],
                conditions=[{"path": "/subject/properties/mfa", "op": "eq", "value": True}],
            ),
        ],
    ),
    item("globex", "TENANT", membership="OPTIONAL"),
    item("globex", "POLICY#p", rules=[allow("invoice", "**")]),
]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentIssuer:
    """An issuer that the sidecar with tokens believes."""
    return DevelopmentIssuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def verifying(issuer: DevelopmentIssuer) -> Iterator[Sidecar]:
    """A sidecar that believes tokens alone, and takes one property of subjects from them."""
    believed = issuer.settings() | {"claims": {"properties": {"mfa": "mfa"}}}
    with serving(
        WITH_TOKENS, identity__mode="verified", identity__issuers=[believed], authzen__principal=None
    ) as sidecar:
        yield sidecar


def bearer(issuer: DevelopmentIssuer, who: str = "alice", agent: str = "agent:gateway", **more: Any) -> dict[str, str]:
    """Give the header with the token of an agent that acts for a user of acme."""
    said = {"scopes": ("tools:read", "tools:write"), **more}
    return {"authorization": f"Bearer {issuer.mint(said.pop('tenant', 'acme'), who, agent, **said)}"}


def code(sidecar: Sidecar, headers: dict[str, str], body: dict[str, Any], path: str = "") -> str:
    """Ask with a token, and give the code of the decision."""
    answer = send(sidecar, path + EVALUATION, json.dumps(body).encode(), headers)
    assert answer.status == 200, answer.data
    told: str = answer.json()["context"]["code"]
    return told


def test_the_token_is_that_of_the_enforcement_point_and_the_subject_that_of_the_request(
    verifying: Sidecar, issuer: DevelopmentIssuer
) -> None:
    assert code(verifying, bearer(issuer), view(who="bob")) == "ALLOWED"
    assert code(verifying, bearer(issuer, ""), view(who="bob")) == "ALLOWED"
    assert code(verifying, bearer(issuer), view(who="eve")) == "SUBJECT_NOT_MEMBER"
    assert code(verifying, bearer(issuer, agent="agent:stranger"), view()) == "DELEGATION_INVALID"
    assert code(verifying, bearer(issuer, agent="alice"), view()) == "IMPERSONATION"
    assert code(verifying, bearer(issuer, agent=""), view()) == "IMPERSONATION"


def test_scopes_and_delegation_are_those_of_the_token(verifying: Sidecar, issuer: DevelopmentIssuer) -> None:
    reading = bearer(issuer, scopes=("tools:read",))
    assert code(verifying, reading, view("inv-1")) == "ALLOWED"
    assert code(verifying, reading, view("inv-w")) == "SCOPE_INSUFFICIENT"
    assert code(verifying, bearer(issuer, delegation=["agent:reader"]), view("inv-w")) == "SCOPE_INSUFFICIENT"
    assert code(verifying, bearer(issuer, delegation=["agent:stranger"]), view("inv-1")) == "DELEGATION_INVALID"


@pytest.mark.parametrize(
    ("path", "context", "header"),
    [("/tenants/globex", {}, None), ("", {"tenant_id": "globex"}, None), ("", {}, "globex")],
)
def test_the_tenant_is_that_of_the_token(
    verifying: Sidecar, issuer: DevelopmentIssuer, path: str, context: dict[str, str], header: str | None
) -> None:
    of_acme, of_globex = bearer(issuer), bearer(issuer, tenant="globex")
    named = {} if header is None else {"x-tenant-id": header}

    assert code(verifying, of_globex | named, view(**context), path) == "ALLOWED"
    assert code(verifying, of_acme | named, view(**context), path) == "TENANT_MISMATCH"


def test_roles_of_the_token_are_those_of_its_subject_alone(verifying: Sidecar, issuer: DevelopmentIssuer) -> None:
    auditor = bearer(issuer, roles=("auditor",))
    audit = view() | {"action": action("audit")}

    assert code(verifying, auditor, audit) == "ALLOWED"
    assert code(verifying, auditor, audit | {"subject": subject("bob")}) == "NO_MATCHING_RULE"
    assert code(verifying, bearer(issuer, "bob"), audit) == "NO_MATCHING_RULE"
    search = audit | {"subject": {"type": "user"}}
    assert found(ask(verifying, f"{SEARCH}subject", search, **auditor)) == ["alice"]
    assert found(ask(verifying, f"{SEARCH}subject", search, **bearer(issuer))) == []


def test_who_may_act_is_said_by_the_subject_of_the_token_alone(verifying: Sidecar, issuer: DevelopmentIssuer) -> None:
    another = bearer(issuer, may_act={"sub": "agent:another"})

    assert code(verifying, another, view()) == "DELEGATION_INVALID"
    assert code(verifying, another, view(who="bob")) == "ALLOWED"


def test_properties_that_come_from_tokens_come_from_nowhere_else(verifying: Sidecar, issuer: DevelopmentIssuer) -> None:
    sign = view() | {"action": action("sign")}
    proven, unproven = bearer(issuer, mfa=True), bearer(issuer)

    assert code(verifying, proven, sign) == "ALLOWED"
    assert code(verifying, proven, sign | {"subject": subject("alice", mfa=True, floor=3)}) == "ALLOWED"
    assert code(verifying, proven, sign | {"subject": subject("bob")}) == "CONDITION_NOT_MET"
    for headers, who in (
        (unproven, subject("alice", mfa=True)),
        (proven, subject("alice", mfa=False)),
        (proven, subject("bob", mfa=True)),
    ):
        answer = send(verifying, EVALUATION, json.dumps(sign | {"subject": who}).encode(), headers)
        assert (answer.status, answer.data.split(b": ")[1]) == (400, b"subject.properties.mfa")
    search = {**sign, "subject": {"type": "user"}}
    assert found(ask(verifying, f"{SEARCH}subject", search, **proven)) == ["alice"]
    said = {**sign, "subject": {"type": "user", "properties": {"mfa": True}}}
    assert post(verifying, f"{SEARCH}subject", said, **proven).status == 400


@pytest.mark.parametrize(
    "path", [EVALUATION, EVALUATIONS, *(SEARCH + kind for kind in ("subject", "resource", "action"))]
)
def test_without_a_good_token_nothing_is_read(verifying: Sidecar, issuer: DevelopmentIssuer, path: str) -> None:
    none = send(verifying, path, b"not JSON")
    expired = send(verifying, path, b"not JSON", bearer(issuer, lifetime=-100))
    good = send(verifying, path, b"not JSON", bearer(issuer))

    assert (none.status, none.headers["www-authenticate"]) == (401, 'Bearer realm="tenantgate"')
    assert none.data.startswith(b"TOKEN_MISSING: ")
    assert (expired.status, expired.headers["www-authenticate"]) == (
        401,
        'Bearer realm="tenantgate", error="invalid_token"',
    )
    assert expired.data.startswith(b"TOKEN_EXPIRED: ")
    assert good.status == 400
