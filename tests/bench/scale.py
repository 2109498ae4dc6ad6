"""What the number of tenants and of rules costs: to compile, to activate in OPA, and for each question.

Each size is a whole registry, written as DynamoDB exports it, compiled by ``tenantgate bundle build`` and served by
``tenantgate serve``. The questions come last, and go to all the sidecars in turns, so that what else the machine does falls on
all sizes alike.

    .venv/bin/python tests/bench/scale.py [--quick] [--out build/scale.json]
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import grpc
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY))  # for the helpers of the tests

from sidecar import translate  # noqa: E402
from sidecar.engine.coalesce import AUTHORIZE  # noqa: E402
from sidecar.engine.decide import new_decision_id, now_microseconds  # noqa: E402
from sidecar.engine.opa import OpaClient  # noqa: E402
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb  # noqa: E402
from sidecar.gen.tenantgate.v1 import decision_pb2  # noqa: E402
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub  # noqa: E402
from sidecar.gen.tenantgate.v1.status_service_pb2 import GetStatusRequest  # noqa: E402
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub  # noqa: E402
from sidecar.model import Action, Identity, Item, Principal, Question, Resource, Subject, Tenant  # noqa: E402
from sidecar.settings import Settings  # noqa: E402
from tests.support import exports  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = [(100, 9), (1_000, 9), (10_000, 9), (100_000, 9), (100, 10), (100, 100), (100, 1_000)]
QUICK_SIZES = [(10, 9), (50, 9), (10, 30)]

# --- the registry ------------------------------------------------------------------------------------------------------------

DEPARTMENTS = ("sales", "finance", "support", "legal", "stock", "people", "risk", "field", "labs", "board")
AREAS = (
    "order",
    "refund",
    "invoice",
    "ticket",
    "report",
    "customer",
    "shipment",
    "contract",
    "payment",
    "calendar",
    "asset",
    "lead",
)
DOMAINS = [(department, area) for department in DEPARTMENTS for area in AREAS]
READ_TOOLS = ("lookup", "search", "export", "report-weekly")
WRITE_TOOLS = ("create", "update", "delete", "admin-purge")
RULES_PER_DOMAIN = 9
RULES_PER_POLICY = 500  # an item of DynamoDB has at most 400 KB
SHAPES = 24
TENANT = "{tenant}"  # stands for the tenant's id in what all tenants of a shape have in common
FILES = 8


class Shape(msgspec.Struct, frozen=True):
    """What the tenants of one kind have in common: their items as lines of an export, and the domain they are asked about."""

    domain: tuple[str, str]
    lines: tuple[str, ...]


def tenant_name(number: int) -> str:
    """Name a tenant."""
    return f"tenant-{number:06}"


def rules_of(domain: tuple[str, str], limit: int) -> Iterator[dict[str, Any]]:
    """Yield the rules on one domain: exact ids and globs, some narrowed, some with conditions or obligations."""
    department, area = domain
    tool = f"agent:tool:{department}:{area}"
    yield {"effect": "ALLOW", "resourceType": "TOOL", "resources": [f"{tool}-lookup", f"{tool}-search"]}
    yield {
        "ruleId": f"{department}-{area}-up-to-{limit}",
        "effect": "ALLOW",
        "resourceType": "TOOL",
        "resources": [f"{tool}-create", f"{tool}-update"],
        "subjects": {"roles": ["clerk", "manager"]},
        "conditions": [{"path": "/arguments/amount", "op": "lte", "value": limit}],
    }
    yield {"effect": "ALLOW", "resourceType": "TOOL", "resources": [f"{tool}-report-*"]}
    yield {
        "effect": "DENY",
        "resourceType": "TOOL",
        "resources": [f"{tool}-delete"],
        "reason": f"Deleting a {area} takes a person",
    }
    yield {
        "effect": "ALLOW",
        "resourceType": "TOOL",
        "resources": [f"{tool}-export"],
        "subjects": {"roles": ["manager"]},
        "obligations": [{"type": "redact", "fields": ["email", "phone"]}],
    }
    yield {
        "effect": "ALLOW",
        "resourceType": "MEMORY",
        "resources": [f"memory:{TENANT}:{department}:{area}:**"],
        "actions": ["read", "write"],
        "conditions": [{"path": "/resource/properties/owner", "op": "eq", "valueFrom": "/subject/id"}],
    }
    yield {
        "effect": "ALLOW",
        "resourceType": "KNOWLEDGE_BASE",
        "resources": [f"kb:{TENANT}:{department}-{area}"],
        "conditions": [{"path": "/context/channel", "op": "in", "value": ["chat", "mail"]}],
    }
    yield {
        "effect": "DENY",
        "resourceType": "TOOL",
        "resources": [f"{tool}-admin-*"],
        "principals": ["agent:*-bot"],
        "reason": f"Bots do not administer {department}",
    }
    yield {
        "effect": "ALLOW",
        "resourceType": "AGENT",
        "resources": [f"agent:{department}-{area}"],
        "scopes": ["tools:read"],
        "notBefore": "2026-01-01T00:00:00Z",
    }


def items_of(number: int, rules_per_tenant: int) -> tuple[tuple[str, str], list[dict[str, Any]]]:
    """Make the items of a tenant of shape ``number``, and choose the domain that it is asked about."""
    start = number * 7
    count = -(-rules_per_tenant // RULES_PER_DOMAIN)
    domains = [DOMAINS[(start + i) % len(DOMAINS)] for i in range(count)]
    rules = [rule for domain in domains for rule in rules_of(domain, 100 * (number + 1))][:rules_per_tenant]
    # one policy for all users, and one for those that list it, in every other tenant
    cuts = (
        range(0, len(rules), RULES_PER_POLICY)
        if number % 2
        else [0, *range(len(rules) // 2, len(rules), RULES_PER_POLICY)]
    )
    policies = [f"POL-{position + 1}" for position in range(len(cuts))]
    items: list[dict[str, Any]] = [{"sk": "TENANT", "status": "ACTIVE", "membership": "REQUIRED"}]
    for name, begin, end in zip(policies, cuts, [*cuts[1:], len(rules)], strict=True):
        assignment = "TENANT" if begin == 0 else "MEMBERS"
        items.append({"sk": f"POLICY#{name}", "policyId": name, "rules": rules[begin:end], "assignment": assignment})
    users = (("alice", ["clerk"]), ("bob", ["clerk", "manager"]))
    for user, roles in users:
        attributes = {"department": domains[0][0], "level": len(roles)}
        items.append(
            {"sk": f"USER#{user}", "userId": user, "roles": roles, "policyIds": policies, "attributes": attributes}
        )
    agents = ("agent:desk-bot", "agent:night-bot")[: 1 + number % 2]
    scopes = ["tools:read", "tools:write"]
    items += ({"sk": f"AGENT#{agent}", "agentId": agent, "scopes": scopes} for agent in agents)
    return domains[0], [{"pk": f"TENANT#{TENANT}", "tenantId": TENANT, **item} for item in items]


def make_shapes(rules_per_tenant: int) -> list[Shape]:
    """Make the shapes that tenants take turns in: an export of a million items is written in seconds, none of them trivial."""
    made = (items_of(number, rules_per_tenant) for number in range(SHAPES))
    return [Shape(domain, tuple(map(export_line, items))) for domain, items in made]


def export_line(item: dict[str, Any]) -> str:
    """Write an item as a line of a data file."""
    return json.dumps({"Item": exports.attributes(item)}, separators=(",", ":"))


def shared_lines() -> Iterator[str]:
    """Yield the catalogue of tools that all tenants share."""
    for department, area in DOMAINS:
        for access, tools in (("READ", READ_TOOLS), ("WRITE", WRITE_TOOLS)):
            for tool in tools:
                tool_id = f"agent:tool:{department}:{area}-{tool}"
                item = {"pk": "SHARED", "sk": f"RESOURCE#TOOL#{tool_id}", "resourceType": "TOOL", "resourceId": tool_id}
                yield export_line({**item, "access": access, "description": f"{tool} of {area}"})


def write_registry(folder: Path, tenants: int, shapes: list[Shape]) -> Path:
    """Write an export of a registry, in the order of a hash and each tenant spread over all files, as DynamoDB may do."""
    lines = list(shared_lines())
    for number in random.Random(tenants).sample(range(tenants), tenants):
        lines += [line.replace(TENANT, tenant_name(number)) for line in shapes[number % SHAPES].lines]
    return exports.write_export(folder, (), files=FILES, lines=lines)


# --- the control plane -------------------------------------------------------------------------------------------------------

COMMAND = Path(sys.executable).with_name("tenantgate")
MEBIBYTE = 1 << 20

# Runs a command and prints its peak of resident memory in KiB. It is a process of its own because a child's peak counts from
# the fork, and so begins with what the parent holds.
MEASURED = """
import os, sys
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Built(msgspec.Struct, frozen=True):
    """A bundle, and what it took to make it."""

    bundle: Path
    seconds: float
    peak_mb: float


