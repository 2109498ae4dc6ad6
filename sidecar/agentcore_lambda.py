"""The interceptor of an AgentCore Gateway as an AWS Lambda function: the door, and the sidecar that it asks.

The sidecar runs inside the function unless ``agentcore.address`` names another one. It starts with the first event, and both
serve until the function's environment ends.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.doors.agentcore import events, outputs
from sidecar.doors.agentcore.authorizer import SidecarAuthorizer
from sidecar.doors.agentcore.door import Door
from sidecar.doors.verdicts import Refusal
from sidecar.errors import SettingsError
from sidecar.server import Sidecar
from sidecar.settings import load
from sidecar.telemetry import configure_logs

if TYPE_CHECKING:
    from sidecar.doors.agentcore.outputs import Output
    from sidecar.settings import Settings

log = structlog.get_logger("agentcore")

_NOT_STARTED = Refusal(
    "NO_DECISION", "NOT_STARTED", "the interceptor cannot start; its log says why; no decision was made"
)


class Interceptor:
    """A door with what it asks. Its life is three verbs: make, ``start``, ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sidecar: Sidecar | None = None
        self._authorizer: SidecarAuthorizer | None = None

    def start(self) -> Door:
        """Start the sidecar if there is to be one, and give the door.

        Raises ``StartError`` or ``SettingsError``, and then has stopped what it started.
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started."""
        if self._authorizer is not None:
            self._authorizer.close()
        if self._sidecar is not None:
            self._sidecar.stop()

    def _start(self) -> Door:
        settings = self._settings
        address = settings.agentcore.address
        if address is None:
            if settings.identity.mode != "verified":
                msg = (
                    "identity.mode: asserted is for callers that have verified who asks; the interceptor needs verified"
                )
                raise SettingsError(msg)
            self._sidecar = Sidecar(settings)
            self._sidecar.start()
            path = settings.socket_path
            address = self._sidecar.addresses[0] if path is None else f"unix:{path}"
        self._authorizer = SidecarAuthorizer(address, settings.agentcore.timeout_seconds, settings.limits.batch_items)
        return Door(settings.agentcore, settings.identity.tenant_headers, self._authorizer)


class _Function:
    """The one interceptor of a function's environment, started when the first event comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door: Door | None = None

    def door(self) -> Door:
        """Give the door, and start it if that has not succeeded before. Raises ``StartError`` or ``SettingsError``."""
        with self._lock:
            if self._door is None:
                settings = load(None)
                configure_logs(settings.log.level, settings.log.format, at_once=True)  # between events, nothing runs
                self._door = Interceptor(settings).start()
            return self._door


_function = _Function()


def answer(event: Any, context: Any) -> Output:
    """Answer one event. The settings are those of the environment."""
    try:
        door = _function.door()
    except Exception as fault:  # noqa: BLE001 - whatever it is, the event must not pass
        log.error("not_started", fault=type(fault).__name__, reason=str(fault))  # noqa: TRY400 - that is all there is
        return outputs.refused(events.read(event), _NOT_STARTED)
    return door.answer(event, context)
