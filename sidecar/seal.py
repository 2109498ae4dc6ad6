"""What a bundle says about itself, and the proof that it is whole and ours.

Both wings need it: the control plane seals bundles, the data plane breaks no seal. A sealed bundle carries OPA's own
signature file, so that OPA checks it too (https://www.openpolicyagent.org/docs/latest/management-bundles/#signing).

OPA hashes a JSON file by its content: keys in order, nothing between. Our JSON files are written just so (``canonical``), and
their hash is that of their bytes; one that is not fails the check here, though OPA might take it.

Until its signature has been checked, a file may be anyone's, so it costs little to refuse: the signature comes before what it
signs, headers of other than plain files are not read on, and the numbers and sizes of all things are bounded.
"""

from __future__ import annotations

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
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sidecar.model import Json

SIGNATURES = ".signatures.json"
MANIFEST = ".manifest"
BASE, OVERLAY = "base", "overlay"
FILES = {BASE: "base.tar.gz", OVERLAY: "overlay.tar.gz"}
"""The name that each kind of bundle is published under."""

_ROOTS = {BASE: {"custom", "registry/base", "tenantgate"}, OVERLAY: {"registry/overlay"}}
_LEAST_RSA_BITS = 2048
_GZIP = 16 + zlib.MAX_WBITS  # has zlib read the header and compare the checksum at the end
_ZIPPED_CHUNK = 1 << 14
_CHUNK = 1 << 18
_BLOCK = tarfile.BLOCKSIZE
_PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE}
_MOST_BYTES = 1 << 30  # unzipped; what OPA takes as one file, and nearly all of a bundle is in one
_MOST_FILES = 4096
_MOST_SMALL_BYTES = 1 << 20  # of the manifest, and of the signature over as many files
_MOST_PADDING = 1 << 20

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
    signatures: tuple[str]


class _Hashed(Struct, frozen=True):
    name: str
    hash: str
    algorithm: str


class _Claims(Struct, frozen=True):
    files: tuple[_Hashed, ...]


def check(file: IO[bytes], keys: Mapping[str, PublicKey]) -> Sealed:
    """Read a whole bundle and check its seal. With no ``keys``, only that it is a bundle of ours.

    Raises ``SealError`` if it is damaged, not ours, unsigned, signed with a key that is not among ``keys``, or if any file is not
    the one that was signed, or is one too many or too few; and does so as early as the order of the files permits.
    """
    hashes: dict[str, str] = {}
    small: dict[str, bytes] = {}
    signed: dict[str, str] | None = None
    key_id = ""
    try:
        for name, size, pieces in _files(_Unzipped(file)):
            if name in {MANIFEST, SIGNATURES}:
                pieces = [_whole(name, size, pieces)]  # noqa: PLW2901 - the same, in one piece
                small[name] = pieces[0]
            elif keys and signed is None:
                msg = f"it is not signed: there is no {SIGNATURES} before {name}"
                raise SealError(msg, "UNSIGNED")
            hashes[name] = _hash(pieces)
            if keys and name == SIGNATURES:
                key_id, signed = _check_signature(small[name], keys)
        if keys:
            _check_files(hashes, signed)
        manifest = msgspec.json.decode(small.get(MANIFEST, b""), type=_Manifest)
    except (OSError, EOFError, zlib.error, tarfile.TarError, msgspec.DecodeError, RecursionError) as fault:
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