def build(export: Path, bundle: Path, custom: Path | None = None) -> Built:
    """Compile an export as a user does, with the extensions of a folder, or else with none, whatever the clone has."""
    with tempfile.TemporaryDirectory(prefix="tg-") as none:
        paths = {"--export": export, "--out": bundle, "--custom": custom or Path(none)}
        arguments = ["bundle", "build", "--json", *(str(word) for option in paths.items() for word in option)]
        began = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", MEASURED, COMMAND, *arguments], stdout=subprocess.PIPE, text=True, check=False
        )
    if ended.returncode != 0:
        msg = f"{export} does not compile"
        raise SystemExit(msg)
    return Built(bundle, time.perf_counter() - began, int(ended.stdout.splitlines()[-1]) * 1024 / MEBIBYTE)


# --- the data plane ----------------------------------------------------------------------------------------------------------

START_TIMEOUT = 300.0
CONNECT_AT_ONCE = [(f"grpc.{name}_reconnect_backoff_ms", 20) for name in ("initial", "min", "max")]
POLICY = translate.encode_settings(Settings().policy)
ACCEPTS = ("redact",)


class Asked(msgspec.Struct, frozen=True):
    """A question about a tool of the tenant's domain, and the effect that the registry has on it."""

    tool: str
    arguments: dict[str, Any]
    effect: decision_pb2.Effect


