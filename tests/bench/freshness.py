"""How long a change of the registry takes until it is enforced: from the write to DynamoDB to the first decision that follows it.

The real parts: DynamoDB Local, `tenantgate bundle watch`, `tenantgate bundle serve`, and two sidecars with their OPAs, one that
fetches over HTTP with long polling and one that looks at the folder once a second. Run it with `make bench-freshness`; writes
build/freshness.json.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import grpc
from rich.console import Console
from rich.table import Table

from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.registry.attribute_values import typed
from sidecar.registry.table import RegistryTable
from tests.support.dynamodb import ENVIRONMENT, JARS, DynamoDb, running_dynamodb, why_missing
from tests.support.processes import REPOSITORY, wait_until
from tests.support.registries import sample_items

TENANTGATE = Path(sys.executable).with_name("tenantgate")
TABLE = "freshness"
POLICY: dict[str, Any] = next(i for i in sample_items() if i["sk"] == "POLICY#POL-TENANT-A")
TENANT: dict[str, Any] = next(i for i in sample_items() if i["pk"] == "TENANT#Tenant-A" and i["sk"] == "TENANT")
QUESTION = AuthorizeRequest(
    identity={
        "tenant_id": "Tenant-A",
        "principal": {"id": "agent:order-bot"},
        "subject": {"id": "alice"},
        "scopes": ["tools:read"],
    },
    resource={"type": "TOOL", "id": "agent:tool:order-lookup"},
)


def start(stack: ExitStack, *words: object) -> subprocess.Popen[bytes]:
    """Start a command that ends with the bench."""
    process = subprocess.Popen(
        [str(TENANTGATE), *map(str, words)], env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def start_sidecar(stack: ExitStack, folder: Path, *settings: str) -> AuthorizationServiceStub:
    """Start a sidecar; give a stub that asks it."""
    flags = [
        f"state_dir={folder}",
        f"bundles.keys=[{folder.parent / 'release.pub'}]",
        "log.level=error",
        "identity.mode=asserted",
        *settings,
    ]
    start(stack, "serve", *itertools.chain.from_iterable(("--set", flag) for flag in flags))
    channel = stack.enter_context(grpc.insecure_channel(f"unix:{folder / 'tenantgate.sock'}"))
    stub = AuthorizationServiceStub(channel)
    wait_until(lambda: serves(stub), 30)
    return stub


def serves(stub: AuthorizationServiceStub) -> bool:
    """Tell whether a sidecar makes decisions yet."""
    try:
        return allowed(stub)
    except grpc.RpcError:
        return False


def allowed(stub: AuthorizationServiceStub) -> bool:
    """Ask the question."""
    decision = stub.Authorize(QUESTION, timeout=5).decision
    return bool(decision.effect == decision_pb2.EFFECT_ALLOW)


def measure(stub: AuthorizationServiceStub, wanted: bool, began: float, into: list[float]) -> None:  # noqa: FBT001
    """Ask until the answer is the one that the change demands; note how long that took."""
    while allowed(stub) != wanted:
        if time.perf_counter() - began > 30:
            msg = "a change was not enforced within 30 s"
            raise TimeoutError(msg)
        time.sleep(0.002)
    into.append(time.perf_counter() - began)


def change(database: DynamoDb, number: int) -> bool:
    """Make the next change: suspend or remove what allows it, or bring it back. Give whether the call is allowed then."""
    item = (TENANT, POLICY)[number // 2 % 2]
    if number % 2:
        written = item
    elif item is TENANT:
        written = {**TENANT, "status": "SUSPENDED"}
    else:
        written = {**POLICY, "rules": [rule for rule in POLICY["rules"] if rule["effect"] != "ALLOW"]}
    database.client.put_item(TableName=TABLE, Item=typed(written))
    return bool(number % 2)


def run(changes: int, stack: ExitStack) -> dict[str, list[float]]:
    """Make the changes; give the seconds until each was enforced, by way of fetching."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-")))
    database = stack.enter_context(running_dynamodb(JARS))
    RegistryTable(database.client, TABLE).init()
    for item in sample_items():
        database.client.put_item(TableName=TABLE, Item=typed(item))
    subprocess.run([TENANTGATE, "bundle", "keygen", folder / "release"], check=True, stdout=subprocess.DEVNULL)
    bundles = folder / "bundles"
    watching = ("--table", TABLE, "--endpoint-url", database.url, "--key", folder / "release.key", "--poll", "0.2")
    start(stack, "bundle", "watch", "--out", bundles, *watching)
    wait_until((bundles / "overlay.tar.gz").exists, 30)
    port = 20000 + os.getpid() % 10000
    start(stack, "bundle", "serve", bundles, "--listen", f"127.0.0.1:{port}")
    stubs = {
        "long_poll": start_sidecar(stack, folder / "a", f"bundles.source=http://127.0.0.1:{port}"),
        "poll": start_sidecar(stack, folder / "b", f"bundles.source={bundles}", "bundles.poll_seconds=1"),
    }
    taken: dict[str, list[float]] = {name: [] for name in stubs}
    for number in range(changes):
        began = time.perf_counter()
        wanted = change(database, number)
        threads = [
            threading.Thread(target=measure, args=(stub, wanted, began, taken[name])) for name, stub in stubs.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return taken


@click.command()
@click.option("--changes", default=100, show_default=True, help="How many changes to make.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=REPOSITORY / "build" / "freshness.json", help="File to write."
)
def main(changes: int, out: Path) -> None:
    """Measure the time from a change in DynamoDB to its enforcement."""
    if missing := why_missing():
        raise click.ClickException(missing)
    with ExitStack() as stack:
        taken = run(changes, stack)
    table = Table("fetched by", "median", "99 of 100", "longest")
    report: dict[str, Any] = {"changes": changes}
    for name, seconds in taken.items():
        if len(seconds) != changes:
            msg = f"{name}: only {len(seconds)} of {changes} changes were enforced"
            raise click.ClickException(msg)
        p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
        report[name] = {
            "p50_s": round(statistics.median(seconds), 3),
            "p99_s": round(p99, 3),
            "max_s": round(max(seconds), 3),
        }
        table.add_row(name, *(f"{value:.3f} s" for value in report[name].values()))
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
