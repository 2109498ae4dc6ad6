"""What the dashboard shows of a sidecar under load while things around it break: ``make dashboard`` writes docs/dashboard.svg.

A real sidecar with its OPA, a real Prometheus that scrapes it, the dashboard's own queries. Only the drawing is not Grafana's.
All of it runs on loopback.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from sidecar.errors import TenantgateError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2, decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.credential_service_pb2_grpc import CredentialServiceStub
from sidecar.identity.development import DevelopmentIssuer
from sidecar.telemetry import configure_logs
from tests.bench.drawing import Series, draw
from tests.support import authzen, wire
from tests.support.bundles import NOW, SECOND, Key, Publisher, pack
from tests.support.exchanges import MEMORY, READ_MEMORY, registry_items
from tests.support.exports import write_export
from tests.support.key_server import KEYS, key_server
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings
from tests.support.prometheus import OBSERVABILITY, expanded, running_prometheus, why_missing
from tests.support.sts import ENVIRONMENT, ROLE, refusal, running_sts

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.server import Sidecar
    from tests.support.key_server import KeyServer
    from tests.support.prometheus import Prometheus
    from tests.support.sts import RecordingSts

PICTURE = REPOSITORY / "docs" / "dashboard.svg"
_SCRAPE, _RATE = 1.0, "10s"
_POINTS = 100  # of a line, at the most
_HEARTBEAT = 5.0
_RULES = [
    READ_MEMORY,
    {"ruleId": "tools", "effect": "ALLOW", "resourceType": "TOOL", "resources": ["agent:tool:order-*"]},
    {
        "ruleId": "purge",
        "effect": "DENY",
        "resourceType": "TOOL",
        "resources": ["agent:tool:*-purge"],
        "reason": "never",
    },
    {
        "ruleId": "small",
        "effect": "ALLOW",
        "resourceType": "TOOL",
        "resources": ["agent:tool:refund"],
        "conditions": [{"path": "/arguments/amount", "op": "lte", "value": 50}],
    },
]
_TOOLS = [f"agent:tool:order-{number}" for number in range(40)] + ["agent:tool:order-purge", "agent:tool:other"]


class _Run:
    """The sidecar, what it needs, and those who call it until ``over``."""

    def __init__(self, stack: ExitStack, folder: Path, seconds: float) -> None:
        self.fault_seconds = seconds / 8
        self.over = threading.Event()
        self.keys: KeyServer = stack.enter_context(key_server())
        self.sts: RecordingSts = stack.enter_context(running_sts())
        self.issuer = DevelopmentIssuer(folder / "issuer")
        settings = self.issuer.settings()
        self.keys.answers[KEYS] = 200, Path(str(settings["jwks"])).read_bytes()
        bundle = build_bundle(write_export(folder / "export", registry_items(*_RULES)), folder / "bundle.tar.gz")
        self.publisher = Publisher(bundle, folder / "published", Key(folder))
        self.base = self._now()
        self.publisher.base(self.base)
        assert self.publisher.key is not None
        sidecar: tuple[Sidecar, grpc.Channel] = stack.enter_context(
            running_sidecar(
                sidecar_settings(
                    folder / "state",
                    None,
                    listen__admin="127.0.0.1:0",
                    bundles__source=str(self.publisher.folder),
                    bundles__keys=[str(self.publisher.key.public)],
                    identity__mode="verified",
                    identity__issuers=[{**settings, "jwks": self.keys.keys_url}],
                    identity__keys_refresh_seconds=2,
                    identity__keys_timeout_seconds=1,
                    credentials__role_arn=ROLE,
                    credentials__endpoint_url=self.sts.url,
                    credentials__region="eu-west-1",
                    authzen__listen="127.0.0.1:0",
                    audit__file__path="decisions.jsonl",
                    limits__in_flight=64,
                )
            )
        )
        self.sidecar, self.channel = sidecar
        self.tokens = [
            self.issuer.mint(tenant, user, "agent:order-bot", scopes=("tools:write",))
            for tenant in ("acme", "globex")
            for user in ("alice", "bob", "carol")
        ]

    @staticmethod
    def _now() -> int:
        return int(time.time()) - NOW // SECOND

    def every(self, seconds: float, work: Callable[[random.Random], None]) -> None:
        """Have a thread do something every so many seconds on average, whatever comes of it."""
        choice = random.Random(work.__name__)

        def repeat() -> None:
            while not self.over.wait(choice.expovariate(1 / seconds)):
                with suppress(grpc.RpcError, OSError, TenantgateError):
                    work(choice)

        threading.Thread(target=repeat, daemon=True).start()

    # ── callers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _bearer(self, choice: random.Random) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {choice.choice(self.tokens)}"),)

    def ask(self, choice: random.Random) -> None:
        """Ask about a tool, of which a few are asked about most."""
        tool = _TOOLS[min(int(choice.expovariate(0.2)), len(_TOOLS) - 1)]
        wire.authorize(self.channel, pb.AuthorizeRequest(resource=wire.resource(tool)), metadata=self._bearer(choice))

    def ask_with_arguments(self, choice: random.Random) -> None:
        """Ask about a tool whose rule looks at the arguments."""
        request = pb.AuthorizeRequest(resource=wire.resource("agent:tool:refund"))
        request.arguments.update({"amount": choice.randrange(100)})
        wire.authorize(self.channel, request, metadata=self._bearer(choice))

    def ask_for_many(self, choice: random.Random) -> None:
        """Ask about ten tools at once, and which of them may be called at all."""
        stub: Any = AuthorizationServiceStub(self.channel)
        some = choice.sample(_TOOLS, 10)
        items = [pb.BatchAuthorizeItem(resource=wire.resource(tool)) for tool in some]
        stub.BatchAuthorize(pb.BatchAuthorizeRequest(items=items), timeout=5, metadata=self._bearer(choice))
        tools = [wire.resource(tool) for tool in some]
        stub.FilterTools(pb.FilterToolsRequest(tools=tools), timeout=5, metadata=self._bearer(choice))

    def ask_over_http(self, choice: random.Random) -> None:
        """Ask at the AuthZEN door."""
        asked = authzen.evaluation("alice", "invoke", "x")
        asked["resource"] = authzen.resource(choice.choice(_TOOLS), "TOOL")
        authzen.post(self.sidecar, authzen.EVALUATION, asked, authorization=f"Bearer {choice.choice(self.tokens)}")

    def ask_wrongly(self, choice: random.Random) -> None:
        """Ask with a token or a request that is no good."""
        old = self.issuer.mint("acme", "alice", "agent:order-bot", lifetime=-3600)
        token = choice.choice([old, "none", self.tokens[0][:-8] + "AAAAAAAA", self.tokens[0], self.tokens[0]])
        request = pb.AuthorizeRequest(resource=wire.resource(""))
        wire.authorize(self.channel, request, metadata=(("authorization", f"Bearer {token}"),))

    def exchange(self, choice: random.Random) -> None:
        """Ask for credentials."""
        stub: Any = CredentialServiceStub(self.channel)
        request = credential_service_pb2.ExchangeTokenRequest(
            resource=wire.resource(f"{MEMORY[:-2]}{choice.randrange(20):02}", "MEMORY"),
            action=decision_pb2.Action(name="read"),
        )
        stub.ExchangeToken(request, timeout=5, metadata=self._bearer(choice))

    def heartbeat(self, _choice: random.Random) -> None:
        """Publish as of when nothing has changed."""
        self.publisher.overlay(self._now(), since=self.base)

    # ── what breaks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def kill_opa(self) -> None:
        """Kill OPA."""
        pid = wire.get_status(self.channel).opa.pid
        os.kill(pid, signal.SIGKILL)

    def tamper(self) -> None:
        """Publish a base that is not what was signed."""
        good = self.publisher.get("base")
        files = self.publisher.signed(self.publisher.base_files(self._now()))
        files["registry/base/data.json"] += b" "
        self.publisher.put("base", pack(files))
        self.over.wait(min(3.0, self.fault_seconds))
        self.publisher.put("base", good)

    def lose_issuer(self) -> None:
        """Have the issuer answer nothing for a while."""
        self.keys.gate.clear()
        self.over.wait(self.fault_seconds)
        self.keys.gate.set()

    def refuse_credentials(self) -> None:
        """Have STS refuse for a while."""
        self.sts.answer = lambda _: refusal("AccessDenied", "not now")
        self.over.wait(self.fault_seconds)
        self.sts.answer = lambda _: None


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0, help="how long it runs")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where the picture is written")
    options = parser.parse_args()
    if missing := why_missing():
        parser.exit(1, f"{missing}\n")
    configure_logs("error", "text")
    os.environ.update(ENVIRONMENT)
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    with tempfile.TemporaryDirectory(prefix="tg-") as name, ExitStack() as stack:
        run = _Run(stack, Path(name), options.seconds)
        address = run.sidecar.admin_url.removeprefix("http://")
        prometheus = stack.enter_context(running_prometheus(Path(name), address, seconds=_SCRAPE))
        stack.callback(run.over.set)
        begin = time.time()
        for seconds, work in (
            (0.01, run.ask),
            (0.03, run.ask_with_arguments),
            (0.3, run.ask_for_many),
            (0.1, run.ask_over_http),
            (1.0, run.ask_wrongly),
            (0.5, run.exchange),
            (_HEARTBEAT, run.heartbeat),
        ):
            run.every(seconds, work)
        for share, fault in (
            (0.25, run.kill_opa),
            (0.4, run.lose_issuer),
            (0.6, run.tamper),
            (0.75, run.refuse_credentials),
        ):
            run.over.wait(max(0.0, begin + share * options.seconds - time.time()))
            print(f"{time.time() - begin:5.0f} s  {fault.__doc__}", flush=True)  # noqa: T201 - whoever waits wants to know
            fault()
        run.over.wait(max(0.0, begin + options.seconds - time.time()))
        end = time.time()
        answers = {panel["id"]: _answers(prometheus, panel, begin, end) for panel in dashboard["panels"]}
        on = time.strftime("%d %B %Y", time.gmtime(end))
        about = f"{end - begin:.0f} s of a real sidecar on {on}"
        note = f"{about}, drawn by `make dashboard` from the dashboard's queries, not by Grafana"
        options.out.write_text(draw(dashboard, answers, begin, end, note))


def _answers(prometheus: Prometheus, panel: dict[str, Any], begin: float, end: float) -> list[Series]:
    """Give what Prometheus answers to the queries of a panel, without what is no number."""
    found = []
    for target in panel.get("targets", []):
        for answer in prometheus.range(
            expanded(target["expr"], _RATE), begin, end, max(_SCRAPE, (end - begin) / _POINTS)
        ):
            points = [(moment, float(value)) for moment, value in answer["values"] if math.isfinite(float(value))]
            if points:
                found.append(Series(_named(target["legendFormat"], answer["metric"]), points))
    return found


def _named(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), form)


if __name__ == "__main__":
    main()
