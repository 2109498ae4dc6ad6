"""The quickstart: build a bundle from the sample export, serve it, ask the questions of calls.yaml, and go on serving.

Run it with `make run`.
"""

from __future__ import annotations

import argparse
import base64
import json
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
from rich.table import Column, Table
from rich.text import Text

from sidecar.cli.words import effect_text, words
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.identity.development import DevelopmentIssuer

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
    state = Path(options.state)
    issuer = DevelopmentIssuer(state / "issuer")
    settings = {
        "state_dir": options.state,
        "identity.issuers": json.dumps([issuer.settings()]),
        "log.format": "text",
        "log.access": "false",
        "log.level": "warning",
    }
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    sidecar = subprocess.Popen([TENANTGATE, "serve", "--bundle", BUNDLE, *flags])  # noqa: S603 - our own command
    socket = f"unix:{state}/tenantgate.sock"
    try:
        if not ask(sidecar, socket, issuer):
            return 2
        if options.once:
            return 0
        explain_how_to_call(socket, state, issuer)
        return sidecar.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        sidecar.send_signal(signal.SIGTERM)
        sidecar.wait()


def ask(sidecar: subprocess.Popen[bytes], socket: str, issuer: DevelopmentIssuer) -> bool:
    """Ask every question over gRPC and show the answers; tell whether the sidecar came up."""
    with grpc.insecure_channel(socket) as channel:
        if not comes_up(channel, sidecar):
            return False
        stub = AuthorizationServiceStub(channel)
        columns = [Column(header, overflow="fold") for header in ("", "call", "decision")]
        table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for call in yaml.safe_load((HERE / "calls.yaml").read_text()):
            about, caller, edited = call.pop("about"), call.pop("caller"), call.pop("edited", False)
            token = issuer.mint(**caller)
            metadata = [("authorization", f"Bearer {edit(token) if edited else token}")]
            try:
                response = stub.Authorize(ParseDict(call, AuthorizeRequest()), timeout=5, metadata=metadata)
            except grpc.RpcError as refused:
                answer = Text.assemble((refused.code().name, "bold red"), "\n", (refused.details() or "", "dim"))
            else:
                answer = answered(response.decision)
            table.add_row(about, asked(caller, call), answer)
    console.rule("Decisions by OPA, over gRPC, each for a verified token", align="left")
    console.print(table)
    return True


def edit(token: str) -> str:
    """Make another tenant's token of it, as someone would who has no key: what is signed is not what it says."""
    header, payload, signature = token.split(".")
    claims = base64.urlsafe_b64decode(payload + "==").replace(b'"acme"', b'"globex"')
    return ".".join([header, base64.urlsafe_b64encode(claims).rstrip(b"=").decode(), signature])


def comes_up(channel: grpc.Channel, sidecar: subprocess.Popen[bytes]) -> bool:
    """Wait until the sidecar answers, or has given up."""
    ready = grpc.channel_ready_future(channel)
    while sidecar.poll() is None:
        with suppress(grpc.FutureTimeoutError):
            ready.result(timeout=0.1)
            return True
    return False


def asked(caller: dict[str, Any], call: dict[str, Any]) -> str:
    """Show the question: which tool, for which user of which tenant, through which agent."""
    tool = call["resource"]["id"].removeprefix("agent:tool:")
    arguments = ", ".join(f"{name}={value}" for name, value in call.get("arguments", {}).items())
    agent = caller["principal"].removeprefix("agent:")
    tenant = call.get("identity", {}).get("tenant_id", caller["tenant"])
    return f"{tool}({arguments})\n[dim]{agent} for {caller['subject']} of {tenant}[/]"


def answered(decision: decision_pb2.Decision) -> Text:
    """Show the answer: effect and code, and the reason below."""
    code = words(decision_pb2.DecisionCode, decision.code)
    return Text.assemble(effect_text(decision), f" {code}\n", (decision.reason, "dim"))


def explain_how_to_call(socket: str, state: Path, issuer: DevelopmentIssuer) -> None:
    """Show how to go on from here, with a token to do it with."""
    token = state / "alice.jwt"
    token.touch(mode=0o600)
    token.write_text(
        issuer.mint("acme", "alice", "agent:order-bot", scopes=("tools:read", "tools:write"), lifetime=86400)
    )
    console.rule("Ask it yourself, in another terminal", align="left")
    console.print(
        f".venv/bin/tenantgate authorize agent:tool:refund-create --token-file {token} \\\n"
        "    --arg amount=900 --explain\n"
        f".venv/bin/tenantgate token mint --issuer-dir {state}/issuer --tenant globex --subject bob "
        "--principal agent:order-bot\n"
        ".venv/bin/tenantgate log\n"
        ".venv/bin/tenantgate status\n"
    )
    console.print(f"Serving on {socket}. {token} is good for a day. Ctrl-C stops.")


if __name__ == "__main__":
    sys.exit(main())
