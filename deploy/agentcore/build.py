#!/usr/bin/env python3
"""Build the package of the Lambda function: the interceptor, the sidecar, OPA, and the keys that bundles are signed with."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent.parent
MACHINES = {"x86_64": 0x3E, "arm64": 0xB7}
"""Architectures as AWS Lambda calls them, and as ELF does (e_machine)."""

_WHEELS = {"x86_64": "x86_64", "arm64": "aarch64"}
_LIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")  # python3.13 runs on Amazon Linux 2023
_UNZIPPED_LIMIT = 250 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MACHINE_AT = slice(18, 20)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "keys", nargs="*", type=Path, metavar="KEY.pub", help="public keys, to be keys/KEY.pub of the package"
    )
    parser.add_argument("--python", default="3.13", help="Python of the function's runtime (default: %(default)s)")
    parser.add_argument(
        "--architecture", choices=MACHINES, default="x86_64", help="the function's (default: %(default)s)"
    )
    parser.add_argument("--opa", type=Path, default=CLONE / ".tools" / "opa", help="OPA for that (default: .tools/opa)")
    parser.add_argument(
        "--out", type=Path, default=CLONE / "build" / "agentcore.zip", help="default: build/agentcore.zip"
    )
    asked = parser.parse_args()
    check_opa(asked.opa, asked.architecture)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        install(package, asked.python, asked.architecture)
        add(asked.opa, package / "bin" / "opa", mode=0o755)
        for key in asked.keys:
            add(key, package / "keys" / key.name, mode=0o644)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        size = write(package, asked.out)
    sys.stdout.write(f"{asked.out}: {asked.out.stat().st_size >> 20} MiB, {size >> 20} MiB unzipped\n")
    if size > _UNZIPPED_LIMIT:
        sys.exit("AWS Lambda takes 250 MiB unzipped; build the container image instead (deploy/agentcore/Dockerfile)")


def check_opa(opa: Path, architecture: str) -> None:
    """Refuse an OPA that the function could not run: it would fail there alone."""
    if not opa.is_file():
        sys.exit(f"{opa}: no such file; `opa/install` makes one for this machine")
    with opa.open("rb") as file:
        head = file.read(_MACHINE_AT.stop)
    if head[:4] != b"\x7fELF" or int.from_bytes(head[_MACHINE_AT], "little") != MACHINES[architecture]:
        sys.exit(f"{opa}: is no program for Linux on {architecture}; give one with --opa")


def install(package: Path, python: str, architecture: str) -> None:
    """Install what the lock names, for the function's Python, and tenantgate itself."""
    wheels = [f"--platform={libc}_{_WHEELS[architecture]}" for libc in _LIBC]
    lock = ["--require-hashes", "--only-binary=:all:", f"--requirement={CLONE / 'requirements' / 'run.lock'}"]
    for what in (
        ["--implementation=cp", f"--python-version={python}", *wheels, *lock],
        ["--no-deps", "--no-build-isolation", str(CLONE)],
    ):
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
        subprocess.run([*pip, "--target", package, *what], check=True)  # noqa: S603 - pip, with our own words
        shutil.rmtree(package / "bin", ignore_errors=True)  # commands, which begin with this machine's Python


def add(source: Path, place: Path, mode: int) -> None:
    """Put a file into the package."""
    place.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, place)
    place.chmod(mode)


def write(package: Path, out: Path) -> int:
    """Write the package so that the same files give the same bytes; give its size unzipped."""
    size = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                entry = zipfile.ZipInfo(path.relative_to(package).as_posix(), _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o100755 if path.stat().st_mode & 0o100 else 0o100644) << 16
                archive.writestr(entry, path.read_bytes())
                size += path.stat().st_size
    return size


if __name__ == "__main__":
    main()
