"""Certificates that tests make for themselves."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Pair(NamedTuple):
    """A certificate and its key, in two files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority, of its own or below another, whose certificate is in ``file``."""

    def __init__(self, folder: Path, name: str, above: Authority | None = None) -> None:
        self._folder = folder
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        signer = above or self
        certificate = (
            _builder(self._name, signer._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(signer._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def certify(self, address: str) -> Path:
        """Make a key and a certificate for the server at an IP address; give the file that holds both."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_named(address), self._name, key)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{address}.pem"
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        return file

    def issue(
        self,
        name: str,
        *sans: x509.GeneralName,
        begins: timedelta = timedelta(hours=-2),
        lasts: timedelta = timedelta(hours=1),
    ) -> Pair:
        """Make a certificate with names, or none, in its SAN and ``name`` as common name, and a key; give their files.

        It begins and ends so long from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_named(name), self._name, key, begins, lasts)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pair.key.chmod(0o600)
        return pair


def uris(*values: str) -> Sequence[x509.GeneralName]:
    """Give names of SPIFFE, or other URIs, for a SAN."""
    return [x509.UniformResourceIdentifier(value) for value in values]


def hosts(*values: str) -> Sequence[x509.GeneralName]:
    """Give DNS names for a SAN."""
    return [x509.DNSName(value) for value in values]


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: timedelta = timedelta(hours=-2),
    lasts: timedelta = timedelta(hours=1),
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
