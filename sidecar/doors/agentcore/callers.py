"""Who asks, by the headers of a request, and what the headers tell the target: pure functions.

A token is handed on to the sidecar, which verifies it; the headers that name a tenant are compared with it there, never believed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sidecar.doors.agentcore.events import header_values
from sidecar.doors.verdicts import Refusal
from sidecar.model import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.doors.agentcore.events import Headers
    from sidecar.doors.verdicts import Allowed

_TOKEN = re.compile(r"(?:bearer +)?([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
"""``Bearer`` and the b64token of RFC 6750 section 2.1; the gateway's documentation shows the token alone, too."""

_VISIBLE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
"""What a header carries unchanged."""

_TRACE, _LONGEST_TRACE = ("traceparent", "tracestate"), 512
"""The headers of W3C Trace Context, and how many characters of one everybody passes on."""

_CONTEXT = {"gatewayArn": "GATEWAY_ARN", "sourceIp": "SOURCE_IP"}
"""What conditions see as ``/context/...`` of what the gateway says in the client context of the function's call."""

_HEADERS_NOT_PASSED = Refusal(
    "UNAUTHENTICATED",
    "HEADERS_NOT_PASSED",
    "the gateway does not pass the headers of requests to the interceptor, so nobody can tell who calls: set "
    "inputConfiguration.passRequestHeaders to true in its interceptorConfigurations",
)
_TOKEN_MISSING = Refusal(
    "UNAUTHENTICATED",
    "TOKEN_MISSING",
    "the request has no token in `Authorization: Bearer TOKEN`: give the gateway the authorizer type CUSTOM_JWT, and call it "
    "with a token of its issuer",
)
_TENANT_NOT_READ = Refusal(
    "MALFORMED", "REQUEST_INVALID", "a header that names the tenant must hold visible ASCII characters"
)


class Caller(Struct, frozen=True):
    """Who asks, by their token, which must not be logged; ``tenants`` are the headers that name a tenant besides.

    ``request_id`` is what the gateway calls the request, empty where it does not say; ``context`` is what conditions may look at;
    ``trace`` are the headers that say which trace it is part of.
    """

    token: str
    tenants: tuple[tuple[str, str], ...]
    request_id: str
    context: dict[str, Json]
    trace: tuple[tuple[str, str], ...] = ()


class Callers:
    """Reads and writes headers. ``names`` are those that name a tenant, in lower case; targets look at ``told`` of these."""

    def __init__(self, names: Sequence[str], told: str | None) -> None:
        self._names = names
        self._told = told

    def caller(self, headers: Headers | None, context: Any) -> Caller | Refusal:
        """Say who asks. ``context`` is AWS Lambda's."""
        if headers is None:
            return _HEADERS_NOT_PASSED
        given = header_values(headers, "authorization")
        token = _TOKEN.fullmatch(given[0]) if len(given) == 1 else None
        if token is None:
            return _TOKEN_MISSING
        tenants = tuple((name, value) for name in self._names for value in header_values(headers, name))
        if not all(_VISIBLE.fullmatch(value) for _, value in tenants):
            return _TENANT_NOT_READ
        said = _said_by_gateway(context)
        seen = {name: said[key] for name, key in _CONTEXT.items() if key in said}
        trace = tuple((name, value) for name in _TRACE for value in header_values(headers, name) if _is_carried(value))
        return Caller(token[1], tenants, said.get("REQUEST_ID", ""), seen, trace)

    def without_tenant(self, headers: Headers | None) -> Headers | None:
        """Give the headers with which a request goes on that nobody was asked about: they name no tenant."""
        if headers is None:
            return None
        return {name: value for name, value in headers.items() if name.lower() not in self._names}

    def with_tenant(self, headers: Headers, allowed: Allowed) -> Headers | Refusal:
        """Give the headers with which a request goes on that was allowed: all that name a tenant name the proven one."""
        if not _VISIBLE.fullmatch(allowed.tenant_id):
            return Refusal(
                "NO_DECISION",
                "TENANT_NOT_CARRIED",
                "the tenant's id cannot be written in a header as it is, so no target could be told",
                allowed.decision_id,
            )
        # as they were spelt, so that the proven tenant takes the place of each, however the gateway puts them together
        names = [name for name in headers if name.lower() in self._names]
        if self._told is not None and self._told not in map(str.lower, names):
            names.append(self._told)
        return headers | dict.fromkeys(names, allowed.tenant_id)


def _is_carried(value: str) -> bool:
    return len(value) <= _LONGEST_TRACE and _VISIBLE.fullmatch(value) is not None


def _said_by_gateway(context: Any) -> dict[str, str]:
    custom = getattr(getattr(context, "client_context", None), "custom", None)
    said = custom if isinstance(custom, dict) else {}
    return {key: value for key, value in said.items() if isinstance(value, str) and _VISIBLE.fullmatch(value)}