ASKED = (
    Asked("lookup", {}, decision_pb2.EFFECT_ALLOW),
    Asked("update", {"amount": 60, "note": "by phone"}, decision_pb2.EFFECT_ALLOW),
    Asked("report-weekly", {}, decision_pb2.EFFECT_ALLOW),
    Asked("delete", {}, decision_pb2.EFFECT_DENY),
)


class Sidecar:
    """A sidecar that serves one size of registry, and questions to it."""

    def __init__(self, tenants: int, shapes: list[Shape], folder: Path, channel: grpc.Channel) -> None:
        self._tenants = tenants
        self._shapes = shapes
        self._random = random.Random(tenants)
        self._authorize = AuthorizationServiceStub(channel).Authorize
        self._opa = OpaClient(f"unix:{folder / 'opa.sock'}", connections=1, timeout=10, max_answer_bytes=MEBIBYTE)
        self._get_status = StatusServiceStub(channel).GetStatus
        self._serial = 0

    def question(self) -> tuple[Question, Asked]:
        """Make up the next question: any tenant, the kinds in turns.

        Its role is one that no question had before, so that none is answered from a cache.
        """
        self._serial += 1
        asked = ASKED[self._serial % len(ASKED)]
        number = self._random.randrange(self._tenants)
        department, area = self._shapes[number % SHAPES].domain
        subject = Subject("alice", roles=(f"session-{self._serial}",))
        identity = Identity(Tenant(tenant_name(number)), Principal("agent:desk-bot"), subject, scopes=("tools:write",))
        resource = Resource("TOOL", f"agent:tool:{department}:{area}-{asked.tool}")
        return Question(identity, (Item(resource, Action(), arguments=asked.arguments),), ACCEPTS), asked

    def ask(self, *, wait: bool = False, timeout: float = 10.0) -> int:
        """Ask the next question over gRPC and check the answer; give the time it took, in nanoseconds."""
        question, asked = self.question()
        request = in_protobuf(question)
        began = time.perf_counter_ns()
        response = self._authorize(request, timeout=timeout, wait_for_ready=wait)
        took = time.perf_counter_ns() - began
        assert response.decision.effect == asked.effect, (request, response)
        return took

    def ask_opa(self) -> int:
        """Ask OPA alone, over its Unix socket; give the time it took, in nanoseconds."""
        question, asked = self.question()
        body = translate.single_query(question, new_decision_id(), now_microseconds(), POLICY)
        began = time.perf_counter_ns()
        answer = self._opa.query(AUTHORIZE, body, time.monotonic() + 10)
        took = time.perf_counter_ns() - began
        assert decision_pb2.Effect.Name(asked.effect).endswith(translate.decision_answer(*answer).effect), (
            body,
            answer,
        )
        return took

    def opa_memory(self) -> dict[str, float]:
        """Give the resident memory of OPA: now (``VmRSS``) and at its peak (``VmHWM``), in MiB."""
        pid = self._get_status(GetStatusRequest(), timeout=10).status.opa.pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {
            name: int(rest.split()[0]) * 1024 / MEBIBYTE
            for name, _, rest in (line.partition(":") for line in lines)
            if "kB" in rest
        }


