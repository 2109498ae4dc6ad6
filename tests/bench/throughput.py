"""What decisions cost: calls a second on one core, latency, CPU and memory, beside what gRPC alone costs.

All servers run at the same time, each sidecar with its OPA, on one core; what calls them runs on another where there is one. The
kinds of call take turns, several times over, so that what else the machine does falls on all alike, and every number is a median.
Run it with ``make bench``; writes build/bench.json, and the numbers of docs/performance.md.

    .venv/bin/python -m tests.bench.throughput [--quick] [--rounds 7] [--duration 2] [--profile]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import grpc
import urllib3
import yaml
from msgspec import Struct, field
from rich.console import Console

from sidecar.engine.coalesce import AUTHORIZE
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.decision_pb2 import EFFECT_ALLOW
from sidecar.identity.development import DevelopmentIssuer
from tests.bench import questions, report, sampling
from tests.bench.loads import ECHO, Sample, Server, Workload, median, over_grpc, over_http, with_tokens
from tests.bench.machine import SERVER_CORE, children, describe, memory_mb, on_core
from tests.bench.scale import COMMAND, START_TIMEOUT, build, make_shapes, write_registry
from tests.bench.startup import Started, time_start
from tests.support.processes import EXTENSIONS, REPOSITORY, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RULES = 9  # of a tenant
SERVICE = "tenantgate.v1.AuthorizationService"
IN_FLIGHT = 16
MOST_WAITING = (
    10_000  # calls; where others begin however long it takes, a stall is to be seen as time and not as refusals
)
ENGINE_TIMEOUT = 20  # seconds; long, as 16 large calls in flight on one core wait for each other
BATCH = 50


class Plan(Struct, frozen=True):
    """How much is measured: registries of so many tenants, rounds, and seconds of a run."""

    few: int = 1_000
    many: int = 10_000
    most: int = 100_000
    rounds: int = 7
    seconds: float = 2.0
    warming: float = 60.0


class Row(Struct):
    """What a kind of call cost, run by run: with 16 in flight, one in flight, and begun at half the rate of the first."""

    full: list[Sample] = field(default_factory=list)
    one: list[Sample] = field(default_factory=list)
    half: list[Sample] = field(default_factory=list)


class Bench:
    """What is measured: servers, which end with ``stack``, and the calls to them."""

    def __init__(self, plan: Plan, folder: Path, stack: ExitStack) -> None:
        self._plan = plan
        self._folder = folder
        self._stack = stack
        self._shapes = make_shapes(RULES)
        self._issuer = DevelopmentIssuer(folder / "issuer")
        self._tools = questions.tools_of(self._shapes[0])
        self._question = questions.authorize(self._tools[0])
        self._token = questions.mint(self._issuer, 0)
        self._admin = f"127.0.0.1:{free_port()}"

    def build(self, tenants: int, custom: Path | None = None) -> Path:
        """Make a bundle, with the extensions of a folder if one is given."""
        bundle = self._folder / f"{tenants}{'-extended' if custom else ''}.tar.gz"
        with tempfile.TemporaryDirectory(prefix="tg-") as export:
            write_registry(Path(export), tenants, self._shapes)
            build(Path(export), bundle, custom)
        return bundle

    def workloads(self, few: Path, many: Path, most: Path | None) -> dict[str, Workload]:
        """Start the servers; give the kinds of call by name, in the order of the table."""
        files = self._folder / "requests"
        files.mkdir()
        metadata = files / "metadata.json"
        questions.write_metadata(metadata, self._token)
        asked = [questions.authorize(tool) for tool in self._tools[: len(questions.POPULAR)]]
        questions.write_requests(files / "authorize", asked)
        questions.write_queries(files / "queries", asked)
        questions.write_requests(files / "batch", [questions.batch(self._tools[:BATCH])])
        questions.write_requests(files / "filter", [questions.listing(self._tools)])

        def calling(server: Server, method: str, name: str, items: int = 1) -> Workload:
            return over_grpc(server, f"{SERVICE}/{method}", files / name, metadata, items=items)

        cached, plain = self._sidecar("hit", few), self._sidecar("miss", few, "cache.bytes=0")
        extended = self._sidecar("extended", self.build(self._plan.few, EXTENSIONS), "cache.bytes=0")
        logged = self._sidecar("logged", few, "log.access=true", "log.level=info", "audit.file.path=decisions.jsonl")
        opa = Server(plain.socket.with_name("opa.sock"), plain.pids[1:])

        def echoing(*threads: str) -> Workload:
            call = "tenantgate.bench.EchoService/Echo"
            return over_grpc(self._echo(*threads), call, files / "authorize", metadata, proto=ECHO)

        found = {
            "echo": echoing(),
            "echo_lean": echoing("sidecar"),
            "hit": calling(cached, "Authorize", "authorize"),
            "hit_logged": calling(logged, "Authorize", "authorize"),
            "miss": calling(plain, "Authorize", "authorize"),
            "miss_extended": calling(extended, "Authorize", "authorize"),
            "zipf": self._of_many_tenants(many),
            "batch50_hit": calling(cached, "BatchAuthorize", "batch", BATCH),
            "batch50_miss": calling(plain, "BatchAuthorize", "batch", BATCH),
            "filter200": calling(plain, "FilterTools", "filter", questions.TOOLS),
            "opa_rest": over_http(opa, f"/v1/data/{AUTHORIZE}?strict-builtin-errors=true", files / "queries"),
        }
        if most is not None:
            found["hit_most"] = calling(self._sidecar("hit-most", most), "Authorize", "authorize")
            found["miss_most"] = calling(self._sidecar("miss-most", most, "cache.bytes=0"), "Authorize", "authorize")
        return found

    def remembered(self) -> tuple[float, float]:
        """Tell how many of the mixed calls were remembered so far, and how many not."""
        answer = urllib3.request("GET", f"http://{self._admin}/metrics")
        lines = dict(
            line.split() for line in answer.data.decode().splitlines() if not line.startswith("#") and "{" not in line
        )
        return float(lines["tenantgate_cache_hits_total"]), float(lines["tenantgate_cache_misses_total"])

    def time_start(self, bundle: Path) -> Started:
        """Start a sidecar on all cores, until its first decision, and stop it."""
        with tempfile.TemporaryDirectory(prefix="tg-") as folder:
            arguments = self._settings(Path(folder), bundle)
            return time_start(arguments, Path(folder), self._question, self._token)

    def _of_many_tenants(self, bundle: Path) -> Workload:
        requests, tokens = self._folder / "requests" / "zipf", self._folder / "requests" / "tokens"
        stream = questions.Stream(
            self._shapes, [questions.mint(self._issuer, number) for number in range(self._plan.many)]
        )
        return with_tokens(
            self._sidecar("zipf", bundle, f"listen.admin={self._admin}"),
            f"{SERVICE}/Authorize",
            requests,
            tokens,
            lambda count: stream.write(requests, tokens, count),
        )

    def _settings(self, state: Path, bundle: Path, *settings: str) -> list[str]:
        file = state / "settings.yaml"
        file.write_text(yaml.safe_dump({"identity": {"issuers": [self._issuer.settings()]}}))
        given = [
            f"state_dir={state}",
            f"opa.bundle={bundle}",
            f"opa.start_timeout_seconds={START_TIMEOUT}",
            f"opa.timeout_seconds={ENGINE_TIMEOUT}",
            f"limits.in_flight={MOST_WAITING}",
            "log.level=error",
            "log.access=false",
            "audit.file.path=null",
            *settings,
        ]
        return ["--config", str(file), *(word for setting in given for word in ("--set", setting))]

    def _sidecar(self, name: str, bundle: Path, *settings: str) -> Server:
        """Start a sidecar, with its OPA, and wait until it decides."""
        state = self._folder / name
        state.mkdir()
        path = state / "tenantgate.sock"
        pid = self._start([COMMAND, "serve", *self._settings(state, bundle, *settings)], path)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            metadata = [("authorization", f"Bearer {self._token}")]
            answer = AuthorizationServiceStub(channel).Authorize(self._question, metadata=metadata, timeout=10)
        if answer.decision.effect != EFFECT_ALLOW:
            msg = f"{name} answers {answer.decision}"
            raise SystemExit(msg)
        return Server(path, [pid, *children(pid)])

    def _echo(self, *threads: str) -> Server:
        path = self._folder / f"{'-'.join(('echo', *threads))}.sock"
        return Server(path, [self._start([sys.executable, "-m", "tests.bench.echo", str(path), *threads], path)])

    def _start(self, command: Sequence[str | Path], path: Path) -> int:
        """Start a server on the servers' core, and wait until it listens at a path; give its process."""
        log = path.with_suffix(".log")
        with on_core(SERVER_CORE), log.open("wb") as file:
            process = subprocess.Popen(command, stderr=file, cwd=REPOSITORY)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        while not path.exists():
            if process.poll() is not None:
                msg = f"{command} ended: {log.read_text()}"
                raise SystemExit(msg)
            time.sleep(0.01)
        return process.pid


