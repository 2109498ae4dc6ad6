"""One worker of a sidecar with several: the process that ``workers`` starts, and says more about."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import msgspec

from sidecar.doors.status import WorkerStatus
from sidecar.doors.sums import read
from sidecar.errors import TenantgateError
from sidecar.gen.tenantgate.v1.status_service_pb2 import Status
from sidecar.server import Sidecar
from sidecar.telemetry import configure_logs
from sidecar.workers import Orders, Report

if TYPE_CHECKING:
    import grpc

    from sidecar.engine.decide import Decider
    from sidecar.engine.monitor import Monitor
    from sidecar.identity import IdentitySource
    from sidecar.settings import Settings

_REPORT_SECONDS = 0.25
"""How old what the parent knows is at the most, and how much is not counted when this process is killed."""

_LAST_REPORT_SECONDS = 1.0


class Worker(Sidecar):
    """A sidecar without what its parent has for all. ``state`` is that of the sidecar, of which the parent tells more."""

    _status_servicer = WorkerStatus

    def __init__(self, settings: Settings, state: Status, parent: Connection) -> None:
        super().__init__(settings)
        self._metrics.unregister(self._state)  # the parent's is that of the sidecar
        self._told = state
        self._activated: dict[str, str] = {}
        self._parent = parent
        self._ended = threading.Event()
        self._telling = threading.Thread(target=self._tell, name="tell", daemon=True)

    def start(self) -> None:
        """Do as a sidecar does, and talk to the parent. Raises ``StartError``."""
        super().start()
        threading.Thread(target=self._hear, name="hear", daemon=True).start()
        self._telling.start()

    def stop(self) -> None:
        """Do as a sidecar does, and tell what was counted to the end."""
        super().stop()
        self._ended.set()
        if self._telling.is_alive():
            self._telling.join(_LAST_REPORT_SECONDS)

    def _take_place(self) -> None:
        """Leave that to the parent."""

    def _make_server(self, decider: Decider, monitor: Monitor, identities: IdentitySource) -> grpc.Server:
        server = super()._make_server(decider, monitor, identities)
        self._take(self._told)
        return server

    def _take(self, state: Status) -> None:
        """Take what the parent tells, and act on it as if it had been seen here."""
        assert isinstance(self._status, WorkerStatus)  # noqa: S101 - it is made as `_status_servicer` says
        self._status.told = state
        # While a bundle is under way to OPA, the one before is active.
        self._activated |= {bundle.name: bundle.revision for bundle in state.bundles if bundle.active}
        self._told_active([*self._activated.values()])

    def _hear(self) -> None:
        """Take what the parent tells, to its end, which is that of the worker too."""
        with suppress(OSError, EOFError):
            while True:
                self._take(Status.FromString(self._parent.recv_bytes()))
        self.request_stop()

    def _tell(self) -> None:
        """Tell the parent at once that this listens, then what it counts."""
        with suppress(OSError):  # it is gone
            while True:
                ended = self._ended.is_set()
                serving = self._monitor is not None and self._monitor.readiness.serving and not ended
                self._parent.send_bytes(msgspec.msgpack.encode(Report("", serving, read(self._metrics))))
                if ended:
                    return
                self._ended.wait(_REPORT_SECONDS)


def main() -> None:
    """Wait for orders, and serve until SIGTERM."""
    parent = Connection(os.dup(sys.stdin.fileno()))
    try:
        orders = msgspec.msgpack.decode(parent.recv_bytes(), type=Orders)
        state = Status.FromString(parent.recv_bytes())
    except (OSError, EOFError):  # it ended before
        return
    settings = orders.settings
    configure_logs(settings.log.level, settings.log.format, worker=orders.number)
    worker = Worker(settings, state, parent)
    # Until it serves, this ends it wherever it is.
    signal.signal(signal.SIGTERM, lambda *_: worker.give_up())
    try:
        worker.start()
        worker.wait()
    except TenantgateError as fault:
        with suppress(OSError):
            parent.send_bytes(msgspec.msgpack.encode(Report(str(fault))))
        sys.exit(2)
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
