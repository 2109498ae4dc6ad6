"""Calls of ``requests`` to other agents: with the tenant and the token, and to those agents alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from requests.auth import AuthBase
from requests.sessions import SessionRedirectMixin

from sidecar.tenancy.context import current
from sidecar.tenancy.headers import AGENTCORE_TENANT, AUTHORIZATION, BAGGAGE, TENANT, inject

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"https?://[^/?#@\s]+/?", re.IGNORECASE)


class TenantAuth(AuthBase):
    """Adds the headers of the context in force to calls to ``origins``, such as ``https://billing-agent.internal:9000``.

    Calls to other origins are left as they are, and a redirect to another origin takes none of the headers along: a token
    reaches nobody else. A call to one of ``origins`` outside of a context raises ``NoTenantError``.
    """

    def __init__(self, *origins: str) -> None:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                msg = f"{origin!r} is no origin: write https://HOST or https://HOST:PORT, without a path"
                raise ValueError(msg)
        self._origins = frozenset(map(_origin, origins))

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the headers."""
        if _origin(request.url or "") in self._origins:
            request.headers.update(inject(current(), request.headers.items()))
            request.register_hook("response", _forget_on_the_way_out)  # type: ignore[no-untyped-call]
        return request


def _forget_on_the_way_out(response: Response, **_: object) -> None:
    """Drop the headers where a redirect leads elsewhere: ``requests`` makes the next request of this one."""
    target = SessionRedirectMixin().get_redirect_target(response)
    if target is None or _origin(urljoin(response.url, target)) == _origin(response.url):
        return
    for name in (TENANT, AGENTCORE_TENANT, BAGGAGE, AUTHORIZATION):
        response.request.headers.pop(name, None)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Give scheme, host and port of a URL (RFC 6454), read as ``requests`` reads it to connect."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
