"""Clients of the sidecar: for threads, and for asyncio.

Who asks is the context in force (``TenantMiddleware``, ``use``). A DENY is a value; ``NoDecisionError`` says that there is no
decision, and that the call must not go on.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
from msgspec import Struct

from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.credential_service_pb2_grpc import CredentialServiceStub
from sidecar.tenancy import calls
from sidecar.tenancy.errors import NoDecisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sidecar.tenancy.calls import Call

ADDRESS = "unix:.tenantgate/tenantgate.sock"

_OPTIONS = (
    # A sidecar that restarts is back in a moment; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The sidecar is on this host, and tokens are nothing for a proxy.
    ("grpc.enable_http_proxy", 0),
)

_Asked = ParamSpec("_Asked")
_Result = TypeVar("_Result")


class Tls(Struct, frozen=True):
    """Files, in PEM, for a sidecar that is asked over TLS; they may change at any time.

    ``ca_file`` has the authorities of the sidecar, ``cert_file`` and ``key_file`` prove who asks.
    """

    ca_file: str
    cert_file: str
    key_file: str

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ``OSError``."""
        files = (self.ca_file, self.key_file, self.cert_file)
        return grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))

    def stamps(self) -> list[tuple[int, int]]:
        """Give what changes when a file does."""
        return [*map(_stamp, (self.ca_file, self.key_file, self.cert_file))]


def _stamp(file: str) -> tuple[int, int]:
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0)
    return (found.st_ino, found.st_ctime_ns)


class _Client:
    """One channel to the sidecar, opened by the first call: until then the process may fork.

    With ``tls``, there is a new one when its files have changed; the one before is closed a change later, so that calls end.
    """

    def __init__(self, address: str = ADDRESS, *, timeout: float = 2.0, tls: Tls | None = None) -> None:
        self._address = address
        self._timeout = timeout
        self._tls = tls
        self._stamps: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._channels: list[grpc.Channel] = []
        self._methods: dict[str, Any] = {}

    def _method(self, name: str) -> Any:
        with self._lock:
            if not self._channels or (self._tls is not None and self._tls.stamps() != self._stamps):
                self._open()
        return self._methods[name]

    def _open(self) -> None:
        if self._tls is None:
            channel = grpc.insecure_channel(self._address, _OPTIONS)
        else:
            stamps = self._tls.stamps()  # first, as what changes while it is read is to be read again
            try:
                credentials = self._tls.credentials()
            except OSError as fault:
                if self._channels:  # they are being replaced
                    return
                msg = f"{self._address}: {fault.filename}: {fault.strerror}"
                raise NoDecisionError(msg, "CERTIFICATES_UNREADABLE") from fault
            self._stamps = stamps
            channel = grpc.secure_channel(self._address, credentials, _OPTIONS)
        authorization = AuthorizationServiceStub(channel)
        exchange = CredentialServiceStub(channel)
        self._methods = {
            "Authorize": authorization.Authorize,
            "BatchAuthorize": authorization.BatchAuthorize,
            "FilterTools": authorization.FilterTools,
            "ExchangeToken": exchange.ExchangeToken,
        }
        self._channels.append(channel)
        if len(self._channels) > 2:  # noqa: PLR2004 - this one, and the one before
            self._channels.pop(0).close()

    def _close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _ask(self, call: Call[_Result]) -> _Result:
        ask = self._method(call.method)
        try:
            response = ask(call.request, timeout=self._timeout, metadata=call.metadata)
        except grpc.RpcError as fault:
            raise calls.no_decision(fault, self._address) from fault
        return call.read(response)

    async def _ask_async(self, call: Call[_Result]) -> _Result:
        # A channel of threads and not one of grpc.aio, which is bound to the loop that it was made in: agents have several.
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        begun = self._method(call.method).future(call.request, timeout=self._timeout, metadata=call.metadata)

        def tell(_: Any) -> None:
            with suppress(RuntimeError):  # the loop was closed before the answer came
                loop.call_soon_threadsafe(answered.set)

        begun.add_done_callback(tell)
        try:
            await answered.wait()
        finally:
            begun.cancel()  # which does nothing to a call that has ended
        try:
            response = begun.result()
        except grpc.RpcError as fault:
            raise calls.no_decision(fault, self._address) from fault
        return call.read(response)


def _asking(call: Callable[_Asked, Call[_Result]]) -> Callable[Concatenate[_Client, _Asked], _Result]:
    def ask(client: _Client, /, *arguments: _Asked.args, **named: _Asked.kwargs) -> _Result:
        return client._ask(call(*arguments, **named))  # noqa: SLF001 - it is a method

    return _as_method(ask, call)


def _asking_async(
    call: Callable[_Asked, Call[_Result]],
) -> Callable[Concatenate[_Client, _Asked], Coroutine[Any, Any, _Result]]:
    async def ask(client: _Client, /, *arguments: _Asked.args, **named: _Asked.kwargs) -> _Result:
        return await client._ask_async(call(*arguments, **named))  # noqa: SLF001

    return _as_method(ask, call)


_Method = TypeVar("_Method")


def _as_method(method: _Method, like: Callable[..., Any]) -> _Method:
    """Give a method the name, the documentation and the parameters of what it sends, and the result of what it reads."""
    named: Any = functools.update_wrapper(method, like)  # type: ignore[arg-type]  # a function
    client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.signature(like)
    named.__signature__ = signature.replace(
        parameters=[client, *signature.parameters.values()],
        return_annotation=signature.return_annotation.removeprefix("Call[").removesuffix("]"),
    )
    return method


class AuthorizationClient(_Client):
    """Asks the sidecar at an address, ``unix:PATH`` or HOST:PORT. ``timeout`` is in seconds. One serves all threads.

    With ``tls``, the sidecar must have a certificate for the HOST.
    """

    authorize = _asking(calls.authorize)
    batch = _asking(calls.batch)
    filter_tools = _asking(calls.filter_tools)
    exchange = _asking(calls.exchange)

    def close(self) -> None:
        """Close the channel."""
        self._close()

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the channel."""
        self.close()


class AsyncAuthorizationClient(_Client):
    """Asks as ``AuthorizationClient`` does, from coroutines of any loop."""

    authorize = _asking_async(calls.authorize)
    batch = _asking_async(calls.batch)
    filter_tools = _asking_async(calls.filter_tools)
    exchange = _asking_async(calls.exchange)

    async def close(self) -> None:
        """Close the channel."""
        self._close()

    async def __aenter__(self) -> Self:
        """Use it for a while."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channel."""
        await self.close()
