"""Who a token says is asking, for every kind of issuer, and which claims are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from sidecar.errors import UnauthenticatedError
from sidecar.identity.claims import audience_of, identity_from
from sidecar.model import Actor, Identity, Principal, Subject, Tenant
from sidecar.settings import Issuer
from tests.support.tokens import issuer_settings

# As Amazon Cognito writes them: https://docs.aws.amazon.com/cognito/latest/developerguide/
# amazon-cognito-user-pools-using-the-access-token.html and amazon-cognito-user-pools-using-the-id-token.html.
COGNITO_ACCESS = {
    "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "device_key": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "cognito:groups": ["admin", "support"],
    "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
    "version": 2,
    "client_id": "xxxxxxxxxxxxexample",
    "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "event_id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "token_use": "access",
    "scope": "phone openid profile",
    "auth_time": 1676313851,
    "exp": 1676317451,
    "iat": 1676313851,
    "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "username": "my-test-user",
    "custom:tenant_id": "acme",
}
COGNITO_ID = {
    "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "cognito:groups": ["support"],
    "cognito:username": "my-test-user",
    "aud": "xxxxxxxxxxxxexample",
    "token_use": "id",
    "custom:tenant_id": "acme",
}
# As RFC 8693 section 4.1 and RFC 9068 section 2.2 show them, with a tenant.
OAUTH = {
    "iss": "https://authorization-server.example.com/",
    "aud": "https://rs.example.com/",
    "sub": "5ba552d67",
    "client_id": "s6BhdRkqt3",
    "scope": "openid profile reademail",
    "roles": ["support", "viewer"],
    "tenant_id": "acme",
}
# As AgentCore has them exchanged for an agent that calls STS: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
TAGS = {"principal_tags": {"TenantID": ["acme"]}, "transitive_tag_keys": ["TenantID"]}
AGENTCORE = {
    "sub": "alice",
    "client_id": "xxxxxxxxxxxxexample",
    "act": {"sub": "agent:order-bot"},
    "scope": "tools:read",
    "https://aws.amazon.com/tags": TAGS,
}


def issuer(preset: str = "oauth", **claims: Any) -> Issuer:
    return msgspec.convert(issuer_settings(None, preset=preset, claims=claims), Issuer)


def refusal(claims: dict[str, Any], of: Issuer) -> str:
    """Give the message of the refusal."""
    with pytest.raises(UnauthenticatedError) as refused:
        identity_from(claims, of)
    assert refused.value.reason == "TOKEN_CLAIMS"
    return str(refused.value)


# ── presets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_of_an_oauth_server_names_tenant_user_client_roles_and_scopes() -> None:
    assert identity_from(OAUTH, issuer()) == Identity(
        tenant=Tenant("acme"),
        principal=Principal("s6BhdRkqt3"),
        subject=Subject("5ba552d67", ("support", "viewer")),
        scopes=("openid", "profile", "reademail"),
    )


@pytest.mark.parametrize(
    ("claims", "principal"),
    [
        ({"client_id": "a", "azp": "b"}, "a"),
        ({"azp": "b"}, "b"),
        ({"client_id": "a", "act": {"sub": "c"}}, "c"),
        ({}, ""),
    ],
)
def test_the_principal_is_the_actor_or_else_the_client(claims: dict[str, Any], principal: str) -> None:
    assert identity_from({"tenant_id": "acme", **claims}, issuer()).principal.id == principal


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b"}, ("a", "b")),
        ({"scope": " a  b "}, ("a", "b")),
        ({"scope": ""}, ()),
        ({"scope": "a b a"}, ("a", "b")),
        ({"scope": ["a", "b"]}, ("a", "b")),
        ({"scp": "a b"}, ("a", "b")),
        ({"scp": ["a"]}, ("a",)),
        ({"scope": "a", "scp": ["b"]}, ("a",)),
        ({}, ()),
    ],
)
def test_scopes_are_a_text_or_a_list(claims: dict[str, Any], scopes: tuple[str, ...]) -> None:
    assert identity_from({"tenant_id": "acme", **claims}, issuer()).scopes == scopes


def test_an_access_token_of_cognito_names_its_client_and_groups() -> None:
    assert identity_from(COGNITO_ACCESS, issuer("cognito")) == Identity(
        tenant=Tenant("acme"),
        principal=Principal("xxxxxxxxxxxxexample"),
        subject=Subject("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", ("admin", "support")),
        scopes=("phone", "openid", "profile"),
    )


def test_an_id_token_of_cognito_names_no_agent() -> None:
    assert identity_from(COGNITO_ID, issuer("cognito")).principal == Principal("")


@pytest.mark.parametrize("use", ["refresh", "", None, ["access"], "Access"])
def test_a_token_of_cognito_is_for_access_or_an_id(use: Any) -> None:
    assert refusal(COGNITO_ACCESS | {"token_use": use}, issuer("cognito")) == "token_use: must be access or id"


def test_a_token_of_cognito_says_what_it_is_for() -> None:
    without = {name: value for name, value in COGNITO_ACCESS.items() if name != "token_use"}

    assert refusal(without, issuer("cognito")).startswith("token_use: ")


def test_a_token_in_agentcore_names_the_tenant_as_sts_reads_it() -> None:
    assert identity_from(AGENTCORE, issuer("agentcore")) == Identity(
        tenant=Tenant("acme"),
        principal=Principal("agent:order-bot"),
        subject=Subject("alice"),
        scopes=("tools:read",),
    )


def test_a_token_in_agentcore_may_name_the_tenant_plainly() -> None:
    claims = {name: value for name, value in AGENTCORE.items() if name != "https://aws.amazon.com/tags"}

    assert identity_from(claims | {"tenant_id": "acme"}, issuer("agentcore")).tenant.id == "acme"
    assert identity_from(AGENTCORE | {"tenant_id": "acme"}, issuer("agentcore")).tenant.id == "acme"


def test_a_token_that_names_two_tenants_is_refused() -> None:
    said = refusal(AGENTCORE | {"tenant_id": "globex"}, issuer("agentcore"))

    assert said == (
        "https://aws.amazon.com/tags.principal_tags.TenantID.0 and tenant_id: name two tenants: a token must be for one"
    )


@pytest.mark.parametrize(
    "tags",
    [
        None,
        [],
        "acme",
        {"principal_tags": None},
        {"principal_tags": ["acme"]},
        {"principal_tags": {"TenantID": "acme"}},
        {"principal_tags": {"TenantID": {"0": "acme"}}},
        {"principal_tags": {"TenantID": [["acme"]]}},
        {"principal_tags": {"TenantID": [""]}},
        {"principal_tags": {"TenantID": ["acme", "globex"]}},
        {"principal_tags": {"TenantID": ["acme", "acme"]}},
    ],
)
def test_tags_of_another_shape_than_those_of_sts_are_refused_even_beside_a_tenant(tags: Any) -> None:
    claims = AGENTCORE | {"tenant_id": "acme", "https://aws.amazon.com/tags": tags}

    assert refusal(claims, issuer("agentcore")).startswith("https://aws.amazon.com/tags.principal_tags.TenantID.0: ")


@pytest.mark.parametrize("tags", [{}, {"principal_tags": {}}, {"principal_tags": {"TenantID": []}}])
def test_tags_without_a_tenant_name_none(tags: Any) -> None:
    claims = AGENTCORE | {"https://aws.amazon.com/tags": tags}

    assert refusal(claims, issuer("agentcore")).endswith("is missing: a token must say which tenant it is for")
    assert identity_from(claims | {"tenant_id": "acme"}, issuer("agentcore")).tenant.id == "acme"


# ── audiences ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("preset", "claims", "audience"),
    [
        ("oauth", {"aud": "a"}, ("a",)),
        ("oauth", {"aud": ["a", "b"]}, ("a", "b")),
        ("oauth", {"aud": []}, ()),
        ("oauth", {"client_id": "c"}, ()),
        ("cognito", COGNITO_ACCESS, ("xxxxxxxxxxxxexample",)),
        ("cognito", COGNITO_ID, ("xxxxxxxxxxxxexample",)),
        ("cognito", COGNITO_ACCESS | {"aud": "https://api.example"}, ("https://api.example",)),
        ("agentcore", AGENTCORE, ("xxxxxxxxxxxxexample",)),
        ("agentcore", AGENTCORE | {"aud": "a"}, ("a",)),
        ("agentcore", AGENTCORE | {"aud": []}, ()),
    ],
)
def test_a_token_is_meant_for_its_audience_or_with_aws_for_its_client(
    preset: str, claims: dict[str, Any], audience: tuple[str, ...]
) -> None:
    assert audience_of(claims, issuer(preset)) == audience


@pytest.mark.parametrize("aud", [None, 1, True, {}, [1], ["a", None], [[]], "", [""], [*map(str, range(257))]])
def test_an_audience_of_another_shape_is_refused(aud: Any) -> None:
    with pytest.raises(UnauthenticatedError, match="aud: ") as refused:
        audience_of({"aud": aud}, issuer())
    assert refused.value.reason == "TOKEN_CLAIMS"


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────────

DEEP = {
    "a": {"tenants": ["x", {"id": "acme"}], "roles": ["r1"]},
    "more": ["r2", "r1"],
    "who": "bot",
    "u": "alice",
    "s": "x y",
}


def test_claims_are_found_where_the_settings_say() -> None:
    said = issuer(
        tenant=["a", "tenants", 1, "id"],
        subject="u",
        principal=["nobody", "who"],
        roles=[["a", "roles"], "more"],
        scopes=["s"],
    )

    assert identity_from(DEEP, said) == Identity(
        tenant=Tenant("acme"),
        principal=Principal("bot"),
        subject=Subject("alice", ("r1", "r2")),
        scopes=("x", "y"),
    )


def test_settings_override_a_preset_one_by_one() -> None:
    assert identity_from(OAUTH | {"org": "globex"}, issuer(tenant="org")) == msgspec.structs.replace(
        identity_from(OAUTH, issuer()), tenant=Tenant("globex")
    )


def test_an_empty_list_in_the_settings_stands_for_nowhere() -> None:
    identity = identity_from(OAUTH, issuer(principal=[], roles=[], scopes=[]))

    assert (identity.principal.id, identity.subject.roles, identity.scopes) == ("", (), ())


@pytest.mark.parametrize("path", [["tenants", -1], ["tenants", 2]])
def test_a_position_that_a_list_does_not_have_is_nowhere(path: list[Any]) -> None:
    assert "is missing" in refusal({"tenants": ["acme", "globex"]}, issuer(tenant=path))


def test_a_name_with_a_dot_is_one_name() -> None:
    assert identity_from({"a.b": "acme"}, issuer(tenant="a.b")).tenant.id == "acme"


def test_properties_are_copied_as_they_are() -> None:
    claims = OAUTH | {"email": "a@acme.example", "org": {"unit": {"level": 3, "tags": ["x"]}}, "none": None}
    properties = {
        "mail": "email",
        "level": ["org", "unit", "level"],
        "unit": ["org", "unit"],
        "none": "none",
        "absent": "no",
    }

    assert identity_from(claims, issuer(properties=properties)).subject.properties == {
        "mail": "a@acme.example",
        "level": 3,
        "unit": {"level": 3, "tags": ["x"]},
        "none": None,
    }


# ── delegation ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_outermost_actor_is_the_principal_and_the_others_are_the_delegation() -> None:
    # the example of RFC 8693 section 4.1, one deeper
    act = {
        "sub": "https://service16.example.com",
        "act": {
            "sub": "https://service77.example.com",
            "scope": "a b",
            "act": {"sub": "https://service26.example.com"},
        },
    }
    identity = identity_from(OAUTH | {"act": act}, issuer())

    assert identity.principal == Principal("https://service16.example.com")
    assert identity.delegation == (
        Actor("https://service77.example.com", ("a", "b")),
        Actor("https://service26.example.com"),
    )


def test_an_actor_that_declares_no_scopes_differs_from_one_that_declares_none() -> None:
    act = {"sub": "a", "act": {"sub": "b", "scope": "", "act": {"sub": "c"}}}

    assert [actor.scopes for actor in identity_from(OAUTH | {"act": act}, issuer()).delegation] == [(), UNSET]


def test_the_scopes_of_the_principal_are_no_more_than_it_was_given() -> None:
    assert identity_from(OAUTH | {"act": {"sub": "a", "scope": "profile admin"}}, issuer()).scopes == ("profile",)


def test_what_else_is_known_of_an_actor_does_not_matter() -> None:
    act = {"sub": "a", "iss": "https://issuer.example", "client_id": "x", "exp": 1}

    assert identity_from(OAUTH | {"act": act}, issuer()).principal == Principal("a")


@pytest.mark.parametrize(
    ("said", "may_act"),
    [({"sub": "a"}, ("a",)), ([{"sub": "a"}, {"sub": "b", "iss": "x"}, {"sub": "a"}], ("a", "b")), ([], ())],
)
def test_who_may_act_is_one_or_several(said: Any, may_act: tuple[str, ...]) -> None:
    assert identity_from(OAUTH | {"may_act": said}, issuer()).may_act == may_act


def test_who_may_act_is_unset_where_nothing_says_so() -> None:
    assert identity_from(OAUTH, issuer()).may_act is UNSET


# ── ill-typed claims ────────────────────────────────────────────────────────────────────────────────────────────────────


def _nested(depth: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "a"}
    for _ in range(depth - 1):
        act = {"sub": "a", "act": act}
    return act


def test_as_many_actors_as_are_allowed_are_read() -> None:
    assert len(identity_from(OAUTH | {"act": _nested(256)}, issuer()).delegation) == 255


_ONE_TEXT: list[Any] = [
    None,
    1,
    1.5,
    True,
    [],
    ["acme"],
    {},
    "",
    "a\0",
    "a\n",
    "\u200b",
    "\u202e",
    "\ufeff",
    "\ud800",
    "x" * 513,
]
_TEXTS: list[Any] = [None, 1, True, {}, [1], [None], [["a"]], [""], ["a\0"], ["x" * 513], [*map(str, range(257))]]

_NO_ACTORS: list[Any] = [None, 1, "a", [], [{"sub": "a"}], {}]
_NOBODY: list[Any] = [None, 1, "a", {}, [None], ["a"], [[]], [{"sub": "a"}] * 257]

ILL_TYPED: list[tuple[str, str, Any]] = [
    *(("tenant_id", "tenant_id", value) for value in _ONE_TEXT),
    *(("sub", "sub", value) for value in _ONE_TEXT),
    *(("client_id", "client_id", value) for value in _ONE_TEXT),
    *(("roles", "roles", value) for value in [*_TEXTS, "a"]),
    *(("scope", "scope", value) for value in [*_TEXTS, "a\tb", "x" * 513, " ".join(map(str, range(257)))]),
    *(("act", "act (hop 0)", value) for value in _NO_ACTORS),
    *(("act", "sub of act (hop 0)", {"sub": value}) for value in _ONE_TEXT),
    *(("act", "act (hop 1)", {"sub": "a", "act": value}) for value in _NO_ACTORS),
    *(("act", "sub of act (hop 1)", {"sub": "a", "act": {"sub": value}}) for value in _ONE_TEXT),
    *(("act", "scope of act (hop 0)", {"sub": "a", "scope": value}) for value in _TEXTS),
    ("act", "act", _nested(257)),
    *(("may_act", "may_act", value) for value in _NOBODY),
    *(("may_act", "sub of may_act", {"sub": value}) for value in _ONE_TEXT),
]


@pytest.mark.parametrize(("claim", "named", "value"), ILL_TYPED)
def test_an_ill_typed_claim_is_refused_by_its_name(claim: str, named: str, value: Any) -> None:
    assert refusal(OAUTH | {claim: value}, issuer()).removeprefix("an entry of ").startswith(f"{named}: ")


def test_a_refusal_says_nothing_of_what_is_there() -> None:
    assert refusal(OAUTH | {"sub": "secret\0"}, issuer()) == "sub: must not contain the unprintable character U+0000"