def warm(plan: Plan, workloads: dict[str, Workload]) -> None:
    """Call each server for a while, so that what it remembers is there: for long where that is much."""
    for name, workload in workloads.items():
        workload.run(IN_FLIGHT, plan.warming if name == "zipf" else plan.seconds / 2)


def run(plan: Plan, workloads: dict[str, Workload], console: Console) -> dict[str, Row]:
    """Call in turns."""
    rows = {name: Row() for name in workloads}
    for number in range(plan.rounds):
        for name, workload in workloads.items():
            row, large = rows[name], name.endswith("_most")
            row.full.append(workload.run(IN_FLIGHT, plan.seconds))
            if not large:
                row.one.append(workload.run(1, plan.seconds / 2))
            if not large and name != "opa_rest":
                row.half.append(workload.run(IN_FLIGHT, plan.seconds * 0.75, row.full[-1].per_second / 2))
            console.print(f"  {number + 1}/{plan.rounds} {name:13} {row.full[-1].per_second:8,.0f} calls/s", end="")
            others = row.full[-1].others
            console.print(f"  (others took {others:.0%} of the core)" if others > 0.05 else "")
    return rows


def summary(workload: Workload, row: Row) -> dict[str, Any]:
    """Give the medians of a kind of call, and how far its runs lie apart."""
    full = median(row.full)
    rates = [sample.per_second for sample in row.full]
    return {
        **_numbers(full),
        "decisions_per_second": round(full.per_second * workload.items),
        "others": round(full.others, 3),
        "spread": [round(min(rates)), round(max(rates))],
        **({"one": _numbers(median(row.one))} if row.one else {}),
        **({"half": _numbers(median(row.half))} if row.half else {}),
    }


