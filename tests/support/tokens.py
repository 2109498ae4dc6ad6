"""Tokens as anyone may write them: any header, any claims, any bytes, signed with any key or not at all."""

from __future__ import annotations

import base64
import hmac
import json
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from msgspec import Struct

from sidecar.settings import IdentitySettings, Issuer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ISSUER = "https://issuer.example"
AUDIENCE = "tenantgate"
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")

_MAKE: dict[str, Any] = {
    "RS256": lambda bits: rsa.generate_private_key(65537, bits or 2048),
    "ES256": lambda _: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda _: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda _: ec.generate_private_key(ec.SECP521R1()),
    "ES256K": lambda _: ec.generate_private_key(ec.SECP256K1()),
    "EdDSA": lambda _: ed25519.Ed25519PrivateKey.generate(),
}


class Signer(Struct, frozen=True):
    """A private key under an id, and the algorithm that it signs with unless told another."""

    id: str
    algorithm: str
    key: Any

    def jwk(self, **members: Any) -> dict[str, Any]:
        """Give its public key as an issuer lists it. ``members`` override the others."""
        public: dict[str, Any] = get_default_algorithms()[self.algorithm].to_jwk(self.key.public_key(), as_dict=True)
        return {**public, "kid": self.id, "use": "sig"} | members

    def token(self, claims: Mapping[str, Any] | bytes | None = None, **header: Any) -> str:
        """Sign claims, by default good ones. ``header`` overrides what the header holds."""
        whole = {"alg": self.algorithm, "typ": "JWT", "kid": self.id} | header
        return self.sign(encoded(whole), encoded(good_claims() if claims is None else claims))

    def sign(self, header: str, claims: str) -> str:
        """Sign two parts of a token, whatever they are."""
        signature = get_default_algorithms()[self.algorithm].sign(f"{header}.{claims}".encode(), self.key)
        return f"{header}.{claims}.{base64url(signature)}"


@cache
def signer(algorithm: str = "ES256", key_id: str = "", bits: int = 0) -> Signer:
    """Make a key, once for each kind and id."""
    return Signer(key_id or algorithm, algorithm, _MAKE[algorithm](bits))


def without_key_id(token: str, by: Signer) -> str:
    """Sign what a token says anew, with a header that names no key."""
    return by.sign(encoded({"alg": by.algorithm}), token.split(".")[1])


def good_claims(**claims: Any) -> dict[str, Any]:
    """Say who asks: alice of Tenant-A, through the order bot, for an hour. ``claims`` override the others."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        "jti": "token-1",
        "tenant_id": "Tenant-A",
        "sub": "alice",
        "act": {"sub": "agent:order-bot"},
        "scope": "tools:read tools:write",
    }
    return said | claims


def without(*names: str) -> dict[str, Any]:
    """Give good claims without some of them."""
    return {name: value for name, value in good_claims().items() if name not in names}


def base64url(body: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def encoded(part: Mapping[str, Any] | bytes) -> str:
    """Write a part of a token: JSON, or bytes as they are."""
    return base64url(part if isinstance(part, bytes) else json.dumps(part).encode())


def shared_secret_token(secret: bytes, **header: Any) -> str:
    """Sign good claims with a shared secret, which may be what everyone knows. A library would refuse to."""
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT'} | header)}.{encoded(good_claims())}"
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), 'sha256'))}"


def write_keys(path: Path, *jwks: dict[str, Any]) -> Path:
    """Write a JWK set, whole at once."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"keys": jwks}))
    draft.replace(path)
    return path


def issuer_settings(jwks: Path | str | None, **settings: Any) -> dict[str, Any]:
    """Give the entry of ``identity.issuers`` for the issuer of good tokens."""
    where = None if jwks is None else str(jwks)
    return {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": where, "algorithms": [*ALGORITHMS]} | settings


def identity_settings(*issuers: dict[str, Any], **settings: Any) -> IdentitySettings:
    """Give settings under which those issuers are believed."""
    return IdentitySettings(issuers=tuple(msgspec.convert([*issuers], list[Issuer])), **settings)