class _Unzipped:
    """The content of a gzip file, read forwards. Raises ``EOFError`` where it is cut off.

    Not Python's own, which leaves the checksum at the end unread where the content ends before: OPA would then refuse what passed
    here. And not in several parts, of which there could be millions with nothing in them.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(_GZIP)
        self.left = _MOST_BYTES

    def read(self, most: int) -> bytes:
        """Give some of it, at most so many bytes; none at the end."""
        while not self._inflate.eof:
            zipped = self._inflate.unconsumed_tail or self._file.read(_ZIPPED_CHUNK)
            if piece := self._inflate.decompress(zipped, most):
                self.left -= len(piece)
                return piece
            if not zipped:
                msg = "it is cut off"
                raise EOFError(msg)
        return b""

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give the next so many bytes, piece by piece."""
        while size:
            piece = self.read(min(size, _CHUNK))
            if not piece:
                msg = "it ends within a file"
                raise EOFError(msg)
            size -= len(piece)
            yield piece

    def check_end(self) -> None:
        """Read the padding after the last file to its end, and make sure that there is nothing else."""
        padding = 0
        while piece := self.read(_CHUNK):
            padding += len(piece)
            if padding > _MOST_PADDING or piece.strip(b"\0"):
                msg = "there is something after its last file"
                raise SealError(msg)
        if self._inflate.unused_data or self._file.read(1):
            msg = "there is something after its end"
            raise SealError(msg)


def _files(unzipped: _Unzipped) -> Iterator[tuple[str, int, Iterable[bytes]]]:
    """Give the name, the size and the content of each file of a tar; what is given must be read before the next.

    Not with tarfile, which takes extended headers into memory, however long they say they are. Our bundles have none.
    """
    seen: set[str] = set()
    while (block := b"".join(unzipped.pieces(_BLOCK))).strip(b"\0"):
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        name = entry.name.removeprefix("./").lstrip("/")
        if entry.type not in _PLAIN or name in seen:
            msg = f"{name}: not a plain file, or there twice"
            raise SealError(msg)
        seen.add(name)
        if len(seen) > _MOST_FILES:
            msg = f"there are more than {_MOST_FILES} files in it"
            raise SealError(msg)
        if not 0 <= entry.size <= unzipped.left:
            msg = f"{name}: there would be more than {_MOST_BYTES} bytes in it"
            raise SealError(msg)
        yield name, entry.size, unzipped.pieces(entry.size)
        for _ in unzipped.pieces(-entry.size % _BLOCK):
            pass
    unzipped.check_end()


def _whole(name: str, size: int, pieces: Iterable[bytes]) -> bytes:
    if size > _MOST_SMALL_BYTES:
        msg = f"{name}: has more than {_MOST_SMALL_BYTES} bytes"
        raise SealError(msg)
    return b"".join(pieces)


def _hash(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _check_signature(signatures: bytes, keys: Mapping[str, PublicKey]) -> tuple[str, dict[str, str]]:
    """Give the id of the key that a bundle is signed with, and the hashes of the files that were signed."""
    (token,) = msgspec.json.decode(signatures, type=_Signatures).signatures
    try:
        key = keys.get(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            msg = f"it is signed with a key that is none of {', '.join(sorted(keys))}"
            raise SealError(msg, "FOREIGN_KEY")
        payload = jwt.PyJWS().decode(token, key.pem, algorithms=[key.algorithm])
    except jwt.PyJWTError as fault:
        msg = f"the signature is not valid: {fault}"
        raise SealError(msg, "FOREIGN_KEY") from fault
    files = msgspec.json.decode(payload, type=_Claims).files
    return key.id, {file.name: file.hash if file.algorithm == "SHA-256" else "" for file in files}


def _check_files(hashes: Mapping[str, str], signed: Mapping[str, str] | None) -> None:
    if signed is None:
        msg = f"it is not signed: there is no {SIGNATURES}"
        raise SealError(msg, "UNSIGNED")
    for name in sorted(hashes.keys() - {SIGNATURES} | signed.keys()):
        if name not in signed or name not in hashes:
            msg = f"{name}: {'not signed' if name in hashes else 'signed, and missing'}"
            raise SealError(msg, "TAMPERED")
        if signed[name] != hashes[name]:
            msg = f"{name}: not the file that was signed"
            raise SealError(msg, "TAMPERED")


def public_keys(paths: Iterable[Path]) -> dict[str, PublicKey]:
    """Read public keys, by their ids. Raises ``SealError``, also when two have one id."""
    keys: dict[str, PublicKey] = {}
    for key in map(read_public_key, paths):
        if key.id in keys:
            msg = f"two keys have the id {key.id!r}, which is the name of the file"
            raise SealError(msg)
        keys[key.id] = key
    return keys
