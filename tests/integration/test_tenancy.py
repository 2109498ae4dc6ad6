"""The tenant from service to service, over real HTTP and gRPC: kept, never mixed, and never believed without proof."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import requests
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from sidecar.identity.development import DevelopmentIssuer
from sidecar.identity.tokens import TokenVerifier
from sidecar.tenancy import (
    NoTenantError,
    TenantAuth,
    TenantContext,
    TenantInterceptor,
    TenantMiddleware,
    TenantMismatchError,
    aio_interceptors,
    current,
    use,
)
from tests.support.services import exchange_bytes, running_service
from tests.support.tokens import identity_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

LONG = 20
OURS = ("x-tenant-id", "x-amzn-bedrock-agentcore-runtime-custom-tenantid", "baggage", "authorization")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _who() -> dict[str, str]:
    try:
        context = current()
    except NoTenantError:
        return {"tenant": ""}
    return {"tenant": context.tenant_id, "subject": context.subject_id, "token": _digest(context.token)}


# ── two agents, of which one calls the other ────────────────────────────────────────────────────────────────────────────


def _callee() -> Starlette:
    async def who(_: Request) -> JSONResponse:
        return JSONResponse(_who())

    async def headers(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.headers))

    async def home(_: Request) -> RedirectResponse:
        return RedirectResponse("/headers")

    return Starlette(routes=[Route("/who", who), Route("/ping", who), Route("/headers", headers), Route("/home", home)])


def _caller(callee: str) -> Starlette:
    auth = TenantAuth(callee)

    def call_in_a_thread(forged: dict[str, str]) -> Any:
        answer = requests.get(f"{callee}/who", auth=auth, headers=forged, timeout=LONG)
        return answer.json()

    def relay(_: Request) -> JSONResponse:  # which Starlette runs in a thread
        return JSONResponse({"here": _who(), "there": call_in_a_thread({})})

    async def relay_async(_: Request) -> JSONResponse:
        there = [asyncio.to_thread(call_in_a_thread, {}), run_in_threadpool(call_in_a_thread, {})]
        return JSONResponse({"here": _who(), "there": await asyncio.gather(*there)})

    def relay_forged(request: Request) -> JSONResponse:
        try:
            return JSONResponse(call_in_a_thread({"x-tenant-id": request.query_params["as"]}))
        except TenantMismatchError as fault:
            return JSONResponse({"refused": str(fault)})

    routes = [Route("/relay", relay), Route("/relay-async", relay_async), Route("/relay-forged", relay_forged)]
    return Starlette(routes=routes)


class _Agents(NamedTuple):
    issuer: DevelopmentIssuer
    caller: str
    callee: str

    def headers(self, tenant: str = "Tenant-A", subject: str = "alice", **named: str) -> dict[str, str]:
        """Give the headers of a good request."""
        token = self.issuer.mint(tenant, subject, "agent:order-bot")
        return {"authorization": f"Bearer {token}", "x-tenant-id": tenant} | named


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentIssuer:
    return DevelopmentIssuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def agents(issuer: DevelopmentIssuer) -> Iterator[_Agents]:
    verifier = TokenVerifier(identity_settings(issuer.settings()))
    guarded = [Middleware(TenantMiddleware, verifier=verifier)]
    callee = _callee()
    callee.user_middleware = guarded
    with running_service(callee) as callee_origin:
        caller = _caller(callee_origin)
        caller.user_middleware = guarded
        with running_service(caller) as caller_origin:
            yield _Agents(issuer, caller_origin, callee_origin)
    verifier.close()


def _refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


def test_the_tenant_and_the_token_are_kept_from_agent_to_agent(agents: _Agents) -> None:
    headers = agents.headers()
    answer = requests.get(f"{agents.caller}/relay", headers=headers, timeout=LONG).json()

    assert answer["here"] == answer["there"]
    assert answer["there"] == {
        "tenant": "Tenant-A",
        "subject": "alice",
        "token": _digest(headers["authorization"].removeprefix("Bearer ")),
    }


def test_the_tenant_is_kept_in_threads_that_a_coroutine_starts(agents: _Agents) -> None:
    answer = requests.get(f"{agents.caller}/relay-async", headers=agents.headers(), timeout=LONG).json()

    assert answer["there"] == [answer["here"]] * 2


def test_an_agent_cannot_call_as_another_tenant(agents: _Agents) -> None:
    url = f"{agents.caller}/relay-forged?as=Tenant-B"
    answer = requests.get(url, headers=agents.headers(), timeout=LONG).json()

    assert answer == {
        "refused": "the headers name the tenant 'Tenant-B', but the request that is worked on is of 'Tenant-A'"
    }


@pytest.mark.parametrize("name", OURS[:2])
def test_a_forged_header_is_refused(agents: _Agents, name: str) -> None:
    answer = requests.get(f"{agents.callee}/who", headers=agents.headers() | {name: "Tenant-B"}, timeout=LONG)

    assert _refusal(answer) == (403, "TENANT_MISMATCH")


def test_forged_baggage_is_refused(agents: _Agents) -> None:
    headers = agents.headers(baggage="a=b,tenant_id=Tenant-B")

    assert _refusal(requests.get(f"{agents.callee}/who", headers=headers, timeout=LONG)) == (403, "TENANT_MISMATCH")


def test_a_missing_tenant_is_refused(agents: _Agents) -> None:
    headers = agents.headers()
    del headers["x-tenant-id"]
    answer = requests.get(f"{agents.callee}/who", headers=headers, timeout=LONG)

    assert _refusal(answer) == (400, "TENANT_HEADER_MISSING")


def test_a_missing_token_is_refused(agents: _Agents) -> None:
    answer = requests.get(f"{agents.callee}/who", headers={"x-tenant-id": "Tenant-A"}, timeout=LONG)

    assert _refusal(answer) == (401, "TOKEN_MISSING")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_token_of_another_tenant_is_refused(agents: _Agents) -> None:
    headers = agents.headers("Tenant-B") | {"x-tenant-id": "Tenant-A"}

    assert _refusal(requests.get(f"{agents.callee}/who", headers=headers, timeout=LONG)) == (403, "TENANT_MISMATCH")


def test_a_token_that_has_ended_is_refused(agents: _Agents) -> None:
    token = agents.issuer.mint("Tenant-A", "alice", "agent:order-bot", iat=1, nbf=1, exp=2)
    headers = agents.headers(authorization=f"Bearer {token}")
    answer = requests.get(f"{agents.callee}/who", headers=headers, timeout=LONG)

    assert _refusal(answer) == (401, "TOKEN_EXPIRED")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_that_was_edited_is_refused(agents: _Agents) -> None:
    mine, theirs = agents.headers("Tenant-A")["authorization"], agents.headers("Tenant-B")["authorization"]
    spliced = ".".join([mine.split(".")[0], theirs.split(".")[1], mine.split(".")[2]])
    headers = {"authorization": spliced, "x-tenant-id": "Tenant-B"}

    assert _refusal(requests.get(f"{agents.callee}/who", headers=headers, timeout=LONG)) == (401, "TOKEN_SIGNATURE")


def test_a_header_that_is_there_twice_is_refused(agents: _Agents) -> None:
    headers = agents.headers()
    lines = [*headers.items(), ("X-Tenant-Id", "Tenant-A"), ("host", "x")]
    request = "GET /who HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    (body,) = exchange_bytes(agents.callee, request.encode(), 1)

    assert b'"REQUEST_INVALID"' in body


def test_exempt_paths_answer_without_a_token(agents: _Agents) -> None:
    assert requests.get(f"{agents.callee}/ping", timeout=LONG).json() == {"tenant": ""}


def test_concurrent_requests_of_many_tenants_never_mix(agents: _Agents) -> None:
    everyone = [(f"Tenant-{number}", f"user-{number}") for number in range(20)]
    headers = {tenant: agents.headers(tenant, subject) for tenant, subject in everyone}

    def ask(asked: tuple[str, str]) -> tuple[Any, Any]:
        tenant, subject = asked
        path = "relay" if int(subject.removeprefix("user-")) % 2 else "relay-async"
        answer = requests.get(f"{agents.caller}/{path}", headers=headers[tenant], timeout=LONG).json()
        there = answer["there"] if isinstance(answer["there"], list) else [answer["there"]]
        token = _digest(headers[tenant]["authorization"].removeprefix("Bearer "))
        mine = {"tenant": tenant, "subject": subject, "token": token}
        return [answer["here"], *there], [mine] * (1 + len(there))

    with ThreadPoolExecutor(20) as threads:
        for seen, expected in threads.map(ask, everyone * 10):
            assert seen == expected


def test_a_request_that_follows_on_the_same_connection_does_not_inherit_the_tenant(agents: _Agents) -> None:
    def line(path: str, headers: dict[str, str]) -> str:
        return f"GET {path} HTTP/1.1\r\nhost: x\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n"

    of_a, of_b = agents.headers("Tenant-A"), agents.headers("Tenant-B", "bob")
    pipelined = [line("/who", of_a), line("/ping", {}), line("/who", of_b), line("/who", {}), line("/ping", {})]
    bodies = exchange_bytes(agents.callee, "".join(pipelined).encode(), len(pipelined))

    assert [b"Tenant-A" in bodies[0], bodies[1], b"Tenant-B" in bodies[2]] == [True, b'{"tenant":""}', True]
    assert b"TOKEN_MISSING" in bodies[3]
    assert bodies[4] == b'{"tenant":""}'


# ── where the token does not go ─────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _two_services() -> Iterator[tuple[str, str]]:
    """Run a service that redirects, also to another, and that other."""
    with running_service(_callee()) as other:

        async def away(_: Request) -> RedirectResponse:
            return RedirectResponse(f"{other}/headers", 307)

        async def away_without_scheme(_: Request) -> RedirectResponse:
            return RedirectResponse(other.removeprefix("http:") + "/headers")

        async def around(_: Request) -> RedirectResponse:
            return RedirectResponse("/away")

        redirecting = _callee()
        redirecting.router.routes += [
            Route("/away", away),
            Route("/away-without-scheme", away_without_scheme),
            Route("/around", around),
        ]
        with running_service(redirecting) as trusted:
            yield trusted, other


@pytest.fixture(scope="module")
def two_services() -> Iterator[tuple[str, str]]:
    with _two_services() as running:
        yield running


A = TenantContext("Tenant-A", subject_id="alice", token="token-of-a")


def _received(url: str, *origins: str, **options: Any) -> set[str]:
    """Call with the headers for some origins, and list which of ours came to where it ended."""
    with use(A):
        answer = requests.get(url, auth=TenantAuth(*origins), timeout=LONG, **options)
    return {*answer.json()} & {*OURS}


def test_a_service_that_is_listed_gets_the_headers(two_services: tuple[str, str]) -> None:
    trusted, _ = two_services

    assert _received(f"{trusted}/headers", trusted) == {*OURS}


def test_a_service_that_is_not_listed_gets_none_of_them(two_services: tuple[str, str]) -> None:
    trusted, other = two_services

    assert _received(f"{other}/headers", trusted) == set()


def test_a_redirect_within_a_service_keeps_the_headers(two_services: tuple[str, str]) -> None:
    trusted, _ = two_services

    assert _received(f"{trusted}/home", trusted) == {*OURS}


@pytest.mark.parametrize("path", ["away", "away-without-scheme", "around"])
@pytest.mark.parametrize("listed", ["the first", "both"])
def test_a_redirect_to_another_service_takes_no_header_along(
    two_services: tuple[str, str], path: str, listed: str
) -> None:
    trusted, other = two_services
    origins = [trusted] if listed == "the first" else [trusted, other]

    assert _received(f"{trusted}/{path}", *origins) == set()


def test_a_session_that_calls_everywhere_gives_the_headers_to_those_listed_alone(two_services: tuple[str, str]) -> None:
    trusted, other = two_services
    with requests.Session() as session:
        session.auth = TenantAuth(trusted)
        with use(A):
            received = [
                {*session.get(f"{origin}/headers", timeout=LONG).json()} for origin in (trusted, other, trusted)
            ]

    assert [here & {*OURS} for here in received] == [{*OURS}, set(), {*OURS}]


def test_baggage_of_the_application_is_sent_along(two_services: tuple[str, str]) -> None:
    trusted, _ = two_services
    with use(A):
        headers = {"Baggage": "session=7"}
        answer = requests.get(f"{trusted}/headers", auth=TenantAuth(trusted), headers=headers, timeout=LONG)

    assert answer.json()["baggage"] == "tenant_id=Tenant-A,session=7"


def test_a_call_outside_of_a_context_is_not_made(two_services: tuple[str, str]) -> None:
    trusted, _ = two_services
    with pytest.raises(NoTenantError):
        requests.get(f"{trusted}/headers", auth=TenantAuth(trusted), timeout=LONG)


_ORIGINS = {
    "https://agent.example": True,
    "HTTPS://Agent.Example:443/": True,
    "http://127.0.0.1:9000": True,
    "https://[::1]:9000": True,
    "agent.example": False,
    "https://agent.example/path": False,
    "https://alice@agent.example": False,
    "ftp://agent.example": False,
    "https://": False,
    "": False,
}


@pytest.mark.parametrize(("origin", "good"), _ORIGINS.items(), ids=_ORIGINS)
def test_an_origin_is_scheme_host_and_port_alone(origin: str, *, good: bool) -> None:
    if good:
        TenantAuth(origin)
    else:
        with pytest.raises(ValueError, match="is no origin: write https://HOST"):
            TenantAuth(origin)


@pytest.mark.parametrize(
    "url",
    [
        "http://agent.example/",
        "https://agent.example:8443/",
        "https://agent.example.evil.example/",
        "https://evil.example/https://agent.example",
        "https://agent.example@evil.example/",
        "https://evil.example#@agent.example/",
        "https://evil.example\\@agent.example/",
    ],
)
def test_an_address_that_only_looks_like_a_listed_one_gets_no_header(url: str) -> None:
    with use(A):
        prepared = requests.Request("GET", url, auth=TenantAuth("https://agent.example")).prepare()

    assert {name.lower() for name in prepared.headers} & {*OURS} == set()


def test_the_same_origin_written_otherwise_is_the_same() -> None:
    with use(A):
        prepared = requests.Request("GET", "HTTPS://AGENT.example:443/x", auth=TenantAuth("https://agent.example"))

        assert {name.lower() for name in prepared.prepare().headers} >= {*OURS}


# ── gRPC ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Echo(grpc.GenericRpcHandler):
    """Answers every call, of any kind, with the metadata that came with it."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        metadata = [f"{key}={value!r}" for key, value in handler_call_details.invocation_metadata]
        answer = "\n".join(line for line in metadata if line.startswith((*OURS, "x-"))).encode()
        kind = handler_call_details.method.rpartition("/")[2]
        make: dict[str, Any] = {
            "unary_unary": lambda _, __: answer,
            "unary_stream": lambda _, __: iter([answer]),
            "stream_unary": lambda sent, __: [*sent] and answer,
            "stream_stream": lambda sent, __: ([*sent] and answer for _ in range(1)),
        }
        return getattr(grpc, f"{kind}_rpc_method_handler")(make[kind])


KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
OF_A = {
    "x-tenant-id='Tenant-A'",
    "x-amzn-bedrock-agentcore-runtime-custom-tenantid='Tenant-A'",
    "authorization='Bearer token-of-a'",
}


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, handlers=[_Echo()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


def _lines(answer: Any) -> set[str]:
    whole: bytes = answer if isinstance(answer, bytes) else b"".join(answer)
    return {*whole.decode().split("\n")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_call_carries_tenant_and_token(echo: str, kind: str) -> None:
    with grpc.insecure_channel(echo) as plain:
        channel = grpc.intercept_channel(plain, TenantInterceptor())
        call: Any = getattr(channel, kind)(f"/echo/{kind}")
        given = [("x-more", "1"), ("baggage", "a=b"), ("x-more-bin", b"\xff")]
        with use(A):
            answer = call(b"" if kind.startswith("unary") else iter([b""]), timeout=LONG, metadata=given)
            received = _lines(answer)

    assert received == OF_A | {"baggage='tenant_id=Tenant-A,a=b'", "x-more='1'", "x-more-bin=b'\\xff'"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_call_of_asyncio_carries_tenant_and_token(echo: str, kind: str) -> None:
    async def sent() -> Any:
        yield b""

    async def main() -> set[str]:
        async with grpc.aio.insecure_channel(echo, interceptors=aio_interceptors()) as channel:
            call: Any = getattr(channel, kind)(f"/echo/{kind}")
            with use(A):
                answer = call(b"" if kind.startswith("unary") else sent(), timeout=LONG)
                if kind.endswith("unary"):
                    return _lines(await answer)
                return _lines([piece async for piece in answer])

    assert asyncio.run(main()) == OF_A | {"baggage='tenant_id=Tenant-A'"}


def test_a_call_of_grpc_outside_of_a_context_is_not_made(echo: str) -> None:
    with grpc.insecure_channel(echo) as plain:
        call: Any = grpc.intercept_channel(plain, TenantInterceptor()).unary_unary("/echo/unary_unary")
        with pytest.raises(NoTenantError):
            call(b"", timeout=LONG)


def test_a_call_of_asyncio_outside_of_a_context_is_not_made(echo: str) -> None:
    async def main() -> None:
        async with grpc.aio.insecure_channel(echo, interceptors=aio_interceptors()) as channel:
            call: Any = channel.unary_unary("/echo/unary_unary")
            await call(b"", timeout=LONG)

    with pytest.raises(NoTenantError):
        asyncio.run(main())
