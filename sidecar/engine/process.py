"""OPA as a child process: started with a configuration, watched, restarted with back-off, gone when we are gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import structlog

from sidecar.errors import StartError, TenantgateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

# Runs between us and OPA, and becomes OPA: asks the kernel to end it when the thread that started it ends, which is the
# supervisor's and so lives as long as we do. Without the check, a parent that died in between would leave it alive.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 5.0
_STEADY_AFTER = 10.0
_HOPELESS_RESTARTS = 3


class EmbeddedOpa:
    """An OPA that answers on a Unix socket, configured by a text in YAML.

    ``on_exit`` is called from the supervising thread whenever the process ends by itself.
    """

    def __init__(
        self,
        binary: Path,
        config: str,
        state_dir: Path,
        *,
        on_exit: Callable[[], None] = lambda: None,
    ) -> None:
        self.socket = state_dir / "opa.sock"
        self._binary = binary
        self._config = state_dir / "opa.yaml"
        self._config.unlink(missing_ok=True)
        # It may hold a token: nobody else can read it at any moment.
        with os.fdopen(os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(config)
        self._on_exit = on_exit
        self._process: subprocess.Popen[str] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="opa-supervisor", daemon=True)
        self.restarts = 0
        self.bundle_fault = ""

    @property
    def address(self) -> str:
        """The address to ask it at."""
        return f"unix:{self.socket}"

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def start(self) -> None:
        """Start it, and its supervision. Whether it serves is for a probe to tell."""
        self._supervisor.start()
        self._started.wait()

    def stop(self, timeout: float) -> None:
        """End it, by force after ``timeout`` seconds."""
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                log.warning("opa_killed", after_seconds=timeout)
                process.kill()
        self._supervisor.join(timeout)
        self.socket.unlink(missing_ok=True)

    def last_words(self) -> str:
        """Give what it wrote last: why it does not start, if it does not."""
        return "\n".join(self._last_lines)

    def _supervise(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                process = self._process = self._spawn()
            except OSError as fault:
                self._last_lines.append(str(fault))
                log.error("opa_not_started", reason=str(fault))  # noqa: TRY400 - the reason is all there is
            else:
                self._started.set()
                # A stop that came while it was being started has not seen it.
                if self._stopping.is_set():
                    process.terminate()
                self._follow(process)
                if self._stopping.is_set():
                    return
                log.error("opa_exited", status=process.returncode, last_words=self.last_words())
                self._on_exit()
            self._started.set()
            if time.monotonic() - began > _STEADY_AFTER:
                delay = _FIRST_DELAY
            self._stopping.wait(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
            self.restarts += 1

    def _spawn(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(self._binary)]
        command += ["run", "--server", "--addr", f"unix://{self.socket}", "--config-file", str(self._config)]
        command += ["--log-level", "error", "--log-format", "json", "--skip-version-check"]
        return subprocess.Popen(  # noqa: S603 - the binary is the one whose version was checked
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        with process.stderr:
            for line in process.stderr:
                self._relay(line.strip())
        process.wait()

    def _relay(self, line: str) -> None:
        try:
            record = json.loads(line)
            level, message = record.pop("level"), record.pop("msg")
            record.pop("time", None)
        except (ValueError, KeyError, AttributeError):
            level, message, record = "error", line, {}
        if message == "Decision Log":
            log.info("opa_decision", **{f"opa_{name}": value for name, value in record.items()})
        elif level == "warning":
            log.info("opa", message=message)
        elif level in {"error", "fatal", "panic"}:
            self._last_lines.append(f"{message} {record or ''}".strip())
            if record.get("plugin") == "bundle":
                self.bundle_fault = message
            # One that is being stopped complains about what it had under way.
            (log.info if self._stopping.is_set() else log.warning)(
                "opa", message=message, **{f"opa_{name}": value for name, value in record.items()}
            )


def wait_until_ready(
    probe: Callable[[float], object], opa: EmbeddedOpa | None, timeout: float, *, bundle_once: bool = True
) -> None:
    """Wait until a probe succeeds. With ``bundle_once``, a bundle that OPA cannot load ends the wait: no other will come.

    Raises ``StartError`` when it still does not after ``timeout`` seconds, with what OPA has to say about it.
    """
    end = time.monotonic() + timeout
    pause = 0.005
    while True:
        try:
            probe(end)
        except TenantgateError as fault:
            hopeless = opa is not None and ((bundle_once and opa.bundle_fault) or opa.restarts > _HOPELESS_RESTARTS)
            if hopeless or time.monotonic() + pause >= end:
                words = opa.last_words() if opa is not None else ""
                msg = f"OPA does not come up: {fault}" + (f"\n{words}" if words else "")
                raise StartError(msg) from fault
            time.sleep(pause)
            pause = min(pause * 1.5, 0.03)
        else:
            return
