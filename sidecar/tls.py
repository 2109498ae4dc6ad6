"""TLS with certificates on both sides: the files, read, checked, and read again when they change; and who may connect."""

from __future__ import annotations

import os
import re
import ssl
import stat
import threading
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from msgspec import Struct

from sidecar.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.settings import TlsSettings

log = structlog.get_logger(__name__)

_REMEMBERED = 1024
"""Certificates of which it is remembered whether they may connect."""


class Material(Struct, frozen=True):
    """What a handshake needs, in PEM, as the files held it at one moment. ``until`` is when the certificate ends."""

    certificate: bytes
    key: bytes
    authorities: bytes
    until: datetime


class _Paths(NamedTuple):
    certificate: Path
    key: Path
    authorities: Path


class TlsFiles:
    """The files of the settings. They are looked at whenever somebody needs them, and read when one has changed.

    Raises ``StartError`` when they cannot be used as it is made. Later, what cannot be used is logged and counted, and what was
    read before stays in force.
    """

    def __init__(self, settings: TlsSettings) -> None:
        files = (settings.cert_file, settings.key_file, settings.client_ca_file)
        self._paths = _Paths(*(Path(file or "") for file in files))
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._material = _read(self._paths)
        self.fault = ""
        """Why the files as they are now cannot be used; empty when they are in use."""
        self.reloads = 0
        """How often changed files have come into use."""
        self.refusals = 0
        """How often changed files could not be used."""

    def material(self) -> Material:
        """Give what is in force now."""
        with self._lock:
            # The stamp comes first: what changes while it is read is read again.
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen
                self._take_in()
            return self._material

    def _take_in(self) -> None:
        try:
            self._material = _read(self._paths)
        except StartError as fault:
            self.fault = str(fault)
            self.refusals += 1
            log.warning("certificates_refused", cause=self.fault, until=self._material.until.isoformat())
        else:
            self.fault = ""
            self.reloads += 1
            log.info("certificates_taken_in", until=self._material.until.isoformat())

    def _stamp(self) -> list[tuple[int, ...]]:
        return [_stamp(path) for path in self._paths]

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Give gRPC credentials that ask, at every handshake, for what is in force."""
        given = self.material()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            now = self.material()
            if now is given:
                return None
            given = now
            return _configuration(now)

        first = _configuration(given)
        return grpc.dynamic_ssl_server_credentials(first, changed, require_client_authentication=True)  # type: ignore[arg-type]  # None is for no change

    def http_context(self) -> ssl.SSLContext:
        """Give a context for HTTP servers that takes, at every handshake, what is in force. Raises ``StartError``."""
        given = self.material()
        # It answers first contacts alone, and has the context in force take over.
        current = first = self._context(given)

        def take_over(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
            nonlocal given, current
            now = self.material()
            if now is not given:
                try:
                    current = self._context(now)
                except StartError:  # the files change at this moment, and the next handshake tries again
                    log.warning("certificates_refused", cause="changed while they were read")
                else:
                    given = now
            connection.context = current

        first.sni_callback = take_over
        return first

    def _context(self, material: Material) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Below 1.3 a session could be resumed after the authority that it rests on has been taken out; here there are no tickets.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=material.authorities.decode("ascii", "ignore"))
            context.load_cert_chain(self._paths.certificate, self._paths.key)
        except OSError as fault:  # an SSLError is one
            msg = f"tls.cert_file: {self._paths.certificate}: {fault}"
            raise StartError(msg) from fault
        return context


class KnownClients:
    """Tells from a certificate whether its owner may connect. What the common name says does not count."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._names = frozenset(allowed)
        self._globs = [_glob(entry) for entry in allowed if "*" in entry]
        self.fault: Callable[[bytes], str] = lru_cache(_REMEMBERED)(self._fault)
        """Say why the owner of a certificate, in PEM, may not connect; empty if it may."""

    def _fault(self, certificate: bytes) -> str:
        try:
            read = x509.load_pem_x509_certificate(certificate)
            names = _names(read)
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with it, it does not say who it is
            log.warning("client_refused", cause=str(fault))
            return f"the client's certificate cannot be read: {fault}"
        if any(name in self._names or any(glob.fullmatch(name) for glob in self._globs) for name in names):
            return ""
        # As the answer is remembered, it is logged once for each certificate.
        log.warning(
            "client_refused", names=names, serial=f"{read.serial_number:x}", issuer=read.issuer.rfc4514_string()
        )
        return f"no name in the SAN of the client's certificate may connect: {', '.join(names) or 'it has none'}"


