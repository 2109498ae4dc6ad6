"""Which OPA to run, where the policies are, and how OPA is configured."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sidecar.errors import StartError
from sidecar.seal import BASE, FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.seal import PublicKey

_PACKAGE = Path(__file__).resolve().parent
_CLONE = _PACKAGE.parent


def data_folder(name: str) -> Path:
    """Give a folder that stands beside the package in a clone and inside it (``_NAME``) when installed."""
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _CLONE / name


@cache
def pinned_version() -> str:
    """Give the version of OPA that the policies are tested with."""
    return (data_folder("opa") / "VERSION").read_text().strip()


def opa_config(bundles: Mapping[str, Any], keys: Mapping[str, PublicKey], *, decision_log: bool) -> str:
    """Give the configuration of an embedded OPA, which may log its decisions.

    ``bundles`` is what ``bundle_file`` or ``bundle_service`` gives. With ``keys``, OPA refuses what none of them has signed.
    """
    config = yaml.safe_load((data_folder("opa") / "embedded.yaml").read_text()) | dict(bundles)
    if decision_log:
        config["decision_logs"]["console"] = True
    else:
        # Left in, they would go to the first of the services.
        del config["decision_logs"]
    if keys:
        config["keys"] = {key.id: {"algorithm": key.algorithm, "key": key.pem} for key in keys.values()}
        for bundle in config["bundles"].values():
            # Without the block, a bundle that has no signature would be accepted.
            bundle["signing"] = {}
    return yaml.safe_dump(config, sort_keys=False)


def bundle_file(file: Path) -> dict[str, Any]:
    """Have OPA load one file, once."""
    return {"bundles": {BASE: {"resource": file.resolve().as_uri()}}}


def bundle_service(url: str, token: str) -> dict[str, Any]:
    """Have OPA follow base and overlay at a bundle endpoint, and report there what it has activated."""
    polling = {"min_delay_seconds": 1, "max_delay_seconds": 1, "long_polling_timeout_seconds": 10}
    return {
        "services": {"sidecar": {"url": url, "credentials": {"bearer": {"token": token}}}},
        "bundles": {kind: {"service": "sidecar", "resource": name, "polling": polling} for kind, name in FILES.items()},
        "status": {"service": "sidecar"},
    }


def find_opa(binary: str | None) -> Path:
    """Find the OPA to run: ``binary`` if given, else the one in the clone's ``.tools``, else the one on PATH.

    Raises ``StartError`` when there is none or it is not of the pinned version.
    """
    if binary is not None:
        candidates = [Path(binary)]
    else:
        on_path = shutil.which("opa")
        candidates = [_CLONE / ".tools" / "opa", *([Path(on_path)] if on_path else [])]
    for candidate in candidates:
        if candidate.is_file():
            _check_version(candidate)
            return candidate.resolve()
    wanted = f"opa.binary: {binary}: no such file" if binary is not None else "no `opa` in .tools or on PATH"
    msg = f"{wanted}; `opa/install` installs OPA {pinned_version()}, or set opa.binary"
    raise StartError(msg)


def check_rego(folders: list[Path], opa: Path) -> None:
    """Have OPA parse and compile the Rego below some folders. Raises ``StartError`` with what it finds wrong."""
    command: list[str | Path] = [opa, "check", "--strict", *folders]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the checked binary
    if checked.returncode != 0:
        msg = f"the policies do not compile:\n{checked.stderr.strip()}"
        raise StartError(msg)


def _check_version(binary: Path) -> None:
    version = _ask_version(binary)
    if version != pinned_version():
        msg = f"{binary} is OPA {version}, the policies are tested with {pinned_version()}; `opa/install` installs it"
        raise StartError(msg)


def _ask_version(binary: Path) -> str:
    try:
        output = subprocess.run(  # noqa: S603 - the operator names the binary
            [binary, "version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as fault:
        msg = f"{binary} cannot be run as OPA: {fault}"
        raise StartError(msg) from fault
    for line in output.splitlines():
        name, _, version = line.partition(":")
        if name.strip() == "Version":
            return version.strip()
    msg = f"{binary} does not tell its version as OPA does"
    raise StartError(msg)
