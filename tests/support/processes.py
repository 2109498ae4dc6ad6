"""Real OPA and real sidecars, started by the tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from sidecar.bundles.build import Recipe, build_base
from sidecar.engine.decide import Decider
from sidecar.engine.opa import OpaClient
from sidecar.errors import EngineError
from sidecar.registry.exports import Export
from sidecar.server import Sidecar
from sidecar.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.engine.cache import DecisionCache

REPOSITORY = Path(__file__).parent.parent.parent
POLICIES = REPOSITORY / "policies"
EXTENSIONS = REPOSITORY / "examples" / "extensions"
OPA = REPOSITORY / ".tools" / "opa"


class PolicyOpa:
    """An OPA that has the policies loaded, and takes registries as data.

    What its engines remember is in ``cache``, if they do.
    """

    def __init__(self, folder: Path, *modules: Path) -> None:
        self.cache: DecisionCache | None = None
        self.socket = folder / "opa.sock"
        self.client = OpaClient(f"unix:{self.socket}", connections=8, timeout=20, max_answer_bytes=1 << 26)
        command: list[str | Path] = [
            OPA,
            "run",
            "--server",
            "--addr",
            f"unix://{self.socket}",
            "--log-level",
            "error",
            "--skip-version-check",
        ]
        modules = modules or (POLICIES / "tenantgate",)
        self.process = subprocess.Popen([*command, "--ignore", "*_test.rego", *modules])

    def put(self, path: str, document: Any) -> None:
        """Replace the data at a path such as ``registry/base``."""
        status, body = self.client._send(
            "PUT", f"/v1/data/{path}", json.dumps(document).encode(), time.monotonic() + 20
        )
        assert status == 204, body
        if self.cache is not None:  # tests give all their registries one revision
            self.cache.forget()
            self.cache.heard(self.cache.epoch, self.cache.clock(), "test")

    def ask(self, path: str, question: Any) -> Any:
        """Give what a path in the policies, such as ``tenantgate/registry/state``, says to an input."""
        body = json.dumps({"input": question}).encode()
        status, answer = self.client._send("POST", f"/v1/data/{path}", body, time.monotonic() + 20)
        assert status == 200, answer
        return json.loads(answer)["result"]

    def decider(self, settings: Settings | None = None) -> Decider:
        """Give an engine that asks this OPA."""
        return Decider(self.client, (settings or Settings()).policy, cache=self.cache)

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 20
        while True:
            try:
                self.client.bundles_active(end)
            except EngineError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self.process.terminate()
        self.process.wait()


@contextmanager
def running_opa(folder: Path, *modules: Path) -> Iterator[PolicyOpa]:
    """Run an OPA with the policies for a while."""
    opa = PolicyOpa(folder, *modules)
    try:
        opa.wait()
        yield opa
    finally:
        opa.stop()


@contextmanager
def separate_opa(config: str, folder: Path, key: Path, values: Mapping[str, str]) -> Iterator[str]:
    """Run an OPA of one's own with a configuration of ``opa/`` and a public key; give its address once it listens."""
    environment = {
        "BUNDLE_KEY": json.dumps(key.read_text())[1:-1],
        "PERSISTENCE_DIRECTORY": str(folder / "persisted"),
        **values,
    }
    socket_path = folder / "own.sock"
    command: list[str | Path] = [OPA, "run", "--server", "--addr", f"unix://{socket_path}"]
    command += ["--config-file", REPOSITORY / "opa" / config, "--skip-version-check"]
    with (folder / "opa.log").open("wb") as log:
        opa = subprocess.Popen(command, env=os.environ | environment, stderr=log, stdout=subprocess.DEVNULL)
    try:
        wait_until(socket_path.exists)
        yield f"unix:{socket_path}"
    finally:
        opa.kill()
        opa.wait()


def build_bundle(export: Path, out: Path, custom: Path | None = None) -> Path:
    """Compile an export to a bundle."""
    build_base(Export(str(export)), out, Recipe(POLICIES, custom))
    return out


def sidecar_settings(folder: Path, bundle: Path | None, **overrides: Any) -> Settings:
    """Give settings for a sidecar whose state is in a folder, and which believes what requests say of who asks.

    Overrides are dotted names with ``__`` for the dot.
    """
    flags = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in overrides.items()]
    if bundle is not None:
        flags.append(f"opa.bundle={bundle}")
    given = [
        f"state_dir={folder}",
        f"opa.binary={OPA}",
        "lifecycle.probe_interval_seconds=0.1",
        "identity.mode=asserted",
    ]
    return load(None, {}, [*given, *flags])


@contextmanager
def running_sidecar(settings: Settings) -> Iterator[tuple[Sidecar, grpc.Channel]]:
    """Run a sidecar within the test's process, with a channel to its Unix socket."""
    sidecar = Sidecar(settings)
    sidecar.start()
    try:
        with grpc.insecure_channel(f"unix:{settings.socket_path}") as channel:
            yield sidecar, channel
    finally:
        sidecar.stop()


def free_port() -> int:
    """Name a port of loopback that is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def wait_until(condition: Any, timeout: float = 10.0) -> None:
    """Wait until a condition holds; fail if it does not within ``timeout`` seconds."""
    waiting = threading.Event()
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition did not come to hold"
        waiting.wait(0.01)