def _names(certificate: x509.Certificate) -> list[str]:
    """List the SPIFFE id and the DNS names that a certificate proves. Raises what ``cryptography`` raises."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    spiffe = [uri for uri in uris if uri.startswith("spiffe://")]
    # https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id: such a certificate proves nothing at all.
    if spiffe and len(uris) > 1:
        msg = "it has a SPIFFE id and another URI"
        raise ValueError(msg)
    # A name that looks like a SPIFFE id is none.
    dns = [name.lower() for name in extension.value.get_values_for_type(x509.DNSName) if "/" not in name]
    return [*spiffe, *dns]


def _glob(entry: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", entry)))


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authorities)


def _stamp(path: Path) -> tuple[int, ...]:
    """Give what changes when a file does, its permissions included."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)


def _read(paths: _Paths) -> Material:
    """Read the files. Raises ``StartError`` for what callers could not connect to, or should not."""
    cert_file, key_file = f"tls.cert_file: {paths.certificate}", f"tls.key_file: {paths.key}"
    ca_file = f"tls.client_ca_file: {paths.authorities}"
    certificate, authorities = _contents(cert_file, paths.certificate), _contents(ca_file, paths.authorities)
    key = _contents(key_file, paths.key, secret=True)
    chain = _certificates(cert_file, certificate)
    _check_time(cert_file, chain[0])
    try:
        loaded = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        msg = f"{key_file}: holds no private key, in PEM and not encrypted"
        raise StartError(msg) from fault
    if _public(loaded) != _public(chain[0]):
        msg = f"{key_file}: is not the key of the certificate in {paths.certificate}; name the two of one pair"
        raise StartError(msg)
    for authority in _certificates(ca_file, authorities):
        if not _is_authority(authority):
            msg = f"{ca_file}: {authority.subject.rfc4514_string()} is no authority; name those that sign clients' certificates"
            raise StartError(msg)
    return Material(certificate, key, authorities, chain[0].not_valid_after_utc)


def _contents(what: str, path: Path, *, secret: bool = False) -> bytes:
    try:
        with path.open("rb") as opened:
            if secret:
                _check_secret(what, os.fstat(opened.fileno()))
            return opened.read()
    except OSError as fault:
        msg = f"{what}: cannot be read: {fault.strerror or fault}"
        raise StartError(msg) from fault


def _check_secret(what: str, found: os.stat_result) -> None:
    """Refuse a key that others may read or replace. A file of root's may be for a group, as Kubernetes mounts secrets."""
    mine = found.st_uid == os.geteuid()
    if not mine and found.st_uid != 0:
        msg = f"{what}: belongs to another user; it must be root's, or of the user that the sidecar runs as"
        raise StartError(msg)
    if found.st_mode & (0o077 if mine else 0o037):
        msg = f"{what}: others may read or change it ({stat.filemode(found.st_mode)}); chmod it to 0600"
        raise StartError(msg)


def _certificates(what: str, pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as fault:
        msg = f"{what}: holds no certificate in PEM, or one of an unknown kind"
        raise StartError(msg) from fault
    return found


def _check_time(what: str, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if now >= certificate.not_valid_after_utc:
        msg = f"{what}: ended at {certificate.not_valid_after_utc.isoformat()}; renew it"
        raise StartError(msg)
    if now < certificate.not_valid_before_utc:
        msg = f"{what}: is good from {certificate.not_valid_before_utc.isoformat()} on; is the clock right?"
        raise StartError(msg)


def _public(holder: Any) -> bytes:
    """Give the public key of a private key or a certificate."""
    key: bytes = holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except Exception:  # noqa: BLE001 - it does not say so, or not legibly
        return False