def in_protobuf(question: Question) -> pb.AuthorizeRequest:
    """Write a question as a caller does."""
    identity, item = question.identity, question.items[0]
    request = pb.AuthorizeRequest(
        identity=decision_pb2.Identity(
            tenant_id=identity.tenant.id,
            principal=decision_pb2.Principal(id=identity.principal.id),
            subject=decision_pb2.Subject(id=identity.subject.id, roles=identity.subject.roles),
            scopes=identity.scopes,
        ),
        resource=decision_pb2.Resource(type=item.resource.type, id=item.resource.id),
        accepted_obligations=question.accepts,
    )
    request.arguments.update(item.arguments or {})
    return request


@contextmanager
def serving(bundle: Path, tenants: int, shapes: list[Shape], folder: Path) -> Iterator[tuple[Sidecar, float]]:
    """Serve a bundle; give the sidecar and the time from its start to its first decision, in seconds."""
    settings = (
        f"state_dir={folder}",
        "log.level=error",
        "log.access=false",
        "identity.mode=asserted",
        f"opa.start_timeout_seconds={START_TIMEOUT}",
    )
    flags = [argument for setting in settings for argument in ("--set", setting)]
    began = time.perf_counter()
    process = subprocess.Popen([COMMAND, "serve", "--bundle", bundle, *flags])
    try:
        with grpc.insecure_channel(f"unix:{folder / 'tenantgate.sock'}", options=CONNECT_AT_ONCE) as channel:
            sidecar = Sidecar(tenants, shapes, folder, channel)
            while True:
                try:
                    sidecar.ask(wait=True, timeout=0.5)
                except grpc.RpcError as fault:
                    if process.poll() is not None or time.perf_counter() - began > START_TIMEOUT:
                        msg = f"the sidecar for {tenants} tenants does not serve"
                        raise SystemExit(msg) from fault
                else:
                    break
            yield sidecar, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


# --- the measurement ---------------------------------------------------------------------------------------------------------


class Row(msgspec.Struct):
    """What a size costs. Times of one question are medians over rounds of the median of a round."""

    tenants: int
    rules_per_tenant: int
    compile_s: float
    compile_peak_mb: float
    activate_s: float
    opa_rss_mb: float = 0.0
    authorize_p50_us: float = 0.0


