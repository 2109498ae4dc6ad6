"""Killed at any point, in any order: what is enforced in the end is what the table says, and nothing ever goes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from sidecar.bundles.signing import make_keys
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import status_service_pb2 as status_pb
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.decision_pb2 import DecisionCode
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from sidecar.identity import Asserted
from sidecar.registry.attribute_values import typed
from sidecar.registry.table import RegistryTable
from sidecar.translate import Limits, batch_question
from tests.support.dynamodb import ENVIRONMENT
from tests.support.processes import OPA, wait_until
from tests.support.registries import compiled

if TYPE_CHECKING:
    from tests.support.dynamodb import DynamoDb
    from tests.support.processes import PolicyOpa

TENANTGATE = Path(sys.executable).with_name("tenantgate")
TENANTS = ["T1", "T2", "T3"]
TOOLS = ["tool:a", "tool:b", "other"]
CHANGES_AT_LEAST = 300

_effects = st.sampled_from(["ALLOW", "ALLOW", "DENY"])
_statuses = st.sampled_from(["ACTIVE", "ACTIVE", "SUSPENDED"])
_resources = st.lists(st.sampled_from([*TOOLS, "tool:*", "**"]), min_size=1, max_size=2)


@st.composite
def changes(draw: st.DrawFn) -> tuple[dict[str, Any], bool]:
    """Make one change: an item, and whether it is removed."""
    tenant = f"TENANT#{draw(st.sampled_from(TENANTS))}"
    item: dict[str, Any] = draw(
        st.one_of(
            st.builds(lambda s: {"pk": tenant, "sk": "TENANT", "membership": "OPTIONAL", "status": s}, _statuses),
            st.builds(lambda r: {"pk": tenant, "sk": "USER#alice", "roles": r}, st.sampled_from([["x"], []])),
            st.builds(
                lambda policy, effect, resources, roles: {
                    "pk": tenant,
                    "sk": f"POLICY#{policy}",
                    "rules": [
                        {"effect": effect, "resourceType": "TOOL", "resources": resources}
                        | ({"subjects": {"roles": ["x"]}} if roles else {})
                    ],
                },
                st.sampled_from("pq"),
                _effects,
                _resources,
                st.booleans(),
            ),
            st.builds(lambda s: {"pk": "SHARED", "sk": "RESOURCE#TOOL#tool:a", "status": s}, _statuses),
        )
    )
    return item, draw(st.sampled_from([False, False, False, True]))


class Kills(RuleBasedStateMachine):
    """A table that changes, a watcher and a sidecar with its OPA that are killed, and one question about everything."""

    database: ClassVar[DynamoDb]
    opa: ClassVar[PolicyOpa]
    made = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="tg-")
        self.root = Path(self.folder.name)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.as_of = 0

    @initialize()
    def begin(self) -> None:
        """Make a table, and start everything."""
        self.table = self.database.fresh_name()
        RegistryTable(self.database.client, self.table).init()
        make_keys(self.root / "k.key", self.root / "k.pub", "ES256")
        self.start_watcher()
        self.start_sidecar()

    @rule(some=st.lists(changes(), min_size=20, max_size=40))
    def change(self, some: list[tuple[dict[str, Any], bool]]) -> None:
        """Change the table."""
        self.apply(some)

    def apply(self, some: list[tuple[dict[str, Any], bool]]) -> None:
        """Make changes, and see that nothing goes back."""
        for item, removed in some:
            if removed:
                key = typed({"pk": item["pk"], "sk": item["sk"]})
                self.database.client.delete_item(TableName=self.table, Key=key)
            else:
                self.database.client.put_item(TableName=self.table, Item=typed(item))
        Kills.made += len(some)
        self.decide()

    change_again = rule(some=st.lists(changes(), min_size=20, max_size=40))(lambda self, some: self.apply(some))

    @rule()
    def kill_watcher(self) -> None:
        """Kill the watcher, and start it again."""
        self.kill("watcher")
        self.start_watcher()

    @rule()
    def kill_sidecar(self) -> None:
        """Kill the sidecar, with which its OPA ends, and start it again."""
        self.kill("sidecar")
        self.start_sidecar()

    @rule()
    def kill_opa(self) -> None:
        """Kill OPA, which the sidecar starts again."""
        with suppress(grpc.RpcError, ProcessLookupError):
            with grpc.insecure_channel(self.address) as channel:
                pid = StatusServiceStub(channel).GetStatus(status_pb.GetStatusRequest(), timeout=2).status.opa.pid
            if pid:
                os.kill(pid, signal.SIGKILL)

    @rule()
    def settle(self) -> None:
        """Wait until what is enforced is what the table says."""
        wait_until(self.is_settled, 30)

    def teardown(self) -> None:
        """Settle once more, and stop everything."""
        try:
            if self.processes and sys.exc_info()[0] is None:
                self.settle()
        finally:
            for name in list(self.processes):
                self.kill(name)
            self.folder.cleanup()

    # ── means ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def address(self) -> str:
        """Where the sidecar is."""
        return f"unix:{self.root / 's' / 'tenantgate.sock'}"

    def start(self, name: str, *words: object) -> None:
        """Start one of our commands."""
        command = [str(TENANTGATE), *map(str, words)]
        self.processes[name] = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)

    def start_watcher(self) -> None:
        """Start the watcher."""
        where = ("--table", self.table, "--endpoint-url", self.database.url)
        # a new base every two seconds or so
        pace = ("--poll", "0.05", "--heartbeat", "0.3", "--max-removals", "100", "--base-age", "0.0006")
        self.start("watcher", "bundle", "watch", "--out", self.root / "b", "--key", self.root / "k.key", *where, *pace)
        wait_until((self.root / "b" / "overlay.tar.gz").exists, 30)

    def start_sidecar(self) -> None:
        """Start the sidecar, and wait until it serves."""
        flags = [
            f"state_dir={self.root / 's'}",
            f"bundles.source={self.root / 'b'}",
            f"bundles.keys=[{self.root / 'k.pub'}]",
        ]
        flags += [
            "identity.mode=asserted",
            f"opa.binary={OPA}",
            "log.access=false",
            "lifecycle.probe_interval_seconds=0.1",
        ]
        self.start("sidecar", "serve", *(word for flag in flags for word in ("--set", flag)))
        wait_until(lambda: self.decide() is not None, 30)

    def kill(self, name: str) -> None:
        """Kill a process."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    def request(self) -> pb.BatchAuthorizeRequest:
        """Give the question about every tool, for one tenant after the other."""
        return pb.BatchAuthorizeRequest(
            identity={"principal": {"id": "agent:x"}, "subject": {"id": "alice"}},
            items=[pb.BatchAuthorizeItem(resource={"type": "TOOL", "id": tool}) for tool in TOOLS],
        )

    def decide(self) -> list[tuple[int, str]] | None:
        """Ask about everything; ``None`` while there is no answer. No answer is ever made under an older registry."""
        answers: list[tuple[int, str]] = []
        try:
            with grpc.insecure_channel(self.address) as channel:
                for tenant in TENANTS:
                    request = self.request()
                    request.identity.tenant_id = tenant
                    for result in AuthorizationServiceStub(channel).BatchAuthorize(request, timeout=2).results:
                        as_of = result.decision.as_of.ToMicroseconds()
                        assert as_of >= self.as_of, f"as-of went back from {self.as_of} to {as_of}"
                        self.as_of = as_of
                        answers.append((result.decision.code, result.decision.rule_id))
        except grpc.RpcError:
            return None
        return answers

    def expected(self) -> list[tuple[int, str]]:
        """Give the answers under a fresh compile of the table."""
        self.opa.put("registry/base", compiled(RegistryTable(self.database.client, self.table).scan()))
        limits = Limits()
        answers: list[tuple[int, str]] = []
        for tenant in TENANTS:
            request = self.request()
            request.identity.tenant_id = tenant
            question, _ = batch_question(request, Asserted((), limits).establish(request.identity, {}).identity, limits)
            decided = self.opa.decider().decide_batch(question, "expected", time.monotonic() + 10)
            answers += [(DecisionCode.Value(f"DECISION_CODE_{d.code}"), d.rule_id) for d in decided]
        return answers

    def is_settled(self) -> bool:
        """Tell whether what is enforced is what the table says."""
        return self.decide() == self.expected()


@pytest.mark.timeout(600)
def test_nothing_is_lost_resurrected_or_taken_back_whatever_is_killed(
    dynamodb: DynamoDb, policy_opa: PolicyOpa
) -> None:
    Kills.database, Kills.opa, Kills.made = dynamodb, policy_opa, 0
    thorough = settings(
        max_examples=8,
        stateful_step_count=20,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a failure is shown as it came: what is killed does not come twice alike
        suppress_health_check=[*HealthCheck],
    )
    run_state_machine_as_test(Kills, settings=thorough)
    assert Kills.made >= CHANGES_AT_LEAST
