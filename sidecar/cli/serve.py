"""``tenantgate serve``."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from sidecar.cli.options import read_settings, settings_options


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle file to serve: the setting opa.bundle.")
@settings_options
def serve(bundle: Path | None, config: Path | None, flags: tuple[str, ...]) -> None:
    """Run the sidecar next to the agent runtime.

    Serves until SIGTERM or SIGINT, then lets the calls in flight end.
    """
    from sidecar.server import Sidecar  # noqa: PLC0415 - not needed for --help
    from sidecar.telemetry import configure_logs  # noqa: PLC0415

    settings = read_settings(config, (*flags, *([f"opa.bundle={bundle}"] if bundle else [])))
    configure_logs(settings.log.level, settings.log.format)
    sidecar = Sidecar(settings)
    # Until it serves, this ends it wherever it is, and what it has started with it.
    signal.signal(signal.SIGTERM, lambda *_: sidecar.give_up())
    try:
        sidecar.start()
        sidecar.wait()
    finally:
        sidecar.stop()
