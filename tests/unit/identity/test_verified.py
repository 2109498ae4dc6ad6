"""What becomes of the identity that a request states beside a token. Over the wire: ``integration/test_tokens.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import ParseDict

from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage
from sidecar.identity.verified import Verified
from sidecar.model import Tenant
from sidecar.translate import Limits
from tests.support.tokens import good_claims, identity_settings, issuer_settings, signer, write_keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.identity import Caller

ES = signer("ES256")
CLAIMS = good_claims(
    act={"sub": "agent:a", "act": {"sub": "agent:b", "scope": "x y", "act": {"sub": "agent:c"}}},
    roles=["r1", "r2"],
    org={"unit": "sales", "level": 3},
    may_act={"sub": "agent:a"},
)
PROPERTIES = {"unit": ["org", "unit"], "level": ["org", "level"], "region": "region"}


@pytest.fixture
def verified(tmp_path: Path) -> Iterator[Verified]:
    jwks = write_keys(tmp_path / "keys.json", ES.jwk())
    settings = identity_settings(
        issuer_settings(jwks, claims={"properties": PROPERTIES}), tenant_headers=("x-tenant-id", "x-customer")
    )
    verified = Verified(settings, Limits())
    yield verified
    verified.close()


def establish(verified: Verified, stated: dict[str, Any], **headers: list[str]) -> Caller:
    metadata = {"authorization": [f"Bearer {ES.token(CLAIMS)}"]} | {k.replace("_", "-"): v for k, v in headers.items()}
    return verified.establish(ParseDict(stated, IdentityMessage()), metadata)


def wrong_field(verified: Verified, stated: dict[str, Any], **headers: list[str]) -> str:
    """Give the field that is refused."""
    with pytest.raises(InvalidRequestError) as refused:
        establish(verified, stated, **headers)
    return refused.value.field


def test_the_identity_is_that_of_the_token_which_goes_with_it(verified: Verified) -> None:
    caller = establish(verified, {})

    assert caller.token is not None
    assert caller.identity == caller.token.identity
    assert caller.identity.may_act == ("agent:a",)


WHOLE: dict[str, Any] = {
    "tenant_id": "Tenant-A",
    "principal": {"id": "agent:a"},
    "subject": {"id": "alice", "roles": ["r2", "r1", "r1"], "properties": {"unit": "sales", "level": 3}},
    "delegation": [{"id": "agent:b", "scopes": {"values": ["y", "x"]}}, {"id": "agent:c"}],
    "scopes": ["tools:write", "tools:read"],
}


def test_a_request_that_repeats_all_of_it_changes_nothing_but_the_tenants_that_are_named(verified: Verified) -> None:
    plain, repeated = establish(verified, {}).identity, establish(verified, WHOLE).identity

    assert repeated.tenant == Tenant("Tenant-A", ("Tenant-A",))
    assert (repeated.principal, repeated.subject, repeated.delegation, repeated.scopes, repeated.may_act) == (
        plain.principal,
        plain.subject,
        plain.delegation,
        plain.scopes,
        plain.may_act,
    )


def test_tenants_that_the_request_names_are_named_and_nothing_more(verified: Verified) -> None:
    tenant = establish(verified, {"tenant_id": "T1"}, x_customer=["T3"], x_tenant_id=["T2", "Tenant-A"]).identity.tenant

    assert tenant == Tenant("Tenant-A", ("T1", "T2", "Tenant-A", "T3"))


@pytest.mark.parametrize(
    ("field", "stated"),
    [
        ("identity.principal.id", {"principal": {"id": "agent:b"}}),
        ("identity.principal.id", {"principal": {"id": "alice"}}),
        ("identity.subject.id", {"subject": {"id": "Alice"}}),
        ("identity.subject.roles", {"subject": {"roles": ["r1"]}}),
        ("identity.subject.roles", {"subject": {"roles": ["r1", "r2", "r3"]}}),
        ("identity.scopes", {"scopes": ["tools:read"]}),
        ("identity.scopes", {"scopes": ["tools:read", "tools:write", "admin"]}),
        ("identity.delegation", {"delegation": [{"id": "agent:b"}, {"id": "agent:c"}]}),
        ("identity.delegation", {"delegation": WHOLE["delegation"][:1]}),
        ("identity.delegation", {"delegation": WHOLE["delegation"][::-1]}),
        ("identity.delegation", {"delegation": [*WHOLE["delegation"], {"id": "agent:d"}]}),
        ("identity.subject.properties.unit", {"subject": {"properties": {"unit": "hr"}}}),
        ("identity.subject.properties.level", {"subject": {"properties": {"level": "3"}}}),
        ("identity.subject.properties.region", {"subject": {"properties": {"region": "eu"}}}),
        ("identity.subject.properties.region", {"subject": {"properties": {"region": None}}}),
    ],
    ids=str,
)
def test_a_request_that_states_something_else_is_invalid_at_its_path(
    verified: Verified, field: str, stated: dict[str, Any]
) -> None:
    assert wrong_field(verified, stated) == field


@pytest.mark.parametrize(
    ("field", "stated"),
    [
        ("identity.tenant_id", {"tenant_id": "Tenant-A\u200b"}),
        ("identity.subject.id", {"subject": {"id": "alice\0"}}),
        ("identity.scopes[1]", {"scopes": ["tools:read", ""]}),
        ("identity.scopes", {"scopes": ["x"] * 257}),
        ("identity.delegation[0].id", {"delegation": [{}]}),
    ],
    ids=str,
)
def test_what_is_stated_is_checked_like_an_asserted_identity(
    verified: Verified, field: str, stated: dict[str, Any]
) -> None:
    assert wrong_field(verified, stated) == field


def test_an_ill_formed_tenant_in_a_header_is_invalid(verified: Verified) -> None:
    assert wrong_field(verified, {}, x_tenant_id=["Tenant-A\u200b"]).startswith("metadata")


def test_properties_of_the_request_stand_beside_those_of_the_token(verified: Verified) -> None:
    stated = {"subject": {"properties": {"channel": "chat", "unit": "sales"}}}

    assert establish(verified, stated).identity.subject.properties == {"channel": "chat", "unit": "sales", "level": 3}


def test_the_message_of_the_request_is_left_as_it_is(verified: Verified) -> None:
    message = ParseDict({"scopes": ["tools:read", "tools:write"]}, IdentityMessage())
    before = message.SerializeToString()

    verified.establish(message, {"authorization": [f"Bearer {ES.token(CLAIMS)}"]})

    assert message.SerializeToString() == before
