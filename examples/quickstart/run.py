"""The quickstart: build a bundle from the sample export, serve it, ask the questions of calls.yaml, and go on serving.

Run it with `make run`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf.json_format import ParseDict
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.cli.words import effect_text, words
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TENANTGATE = Path(sys.executable).with_name("tenantgate")
BUNDLE = Path("build/quickstart.tar.gz")

console = Console(highlight=False)


def main() -> int:
    """Run the quickstart; give its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the table")
    parser.add_argument("--state", default=".tenantgate", help="state directory of the sidecar")
    options = parser.parse_args()
    os.chdir(ROOT)
    console.rule("The registry, exported by DynamoDB, becomes a bundle", align="left")
    build: list[str | Path] = [TENANTGATE, "bundle", "build", "--export", "examples/quickstart/export", "--out", BUNDLE]
    if subprocess.run(build, check=False).returncode != 0:  # noqa: S603 - our own command
        return 2
    serve: list[str | Path] = [
        TENANTGATE,
        "serve",
        "--bundle",
        BUNDLE,
        "--set",
        "log.format=text",
        "--set",
        "log.access=false",
    ]
    sidecar = subprocess.Popen([*serve, "--set", "log.level=warning", "--set", f"state_dir={options.state}"])  # noqa: S603 - our own command
    socket = f"unix:{options.state}/tenantgate.sock"
    try:
        if not ask(sidecar, socket):
            return 2
        if options.once:
            return 0
        explain_how_to_call(socket)
        return sidecar.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        sidecar.send_signal(signal.SIGTERM)
        sidecar.wait()


def ask(sidecar: subprocess.Popen[bytes], socket: str) -> bool:
    """Ask every question over gRPC and show the answers; tell whether the sidecar came up."""
    with grpc.insecure_channel(socket) as channel:
        if not comes_up(channel, sidecar):
            return False
        stub = AuthorizationServiceStub(channel)
        table = Table("", "call", "decision", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for call in yaml.safe_load((HERE / "calls.yaml").read_text()):
            about = call.pop("about")
            decision = stub.Authorize(ParseDict(call, AuthorizeRequest()), timeout=5).decision
            table.add_row(about, asked(call), answered(decision))
    console.rule("Decisions by OPA, over gRPC", align="left")
    console.print(table)
    return True


def comes_up(channel: grpc.Channel, sidecar: subprocess.Popen[bytes]) -> bool:
    """Wait until the sidecar answers, or has given up."""
    ready = grpc.channel_ready_future(channel)
    while sidecar.poll() is None:
        with suppress(grpc.FutureTimeoutError):
            ready.result(timeout=0.1)
            return True
    return False


def asked(call: dict[str, Any]) -> str:
    """Show the question: which tool, for which user of which tenant, through which agent."""
    identity = call["identity"]
    tool = call["resource"]["id"].removeprefix("agent:tool:")
    arguments = ", ".join(f"{name}={value}" for name, value in call.get("arguments", {}).items())
    agent = identity["principal"]["id"].removeprefix("agent:")
    return f"{tool}({arguments})\n[dim]{agent} for {identity['subject']['id']} of {identity['tenant_id']}[/]"


def answered(decision: decision_pb2.Decision) -> Text:
    """Show the answer: effect and code, and the reason below."""
    code = words(decision_pb2.DecisionCode, decision.code)
    return Text.assemble(effect_text(decision), f" {code}\n", (decision.reason, "dim"))


def explain_how_to_call(socket: str) -> None:
    """Show how to go on from here."""
    console.rule("Ask it yourself, in another terminal", align="left")
    console.print(
        ".venv/bin/tenantgate authorize agent:tool:refund-create --tenant acme --principal agent:order-bot \\\n"
        "    --subject alice --scope tools:write --arg amount=900 --explain\n"
        ".venv/bin/tenantgate status\n"
    )
    console.print(f"Serving on {socket}. Ctrl-C stops.")


if __name__ == "__main__":
    sys.exit(main())
