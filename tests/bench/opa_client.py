"""What a query to OPA costs the process that asks, in CPU time, with the sidecar's own client and with libraries."""

from __future__ import annotations

import http.client
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from sidecar import translate
from sidecar.engine.answers import PROBE
from sidecar.engine.coalesce import AUTHORIZE
from tests.bench.scale import POLICY
from tests.support.processes import running_opa
from tests.support.registries import compiled, sample_items

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import PolicyOpa

_PATH = f"/v1/data/{AUTHORIZE}?strict-builtin-errors=true"
_HEADERS = {"Content-Type": "application/json"}
_SECONDS = 20.0


class _Unix(http.client.HTTPConnection):
    """A connection to a Unix socket. urllib3's pool asks for options that are its own."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _PooledUnix(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(self._path))
        return made


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", maxsize=8, block=True)
        self._path = path

    def _new_conn(self) -> Any:
        return _PooledUnix(self._path)


def clients(opa: PolicyOpa, stack: ExitStack) -> dict[str, Callable[[bytes], int]]:
    """Give for each client what sends a query, and gives the status of the answer. They are closed with ``stack``."""
    connection, pool = _Unix(opa.socket), _Pool(opa.socket)
    stack.callback(connection.close)
    stack.callback(pool.close)
    timeout = urllib3.Timeout(total=_SECONDS)

    def own(body: bytes) -> int:
        return opa.client.query(AUTHORIZE, body, time.monotonic() + _SECONDS)[0]

    def standard(body: bytes) -> int:
        connection.request("POST", _PATH, body, _HEADERS)
        response = connection.getresponse()
        response.read()
        return response.status

    def library(body: bytes) -> int:
        return pool.urlopen("POST", _PATH, body, _HEADERS, retries=False, timeout=timeout).status

    return {"the sidecar's own": own, "http.client": standard, "urllib3": library}


@click.command(help=__doc__)
@click.option("--queries", default=1500, show_default=True, help="How many queries make a run.")
@click.option("--rounds", default=5, show_default=True, help="How often each client takes its turn; the median counts.")
def main(queries: int, rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder, running_opa(Path(folder)) as opa, ExitStack() as stack:
        opa.put("registry/base", compiled(sample_items()))
        body = translate.single_query(PROBE, "bench", 0, POLICY)
        asking = clients(opa, stack)
        spent: dict[str, list[float]] = {name: [] for name in asking}
        for _ in range(rounds):
            for name, ask in asking.items():
                began = time.process_time()
                if {ask(body) for _ in range(queries)} != {200}:
                    msg = f"{name}: OPA did not answer"
                    raise SystemExit(msg)
                spent[name].append((time.process_time() - began) / queries * 1e6)
    for name, times in spent.items():
        click.echo(f"{name:20} {statistics.median(times):6.0f} µs a query ({min(times):.0f} to {max(times):.0f})")


if __name__ == "__main__":
    main()
