"""What a bundle says about itself, and the proof that it is whole and ours.

Both wings need it: the control plane seals bundles, the data plane breaks no seal. A sealed bundle carries OPA's own
signature file, so that OPA checks it too (https://www.openpolicyagent.org/docs/latest/management-bundles/#signing).

OPA hashes a JSON file by its content: keys in order, nothing between. Our JSON files are written just so (``canonical``), and
their hash is that of their bytes; one that is not fails the check here, though OPA might take it.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Annotated, Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Meta, Struct

from sidecar.errors import SealError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sidecar.model import Json

SIGNATURES = ".signatures.json"
MANIFEST = ".manifest"
BASE, OVERLAY = "base", "overlay"
FILES = {BASE: "base.tar.gz", OVERLAY: "overlay.tar.gz"}
"""The name that each kind of bundle is published under."""

_ROOTS = {BASE: {"custom", "registry/base", "tenantgate"}, OVERLAY: {"registry/overlay"}}
_CHUNK = 1 << 20
_LEAST_RSA_BITS = 2048
_MOST_SMALL_BYTES = 16 << 20
_MOST_PADDING = 16 << 20

_encoder = msgspec.json.Encoder(order="sorted")

# What Go escapes in JSON and we otherwise would not.
_ESCAPES = (("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))


def canonical(value: Json) -> bytes:
    """Write JSON the one way that has the hash OPA computes."""
    text = _encoder.encode(value)
    for plain, escaped in _ESCAPES:
        if plain in text:
            text = text.replace(plain, escaped)
    return text


class PublicKey(Struct, frozen=True):
    """A key that bundles may be signed with: its id is the name of its file without the ending."""

    id: str
    algorithm: str
    pem: str


def read_public_key(path: Path) -> PublicKey:
    """Read a public key in PEM: EC on the curve P-256, or RSA of at least 2048 bits. Raises ``SealError``."""
    try:
        pem = path.read_text()
        key = load_pem_public_key(pem.encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as fault:
        msg = f"{path}: not a public key in PEM: {fault}"
        raise SealError(msg) from fault
    return PublicKey(path.stem, algorithm_of(key, path), pem)


def algorithm_of(key: Any, path: Path) -> str:
    """Give the algorithm that a key signs with. Raises ``SealError`` for a key that is not accepted."""
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
        return "RS256"
    msg = f"{path}: the key must be EC on the curve P-256, or RSA of at least {_LEAST_RSA_BITS} bits"
    raise SealError(msg)


_Moment = Annotated[datetime, Meta(tz=True)]


class _Metadata(Struct, frozen=True):
    as_of: _Moment
    since: _Moment | None = None
    base: str = ""


class _Manifest(Struct, frozen=True):
    revision: str
    roots: tuple[str, ...]
    metadata: _Metadata


class Sealed(Struct, frozen=True):
    """What a bundle says about itself. All moments are in microseconds since 1970.

    ``kind`` is ``base`` or ``overlay``. ``since`` and ``base`` are an overlay's: it holds every change since that moment, and was
    made beside the base of that revision. ``key_id`` is the key that it is signed with, empty if it is not.
    """

    kind: str
    revision: str
    as_of: int
    since: int
    base: str
    key_id: str


class _Signatures(Struct, frozen=True):
    signatures: tuple[str, ...]


class _Hashed(Struct, frozen=True):
    name: str
    hash: str
    algorithm: str


class _Claims(Struct, frozen=True):
    files: tuple[_Hashed, ...]


def check(file: IO[bytes], keys: Mapping[str, PublicKey]) -> Sealed:
    """Read a whole bundle and check its seal. With no ``keys``, only that it is a bundle of ours.

    Raises ``SealError`` if it is damaged, not ours, unsigned, signed with a key that is not among ``keys``, or if any file is not
    the one that was signed, or is one too many or too few.
    """
    hashes: dict[str, str] = {}
    small: dict[str, bytes] = {}
    try:
        # Not tarfile's own gzip, which leaves the checksum at the end unread; OPA would then refuse what passed here.
        with gzip.GzipFile(fileobj=file) as unzipped:
            with tarfile.open(fileobj=unzipped, mode="r|") as tar:
                for member in tar:
                    name = member.name.removeprefix("./").lstrip("/")
                    _check_member(member, name, hashes)
                    hashes[name] = _hash(tar, member, small if name in {MANIFEST, SIGNATURES} else None, name)
            _check_rest(unzipped)
        manifest = msgspec.json.decode(small.get(MANIFEST, b""), type=_Manifest)
        key_id = _check_signature(small.get(SIGNATURES), hashes, keys) if keys else ""
    except (OSError, EOFError, zlib.error, tarfile.TarError, msgspec.DecodeError) as fault:
        msg = f"not a bundle of tenantgate, or damaged: {fault}"
        raise SealError(msg) from fault
    kinds = [kind for kind, roots in _ROOTS.items() if {*manifest.roots} == roots]
    if not kinds:
        msg = f"its roots are {', '.join(manifest.roots)}: neither a base nor an overlay"
        raise SealError(msg, "WRONG_KIND")
    about = manifest.metadata
    since = 0 if about.since is None else _microseconds(about.since)
    return Sealed(kinds[0], manifest.revision, _microseconds(about.as_of), since, about.base, key_id)


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _check_rest(unzipped: gzip.GzipFile) -> None:
    """Read to the end, which checks the checksum. After the last file there is padding, if anything."""
    left = _MOST_PADDING
    while chunk := unzipped.read(_CHUNK):
        left -= len(chunk)
        if left < 0 or chunk.strip(b"\0"):
            msg = "there is something after its last file"
            raise SealError(msg)


def _check_member(member: tarfile.TarInfo, name: str, seen: Mapping[str, str]) -> None:
    if not member.isfile() or name in seen:
        msg = f"{name}: not a plain file, or there twice"
        raise SealError(msg)


def _hash(tar: tarfile.TarFile, member: tarfile.TarInfo, keep: dict[str, bytes] | None, name: str) -> str:
    file = tar.extractfile(member)
    assert file is not None  # noqa: S101 - a plain file
    digest = hashlib.sha256()
    if keep is None:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    else:
        keep[name] = file.read(_MOST_SMALL_BYTES)
        digest.update(keep[name])
    return digest.hexdigest()


def _check_signature(signatures: bytes | None, hashes: dict[str, str], keys: Mapping[str, PublicKey]) -> str:
    if signatures is None:
        msg = f"it is not signed: there is no {SIGNATURES}"
        raise SealError(msg, "UNSIGNED")
    tokens = msgspec.json.decode(signatures, type=_Signatures).signatures
    if len(tokens) != 1:
        msg = f"{SIGNATURES} holds {len(tokens)} signatures; there must be one"
        raise SealError(msg)
    try:
        key = keys.get(jwt.get_unverified_header(tokens[0]).get("kid", ""))
        if key is None:
            msg = f"it is signed with a key that is none of {', '.join(sorted(keys))}"
            raise SealError(msg, "FOREIGN_KEY")
        payload = jwt.PyJWS().decode(tokens[0], key.pem, algorithms=[key.algorithm])
    except jwt.PyJWTError as fault:
        msg = f"the signature is not valid: {fault}"
        raise SealError(msg, "FOREIGN_KEY") from fault
    signed = {file.name: file for file in msgspec.json.decode(payload, type=_Claims).files}
    for name in sorted(hashes.keys() | signed.keys()):
        if name == SIGNATURES:
            continue
        if name not in signed or name not in hashes:
            msg = f"{name}: {'not signed' if name in hashes else 'signed, and missing'}"
            raise SealError(msg, "TAMPERED")
        if signed[name].algorithm != "SHA-256" or signed[name].hash != hashes[name]:
            msg = f"{name}: not the file that was signed"
            raise SealError(msg, "TAMPERED")
    return key.id


def public_keys(paths: Iterable[Path]) -> dict[str, PublicKey]:
    """Read public keys, by their ids. Raises ``SealError``, also when two have one id."""
    keys: dict[str, PublicKey] = {}
    for key in map(read_public_key, paths):
        if key.id in keys:
            msg = f"two keys have the id {key.id!r}, which is the name of the file"
            raise SealError(msg)
        keys[key.id] = key
    return keys
