"""A simulator of IAM holds the policies that tenantgate writes: what is one tenant's is never another's."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.credentials.iam import Role, caller_policy, trust_principals, trust_provider
from sidecar.credentials.templates import load_templates
from tests.support.iam import ACCOUNT, Request, simulate, why_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sidecar.credentials.templates import Statement
    from tests.support.iam import Verdict

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=why_missing() or "")

TAG = "TenantID"
PLACE = {"tenant_tag": TAG, "region": "us-east-1", "account": ACCOUNT, "partition": "aws"}
UNTIL = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
NOW = UNTIL - timedelta(seconds=1)

# Names that AWS takes as tags, each in the way of another: beginnings of one another, other cases, look-alikes, paths.
_JOINED = [f"a{c}b" for c in "._-=@+:/ "]
TENANTS = ["a", "ab", "b", "A", "é", "テナント", "TENANT", "a.", "..a", "a/../b", "b/a", *_JOINED]

TEMPLATES = load_templates(None)
KINDS = TEMPLATES.kinds
BUCKET, FOLDER, TABLE = "acme-data", "documents/", "orders"
RESOURCES: dict[str, list[str]] = {
    "MEMORY": [],
    "KNOWLEDGE_BASE": [],
    "S3_PREFIX": [f"{BUCKET}/{FOLDER}"],
    "DYNAMODB_TABLE": [TABLE],
}
ROLE_POLICY = TEMPLATES.permission_policy(RESOURCES, **PLACE)
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def _id(kind: str, owner: str) -> str:
    """Name the resource of a type that holds what is a tenant's: its own where there is one for each, else the shared one."""
    number = TENANTS.index(owner)
    ids = {
        "MEMORY": f"memory{number}-0123456789",
        "KNOWLEDGE_BASE": f"KB{number:08}",
        "S3_PREFIX": f"{BUCKET}/{FOLDER}",
        "DYNAMODB_TABLE": TABLE,
    }
    return ids[kind]


def _request(kind: str, action: str, owner: str) -> Request:
    """Ask for something that is a tenant's."""
    region = f"{PLACE['region']}:{ACCOUNT}"
    match kind:
        case "MEMORY" | "KNOWLEDGE_BASE":
            service = "bedrock-agentcore" if kind == "MEMORY" else "bedrock"
            resource = f"arn:aws:{service}:{region}:{kind.lower().replace('_', '-')}/{_id(kind, owner)}"
            return Request(action=action, resource=resource, context={f"aws:ResourceTag/{TAG}": owner})
        case "S3_PREFIX":
            ours = {"s3:ResourceAccount": ACCOUNT}
            if action == "s3:ListBucket":
                context = ours | {"s3:prefix": f"{FOLDER}{owner}/"}
                return Request(action=action, resource=f"arn:aws:s3:::{BUCKET}", context=context)
            return Request(action=action, resource=f"arn:aws:s3:::{BUCKET}/{FOLDER}{owner}/b/x", context=ours)
        case _:
            keys = [owner, f"{owner}#b#1"]
            resource = f"arn:aws:dynamodb:{region}:table/{TABLE}"
            return Request(action=action, resource=resource, context={"dynamodb:LeadingKeys": keys})


