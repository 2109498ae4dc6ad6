"""The door for machines that look after the sidecar: health and metrics over HTTP, nothing that changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request


def admin_application(registry: CollectorRegistry, problem: Callable[[], str]) -> Starlette:
    """Make the application. ``problem`` says why no decisions can be made; it is empty when they can."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    async def alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_request: Request) -> Response:
        found = problem()
        return PlainTextResponse(f"{found}\n", 503) if found else PlainTextResponse("ready\n")

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", alive), Route("/readyz", ready)])
