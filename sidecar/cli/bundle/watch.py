"""``tenantgate bundle watch``: the table is followed, and every change becomes a bundle at once."""

from __future__ import annotations

import fcntl
import signal
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from sidecar.cli.bundle.options import recipe_options
from sidecar.cli.registry.options import Place, table_options

if TYPE_CHECKING:
    from sidecar.bundles.build import Recipe
    from sidecar.bundles.watch import Watcher

_LONGEST_PAUSE = 5.0


@click.command()
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the bundles; made if missing.",
)
@click.option("--to", "destination", metavar="s3://BUCKET/PREFIX", help="Put the bundles there besides.")
@click.option("--poll", default=0.25, show_default=True, help="Time between looks at the stream, seconds.")
@click.option("--heartbeat", default=5.0, show_default=True, help="Longest time without a publication, seconds.")
@click.option(
    "--base-age",
    type=click.FloatRange(0, 22),
    default=12.0,
    show_default=True,
    help="Age at which a new base is made, hours: a stream forgets after 24.",
)
@click.option("--once", is_flag=True, help="Take in what there is, publish it and stop.")
@table_options
@recipe_options
def watch(out: Path, destination: str | None, place: Place, recipe: Recipe, *, once: bool, **timing: float) -> None:
    """Follow the table, and publish what changes.

    Keeps two bundles in the folder: base.tar.gz, made from the whole table when there is none or it gets old, and
    overlay.tar.gz, with all that has changed since, written at once on every change. One watcher keeps a folder; where it left
    off after a crash, the next one goes on.
    """
    import boto3  # noqa: PLC0415 - half a second that --help does not need

    from sidecar.bundles.publish import S3Publisher  # noqa: PLC0415
    from sidecar.bundles.watch import Timing, Watcher  # noqa: PLC0415
    from sidecar.telemetry import configure_logs  # noqa: PLC0415

    configure_logs("info", "json")
    out.mkdir(parents=True, exist_ok=True)
    lock = _lock(out)
    client, streams = (
        boto3.client(service, endpoint_url=place.endpoint_url, region_name=place.region)
        for service in ("dynamodb", "dynamodbstreams")
    )
    published: Any = (lambda _path: None) if destination is None else S3Publisher(boto3.client("s3"), destination)
    pace = Timing(heartbeat=timing["heartbeat"], base_age=timing["base_age"] * 3600)
    watcher = Watcher(place.table, client, streams, out, recipe, timing=pace, published=published)
    with lock:
        watcher.start()
        if once:
            watcher.step()
            return
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        _run(watcher, timing["poll"], stopping)


def _lock(out: Path) -> IO[str]:
    """Keep other watchers out of the folder for as long as the file stays open."""
    from sidecar.errors import BundleError  # noqa: PLC0415 - not needed for --help

    lock = (out / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        lock.close()
        msg = f"{out}: another watcher keeps this folder; one is enough"
        raise BundleError(msg) from fault
    return lock


def _run(watcher: Watcher, poll: float, stopping: threading.Event) -> None:
    import structlog  # noqa: PLC0415 - not needed for --help

    from sidecar.errors import TenantgateError  # noqa: PLC0415

    log = structlog.get_logger(__name__)
    log.info("watching")
    pause = poll
    while not stopping.wait(pause):
        try:
            watcher.step()
            pause = poll
        except TenantgateError as fault:
            pause = min(pause * 2, _LONGEST_PAUSE)
            log.error("not_followed", reason=str(fault), again_in_seconds=pause)  # noqa: TRY400 - the reason is all there is
    log.info("stopped")
