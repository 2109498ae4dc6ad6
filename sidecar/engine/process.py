"""Child processes: started, watched, restarted with back-off, gone when we are gone. OPA is one."""

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

# Runs between us and the child, and becomes the child: asks the kernel to end it when the thread that started it ends, which is
# the supervisor's and so lives as long as we do. Without the check, a parent that died in between would leave it alive.
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
_LAST_WORDS_SECONDS = 2.0
_HOPELESS_RESTARTS = 3


class Child:
    """A child process. A subclass says by ``_spawn`` how it is started, and by ``_follow`` what becomes of what it says.

    The log calls it by ``name``, with ``facts``. ``on_exit`` is called from the supervising thread whenever it ends by itself.
    """

    def __init__(self, name: str, on_exit: Callable[[], None], **facts: int) -> None:
        self._name = name
        self._facts = facts
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name=f"{name}-supervisor", daemon=True)
        self.restarts = 0

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    @property
    def hopeless(self) -> bool:
        """Whether it has ended so often that it is not worth waiting for at a start."""
        return self.restarts > _HOPELESS_RESTARTS

    def start(self) -> None:
        """Start it, and its supervision. Whether it serves is for a probe to tell."""
        self._supervisor.start()
        self._started.wait()

    def request_stop(self) -> None:
        """Ask it to end."""
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def stop(self, timeout: float) -> None:
        """End it, by force after ``timeout`` seconds."""
        self.request_stop()
        process = self._process
        if process is not None:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                log.warning(self._event("killed"), after_seconds=timeout, **self._facts)
                process.kill()
        if self._supervisor.ident is not None:
            self._supervisor.join(_LAST_WORDS_SECONDS)

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
                log.error(self._event("not_started"), reason=str(fault), **self._facts)  # noqa: TRY400 - it is all there is
            else:
                self._started.set()
                # A stop that came while it was being started has not seen it.
                if self._stopping.is_set():
                    process.terminate()
                self._follow(process)
                process.wait()
                if self._stopping.is_set():
                    return
                words = self.last_words()
                log.error(self._event("exited"), status=process.returncode, last_words=words, **self._facts)
                self._on_exit()
            self._started.set()
            if time.monotonic() - began > _STEADY_AFTER:
                delay = _FIRST_DELAY
            self._stopping.wait(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
            self.restarts += 1

    def _event(self, what: str) -> str:
        return f"{self._name}_{what}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start it, with a pipe for what it says."""
        raise NotImplementedError

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Read what it says until it ends."""
        raise NotImplementedError


def launched(*command: str | Path) -> list[str]:
    """Give the command that starts a child which the kernel ends with us."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *map(str, command)]


class EmbeddedOpa(Child):
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
        super().__init__("opa", on_exit)
        self.socket = state_dir / "opa.sock"
        self._binary = binary
        self._config = state_dir / "opa.yaml"
        self._config.unlink(missing_ok=True)
        # It may hold a token: nobody else can read it at any moment.
        with os.fdopen(os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(config)
        self.bundle_fault = ""

    @property
    def address(self) -> str:
        """The address to ask it at."""
        return f"unix:{self.socket}"

    def stop(self, timeout: float) -> None:
        """End it, by force after ``timeout`` seconds."""
        super().stop(timeout)
        self.socket.unlink(missing_ok=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = launched(self._binary, "run", "--server", "--addr", f"unix://{self.socket}")
        command += ["--config-file", str(self._config), "--log-level", "error", "--log-format", "json"]
        return subprocess.Popen(  # noqa: S603 - the binary is the one whose version was checked
            [*command, "--skip-version-check"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        with process.stderr:
            for line in process.stderr:
                self._relay(line.decode(errors="replace").strip())

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
            hopeless = opa is not None and ((bundle_once and opa.bundle_fault) or opa.hopeless)
            if hopeless or time.monotonic() + pause >= end:
                words = opa.last_words() if opa is not None else ""
                msg = f"OPA does not come up: {fault}" + (f"\n{words}" if words else "")
                raise StartError(msg) from fault
            time.sleep(pause)
            pause = min(pause * 1.5, 0.03)
        else:
            return