def _numbers(sample: Sample) -> dict[str, float]:
    return {name: round(getattr(sample, name), 1) for name in ("per_second", "p50_us", "p99_us", "cpu_us", "opa_us")}


def starts(time_one: Callable[[], Started], times: int) -> dict[str, float]:
    """Give the start whose time is the median."""
    timed = sorted((time_one() for _ in range(times)), key=lambda started: started.total_s)
    one = timed[len(timed) // 2]
    names = ("total_s", "python_s", "opa_version_s", "opa_process_s", "opa_bundle_s", "serve_s")
    return {name: round(getattr(one, name), 3) for name in names}


@contextmanager
def prepared(plan: Plan, console: Console) -> Iterator[tuple[Bench, dict[int, Path]]]:
    """Build the registries; give the bench, and the bundles by their number of tenants."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-")))
        bench = Bench(plan, folder, stack)
        sizes = [size for size in (plan.few, plan.many, plan.most) if size]
        console.print(f"Building registries of {', '.join(f'{size:,}' for size in sizes)} tenants")
        yield bench, {size: bench.build(size) for size in sizes}


def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """Measure everything; give what goes into the file."""
    with prepared(plan, console) as (bench, bundles):
        console.print("Starting sidecars")
        begun = {
            str(size): starts(lambda size=size: bench.time_start(bundles[size]), plan.rounds)  # type: ignore[misc]
            for size in bundles
            if size != plan.many
        }
        workloads = bench.workloads(bundles[plan.few], bundles[plan.many], bundles.get(plan.most))
        console.print(f"{plan.rounds} rounds of {len(workloads)} kinds of call")
        warm(plan, workloads)
        before = bench.remembered()
        rows = run(plan, workloads, console)
        hits, misses = (after - count for after, count in zip(bench.remembered(), before, strict=True))
        return {
            "made": {**describe(), "rounds": plan.rounds, "seconds": plan.seconds},
            **{name: summary(workloads[name], row) for name, row in rows.items()},
            "zipf_remembered": round(hits / (hits + misses), 3),
            "start": begun,
            "memory_mb": {
                str(size): round(memory_mb(workloads[name].server.pids))
                for size, name in ((plan.few, "hit"), (plan.many, "zipf"), (plan.most, "hit_most"))
                if name in workloads
            },
        }


def profile(plan: Plan, console: Console, out: Path) -> None:
    """Write where the time of a call goes."""
    with prepared(plan, console) as (bench, bundles):
        workloads = bench.workloads(bundles[plan.few], bundles[plan.many], None)
        with out.open("w") as file:
            for name in ("hit", "miss"):
                workloads[name].run(IN_FLIGHT, plan.seconds)
                console.print(f"Sampling {name}")
                file.write(f"{report.TITLES[name]}\n\n{sampling.sample(workloads[name], IN_FLIGHT, plan.seconds)}\n\n")
    console.print(f"Written to {out}.")


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Few tenants and short runs: shows that it runs, measures nothing.")
@click.option("--rounds", default=Plan().rounds, show_default=True, help="How often each kind of call takes its turn.")
@click.option("--duration", default=Plan().seconds, show_default=True, help="How long a run is, seconds.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=REPOSITORY / "build" / "bench.json", help="File to write."
)
@click.option(
    "--profile",
    "profiled",
    is_flag=True,
    help="Write build/profile.txt instead: where the time of a call goes; needs py-spy.",
)
def main(*, quick: bool, rounds: int, duration: float, out: Path, profiled: bool) -> None:
    """Measure, show, write."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    began = time.perf_counter()
    full = Plan(rounds=rounds, seconds=duration)
    plan = Plan(few=20, many=50, most=0, rounds=1, seconds=0.4, warming=0.4) if quick else full
    out.parent.mkdir(exist_ok=True)
    if profiled:
        profile(Plan(few=plan.few, many=plan.few, most=0, seconds=10), console, out.with_name("profile.txt"))
        return
    measured = measure(plan, console)
    out.write_text(json.dumps(measured, indent=1) + "\n")
    console.print(report.as_markdown(measured), markup=False)
    if not quick:
        report.rewrite(REPOSITORY / "docs" / "performance.md", measured)
    console.print(f"Written to {out} after {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
