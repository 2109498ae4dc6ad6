"""Keys that bundles are signed with: in a file, or behind a command such as a KMS's.

A token is the one that OPA expects in ``.signatures.json``: the names and hashes of all other files of the bundle, signed
(https://www.openpolicyagent.org/docs/latest/management-bundles/#signature-format).
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any, Protocol

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.utils import base64url_encode

from sidecar.errors import SealError
from sidecar.seal import algorithm_of, read_public_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_COORDINATE_BYTES = 32  # of a signature on the curve P-256
_COMMAND_SECONDS = 30


class Signer(Protocol):
    """What signs a bundle."""

    def sign(self, hashes: Mapping[str, str]) -> str:
        """Give the token over files, given their SHA-256 in hexadecimal by name. Raises ``SealError``."""


class FileSigner:
    """Signs with a private key in PEM. Its id is the name of the file without the ending."""

    def __init__(self, path: Path) -> None:
        try:
            self._key: Any = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
            msg = f"{path}: not a private key in PEM without a password: {fault}"
            raise SealError(msg) from fault
        self._algorithm = algorithm_of(self._key, path)
        self._id = path.stem

    def sign(self, hashes: Mapping[str, str]) -> str:
        """Give the token over files."""
        return jwt.PyJWS().encode(_claims(hashes), self._key, self._algorithm, {"kid": self._id})


class CommandSigner:
    """Signs by a command, for a key that cannot leave where it is.

    The command reads what is to be signed from standard input and writes the signature to standard output: for an EC key in DER,
    for an RSA key as it is, both over SHA-256, as the ``Sign`` operation of AWS KMS gives them for a message. ``public`` is the
    public key that belongs to it, with which every signature is checked before it is used.
    """

    def __init__(self, command: str, public: Path) -> None:
        self._command = shlex.split(command)
        self._public = read_public_key(public)

    def sign(self, hashes: Mapping[str, str]) -> str:
        """Give the token over files."""
        header = msgspec.json.encode({"alg": self._public.algorithm, "kid": self._public.id, "typ": "JWT"})
        message = b".".join(map(base64url_encode, (header, _claims(hashes))))
        token = b".".join((message, base64url_encode(self._ask(message)))).decode()
        try:
            jwt.PyJWS().decode(token, self._public.pem, algorithms=[self._public.algorithm])
        except jwt.PyJWTError as fault:
            msg = f"{self._command[0]}: what it signs does not belong to the public key {self._public.id}"
            raise SealError(msg) from fault
        return token

    def _ask(self, message: bytes) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603 - the operator names the command
                self._command, input=message, capture_output=True, timeout=_COMMAND_SECONDS, check=True
            )
            if self._public.algorithm == "RS256":
                return done.stdout
            return b"".join(part.to_bytes(_COORDINATE_BYTES, "big") for part in decode_dss_signature(done.stdout))
        except subprocess.CalledProcessError as fault:
            msg = f"{self._command[0]}: exit status {fault.returncode}: {fault.stderr.decode(errors='replace').strip()}"
            raise SealError(msg) from fault
        except (OSError, subprocess.SubprocessError, ValueError, OverflowError) as fault:
            msg = f"{self._command[0]}: gives no signature: {fault}"
            raise SealError(msg) from fault


def make_keys(private: Path, public: Path, algorithm: str) -> None:
    """Make a pair of keys, ES256 or RS256. Raises ``SealError`` rather than overwrite a file."""
    key: Any = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else rsa.generate_private_key(public_exponent=65537, key_size=3072)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        for path, body, mode in ((private, secret, 0o600), (public, shown, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(body)
    except FileExistsError as fault:
        msg = f"{fault.filename}: exists; a key is not overwritten"
        raise SealError(msg) from fault
    except OSError as fault:
        msg = f"{fault.filename}: cannot be written: {fault.strerror}"
        raise SealError(msg) from fault


def _claims(hashes: Mapping[str, str]) -> bytes:
    files = [{"name": name, "hash": digest, "algorithm": "SHA-256"} for name, digest in sorted(hashes.items())]
    return msgspec.json.encode({"files": files})
