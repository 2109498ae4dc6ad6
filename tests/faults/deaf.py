"""A client that asks and asks, and then reads nothing any more: its process is stopped as soon as it says that it is ready."""

from __future__ import annotations

import sys
import threading

import grpc

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.status_service_pb2 import WatchStatusRequest
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from tests.faults.truth import Asked

CONNECTIONS = 8
BATCH = 100


def main(address: str) -> None:
    """Ask on many connections at once, for as long as the process lasts."""
    one = Asked("one", "open").request()
    items = [pb.BatchAuthorizeItem(resource=one.resource)] * BATCH
    request = pb.BatchAuthorizeRequest(identity=one.identity, items=items)
    channels = [
        grpc.insecure_channel(f"unix:{address}", options=[("grpc.use_local_subchannel_pool", 1), ("n", i)])
        for i in range(CONNECTIONS)
    ]
    kept = []
    for channel in channels:
        kept.append(StatusServiceStub(channel).WatchStatus(WatchStatusRequest()))
        stub = AuthorizationServiceStub(channel)
        kept += [stub.BatchAuthorize.future(request) for _ in range(200)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
