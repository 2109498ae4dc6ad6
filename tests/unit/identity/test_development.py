"""The issuer for development: what it leaves in its folder, and what its tokens say."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from sidecar.errors import SettingsError, UnauthenticatedError
from sidecar.identity.development import AUDIENCE, ISSUER, DevelopmentIssuer, thumbprint
from sidecar.identity.tokens import TokenVerifier
from sidecar.model import Actor, Identity, Principal, Subject, Tenant
from sidecar.settings import IdentitySettings, Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def issuer(tmp_path: Path) -> DevelopmentIssuer:
    return DevelopmentIssuer(tmp_path / "state" / "issuer")


@pytest.fixture
def verifier(issuer: DevelopmentIssuer) -> Iterator[TokenVerifier]:
    verifier = TokenVerifier(IdentitySettings(issuers=(msgspec.convert(issuer.settings(), Issuer),)))
    yield verifier
    verifier.close()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_its_folders_and_its_key_are_for_the_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        DevelopmentIssuer(tmp_path / "state" / "issuer")
    finally:
        os.umask(before)

    assert [_mode(tmp_path / path) for path in ("state", "state/issuer", "state/issuer/issuer.key")] == [
        0o700,
        0o700,
        0o600,
    ]
    assert sorted(path.name for path in (tmp_path / "state/issuer").iterdir()) == ["issuer.key", "jwks.json"]


def test_it_lists_its_public_key_and_nothing_secret(issuer: DevelopmentIssuer, tmp_path: Path) -> None:
    (jwk,) = json.loads((tmp_path / "state/issuer/jwks.json").read_text())["keys"]

    assert ECAlgorithm.from_jwk(jwk) == issuer._key.public_key()
    assert jwk.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert jwk["kid"] == thumbprint(jwk)


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    # of the key of RFC 7515 appendix A.3, computed independently: sha256 of {"crv":"P-256","kty":"EC","x":...,"y":...}
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "kid": "ignored",
    }

    assert thumbprint(jwk) == "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"


def test_it_goes_on_with_the_key_that_is_there(verifier: TokenVerifier, tmp_path: Path) -> None:
    again = DevelopmentIssuer(tmp_path / "state" / "issuer")

    assert verifier.verify(again.mint("acme")).identity.tenant.id == "acme"


def test_it_lists_the_key_that_it_signs_with_when_another_was_listed(issuer: DevelopmentIssuer, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "issuer"
    (folder / "issuer.key").unlink()
    other = DevelopmentIssuer(folder)
    (jwk,) = json.loads((folder / "jwks.json").read_text())["keys"]

    assert jwt.get_unverified_header(other.mint("acme"))["kid"] == jwk["kid"]
    assert jwt.get_unverified_header(issuer.mint("acme"))["kid"] != jwk["kid"]


def test_a_token_says_what_it_is_told_to(issuer: DevelopmentIssuer, verifier: TokenVerifier) -> None:
    token = issuer.mint(
        tenant="acme",
        subject="alice",
        principal="agent:order-bot",
        scopes=("a", "b"),
        roles=["r"],
        delegation=("agent:b", Actor("agent:c", ("x", "y")), Actor("agent:d", ())),
    )

    assert verifier.verify(token).identity == Identity(
        tenant=Tenant("acme"),
        principal=Principal("agent:order-bot"),
        subject=Subject("alice", ("r",)),
        delegation=(Actor("agent:b"), Actor("agent:c", ("x", "y")), Actor("agent:d", ())),
        scopes=("a", "b"),
    )


def test_what_is_not_told_is_not_in_a_token(issuer: DevelopmentIssuer) -> None:
    claims = jwt.decode(issuer.mint("acme"), options={"verify_signature": False})

    assert claims.keys() == {"iss", "aud", "iat", "nbf", "exp", "jti", "tenant_id"}
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == (ISSUER, AUDIENCE, 3600)


def test_two_tokens_have_two_ids(issuer: DevelopmentIssuer) -> None:
    ids = {jwt.decode(issuer.mint("acme"), options={"verify_signature": False})["jti"] for _ in range(2)}

    assert len(ids) == 2


@pytest.mark.parametrize(
    ("options", "reason"), [({"aud": "elsewhere"}, "TOKEN_AUDIENCE"), ({"lifetime": -60}, "TOKEN_EXPIRED")]
)
def test_claims_override_the_others(
    issuer: DevelopmentIssuer, verifier: TokenVerifier, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnauthenticatedError) as refused:
        verifier.verify(issuer.mint("acme", **options))

    assert refused.value.reason == reason


def _pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a private key"),
        (_pem(rsa.generate_private_key(65537, 2048)), "not an EC key"),
        (_pem(ec.generate_private_key(ec.SECP384R1())), "not an EC key"),
    ],
)
def test_a_key_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "issuer.key").write_bytes(content)

    with pytest.raises(SettingsError, match=rf"issuer\.key: {fault}.*; remove it, and another is made"):
        DevelopmentIssuer(tmp_path)
    assert (tmp_path / "issuer.key").read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match="cannot hold a development issuer"):
        DevelopmentIssuer(tmp_path / "file" / "issuer")
