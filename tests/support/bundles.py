"""Bundles as they are published: signed, and in every way not to be believed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.seal import FILES, canonical

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECOND = 1_000_000
NOW = time.time_ns() // 1000 // SECOND * SECOND - 3600 * SECOND
"""The moment, in microseconds since 1970, that the bundles of tests count from: in the past, as the moment of a registry is."""


class Key:
    """A key to sign with, and the file with its public half."""

    def __init__(self, folder: Path, key_id: str = "ours", *, rs256: bool = False) -> None:
        self.id = key_id
        self.algorithm = "RS256" if rs256 else "ES256"
        self.private: Any = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if rs256
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.public = folder / f"{key_id}.pub"
        self.public.write_bytes(self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def sign(self, files: Mapping[str, bytes]) -> bytes:
        """Give the file of signatures for files."""
        hashed = [
            {"name": name, "hash": hashlib.sha256(body).hexdigest(), "algorithm": "SHA-256"}
            for name, body in files.items()
        ]
        payload = json.dumps({"files": hashed}).encode()
        token = jwt.PyJWS().encode(payload, self.private, self.algorithm, {"kid": self.id})
        return canonical({"signatures": [token]})


def rfc3339(moment: int) -> str:
    """Write a moment as manifests have it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).isoformat().replace("+00:00", "Z")


def revision(seconds: int, name: str = "") -> str:
    """Name the revision as of some seconds after ``NOW``."""
    return f"{rfc3339(NOW + seconds * SECOND)}-{name or seconds}"


def read(bundle: Path) -> dict[str, bytes]:
    """Give the files of a bundle by name."""
    with tarfile.open(bundle) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


def pack(files: Mapping[str, bytes]) -> bytes:
    """Write files as a bundle, in the order that bundles have."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, body in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return gzip.compress(out.getvalue(), mtime=0)


def entry(name: str, body: bytes = b"", size: int | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Write one entry of a tar. ``size`` is what it says of itself, if not the truth."""
    header = tarfile.TarInfo(name)
    header.size = len(body) if size is None else size
    header.type = kind
    return header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % tarfile.BLOCKSIZE)


class Publisher:
    """Publishes bundles in a folder, made from the one of the sample export. Moments are seconds after ``NOW``."""

    def __init__(self, sample: Path, folder: Path, key: Key | None) -> None:
        self.folder = folder
        self.key = key
        self._sample = read(sample)
        folder.mkdir(exist_ok=True)

    def base_files(self, seconds: int, name: str = "", without: str = "") -> dict[str, bytes]:
        """Give the files of a base, not signed. ``without`` is a tenant to leave out."""
        files = dict(self._sample)
        manifest = json.loads(files[".manifest"])
        manifest |= {"revision": revision(seconds, name)}
        manifest["metadata"]["as_of"] = rfc3339(NOW + seconds * SECOND)
        meta = json.loads(files["registry/base/meta/data.json"])
        meta |= {"revision": revision(seconds, name), "as_of": NOW + seconds * SECOND}
        data = json.loads(files["registry/base/data.json"])
        data["tenants"].pop(without, None)
        files[".manifest"] = canonical(manifest)
        files["registry/base/meta/data.json"] = canonical(meta)
        files["registry/base/data.json"] = canonical(data)
        return files

    def overlay_files(self, seconds: int, since: int, removed: str = "", name: str = "") -> dict[str, bytes]:
        """Give the files of an overlay, not signed, in which a tenant may be removed."""
        about = {"base": revision(since)}
        moments = {"as_of": NOW + seconds * SECOND, "since": NOW + since * SECOND}
        manifest = {
            "revision": revision(seconds, name or f"o{seconds}"),
            "roots": ["registry/overlay"],
            "metadata": about | {key: rfc3339(moment) for key, moment in moments.items()},
        }
        terms = {"removed": True, "version": moments["as_of"]}
        data = {
            "meta": {"revision": manifest["revision"], **about, **moments},
            "tenants": {removed: {"terms": terms}} if removed else {},
        }
        return {".manifest": canonical(manifest), "registry/overlay/data.json": canonical(data)}

    def signed(self, files: dict[str, bytes]) -> dict[str, bytes]:
        """Add the signature."""
        return files if self.key is None else files | {".signatures.json": self.key.sign(files)}

    def base(self, seconds: int, name: str = "", without: str = "") -> str:
        """Publish a base; give its revision."""
        self.put("base", pack(self.signed(self.base_files(seconds, name, without))))
        return revision(seconds, name)

    def overlay(self, seconds: int, since: int, removed: str = "") -> str:
        """Publish an overlay; give its revision."""
        self.put("overlay", pack(self.signed(self.overlay_files(seconds, since, removed))))
        return revision(seconds, f"o{seconds}")

    def put(self, kind: str, body: bytes) -> None:
        """Publish bytes."""
        scratch = self.folder / ".scratch"
        scratch.write_bytes(body)
        scratch.replace(self.folder / FILES[kind])

    def get(self, kind: str) -> bytes:
        """Give what is published."""
        return (self.folder / FILES[kind]).read_bytes()
