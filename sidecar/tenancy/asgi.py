"""ASGI middleware: a request is its token's tenant's, or it is refused before the application sees it.

It needs no framework: ``TenantMiddleware(app, verifier)`` wraps any ASGI application, and ``Middleware(TenantMiddleware,
verifier=verifier)`` is how Starlette and FastAPI take it. Refusals are JSON, with a stable ``reason``::

    400  REQUEST_INVALID        a header is malformed, or there twice
    400  TENANT_HEADER_MISSING  no header names the tenant, which a call between services must do
    401  TOKEN_MISSING          there is no bearer token
    401  ...                    the token is not believed; the reason is that of the verifier, such as TOKEN_EXPIRED
    403  TENANT_MISMATCH        a header names another tenant than the token, or than another header
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from sidecar.errors import InvalidRequestError, UnauthenticatedError
from sidecar.tenancy.context import TenantContext, use
from sidecar.tenancy.errors import TenantMismatchError
from sidecar.tenancy.headers import extract

if TYPE_CHECKING:
    from sidecar.identity.tokens import VerifiedToken
    from sidecar.tenancy.headers import Headers

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

EXEMPT = ("/ping", "/.well-known/agent-card.json")
"""What AgentCore Runtime and other agents ask of an agent without a token."""

_THREADS = 4

log = logging.getLogger(__name__)


class Verifier(Protocol):
    """What checks tokens: ``sidecar.identity.tokens.TokenVerifier``."""

    def verify(self, text: str, /) -> VerifiedToken:
        """Check a token and read it. Raises ``UnauthenticatedError``."""


class _Refusal(NamedTuple):
    """Why a request is not let through. ``challenge`` is the value of ``WWW-Authenticate`` (RFC 6750 section 3)."""

    status: int
    reason: str
    message: str
    challenge: str = ""


_TOKEN_MISSING = _Refusal(401, "TOKEN_MISSING", "a bearer token is needed", "Bearer")
_HEADER_MISSING = _Refusal(400, "TENANT_HEADER_MISSING", "a call between services must name its tenant: x-tenant-id")
_MISMATCH = _Refusal(403, "TENANT_MISMATCH", "the headers do not name the tenant of the token alone")


class TenantMiddleware:
    """Runs an application in the context of the tenant that the token of each request proves.

    ``require_header`` demands that a header names the tenant too. ``exempt`` are paths, compared whole, that are served without
    a token and without a context.
    """

    def __init__(
        self, app: App, verifier: Verifier, *, require_header: bool = True, exempt: Collection[str] = EXEMPT
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._require_header = require_header
        self._exempt = frozenset(exempt)
        # Verification may wait for an issuer's keys. It has threads of its own, as those of the loop may all be busy with tools.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tenant-tokens")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            msg = f"a connection of the unknown type {kind!r} cannot be told to be a tenant's"
            raise ValueError(msg)
        context = None
        if kind != "http" or scope["path"] not in self._exempt:
            admitted = await self._admit(scope["headers"])
            if isinstance(admitted, _Refusal):
                log.warning("refused %r: %s", scope["path"], admitted.reason)
                await _refuse(admitted, scope, send)
                return
            context = admitted
        # Without one, too: a server that answers pipelined requests may call from within the context of the one before.
        with use(context):
            await self._app(scope, receive, send)

    async def _admit(self, headers: Headers) -> TenantContext | _Refusal:
        try:
            named = extract(headers)
        except TenantMismatchError:
            return _MISMATCH
        except InvalidRequestError as fault:
            return _Refusal(400, "REQUEST_INVALID", str(fault))
        if named.token is None:
            return _TOKEN_MISSING
        try:
            verified = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._verifier.verify, named.token
            )
        except UnauthenticatedError as fault:
            return _Refusal(401, fault.reason, "the token is not believed", 'Bearer error="invalid_token"')
        return self._compare(named.tenant_id, TenantContext.of(verified))

    def _compare(self, named: str | None, proved: TenantContext) -> TenantContext | _Refusal:
        if named is None:
            return _HEADER_MISSING if self._require_header else proved
        return proved if named == proved.tenant_id else _MISMATCH


async def _refuse(refusal: _Refusal, scope: Scope, send: Send) -> None:
    prefix = ""
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})
            return
        prefix = "websocket."
    body = json.dumps({"reason": refusal.reason, "message": refusal.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.challenge:
        headers.append((b"www-authenticate", refusal.challenge.encode()))
    await send({"type": f"{prefix}http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": body})