def _asked(request: Request, tenant: str | None, when: datetime = NOW, **policies: Any) -> Request:
    """Ask as a session of a tenant, under some policies."""
    context = {**request.context, "aws:CurrentTime": when.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if tenant is not None:
        context[f"aws:PrincipalTag/{TAG}"] = tenant
    return Request(action=request.action, resource=request.resource, context=context, **policies)


def _session_policy(kind: str, action: str, tenant: str, owner: str) -> dict[str, Any]:
    """Give the policy of a tenant's session, for the resource that holds what is the owner's."""
    text = TEMPLATES.session_policy(kind, _id(kind, owner), action, tenant_id=tenant, until=UNTIL, **PLACE)
    policy: dict[str, Any] = json.loads(text)
    return policy


def _possible(kind: str) -> list[str]:
    """List the tenants that credentials for a type of resource are given to."""
    return [tenant for tenant in TENANTS if KINDS[kind].tenant_fault(tenant) is None]


def _pairs(kind: str, tenants: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Give every tenant with every owner and every statement, whose actions take turns."""
    for turn, (tenant, owner) in enumerate(product(tenants, _possible(kind))):
        for action, statements in KINDS[kind].actions.items():
            for statement in statements:
                yield tenant, owner, action, statement.action[turn % len(statement.action)]


def _crossings(kind: str, tenants: list[str], **policies: Callable[[str, str, str], Any]) -> list[tuple[str, str, str]]:
    """Ask for every pair, and list what is allowed to another tenant or not allowed to its owner.

    ``policies`` give a policy each for action, tenant and owner.
    """
    pairs = [*_pairs(kind, tenants)]
    requests = [
        _asked(
            _request(kind, iam_action, owner),
            tenant,
            **{n: make(action, tenant, owner) for n, make in policies.items()},
        )
        for tenant, owner, action, iam_action in pairs
    ]
    return [
        (tenant, owner, iam_action)
        for (tenant, owner, _, iam_action), verdict in zip(pairs, simulate(requests), strict=True)
        if (verdict.result == "Allowed") != (tenant == owner)
    ]


def _role_for(kind: str) -> dict[str, Any]:
    """Give the policy of a role for one type of resource alone, which is simulated the faster."""
    return TEMPLATES.permission_policy({kind: RESOURCES[kind]}, **PLACE)


def _results(requests: list[Request]) -> list[str]:
    return [verdict.result for verdict in simulate(requests)]


# ── tenants ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_tenants_enough_for_a_proof() -> None:
    assert {kind: len(_possible(kind)) >= 12 for kind in KINDS} == dict.fromkeys(KINDS, True)
    assert len({*TENANTS}) == len(TENANTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_reaches_what_is_its_tenants_and_nothing_of_another(kind: str) -> None:
    def session(action: str, tenant: str, owner: str) -> Any:
        return _session_policy(kind, action, tenant, owner)

    role = _role_for(kind)

    assert _crossings(kind, _possible(kind), identity=lambda *_: role, session=session) == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_session_policy_the_role_reaches_nothing_of_another_tenant(kind: str) -> None:
    # Also for tenants that credentials of the type are not given to, as they have sessions for other types.
    role = _role_for(kind)

    assert _crossings(kind, TENANTS, identity=lambda *_: role) == []


@pytest.mark.parametrize("kind", KINDS)
def test_under_a_role_that_may_do_everything_the_session_policy_reaches_nothing_of_another_tenant(kind: str) -> None:
    def session(action: str, tenant: str, owner: str) -> Any:
        return _session_policy(kind, action, tenant, owner)

    assert _crossings(kind, _possible(kind), identity=lambda *_: EVERYTHING, session=session) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_proof_fails_for_a_role_that_is_not_bound_to_the_tenant(kind: str) -> None:
    loosened = json.loads(json.dumps(_role_for(kind)).replace(f"${{aws:PrincipalTag/{TAG}}}", "*"))
    for statement in loosened["Statement"]:
        del statement["Condition"]

    crossings = _crossings(kind, _possible(kind), identity=lambda *_: loosened)

    assert {(tenant, owner) for tenant, owner, _ in crossings} == {
        (tenant, owner) for tenant in _possible(kind) for owner in _possible(kind) if tenant != owner
    }


def _statements() -> Iterator[tuple[str, str, Statement]]:
    for kind in KINDS:
        for action, statements in KINDS[kind].actions.items():
            for statement in statements:
                yield kind, action, statement


def _every_action(tenant: str | None, when: datetime = NOW) -> list[Verdict]:
    """Ask for every action of the table to what is a tenant's, with credentials for it."""
    return simulate(
        [
            _asked(
                _request(kind, iam_action, "a"),
                tenant,
                when,
                identity=ROLE_POLICY,
                session=_session_policy(kind, action, "a", "a"),
            )
            for kind, action, statement in _statements()
            for iam_action in statement.action
        ]
    )


def test_every_action_of_the_table_is_one_that_aws_has_with_the_keys_that_conditions_look_at() -> None:
    verdicts = _every_action("a")

    assert {verdict.result for verdict in verdicts} == {"Allowed"}
    assert {key for verdict in verdicts for key in verdict.ignored} == set()


def test_after_the_end_nothing_is_allowed() -> None:
    assert {verdict.result for verdict in _every_action("a", UNTIL)} == {"ImplicitlyDenied"}


@pytest.mark.parametrize("tenant", [None, ""])
def test_a_session_without_a_tenant_reaches_nothing(tenant: str | None) -> None:
    assert {verdict.result for verdict in _every_action(tenant)} == {"ImplicitlyDenied"}


def test_a_session_without_a_tenant_is_not_that_of_what_is_tagged_with_nothing() -> None:
    # The simulator lets a variable with an empty value match nothing. Should AWS put the empty text in, it is no way in either.
    put_in = json.loads(json.dumps(ROLE_POLICY).replace(f"${{aws:PrincipalTag/{TAG}}}", ""))
    knowledge_base = _request("KNOWLEDGE_BASE", "bedrock:Retrieve", "a")
    untagged = Request(
        action=knowledge_base.action, resource=knowledge_base.resource, context={f"aws:ResourceTag/{TAG}": ""}
    )

    assert _results([_asked(untagged, "", identity=put_in)]) == ["ImplicitlyDenied"]


@pytest.mark.parametrize("action", ["read", "write"])
@pytest.mark.parametrize("kind", KINDS)
def test_credentials_for_one_action_are_not_good_for_another(kind: str, action: str) -> None:
    other = {"read": "write", "write": "read"}[action]
    session = _session_policy(kind, action, "a", "a")
    actions = [iam_action for statement in KINDS[kind].actions[other] for iam_action in statement.action]
    requests = [_asked(_request(kind, name, "a"), "a", identity=ROLE_POLICY, session=session) for name in actions]

    assert {*_results(requests)} == {"ImplicitlyDenied"}


_TABLE = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{TABLE}"
_OURS = {"s3:ResourceAccount": ACCOUNT}
_KEYS = {"dynamodb:LeadingKeys": ["a"]}
_OWN = {f"aws:ResourceTag/{TAG}": "a"}
_NOBODYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a list of the whole bucket": ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", _OURS),
    "a list of all tenants": ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", _OURS | {"s3:prefix": FOLDER}),
    "a list of all whose names begin so": (
        "s3:ListBucket",
        f"arn:aws:s3:::{BUCKET}",
        _OURS | {"s3:prefix": f"{FOLDER}a"},
    ),
    "an object beside the tenant's folder": ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{FOLDER}a", _OURS),
    "an object beside the folder of folders": ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/a/x", _OURS),
    "a folder of the tenant's name in another's": ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{FOLDER}b/a/x", _OURS),
    "another bucket": ("s3:GetObject", f"arn:aws:s3:::{BUCKET}-2/{FOLDER}a/x", _OURS),
    "a bucket of that name in another account": (
        "s3:GetObject",
        f"arn:aws:s3:::{BUCKET}/{FOLDER}a/x",
        {"s3:ResourceAccount": "999999999999"},
    ),
    "a batch with another's item": ("dynamodb:BatchGetItem", _TABLE, {"dynamodb:LeadingKeys": ["a", "b"]}),
    "a request that says no key": ("dynamodb:GetItem", _TABLE, {}),
    "a scan": ("dynamodb:Scan", _TABLE, {}),
    "a statement of PartiQL": ("dynamodb:PartiQLSelect", _TABLE, _KEYS),
    "an index, which has other keys": ("dynamodb:Query", f"{_TABLE}/index/by-status", _KEYS),
    "another table": ("dynamodb:GetItem", f"{_TABLE}-2", _KEYS),
    "a key that the tenant begins": ("dynamodb:GetItem", _TABLE, {"dynamodb:LeadingKeys": ["ab"]}),
    "a memory that is not tagged": (
        "bedrock-agentcore:GetEvent",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:memory/x-0123456789",
        {},
    ),
    "a memory of another account": (
        "bedrock-agentcore:GetEvent",
        "arn:aws:bedrock-agentcore:us-east-1:999999999999:memory/x-0123456789",
        _OWN,
    ),
    "the end of a memory": (
        "bedrock-agentcore:DeleteMemory",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:memory/x-0123456789",
        _OWN,
    ),
    "another tag on a memory": (
        "bedrock-agentcore:TagResource",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:memory/x-0123456789",
        _OWN,
    ),
}


