"""``tenantgate bundle serve``: the bundles of a folder over HTTP."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--listen", default="127.0.0.1:8282", show_default=True, help="HOST:PORT; port 0 picks one.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the bearer token that must be presented. [default: none, on loopback only]",
)
def serve(folder: Path, listen: str, token_file: Path | None) -> None:
    """Serve the bundles of a folder over HTTP, to sidecars or to OPA.

    Answers with ETags, and holds a request until there is something new for clients that ask for it (OPA's long polling), so that
    a change is pushed, not awaited.
    """
    from sidecar.bundle_endpoint import serve as serve_folder  # noqa: PLC0415 - not needed for --help
    from sidecar.settings import is_loopback, split_address  # noqa: PLC0415

    host, port = split_address(listen)
    token = token_file.read_text().strip() if token_file is not None else None
    if token is None and not is_loopback(host):
        msg = f"--listen {listen} can be reached from other hosts: --token-file says who may come in"
        raise click.UsageError(msg)
    serve_folder(folder, host, port, token, lambda url: click.echo(f"Serving {folder} at {url}", err=True))
