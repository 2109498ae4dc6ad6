"""The public keys of an issuer: where they come from, which of them are used, and how long they are believed.

Rule 1. Only public keys that prove something are used: RSA of at least 2048 bits, EC on the curves P-256, P-384 and P-521, and
        Ed25519; for signatures, and under an id that no other key has. One that is refused does not hinder the others.

Rule 2. A thread of its own looks at the keys, over and over, and at once when a token names an unknown one. So nobody waits for
        an issuer whose token is signed with a known key, and nobody can have it asked more often than the settings say.

Rule 3. What the issuer said last holds: a key that it no longer lists is gone at the next look. While it cannot be asked, what
        it said before holds for as long as the settings say, and then nothing does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec import Struct

from sidecar.errors import SettingsError, UnauthenticatedError
from sidecar.identity.encoding import read_object
from sidecar.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from sidecar.model import Json
    from sidecar.settings import IdentitySettings, Issuer

log = structlog.get_logger(__name__)

_MOST_BYTES = 1 << 20
_CHUNK = 1 << 16
_FILE_SECONDS = 1.0
_STOP_SECONDS = 1.0
_MOST_WAITING = 8
_DISCOVERY = "/.well-known/openid-configuration"

_READERS: dict[Json, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}  # RFC 7518 section 6, RFC 8037 section 2
_LEAST_RSA_BITS = 2048
_OF_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_OF_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Key(Struct, frozen=True):
    """A public key, and the algorithms that it may verify with. ``id`` is null where it has none."""

    id: str | None
    algorithms: frozenset[str]
    public: Any


class KeySet(Struct, frozen=True, eq=False):
    """The keys that an issuer listed at one look. When it lists others, there is another set, which is another object."""

    keys: tuple[Key, ...] = ()

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """Give the key of that id or, without an id, the key that fits the algorithm, if just one does."""
        if key_id is not None:
            return next((key for key in self.keys if key.id == key_id), None)
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None


class Keys:
    """Follows the keys of one issuer until it is closed. ``clock`` counts seconds and never goes back.

    It counts its ``looks`` at the keys, and the ``failures`` among them.
    Raises ``SettingsError`` if the issuer must not be asked where it is, or if its keys are in a file that cannot be read.
    """

    def __init__(self, issuer: Issuer, settings: IdentitySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer.issuer
        self._settings = settings
        self._clock = clock
        self._fetch, self._in_file = _source(issuer, settings.keys_timeout_seconds)
        self._body: bytes | None = None
        self._key_set = KeySet()
        self._good_until = clock()
        self._problem = ""
        self._changed = threading.Condition()
        self._looking = True
        self._next_ask = clock()
        self._waiting = 0
        self._closed = False
        self.looks = 0
        self.failures = 0
        if self._in_file:
            self._look()
            if self._problem:
                msg = f"identity.issuers: the keys of {self._issuer}: {self._problem}"
                raise SettingsError(msg)
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._thread.start()

    @property
    def in_force(self) -> KeySet | None:
        """The keys that are believed now; null when what the issuer said last is too long ago."""
        return self._key_set if self._clock() < self._good_until else None

    def find(self, key_id: str | None, algorithm: str) -> tuple[Key, KeySet]:
        """Give the key that a token names, and the set that it is of. Waits for a look at the keys if it is not known.

        Raises ``UnauthenticatedError``.
        """
        found = self._known(key_id, algorithm)
        if found is None:
            self._ask()
            found = self._known(key_id, algorithm)
        if found is not None:
            return found
        if self.in_force is None:
            msg = "the keys of the token's issuer cannot be had, so that it cannot be checked; try again later"
            raise UnauthenticatedError(msg, "TOKEN_KEYS_UNAVAILABLE")
        fault = (
            "is missing, and not just one key fits" if key_id is None else "the issuer lists no such key for signatures"
        )
        msg = f"kid: {fault}; get a new token"
        raise UnauthenticatedError(msg, "TOKEN_KEY_UNKNOWN")

    def close(self) -> None:
        """Stop following, and let everyone go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)

    def _known(self, key_id: str | None, algorithm: str) -> tuple[Key, KeySet] | None:
        key_set = self.in_force
        key = None if key_set is None else key_set.find(key_id, algorithm)
        return None if key_set is None or key is None else (key, key_set)

    def _ask(self) -> None:
        """Have the keys looked at, unless that was asked for only now, and wait for it, unless enough others do already."""
        with self._changed:
            if not self._looking:
                if self._clock() < self._next_ask:
                    return
                self._next_ask = self._clock() + self._settings.unknown_key_pause_seconds
                self._looking = True
                self._changed.notify_all()
            if self._waiting == _MOST_WAITING:
                return
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._looking or self._closed, self._settings.keys_timeout_seconds)
            finally:
                self._waiting -= 1

    def _run(self) -> None:
        while not self._closed:
            self._look()
            with self._changed:
                self._looking = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._looking or self._closed, self._pause())
                self._looking = True

    def _pause(self) -> float:
        if self._in_file:
            return _FILE_SECONDS
        usual = self._settings.keys_refresh_seconds
        return min(usual, self._settings.unknown_key_pause_seconds) if self._problem else usual

    def _look(self) -> None:
        began = self._clock()
        self.looks += 1
        try:
            body = self._fetch()
            if body != self._body:
                self._key_set = KeySet(_usable(self._issuer, body))
                self._body = body
                log.info("keys_taken", issuer=self._issuer, kids=[key.id for key in self._key_set.keys])
        except Exception as fault:  # noqa: BLE001 - whatever an issuer answers, the thread must go on
            self.failures += 1
            problem = str(fault) or type(fault).__name__
            if problem != self._problem:
                log.warning("keys_unavailable", issuer=self._issuer, reason=problem)
            self._problem = problem
        else:
            # after the set, so that nobody takes one from before for good
            self._good_until = began + self._settings.keys_lifetime_seconds
            self._problem = ""


