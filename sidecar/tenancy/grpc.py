"""Calls of gRPC to other agents: interceptors that add the tenant and the token to the metadata.

A channel leads to one service, and everything that is called over it gets the token::

    channel = grpc.intercept_channel(grpc.secure_channel(address, credentials), TenantInterceptor())
    channel = grpc.aio.secure_channel(address, credentials, interceptors=aio_interceptors())

Outside of a context a call raises ``NoTenantError``.
"""

from __future__ import annotations

from typing import Any

import grpc

from sidecar.tenancy.context import current
from sidecar.tenancy.headers import AGENTCORE_TENANT, BAGGAGE, TENANT, inject


class _Details(grpc.ClientCallDetails):
    """The details of a call, with other metadata."""

    def __init__(self, details: Any, metadata: Any) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = getattr(details, "compression", None)


def _metadata(given: Any) -> list[tuple[str, Any]]:
    pairs = [*(given or ())]
    added = inject(current(), pairs)
    return [(key, value) for key, value in pairs if key not in {TENANT, AGENTCORE_TENANT, BAGGAGE}] + added


class TenantInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the metadata of the context in force to every call of a channel."""

    def _intercept(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_Details(client_call_details, _metadata(client_call_details.metadata)), request)

    intercept_unary_unary = _intercept
    intercept_unary_stream = _intercept
    intercept_stream_unary = _intercept  # type: ignore[assignment]  # gRPC gives arguments by position
    intercept_stream_stream = _intercept  # type: ignore[assignment]


async def _intercept_aio(_: Any, continuation: Any, client_call_details: Any, request: Any) -> Any:
    metadata = grpc.aio.Metadata(*_metadata(client_call_details.metadata))
    return await continuation(client_call_details._replace(metadata=metadata), request)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _intercept_aio


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _intercept_aio


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary = _intercept_aio  # type: ignore[assignment]


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream = _intercept_aio  # type: ignore[assignment]


def aio_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Give the interceptors for a channel of ``grpc.aio``, which takes one for each kind of call."""
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()]
