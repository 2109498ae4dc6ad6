"""The middleware, driven as a server drives it: who is let through, in which context, and how others are refused."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from sidecar.errors import UnauthenticatedError
from sidecar.identity.tokens import VerifiedToken
from sidecar.model import Identity, Principal, Subject, Tenant
from sidecar.tenancy import NoTenantError, TenantMiddleware, current, use
from sidecar.tenancy.context import TenantContext


class _Known:
    """Believes the tokens ``of-TENANT``."""

    def verify(self, text: str) -> VerifiedToken:
        if not text.startswith("of-"):
            msg = f"a message with more than the caller's business: {text}"
            raise UnauthenticatedError(msg, "TOKEN_EXPIRED")
        identity = Identity(Tenant(text.removeprefix("of-")), Principal("agent:bot"), Subject("alice"))
        return VerifiedToken(text, "issuer", "id", identity, 0.0, {})


class _App:
    """Tells who its requests are of; ``None`` where there is no context."""

    def __init__(self) -> None:
        self.served: list[str | None] = []

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        try:
            self.served.append(current().tenant_id)
        except NoTenantError:
            self.served.append(None)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def _scope(*headers: tuple[str, str], kind: str = "http", path: str = "/", **more: Any) -> dict[str, Any]:
    return {"type": kind, "path": path, "headers": [(n.encode(), v.encode()) for n, v in headers], **more}


def _call(middleware: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(middleware(scope, receive, send))
    return sent


def _refusal(sent: list[dict[str, Any]]) -> tuple[int, str]:
    start, body = sent
    return start["status"], json.loads(body["body"])["reason"]


OF_A = ("authorization", "Bearer of-Tenant-A")
NAMED_A = ("x-tenant-id", "Tenant-A")


def test_a_request_is_served_in_the_context_of_its_token() -> None:
    app = _App()

    assert _call(TenantMiddleware(app, _Known()), _scope(OF_A, NAMED_A))[0]["status"] == 204
    assert app.served == ["Tenant-A"]


def test_the_context_ends_with_the_request() -> None:
    async def main() -> None:
        async def nowhere(*_: Any) -> None:
            pass

        middleware: Any = TenantMiddleware(_App(), _Known())
        await middleware(_scope(OF_A, NAMED_A), nowhere, nowhere)
        with pytest.raises(NoTenantError):
            current()

    asyncio.run(main())


_REFUSED: dict[str, tuple[int, str, list[tuple[str, str]]]] = {
    "no token": (401, "TOKEN_MISSING", [NAMED_A]),
    "another scheme": (401, "TOKEN_MISSING", [("authorization", "Basic YTpi"), NAMED_A]),
    "a token that is not believed": (401, "TOKEN_EXPIRED", [("authorization", "Bearer old"), NAMED_A]),
    "no tenant named": (400, "TENANT_HEADER_MISSING", [OF_A]),
    "another tenant named": (403, "TENANT_MISMATCH", [OF_A, ("x-tenant-id", "Tenant-B")]),
    "another tenant in the baggage": (403, "TENANT_MISMATCH", [OF_A, ("baggage", "tenant_id=Tenant-B")]),
    "two tenants named": (403, "TENANT_MISMATCH", [OF_A, NAMED_A, ("baggage", "tenant_id=Tenant-B")]),
    "a header twice": (400, "REQUEST_INVALID", [OF_A, NAMED_A, NAMED_A]),
    "two tokens": (400, "REQUEST_INVALID", [OF_A, OF_A, NAMED_A]),
}


@pytest.mark.parametrize(("status", "reason", "headers"), _REFUSED.values(), ids=_REFUSED)
def test_a_request_is_refused_before_the_application_sees_it(
    status: int, reason: str, headers: list[tuple[str, str]]
) -> None:
    app = _App()

    assert _refusal(_call(TenantMiddleware(app, _Known()), _scope(*headers))) == (status, reason)
    assert app.served == []


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [([], b"Bearer"), ([("authorization", "Bearer old")], b'Bearer error="invalid_token"')],
    ids=["no token", "a bad one"],
)
def test_the_challenge_says_whether_there_was_a_token(headers: list[tuple[str, str]], challenge: bytes) -> None:
    (start, _) = _call(TenantMiddleware(_App(), _Known()), _scope(*headers))

    assert dict(start["headers"])[b"www-authenticate"] == challenge


def test_a_refusal_does_not_tell_what_the_verifier_said() -> None:
    (_, body) = _call(TenantMiddleware(_App(), _Known()), _scope(("authorization", "Bearer old")))

    assert json.loads(body["body"]) == {"reason": "TOKEN_EXPIRED", "message": "the token is not believed"}


def test_the_tenant_need_not_be_named_where_that_is_not_demanded() -> None:
    app = _App()
    middleware = TenantMiddleware(app, _Known(), require_header=False)
    _call(middleware, _scope(OF_A))

    assert _refusal(_call(middleware, _scope(OF_A, ("x-tenant-id", "Tenant-B"))))[0] == 403
    assert app.served == ["Tenant-A"]


def test_exempt_paths_are_served_without_a_token_and_without_a_context() -> None:
    app = _App()
    middleware = TenantMiddleware(app, _Known())
    for path in ("/ping", "/.well-known/agent-card.json"):
        _call(middleware, _scope(path=path))
    with use(TenantContext("Tenant-B")):  # what a server left over from the request before
        _call(middleware, _scope(OF_A, NAMED_A, path="/ping"))

    assert app.served == [None, None, None]


@pytest.mark.parametrize("path", ["/ping/", "/ping/x", "//ping", "/PING", "/x/ping", ""])
def test_a_path_is_exempt_as_a_whole_or_not_at_all(path: str) -> None:
    assert _refusal(_call(TenantMiddleware(_App(), _Known()), _scope(path=path)))[0] == 401


def test_nothing_is_exempt_that_is_not_named() -> None:
    assert _refusal(_call(TenantMiddleware(_App(), _Known(), exempt=["/up"]), _scope(path="/ping")))[0] == 401


def test_a_context_that_a_server_left_over_is_not_that_of_the_next_request() -> None:
    app = _App()
    with use(TenantContext("Tenant-B")):
        _call(TenantMiddleware(app, _Known()), _scope(OF_A, NAMED_A))

    assert app.served == ["Tenant-A"]


def test_a_websocket_is_served_in_the_context_of_its_token() -> None:
    app = _App()
    _call(TenantMiddleware(app, _Known()), _scope(OF_A, NAMED_A, kind="websocket"))

    assert app.served == ["Tenant-A"]


def test_a_websocket_is_closed_before_it_opens_when_it_is_refused() -> None:
    app = _App()

    assert _call(TenantMiddleware(app, _Known()), _scope(kind="websocket", path="/ping")) == [
        {"type": "websocket.close", "code": 1008, "reason": "TOKEN_MISSING"}
    ]
    assert app.served == []


def test_a_websocket_is_refused_as_a_request_is_where_the_server_can() -> None:
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    sent = _call(TenantMiddleware(_App(), _Known()), _scope(NAMED_A, kind="websocket", extensions=extensions))

    assert _refusal(sent) == (401, "TOKEN_MISSING")
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]


def test_lifespan_passes() -> None:
    app = _App()
    _call(TenantMiddleware(app, _Known()), {"type": "lifespan"})

    assert app.served == [None]


def test_a_connection_of_an_unknown_type_is_not_served() -> None:
    app = _App()
    with pytest.raises(ValueError, match="unknown type 'webtransport'"):
        _call(TenantMiddleware(app, _Known()), _scope(OF_A, NAMED_A, kind="webtransport"))

    assert app.served == []


def test_a_verifier_that_waits_does_not_hold_up_the_loop() -> None:
    waiting, released = threading.Event(), threading.Event()

    class Slow(_Known):
        def verify(self, text: str) -> VerifiedToken:
            waiting.set()
            assert released.wait(5)
            return super().verify(text)

    async def main() -> list[str | None]:
        app = _App()

        async def nowhere(*_: Any) -> None:
            pass

        middleware: Any = TenantMiddleware(app, Slow())
        request = asyncio.create_task(middleware(_scope(OF_A, NAMED_A), nowhere, nowhere))
        await asyncio.to_thread(waiting.wait, 5)  # which would not come back if the loop were held up
        released.set()
        await request
        return app.served

    assert asyncio.run(main()) == ["Tenant-A"]


def test_a_verifier_that_fails_lets_nobody_through() -> None:
    class Broken(_Known):
        def verify(self, text: str) -> VerifiedToken:
            raise ZeroDivisionError(text)

    app = _App()
    with pytest.raises(ZeroDivisionError):
        _call(TenantMiddleware(app, Broken()), _scope(OF_A, NAMED_A))

    assert app.served == []
