"""The file that OPA loads: Rego and compiled registry in one gzipped tar, the same bytes for the same content.

Source of the format: https://www.openpolicyagent.org/docs/latest/management-bundles/#bundle-file-format
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from sidecar.errors import BundleError
from sidecar.seal import MANIFEST, SIGNATURES, canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.bundles.signing import Signer

BASE_ROOTS = ("custom", "registry/base", "tenantgate")
OVERLAY_ROOTS = ("registry/overlay",)
"""What each kind of bundle owns in OPA's ``data``."""


class BundleInfo(Struct, frozen=True, omit_defaults=True):
    """What ``.manifest`` says about a bundle, under ``metadata``. Moments are RFC 3339.

    ``source`` and ``extensions`` are a base's. ``since`` and ``base`` are an overlay's: it holds every change since that moment,
    and was made beside the base of that revision.
    """

    as_of: str
    compiler: str
    format: int
    counts: dict[str, int]
    source: str = ""
    extensions: tuple[str, ...] = ()
    since: str = ""
    base: str = ""


class Manifest(Struct, frozen=True):
    """``.manifest``, as OPA defines it."""

    revision: str
    roots: tuple[str, ...]
    metadata: BundleInfo
    rego_version: int = 1


@contextmanager
def replacing(out: Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``out`` that takes its place, whole and on disk, when all went well; else nothing is left.

    Raises ``BundleError`` when it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    except OSError as fault:
        msg = f"{out}: cannot be written: {fault.strerror or fault}"
        raise BundleError(msg) from fault
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(out)
    except OSError as fault:
        msg = f"{out}: cannot be written: {fault.strerror or fault}"
        raise BundleError(msg) from fault
    finally:
        scratch.unlink(missing_ok=True)


def write_bundle(
    out: Path, manifest: Manifest, small: Mapping[str, bytes], data: IO[bytes], signer: Signer | None = None
) -> None:
    """Write a bundle: the manifest, some small files by name, and ``data`` as the data of its root in the registry.

    All JSON must be as ``seal.canonical`` writes it, so that its hash is that of its bytes. Raises ``BundleError``, or
    ``SealError`` when it cannot be signed, and then leaves ``out`` as it was.
    """
    (root,) = (root for root in manifest.roots if root.startswith("registry/"))
    files = {**small, MANIFEST: canonical(msgspec.to_builtins(manifest))}
    if signer is not None:
        hashes = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
        data.seek(0)
        hashes[f"{root}/data.json"] = hashlib.file_digest(data, "sha256").hexdigest()  # type: ignore[arg-type]  # a file
        files[SIGNATURES] = canonical({"signatures": [signer.sign(hashes)]})
    with (
        replacing(out) as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as zipped,
        tarfile.open(mode="w", fileobj=zipped, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, body in sorted(files.items()):
            tar.addfile(_entry(name, len(body)), io.BytesIO(body))
        size = data.seek(0, io.SEEK_END)
        data.seek(0)
        tar.addfile(_entry(f"{root}/data.json", size), data)


@contextmanager
def opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open one file of a bundle, to be read while nothing is read of what comes after it.

    Raises ``BundleError`` if there is no such file, and for what shows, while it is read, that it is none of ours.
    """
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            file = next((tar.extractfile(member) for member in tar if member.name.lstrip("/") == name), None)
            if file is None:
                msg = f"there is no {name} in it"
                raise tarfile.ReadError(msg)
            yield file
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, tarfile.TarError, msgspec.DecodeError) as fault:
        msg = f"{path}: not a bundle of tenantgate: {fault}"
        raise BundleError(msg) from fault


def read_manifest(path: Path) -> Manifest:
    """Read what a bundle says about itself. Raises ``BundleError`` if it is none of ours."""
    with opened(path, MANIFEST) as file:
        return msgspec.json.decode(file.read(), type=Manifest)


def read_sizes(path: Path) -> dict[str, int]:
    """Give the size in bytes of each file of a bundle. Raises ``BundleError`` if it is damaged."""
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            return {member.name.lstrip("/"): member.size for member in tar}
    except (OSError, EOFError, zlib.error, tarfile.TarError) as fault:
        msg = f"{path}: not a bundle of tenantgate: {fault}"
        raise BundleError(msg) from fault


def _entry(name: str, size: int) -> tarfile.TarInfo:
    # mtime, owner and mode stay the defaults of TarInfo, which depend on nothing.
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


def plain(value: Struct) -> dict[str, Any]:
    """Turn a structure into plain JSON."""
    built: dict[str, Any] = msgspec.to_builtins(value)
    return built