# ── where keys come from ────────────────────────────────────────────────────────────────────────────────────────────────


def _source(issuer: Issuer, timeout: float) -> tuple[Callable[[], bytes], bool]:
    """Tell how the JWK set of an issuer is had, and whether from a file. Raises ``SettingsError``."""
    if issuer.jwks is not None and "://" not in issuer.jwks:
        return partial(_read_file, Path(issuer.jwks)), True
    try:
        if issuer.jwks is not None:
            _check_address(issuer.jwks)
            return partial(_download, issuer.jwks, issuer.ca_file, timeout), False
        _check_address(issuer.issuer)
        return partial(_discover, issuer.issuer, issuer.ca_file, timeout), False
    except ValueError as fault:
        msg = f"identity.issuers: {fault}; set jwks to where the keys of {issuer.issuer} are, or to a file that holds them"
        raise SettingsError(msg) from fault


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    host = parts.hostname or ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        msg = f"{address}: keys are fetched over https:// alone, or from this host"
        raise ValueError(msg)


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        msg = f"{path}: no such file"
        raise FileNotFoundError(msg)
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _download(address: str, ca_file: str | None, timeout: float) -> bytes:
    with _session(ca_file) as session:
        return _get(session, address, time.monotonic() + timeout)


def _discover(issuer: str, ca_file: str | None, timeout: float) -> bytes:
    """Get the keys from where the issuer says (https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig)."""
    end = time.monotonic() + timeout
    address = issuer.removesuffix("/") + _DISCOVERY
    with _session(ca_file) as session:
        about = read_object(_get(session, address, end))
        where = about.get("jwks_uri")
        if about.get("issuer") != issuer or not isinstance(where, str):
            msg = f"{address}: is not about this issuer, or does not say where its keys are (jwks_uri)"
            raise ValueError(msg)
        _check_address(where)
        # what is on another host must not point at what is on this one
        if urlsplit(where).scheme == "http" and urlsplit(issuer).scheme != "http":
            msg = f"{address}: its jwks_uri is not https://"
            raise ValueError(msg)
        return _get(session, where, end)


