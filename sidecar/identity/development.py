"""An issuer of tokens for development and tests: a key in a folder, and tokens that say whatever they are told to say.

Whoever can read its key can be anyone. Its name ends in ``.invalid``, so that nobody can ever publish keys under it
(https://www.rfc-editor.org/rfc/rfc6761#section-6.4).
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm
from jwt.utils import base64url_encode
from msgspec import UNSET

from sidecar.errors import SettingsError
from sidecar.model import Actor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sidecar.model import Json

ISSUER = "https://issuer.tenantgate.invalid"
AUDIENCE = "tenantgate"
ALGORITHM = "ES256"

KEY = "issuer.key"
KEYS = "jwks.json"


class DevelopmentIssuer:
    """Mints tokens with the key in a folder, which is made, for the owner only, if it is missing.

    Raises ``SettingsError`` if the folder cannot be used, or holds a key of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self._keys = folder / KEYS
        try:
            for missing in [path for path in (folder, *folder.parents) if not path.exists()][::-1]:
                missing.mkdir(mode=0o700, exist_ok=True)
            self._key = _read_or_make(folder / KEY)
            jwk: dict[str, Json] = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
            self._id = thumbprint(jwk)
            self._publish({"keys": [{**jwk, "kid": self._id, "alg": ALGORITHM, "use": "sig"}]})
        except OSError as fault:
            msg = f"{folder}: cannot hold a development issuer: {fault.strerror or fault}"
            raise SettingsError(msg) from fault

    def settings(self) -> dict[str, Json]:
        """Give the entry of ``identity.issuers`` that has its tokens believed."""
        return {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": str(self._keys), "algorithms": [ALGORITHM]}

    def mint(
        self,
        tenant: str,
        subject: str = "",
        principal: str = "",
        *,
        scopes: Sequence[str] = (),
        roles: Sequence[str] = (),
        delegation: Sequence[Actor | str] = (),
        lifetime: float = 3600,
        **claims: Json,
    ) -> str:
        """Make a token that says so. What is empty is left out of it.

        ``delegation`` are the earlier actors, outermost first. ``lifetime`` is in seconds. ``claims`` are further claims, and
        override the others.
        """
        now = int(time.time())
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": uuid.uuid4().hex,
            "tenant_id": tenant,
            **_present(sub=subject, scope=" ".join(scopes), roles=[*roles]),
            **_present(act=_act([Actor(principal), *map(_actor, delegation)]) if principal else {}),
            **claims,
        }
        return jwt.encode(said, self._key, ALGORITHM, {"kid": self._id})

    def _publish(self, keys: dict[str, Json]) -> None:
        body = msgspec.json.format(msgspec.json.encode(keys)) + b"\n"
        if not self._keys.exists() or self._keys.read_bytes() != body:
            _write(self._keys, body, 0o644)


def thumbprint(jwk: dict[str, Json]) -> str:
    """Give the name of an EC key that follows from the key itself (https://www.rfc-editor.org/rfc/rfc7638#section-3)."""
    members = msgspec.json.encode({name: jwk[name] for name in ("crv", "kty", "x", "y")})
    return base64url_encode(hashlib.sha256(members).digest()).decode()


def _present(**claims: Json) -> dict[str, Json]:
    return {name: value for name, value in claims.items() if value}


def _actor(actor: Actor | str) -> Actor:
    return Actor(actor) if isinstance(actor, str) else actor


def _act(chain: Iterable[Actor]) -> dict[str, Json]:
    act: dict[str, Json] = {}
    for actor in reversed([*chain]):
        scope = {} if actor.scopes is UNSET else {"scope": " ".join(actor.scopes)}
        act = {"sub": actor.id, **scope, **_present(act=act)}
    return act


def _read_or_make(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        _write(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    try:
        key: Any = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        msg = f"{path}: not a private key in PEM without a password; remove it, and another is made"
        raise SettingsError(msg) from fault
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        msg = f"{path}: not an EC key on the curve P-256; remove it, and another is made"
        raise SettingsError(msg)
    return key


def _write(path: Path, body: bytes, mode: int) -> None:
    """Put a whole file in place at once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(body)
    draft.replace(path)
