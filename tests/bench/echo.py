"""The floor: a server that gives each message back as it came, unread, with the options of the sidecar's and as many threads.

.venv/bin/python -m tests.bench.echo SOCKET [sidecar]

The threads are those of the standard library, as in any gRPC server in Python, or the sidecar's.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from sidecar.doors.grpc_calls import CallThreads
from sidecar.settings import Settings


def main(path: str, threads: str = "") -> None:
    """Serve until the process is ended."""
    limits = Settings().limits
    pool: Any = CallThreads(limits.threads, "calls") if threads == "sidecar" else ThreadPoolExecutor(limits.threads)
    server = grpc.server(
        pool,
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.message_bytes),
            ("grpc.max_metadata_size", 16 * 1024),
        ],
    )
    echo: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(lambda message, _: message)
    service = grpc.method_handlers_generic_handler("tenantgate.bench.EchoService", {"Echo": echo})
    server.add_generic_rpc_handlers([service])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
