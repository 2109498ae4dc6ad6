"""``tenantgate serve``."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from sidecar.cli.options import read_settings, settings_options


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle file to serve: the setting opa.bundle.")
@click.option("--workers", type=int, metavar="N", help="Processes that answer calls over TCP: the setting workers.")
@settings_options
def serve(bundle: Path | None, workers: int | None, config: Path | None, flags: tuple[str, ...]) -> None:
    """Run the sidecar next to the agent runtime.

    Serves until SIGTERM or SIGINT, then lets the calls in flight end.
    """
    from sidecar.server import Sidecar  # noqa: PLC0415 - not needed for --help
    from sidecar.telemetry import configure_logs  # noqa: PLC0415

    given = [f"opa.bundle={bundle}"] if bundle else []
    given += [] if workers is None else [f"workers={workers}"]
    settings = read_settings(config, (*flags, *given))
    configure_logs(settings.log.level, settings.log.format)
    sidecar = Sidecar(settings)
    # Until it serves, this ends it wherever it is, and what it has started with it.
    signal.signal(signal.SIGTERM, lambda *_: sidecar.give_up())
    try:
        sidecar.start()
        sidecar.wait()
    finally:
        sidecar.stop()