def test_what_is_nobodys_is_reached_by_nobody() -> None:
    requests = [Request(action=action, resource=arn, context=context) for action, arn, context in _NOBODYS.values()]
    results = _results([_asked(request, "a", identity=ROLE_POLICY) for request in requests])

    assert dict(zip(_NOBODYS, results, strict=True)) == dict.fromkeys(_NOBODYS, "ImplicitlyDenied")


# ── trust ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

ROLE = Role.parse(f"arn:aws:iam::{ACCOUNT}:role/tenant-data")
SIDECAR = f"arn:aws:iam::{ACCOUNT}:role/agents"
SIDECAR_SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/agents/1"
PROVIDER = (
    f"arn:aws:iam::{ACCOUNT}:oidc-provider/accounts.google.com"  # the simulator knows the audience key of this one
)
ASKED = {
    f"aws:RequestTag/{TAG}": "a",
    "aws:TagKeys": [TAG],
    "sts:TransitiveTagKeys": [TAG],
    "sts:SourceIdentity": "alice",
}
BY_TOKEN = ASKED | {"accounts.google.com:aud": "tenantgate"}


def _without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ASKED.items() if key not in keys}


_ASSUMING: dict[str, tuple[dict[str, Any], str, bool]] = {
    "as the sidecar does": (ASKED, SIDECAR_SESSION, True),
    "without a tag": (
        _without(f"aws:RequestTag/{TAG}", "aws:TagKeys", "sts:TransitiveTagKeys"),
        SIDECAR_SESSION,
        False,
    ),
    "with another tag alone": (
        _without(f"aws:RequestTag/{TAG}") | {"aws:RequestTag/Team": "x", "aws:TagKeys": ["Team"]},
        SIDECAR_SESSION,
        False,
    ),
    "with one tag more": (ASKED | {"aws:RequestTag/Team": "x", "aws:TagKeys": [TAG, "Team"]}, SIDECAR_SESSION, False),
    "with the tag in another case": (ASKED | {"aws:TagKeys": ["tenantid"]}, SIDECAR_SESSION, False),
    "with an empty tenant": (ASKED | {f"aws:RequestTag/{TAG}": ""}, SIDECAR_SESSION, False),
    "with a tag that is not handed on": (_without("sts:TransitiveTagKeys"), SIDECAR_SESSION, False),
    "with another tag handed on": (ASKED | {"sts:TransitiveTagKeys": [TAG, "Team"]}, SIDECAR_SESSION, False),
    "without a source identity": (_without("sts:SourceIdentity"), SIDECAR_SESSION, False),
    "by another role": (ASKED, f"arn:aws:sts::{ACCOUNT}:assumed-role/agents-2/1", False),
    "by a role of that name in another account": (ASKED, "arn:aws:sts::999999999999:assumed-role/agents/1", False),
    "by a user": (ASKED, f"arn:aws:iam::{ACCOUNT}:user/agents", False),
    "by a session of the role itself": (ASKED, f"arn:aws:sts::{ACCOUNT}:assumed-role/tenant-data/x", False),
}


