"""``tenantgate status``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sidecar.cli.options import address_options, connected

if TYPE_CHECKING:
    from sidecar.gen.tenantgate.v1.status_service_pb2 import BundleStatus, SinkStatus, Status


@click.command()
@click.option("--watch", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
@click.option("--wait", "patience", type=float, metavar="SECONDS", help="Wait so long at most for it to serve.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each state.")
@address_options
def status(address: str | None, timeout: float, patience: float | None, *, watch: bool, as_json: bool) -> None:
    """Show what state the sidecar is in.

    Exit status: 0 decisions are made, 1 they are not, 2 the sidecar does not answer.
    """
    from sidecar.gen.tenantgate.v1 import status_service_pb2 as pb  # noqa: PLC0415 - not needed for --help
    from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub  # noqa: PLC0415

    with connected(address) as channel:
        stub = StatusServiceStub(channel)
        if patience is not None:
            wait_for_ready, timeout = True, patience
            for response in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=wait_for_ready, timeout=timeout):
                if response.status.serving:
                    break
        if not watch:
            state = stub.GetStatus(pb.GetStatusRequest(), timeout=timeout).status
            _show(state, as_json=as_json)
            sys.exit(0 if state.serving else 1)
        for response in stub.WatchStatus(pb.WatchStatusRequest()):
            _show(response.status, as_json=as_json)


def _show(state: Status, *, as_json: bool) -> None:
    from google.protobuf.json_format import MessageToDict, MessageToJson  # noqa: PLC0415 - not needed for --help
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from sidecar.cli.words import age  # noqa: PLC0415

    if as_json:
        click.echo(MessageToJson(state, preserving_proto_field_name=True, indent=None))
        return
    console = Console(highlight=False)
    console.print("[bold green]serving[/]" if state.serving else f"[bold red]not serving[/]: {state.problem}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("version", state.version)
    if state.revision:
        table.add_row("revision", state.revision)
        table.add_row("as of", f"{state.as_of.ToJsonString()}, {age(state.age)} ago")
    table.add_row("bound on age", age(state.max_staleness) if state.HasField("max_staleness") else "none")
    table.add_row("identity", state.identity_mode)
    opa = MessageToDict(state.opa, preserving_proto_field_name=True)
    kind = f"embedded, version {opa.get('version')}, pid {opa.get('pid')}" if state.opa.embedded else "separate"
    table.add_row("OPA", f"{kind}, {state.opa.address}, {state.opa.restarts} restarts")
    for bundle in state.bundles:
        table.add_row(bundle.name, _bundle(bundle))
    if state.HasField("tls"):
        table.add_row("certificate", f"until {state.tls.until.ToJsonString()}, {state.tls.reloads} reloads")
        if state.tls.error:
            table.add_row("", state.tls.error)
    for sink in state.audit:
        table.add_row(f"log: {sink.name}", _sink(sink))
    table.add_row("since", state.started_at.ToJsonString())
    console.print(table)


def _sink(sink: SinkStatus) -> str:
    words = [f"{sink.written} written"]
    if sink.waiting:
        words.append(f"{sink.waiting} waiting")
    if sink.dropped:
        words.append(f"{sink.dropped} dropped")
    return "\n".join([", ".join(words), *([sink.error] if sink.error else [])])


def _bundle(bundle: BundleStatus) -> str:
    words = [bundle.revision or "none"]
    if bundle.key_id:
        words.append(f"signed with {bundle.key_id}")
    if bundle.revision and not bundle.active:
        words.append("not active yet")
    if bundle.persisted:
        words.append("kept from before, not confirmed by the source")
    if bundle.held_revision:
        words.append(f"{bundle.held_revision} waits for its base")
    if bundle.refused:
        words.append(f"{bundle.refused} refused")
    lines = [", ".join(words)]
    if bundle.error:
        lines.append(bundle.error)
    elif bundle.HasField("last_refusal"):
        refusal = bundle.last_refusal
        lines.append(f"last refusal {refusal.time.ToJsonString()}, {refusal.reason}: {refusal.message}")
    return "\n".join(lines)
