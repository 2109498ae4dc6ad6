"""The door for health checks: ``grpc.health.v1``, told by the monitor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest

SERVICE = health.SERVICE_NAME


class Health(health.HealthServicer):
    """Answers ``grpc.health.v1.Health`` for the server as a whole and for some services, all in the same state."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__(experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1))
        self._services = ("", *services)
        self._told: bool | None = None
        self._watchers: set[Callable[[HealthCheckResponse | None], None]] = set()
        self.tell(serving=False)

    def tell(self, *, serving: bool) -> None:
        """Tell whether decisions can be made. Watchers hear of changes alone."""
        if serving == self._told:
            return
        self._told = serving
        for service in self._services:
            self.set(service, HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)

    def let_go(self) -> None:
        """End the calls of all watchers, which would keep a server from stopping."""
        for send in [*self._watchers]:
            send(None)

    def Watch(  # noqa: N802 - gRPC's name
        self,
        request: HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Any = None,
    ) -> Any:
        """Give the state now and whenever it changes."""
        self._watchers.add(send_response_callback)
        context.add_callback(lambda: self._watchers.discard(send_response_callback))
        return super().Watch(request, context, send_response_callback)