def _assumed(requests: Iterable[tuple[dict[str, Any], str]], action: str, **policies: Any) -> list[bool]:
    """Tell which principals may assume the role, tag the session, and set the source identity where there is one."""
    asked = [
        [
            Request(principal=principal, action=name, resource=ROLE.arn, context=context, **policies)
            for name in [action, "sts:TagSession"] + ["sts:SetSourceIdentity"] * ("sts:SourceIdentity" in context)
        ]
        for context, principal in requests
    ]
    results = iter(_results([request for together in asked for request in together]))
    return [{next(results) for _ in together} == {"Allowed"} for together in asked]


def test_the_role_is_assumed_by_the_sidecar_for_one_tenant_alone() -> None:
    trust = trust_principals([SIDECAR], TAG)
    requests = [(context, principal) for context, principal, _ in _ASSUMING.values()]
    assumed = _assumed(requests, "sts:AssumeRole", trust=trust, identity=caller_policy(ROLE))

    assert dict(zip(_ASSUMING, assumed, strict=True)) == {name: allowed for name, (_, _, allowed) in _ASSUMING.items()}


@pytest.mark.parametrize("operator", ["StringLike", "ForAllValues:StringEquals", "Null"])
def test_each_condition_of_the_trust_policy_is_needed(operator: str) -> None:
    trust = trust_principals([SIDECAR], TAG)
    for statement in trust["Statement"]:
        statement["Condition"].pop(operator, None)
    wrong = [(context, who) for context, who, allowed in _ASSUMING.values() if not allowed and who == SIDECAR_SESSION]

    assert any(_assumed(wrong, "sts:AssumeRole", trust=trust))


_BY_TOKEN: dict[str, tuple[dict[str, Any], str, bool]] = {
    "as the identity provider says": (BY_TOKEN, PROVIDER, True),
    "without a source identity": ({k: v for k, v in BY_TOKEN.items() if k != "sts:SourceIdentity"}, PROVIDER, True),
    "for another audience": (BY_TOKEN | {"accounts.google.com:aud": "another"}, PROVIDER, False),
    "for no audience": (ASKED, PROVIDER, False),
    "without a tenant": ({"accounts.google.com:aud": "tenantgate", "sts:SourceIdentity": "alice"}, PROVIDER, False),
    "with an empty tenant": (BY_TOKEN | {f"aws:RequestTag/{TAG}": ""}, PROVIDER, False),
    "with one tag more": (BY_TOKEN | {"aws:RequestTag/Team": "x", "aws:TagKeys": [TAG, "Team"]}, PROVIDER, False),
    "of another provider": (BY_TOKEN, PROVIDER.replace("accounts.google.com", "cognito-identity.amazonaws.com"), False),
    "by the sidecar": (BY_TOKEN, SIDECAR_SESSION, False),
}


def test_the_role_is_assumed_by_tokens_for_us_with_one_tenant_alone() -> None:
    trust = trust_provider(PROVIDER, ["tenantgate"], TAG)
    requests = [(context, principal) for context, principal, _ in _BY_TOKEN.values()]
    assumed = _assumed(requests, "sts:AssumeRoleWithWebIdentity", trust=trust)

    assert dict(zip(_BY_TOKEN, assumed, strict=True)) == {name: allowed for name, (_, _, allowed) in _BY_TOKEN.items()}
