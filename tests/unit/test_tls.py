"""Who may connect, as the list of the settings says it, from the names that a certificate proves."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from sidecar.errors import SettingsError, StartError
from sidecar.settings import TlsSettings, load
from sidecar.tls import KnownClients, TlsFiles
from tests.support.certificates import Authority, hosts, uris

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority of clients."""
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


@pytest.mark.parametrize(
    ("entry", "name", "known"),
    [
        ("spiffe://td/a/b", "spiffe://td/a/b", True),
        ("spiffe://td/a/b", "spiffe://td/a/b/", False),
        ("spiffe://td/a/b", "spiffe://td/a/B", False),
        ("spiffe://td/a.b", "spiffe://td/axb", False),
        ("spiffe://td/a/*", "spiffe://td/a/b", True),
        ("spiffe://td/a/*", "spiffe://td/a/b/c", False),
        ("spiffe://td/*/c", "spiffe://td/b/c", True),
        ("spiffe://td/*/c", "spiffe://td/a/b/c", False),
        ("spiffe://td/bot-*", "spiffe://td/bot-7", True),
        ("spiffe://td/**", "spiffe://td/a/b/c", True),
        ("spiffe://td/**", "spiffe://td", False),
        ("spiffe://td/**", "spiffe://tdx/a", False),
        ("spiffe://td/**/c", "spiffe://td/a/b/c", True),
    ],
)
def test_a_spiffe_id_is_known_by(authority: Authority, entry: str, name: str, *, known: bool) -> None:
    certificate = authority.issue("c", *uris(name)).certificate.read_bytes()

    assert (KnownClients([entry]).fault(certificate) == "") is known


def test_what_is_refused_is_said_by_its_names(authority: Authority) -> None:
    clients = KnownClients(["gateway.example"])
    unknown = authority.issue("c", *uris("spiffe://td/a"), *hosts("a.example")).certificate.read_bytes()
    nameless = authority.issue("gateway.example").certificate.read_bytes()

    assert "spiffe://td/a, a.example" in clients.fault(unknown)
    assert "it has none" in clients.fault(nameless)


def test_names_of_other_kinds_do_not_count(authority: Authority) -> None:
    names = [x509.RFC822Name("gateway.example"), x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))]
    certificate = authority.issue("gateway.example", *names).certificate.read_bytes()

    assert KnownClients(["gateway.example"]).fault(certificate)


def test_names_that_cannot_be_read_are_not_known() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.example")])
    # an empty X.400 address, which RFC 5280 has and nobody reads, before the name that may connect
    san = bytes.fromhex("3013a300820f") + b"gateway.example"
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, datetime(2020, 1, 1), datetime(2040, 1, 1))  # noqa: DTZ001 - UTC
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, san), critical=False)
        .sign(key, hashes.SHA256())
    )

    assert "cannot be read" in KnownClients(["gateway.example"]).fault(certificate.public_bytes(Encoding.PEM))


def test_what_is_no_certificate_is_not_known() -> None:
    assert "cannot be read" in KnownClients(["gateway.example"]).fault(b"no certificate")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of root's")
@pytest.mark.parametrize(
    ("mode", "fault"), [(0o440, ""), (0o640, ""), (0o660, "chmod"), (0o444, "chmod"), (0o644, "chmod")]
)
def test_a_key_of_roots_may_be_for_the_group_of_the_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, fault: str
) -> None:
    authority = Authority(tmp_path, "clients")
    pair = authority.issue("sidecar")
    pair.key.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    settings = TlsSettings(str(pair.certificate), str(pair.key), str(authority.file), ("a.example",))
    if not fault:
        assert TlsFiles(settings).material().key == pair.key.read_bytes()
        return
    with pytest.raises(StartError, match=fault):
        TlsFiles(settings)


_FILES = ["tls.cert_file=c", "tls.key_file=k", "tls.client_ca_file=a"]


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.example.org",
        "Gateway.example.org",
        "a..b",
        "-a.example",
        "https://example.org/a",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/../a",
        "spiffe://Example.org/a",
        "spiffe://*/a",
        "spiffe://example.org/a b",
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"tls\.allowed_clients: .* is neither"):
        load(None, {}, [*_FILES, f"tls.allowed_clients=['{entry}']"])


@pytest.mark.parametrize(
    "entry", ["localhost", "a-b.example.org", "spiffe://example.org/ns/agents/*", "spiffe://example.org/**"]
)
def test_an_entry_that_can_be_meant_is_taken(entry: str) -> None:
    settings = load(None, {}, [*_FILES, f"tls.allowed_clients=['{entry}']", "listen.tcp='0.0.0.0:7443'"])

    assert settings.tls.allowed_clients == (entry,)
