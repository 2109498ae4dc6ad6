"""The tenant in headers: what is sent, what is kept, and what is not believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import InvalidRequestError
from sidecar.model import id_fault
from sidecar.tenancy import TenantContext, TenantMismatchError, extract, inject

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
A = TenantContext("Tenant-A", token=TOKEN)
AGENTCORE = "X-Amzn-Bedrock-AgentCore-Runtime-Custom-TenantId"


def _sent(*headers: tuple[str, str], context: TenantContext = A) -> dict[str, str]:
    return dict(inject(context, headers))


# ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_carries_the_tenant_in_all_three_ways_and_the_token() -> None:
    assert _sent() == {
        "x-tenant-id": "Tenant-A",
        AGENTCORE.lower(): "Tenant-A",
        "baggage": "tenant_id=Tenant-A",
        "authorization": f"Bearer {TOKEN}",
    }


def test_a_context_without_a_token_sends_none() -> None:
    assert "authorization" not in _sent(context=TenantContext("Tenant-A"))


def test_a_token_that_was_exchanged_for_the_hop_is_left_alone() -> None:
    assert "authorization" not in _sent(("Authorization", "Bearer for-this-hop"))


def test_other_members_of_baggage_are_kept_as_they_are() -> None:
    sent = _sent(("Baggage", "key1=value1;property1, key2 = a%20b"), ("baggage", "key3=c=d"))

    assert sent["baggage"] == "tenant_id=Tenant-A,key1=value1;property1,key2 = a%20b,key3=c=d"


def test_a_tenant_that_is_in_the_baggage_already_is_not_added_again() -> None:
    assert _sent(("baggage", "a=b,tenant_id=Tenant-A"))["baggage"] == "tenant_id=Tenant-A,a=b"


def test_a_value_of_baggage_is_percent_encoded() -> None:
    sent = _sent(context=TenantContext('a b,c;d="100%"\\'))

    assert sent["baggage"] == "tenant_id=a%20b%2Cc%3Bd%3D%22100%25%22%5C"
    assert sent["x-tenant-id"] == 'a b,c;d="100%"\\'


def test_of_more_members_than_every_platform_passes_on_the_last_are_dropped() -> None:
    members = _sent(("baggage", ",".join(f"k{number}=v" for number in range(100))))["baggage"].split(",")

    assert members == ["tenant_id=Tenant-A", *(f"k{number}=v" for number in range(63))]


def test_of_more_bytes_than_every_platform_passes_on_the_last_members_are_dropped() -> None:
    baggage = _sent(("baggage", f"short=v,long={'x' * 8192},last=v"))["baggage"]

    assert baggage == "tenant_id=Tenant-A,short=v"


def test_headers_that_name_another_tenant_than_the_context_are_refused() -> None:
    with pytest.raises(TenantMismatchError, match=r"'Tenant-B', but the request .* is of 'Tenant-A'"):
        inject(A, [("X-Tenant-ID", "Tenant-B")])


@pytest.mark.parametrize(
    "tenant", ["Müller", "注文", " Tenant-A", "Tenant-A "], ids=["latin-1", "wide", "leading space", "trailing space"]
)
def test_a_tenant_that_a_header_would_change_is_refused_and_not_spelled_otherwise(tenant: str) -> None:
    with pytest.raises(InvalidRequestError, match="header x-tenant-id: must have ASCII characters alone"):
        inject(TenantContext(tenant), ())


@pytest.mark.parametrize("token", ["a b", "a\r\nx-tenant-id: Tenant-B", "tökén", "=a"])
def test_a_token_that_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        inject(TenantContext("Tenant-A", token=token), ())

    assert str(refused.value) == "header authorization: holds no token of the form that RFC 6750 describes"


# ── receiving ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMING: dict[str, list[tuple[Any, Any]]] = {
    "the plain header": [("x-tenant-id", "Tenant-A")],
    "the plain header in other letters": [("X-TENANT-Id", "Tenant-A")],
    "bytes, as ASGI has them": [(b"x-tenant-id", b"Tenant-A")],
    "AgentCore's header": [(AGENTCORE, "Tenant-A")],
    "baggage": [("baggage", "a=b, tenant_id = Tenant-A ;since=1, c=d")],
    "encoded baggage": [("baggage", "tenant_id=%54enant%2DA")],
    "one of two headers of baggage": [("baggage", "a=b"), ("baggage", "tenant_id=Tenant-A")],
    "all three": [("x-tenant-id", "Tenant-A"), (AGENTCORE, "Tenant-A"), ("baggage", "tenant_id=Tenant-A")],
}


@pytest.mark.parametrize("headers", _NAMING.values(), ids=_NAMING)
def test_a_tenant_is_read_in_whichever_way_it_is_named(headers: list[tuple[Any, Any]]) -> None:
    assert extract(headers).tenant_id == "Tenant-A"


def test_a_key_of_baggage_in_other_letters_is_another_key() -> None:
    assert extract([("baggage", "Tenant_Id=Tenant-B,x-tenant_id=Tenant-B")]).tenant_id is None


def test_headers_that_name_no_tenant_name_none() -> None:
    assert extract([("host", "Tenant-A"), ("tenant_id", "Tenant-A")]).tenant_id is None


_DIFFERING: dict[str, list[tuple[str, str]]] = {
    "the two headers": [("x-tenant-id", "Tenant-A"), (AGENTCORE, "Tenant-B")],
    "header and baggage": [("x-tenant-id", "Tenant-A"), ("baggage", "tenant_id=Tenant-B")],
    "the spelling": [("x-tenant-id", "Tenant-A"), ("baggage", "tenant_id=tenant-a")],
    "the third": [("x-tenant-id", "A"), (AGENTCORE, "A"), ("baggage", "tenant_id=B")],
}


@pytest.mark.parametrize("headers", _DIFFERING.values(), ids=_DIFFERING)
def test_two_tenants_are_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(TenantMismatchError, match="name different tenants"):
        extract(headers)


_MALFORMED: dict[str, list[tuple[Any, Any]]] = {
    "the plain header twice": [("x-tenant-id", "Tenant-A"), ("X-Tenant-Id", "Tenant-A")],
    "AgentCore's header twice": [(AGENTCORE, "Tenant-A"), (AGENTCORE, "Tenant-A")],
    "baggage with two members": [("baggage", "tenant_id=Tenant-A,tenant_id=Tenant-A")],
    "two headers of baggage with one each": [("baggage", "tenant_id=Tenant-A"), ("baggage", "tenant_id=Tenant-A")],
    "two authorizations": [("authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
    "an empty tenant": [("x-tenant-id", "")],
    "a tenant with a control character": [("x-tenant-id", "Tenant\x00A")],
    "a tenant in UTF-8": [(b"x-tenant-id", "Müller".encode())],
    "a tenant that is too long": [("x-tenant-id", "x" * 513)],
    "baggage without a value": [("baggage", "tenant_id")],
    "baggage with an empty value": [("baggage", "tenant_id=;a=b")],
    "baggage that is not UTF-8": [("baggage", "tenant_id=%FF")],
    "baggage with a raw letter": [("baggage", "tenant_id=Müller")],
    "baggage with an encoded line break": [("baggage", "tenant_id=a%0Ab")],
    "a token with spaces": [("authorization", "Bearer a b")],
    "no token after the scheme": [("authorization", "Bearer ")],
}


@pytest.mark.parametrize("headers", _MALFORMED.values(), ids=_MALFORMED)
def test_a_header_that_is_malformed_or_there_twice_is_refused(headers: list[tuple[Any, Any]]) -> None:
    with pytest.raises(InvalidRequestError, match=r"^header (x-|baggage tenant_id|authorization)"):
        extract(headers)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_is_read_whatever_the_letters_of_its_scheme(scheme: str) -> None:
    assert extract([("Authorization", f"{scheme} {TOKEN}")]).token == TOKEN


@pytest.mark.parametrize("value", ["Basic YTpi", TOKEN, "Bearer", ""], ids=["basic", "no scheme", "bare", "empty"])
def test_what_is_no_bearer_token_is_none(value: str) -> None:
    assert extract([("Authorization", value)]).token is None


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(extract([("authorization", f"Bearer {TOKEN}")]))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100).filter(str.strip))
def test_whatever_is_sent_is_received(tenant: str) -> None:
    context = TenantContext(tenant.strip(), token=TOKEN)
    received = extract([(name.encode(), value.encode("latin-1")) for name, value in inject(context, ())])

    assert (received.tenant_id, received.token) == (context.tenant_id, TOKEN)


@given(st.lists(st.tuples(st.sampled_from(["x-tenant-id", "baggage", "authorization", AGENTCORE]), st.binary())))
def test_whatever_is_received_is_read_or_refused(headers: list[tuple[str, bytes]]) -> None:
    try:
        named = extract(headers)
    except (InvalidRequestError, TenantMismatchError):
        return

    assert named.tenant_id is None or id_fault(named.tenant_id) is None