class Beside(msgspec.Struct):
    """What is shown beside a row."""

    bundle_mb: float
    opa_peak_mb: float = 0.0
    rounds_us: list[float] = msgspec.field(default_factory=list)
    opa_us: list[float] = msgspec.field(default_factory=list)


def p50_us(ask: Callable[[], int], calls: int) -> float:
    """Ask a number of times; give the median time in microseconds."""
    return statistics.median(ask() for _ in range(calls)) / 1000


def measure(sizes: list[tuple[int, int]], rounds: int, calls: int, console: Console) -> list[tuple[Row, Beside]]:
    """Measure all sizes."""
    measured: list[tuple[Row, Beside]] = []
    sidecars: list[Sidecar] = []
    with ExitStack() as stack:
        for tenants, rules in sizes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-")))
            shapes = make_shapes(rules)
            console.print(f"{tenants:,} tenants with {rules:,} rules each: write,", end=" ")
            with tempfile.TemporaryDirectory(prefix="tg-") as export:
                write_registry(Path(export), tenants, shapes)
                console.print("compile,", end=" ")
                built = build(Path(export), folder / "bundle.tar.gz")
            console.print("activate")
            sidecar, activate_s = stack.enter_context(serving(built.bundle, tenants, shapes, folder))
            sidecars.append(sidecar)
            row = Row(tenants, rules, built.seconds, built.peak_mb, activate_s)
            measured.append((row, Beside(built.bundle.stat().st_size / MEBIBYTE)))
        console.print(f"Asking {rounds * calls:,} questions of each")
        for sidecar in (*sidecars, *sidecars):
            p50_us(sidecar.ask, calls // 4)
        for _ in range(rounds):
            for (_, beside), sidecar in zip(measured, sidecars, strict=True):
                beside.rounds_us.append(p50_us(sidecar.ask, calls))
                beside.opa_us.append(p50_us(sidecar.ask_opa, calls))
        for (row, beside), sidecar in zip(measured, sidecars, strict=True):
            row.authorize_p50_us = statistics.median(beside.rounds_us)
            memory = sidecar.opa_memory()
            row.opa_rss_mb, beside.opa_peak_mb = memory["VmRSS"], memory["VmHWM"]
    return measured


def show(measured: list[tuple[Row, Beside]], console: Console) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE_HEAD)
    names = (
        "tenants",
        "rules each",
        "compile",
        "peak",
        "bundle",
        "activate",
        "OPA",
        "at its peak",
        "Authorize p50",
        "rounds",
        "OPA alone p50",
    )
    for name in names:
        table.add_column(name, justify="right")
    for row, beside in measured:
        table.add_row(
            f"{row.tenants:,}",
            f"{row.rules_per_tenant:,}",
            f"{row.compile_s:.1f} s",
            f"{row.compile_peak_mb:,.0f} MB",
            f"{beside.bundle_mb:,.1f} MB",
            f"{row.activate_s:.1f} s",
            f"{row.opa_rss_mb:,.0f} MB",
            f"{beside.opa_peak_mb:,.0f} MB",
            f"{row.authorize_p50_us:,.0f} µs",
            f"{min(beside.rounds_us):,.0f} to {max(beside.rounds_us):,.0f}",
            f"{statistics.median(beside.opa_us):,.0f} µs",
        )
    console.print(table)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Small sizes and few questions: shows that it runs, measures nothing.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=REPOSITORY / "build" / "scale.json", help="File to write."
)
def main(out: Path, *, quick: bool) -> None:
    """Measure, show, write."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    began = time.perf_counter()
    measured = measure(QUICK_SIZES, 2, 20, console) if quick else measure(SIZES, 8, 250, console)
    show(measured, console)
    out.parent.mkdir(exist_ok=True)
    rows = [{name: round(value, 1) for name, value in msgspec.to_builtins(row).items()} for row, _ in measured]
    out.write_text(json.dumps(rows, indent=1) + "\n")
    console.print(f"Written to {out} after {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
