"""The tenant and the token in the headers of calls between services: pure functions.

Three headers name the tenant: ``x-tenant-id``, the form that AgentCore Runtime lets through, and the member ``tenant_id`` of W3C
Baggage (https://www.w3.org/TR/baggage/). None of them is ever believed: the receiver compares them with the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, unquote

from sidecar.errors import InvalidRequestError
from sidecar.model import id_fault
from sidecar.tenancy.errors import TenantMismatchError

if TYPE_CHECKING:
    from sidecar.tenancy.context import TenantContext

Headers: TypeAlias = Iterable[tuple[str | bytes, str | bytes]]
"""Headers of HTTP or metadata of gRPC: pairs of name and value. Names are compared without regard to case."""

TENANT = "x-tenant-id"
AGENTCORE_TENANT = "x-amzn-bedrock-agentcore-runtime-custom-tenantid"
BAGGAGE = "baggage"
BAGGAGE_KEY = "tenant_id"
AUTHORIZATION = "authorization"

MOST_BAGGAGE_MEMBERS = 64
MOST_BAGGAGE_BYTES = 8192
"""What every platform passes on; of more than that it may drop any part."""

_MEMBER = f"{BAGGAGE} {BAGGAGE_KEY}"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token of RFC 6750 section 2.1
_BEARER = re.compile(r"bearer +(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Named:
    """What headers claim: the one tenant that they name, and the token that they carry, if they do."""

    tenant_id: str | None
    token: str | None = field(repr=False)


def inject(context: TenantContext, headers: Headers = ()) -> list[tuple[str, str]]:
    """Give the headers that a call needs to be one of the context's: to be added to ``headers``, or put in place of theirs.

    A token that ``headers`` carry already is left alone: it may be one that was exchanged for this hop. Members of baggage are
    kept, as many as all platforms pass on. Raises ``TenantMismatchError`` when ``headers`` name another tenant, and
    ``InvalidRequestError`` when the tenant's id cannot be written in a header as it is: what is compared byte for byte must not
    have two spellings.
    """
    values = _values(headers)
    named = _extract(values)
    tenant = context.tenant_id
    if named.tenant_id not in {None, tenant}:
        msg = f"the headers name the tenant {named.tenant_id!r}, but the request that is worked on is of {tenant!r}"
        raise TenantMismatchError(msg)
    _check(TENANT, tenant)
    added = [(TENANT, tenant), (AGENTCORE_TENANT, tenant), (BAGGAGE, _baggage(tenant, values.get(BAGGAGE, ())))]
    if context.token and AUTHORIZATION not in values:
        added.append((AUTHORIZATION, f"Bearer {_checked_token(context.token)}"))
    return added


def extract(headers: Headers) -> Named:
    """Read the tenant that headers name, in whichever way, and their bearer token.

    Raises ``TenantMismatchError`` when they name two tenants, and ``InvalidRequestError`` when a header is malformed, or there
    twice.
    """
    return _extract(_values(headers))


def _values(headers: Headers) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        key = _text(name).lower()
        if key in {TENANT, AGENTCORE_TENANT, BAGGAGE, AUTHORIZATION}:
            values.setdefault(key, []).append(_text(value))
    return values


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _extract(values: dict[str, list[str]]) -> Named:
    named: dict[str, str] = {}
    for name in (TENANT, AGENTCORE_TENANT):
        value = _single(name, values.get(name, ()))
        if value is not None:
            named[name] = _check(name, value)
    members = [member for member in _members(values.get(BAGGAGE, ())) if _key(member) == BAGGAGE_KEY]
    member = _single(_MEMBER, members)
    if member is not None:
        named[BAGGAGE] = _baggage_value(member)
    if len({*named.values()}) > 1:
        msg = f"the headers {' and '.join(named)} name different tenants"
        raise TenantMismatchError(msg)
    bearer = _BEARER.fullmatch(_single(AUTHORIZATION, values.get(AUTHORIZATION, ())) or "")
    return Named(next(iter(named.values()), None), _checked_token(bearer[1]) if bearer else None)


def _single(name: str, values: Iterable[str]) -> str | None:
    there = [*values]
    if len(there) > 1:
        raise _malformed(name, f"must be there once, is there {len(there)} times")
    return there[0] if there else None


def _check(name: str, tenant: str) -> str:
    fault = id_fault(tenant)
    if not fault and not (tenant.isascii() and tenant == tenant.strip()):
        fault = "must have ASCII characters alone, and no space at an end: a header cannot carry others unchanged"
    if fault:
        raise _malformed(name, fault)
    return tenant


def _checked_token(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise _malformed(AUTHORIZATION, "holds no token of the form that RFC 6750 describes")
    return token


def _malformed(name: str, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"header {name}", fault)


# ── baggage ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _members(values: Iterable[str]) -> list[str]:
    """List the members of one or more baggage headers. A comma is never part of one."""
    return [member.strip(" \t") for value in values for member in value.split(",") if member.strip(" \t")]


def _key(member: str) -> str:
    return member.partition(";")[0].partition("=")[0].strip(" \t")


def _baggage_value(member: str) -> str:
    encoded = member.partition(";")[0].partition("=")[2].strip(" \t")
    try:
        tenant = unquote(encoded, errors="strict") if encoded.isascii() else ""
    except UnicodeDecodeError:
        tenant = ""
    if id_fault(tenant):
        raise _malformed(_MEMBER, "must be a tenant's id, percent-encoded in UTF-8")
    return tenant


def _baggage(tenant: str, values: Iterable[str]) -> str:
    others = [member for member in _members(values) if _key(member) != BAGGAGE_KEY]
    members = [f"{BAGGAGE_KEY}={quote(tenant, safe='')}", *others[: MOST_BAGGAGE_MEMBERS - 1]]
    while len(",".join(members).encode()) > MOST_BAGGAGE_BYTES:
        members.pop()
    return ",".join(members)