def _session(ca_file: str | None) -> requests.Session:
    import requests  # noqa: PLC0415 - takes long, and keys in a file need none of it

    session = requests.Session()
    if ca_file is not None:
        session.verify = ca_file
    session.trust_env = False  # no proxy that would be another's loopback, no password out of a .netrc
    session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
    return session


def _get(session: requests.Session, address: str, end: float) -> bytes:
    """Get what is at an address, by a moment of ``time.monotonic()``."""
    body = b""
    timeout = max(0.001, end - time.monotonic())
    with session.get(address, timeout=timeout, allow_redirects=False, stream=True) as response:
        if response.status_code != HTTPStatus.OK:
            msg = f"{address}: HTTP status {response.status_code}"
            raise ValueError(msg)
        while len(body) <= _MOST_BYTES and (chunk := response.raw.read1(_CHUNK, decode_content=False)):
            body += chunk
            if time.monotonic() > end:
                msg = f"{address}: too slow"
                raise TimeoutError(msg)
    return body


# ── which are used ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _usable(issuer: str, body: bytes) -> tuple[Key, ...]:
    """Read a JWK set (RFC 7517), and tell the log which keys are not used. Raises ``ValueError`` if it is none."""
    if len(body) > _MOST_BYTES:
        msg = f"the JWK set has more than {_MOST_BYTES} bytes"
        raise ValueError(msg)
    listed = read_object(body).get("keys")
    if not isinstance(listed, list):
        msg = "not a JWK set: there is no list `keys` in it"
        raise ValueError(msg)  # noqa: TRY004 - what is read is wrong, not what was passed
    keys = [*_readable(issuer, listed)]
    ids = Counter(key.id for key in keys)
    for key_id, count in ids.items():
        if key_id is not None and count > 1:
            log.warning("key_not_used", issuer=issuer, kid=key_id, reason="another key has the same kid")
    return tuple(key for key in keys if key.id is None or ids[key.id] == 1)


def _readable(issuer: str, listed: list[Json]) -> Iterator[Key]:
    for jwk in listed:
        try:
            yield _read(jwk)
        except (ValueError, TypeError, KeyError, jwt.PyJWTError, UnsupportedAlgorithm) as fault:
            members = jwk if isinstance(jwk, dict) else {}
            tell = log.error if _PRIVATE & members.keys() else log.warning
            tell("key_not_used", issuer=issuer, kid=members.get("kid"), reason=str(fault))


def _read(jwk: Json) -> Key:
    """Read a JWK. Raises ``ValueError``, and whatever the library raises for one that is damaged."""
    if not isinstance(jwk, dict):
        msg = "it is not an object"
        raise ValueError(msg)  # noqa: TRY004 - what is read is wrong, not what was passed
    if private := sorted(_PRIVATE & jwk.keys()):
        msg = f"it holds what must be secret ({', '.join(private)}); whoever publishes it must replace it"
        raise ValueError(msg)
    if jwk.get("use", "sig") != "sig" or "verify" not in [*jwk.get("key_ops", ["verify"])]:
        msg = "it is not for signatures"
        raise ValueError(msg)
    if not isinstance(jwk.get("kid", ""), str) or jwk.get("kty") not in _READERS:
        msg = f"its kid must be a text, its kty one of {', '.join(_READERS)}"
        raise ValueError(msg)
    public = _READERS[jwk["kty"]].from_jwk(jwk)
    algorithms = _algorithms(public)
    if "alg" in jwk:
        algorithms &= {jwk["alg"]}
    if not algorithms:
        msg = "its alg does not fit it"
        raise ValueError(msg)
    return Key(jwk.get("kid"), algorithms, public)


def _algorithms(public: Any) -> frozenset[str]:
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= _LEAST_RSA_BITS:
        return _OF_RSA
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _OF_CURVES:
        return frozenset({_OF_CURVES[public.curve.name]})
    if isinstance(public, ed25519.Ed25519PublicKey):
        return frozenset({"EdDSA"})
    msg = f"it must be RSA of at least {_LEAST_RSA_BITS} bits, EC on P-256, P-384 or P-521, or Ed25519"
    raise ValueError(msg)
