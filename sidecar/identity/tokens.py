"""Whether a token is to be believed, and what it says.

A token is a JWT (RFC 7519) that an issuer of the settings has signed (RFC 7515); RFC 8725 says what to be careful about. It is
believed when it passes every check, in the order of ``TokenVerifier``. Why one does not is told in one of these words:

    TOKEN_MISSING           there is none
    TOKEN_TOO_LARGE         it has more bytes than ``identity.max_token_bytes``
    TOKEN_MALFORMED         it is not three parts in base64url, of which two are JSON objects that can be read in one way alone
    TOKEN_HEADER            its header asks for something else than a signature by a key of the issuer, or names another type
    TOKEN_ISSUER            it is from none of ``identity.issuers``
    TOKEN_ALGORITHM         it is signed in a way that the issuer's settings do not list, or that its key is not for
    TOKEN_KEY_UNKNOWN       it names none of the keys that the issuer lists
    TOKEN_KEYS_UNAVAILABLE  the issuer's keys cannot be had
    TOKEN_SIGNATURE         the signature is not the key's
    TOKEN_EXPIRED           its end is past
    TOKEN_NOT_YET_VALID     its beginning, or its issue, is yet to come
    TOKEN_LIFETIME          it lasts longer than ``identity.max_lifetime_seconds``
    TOKEN_AUDIENCE          it is meant for somebody else
    TOKEN_CLAIMS            it lacks a claim, or has one that is not what it should be
    TOKEN_TENANT            the issuer does not speak for the tenant
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import jwt
from msgspec import Struct

from sidecar.errors import UnauthenticatedError
from sidecar.identity.claims import audience_of, identity_from
from sidecar.identity.encoding import decode_base64url, read_object
from sidecar.identity.keys import Keys, KeySet
from sidecar.model import Identity, Json, id_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.settings import IdentitySettings, Issuer

_PARTS = 3
_MOST_KEY_ID = 256
_REFUSED_HEADERS = ("crit", "b64", "zip", "jwk", "jku", "x5u")
_TYPES = ("jwt", "at+jwt")
_END_OF_TIME = 253_402_300_799  # of the year 9999, in seconds since 1970

_signatures = jwt.PyJWS()


class VerifiedToken(Struct, frozen=True):
    """A token that has passed every check.

    ``identity`` is who it says is asking; its ``tenant.named`` is empty. ``id`` is its ``jti``, empty where it has none.
    ``expires_at`` is in seconds since 1970. ``text`` is the token itself, which must not be logged.
    """

    text: str
    issuer: str
    id: str
    identity: Identity
    expires_at: float
    claims: dict[str, Json]

    def __repr__(self) -> str:
        """Tell it from others, and nothing that it says."""
        return f"<VerifiedToken {self.id!r} of {self.issuer}>"

    def __rich_repr__(self) -> list[tuple[str, Json]]:
        """Tell no more where rich shows it."""
        return [("id", self.id), ("issuer", self.issuer)]


class Checked(NamedTuple):
    """A token that was believed, for as long as it lasts and the keys of its issuer are those that it was checked with."""

    token: VerifiedToken
    keys: Keys
    key_set: KeySet


class TokenVerifier:
    """Checks tokens of the issuers that the settings name, and remembers those that it believes.

    ``clock`` tells the time in seconds since 1970. Raises ``SettingsError`` if the keys of an issuer cannot be had as they say.
    """

    def __init__(self, settings: IdentitySettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._believed = _Believed(settings.token_cache_entries)
        self._trusted: dict[str, tuple[Issuer, Keys]] = {}
        try:
            for issuer in settings.issuers:
                self._trusted[issuer.issuer] = issuer, Keys(issuer, settings)
        except BaseException:
            self.close()
            raise

    @property
    def keys(self) -> dict[str, Keys]:
        """The keys of each issuer."""
        return {name: keys for name, (_, keys) in self._trusted.items()}

    def close(self) -> None:
        """Stop following the keys of the issuers."""
        for keys in self.keys.values():
            keys.close()

    def verify(self, text: str) -> VerifiedToken:
        """Check a token and read it. Raises ``UnauthenticatedError``, whatever the text is."""
        return self.check(text).token

    def check(self, text: str) -> Checked:
        """Do as ``verify`` does, and say besides what it was checked with."""
        found = self._believed.get(text)
        if found is not None and self.believes(found):
            return found
        if not text:
            _refuse("TOKEN_MISSING", "there is no token; give one as `authorization: Bearer TOKEN`")
        if len(text) > self._settings.max_token_bytes:
            _refuse("TOKEN_TOO_LARGE", f"the token has more than {self._settings.max_token_bytes} bytes")
        if not text.isascii():
            _refuse("TOKEN_MALFORMED", "the token has characters that no token has")
        checked = self._check(text)
        self._believed.put(text, checked)
        return checked

    def believes(self, checked: Checked) -> bool:
        """Tell whether a token that was believed still is: it has not ended, and the keys of its issuer are the same.

        None is where none are to be remembered.
        """
        if self._settings.token_cache_entries == 0 or self._is_past(checked.token.expires_at):
            return False
        return checked.keys.in_force is checked.key_set

    def _check(self, text: str) -> Checked:
        header, claims = _read(text)
        _check_header(header)
        name = claims.get("iss")
        if not isinstance(name, str) or name not in self._trusted:
            _refuse("TOKEN_ISSUER", "iss: the token is from none of the issuers that identity.issuers names")
        issuer, keys = self._trusted[name]
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            _refuse("TOKEN_ALGORITHM", f"alg: must be one of {', '.join(issuer.algorithms)}, as the settings say")
        key, key_set = keys.find(header.get("kid"), algorithm)
        if algorithm not in key.algorithms:
            _refuse("TOKEN_ALGORITHM", f"alg: the key that the token names is for {', '.join(sorted(key.algorithms))}")
        try:
            _signatures.decode(text, key.public, algorithms=[algorithm])
        except jwt.PyJWTError:
            _refuse("TOKEN_SIGNATURE", "the signature of the token is not its issuer's; get a new one")
        expires_at = self._check_times(claims)
        if not {*audience_of(claims, issuer)} & {*issuer.audiences}:
            _refuse(
                "TOKEN_AUDIENCE", f"aud: must name {' or '.join(issuer.audiences)}; get a token that is meant for it"
            )
        identity = identity_from(claims, issuer)
        if issuer.tenants is not None and identity.tenant.id not in issuer.tenants:
            _refuse(
                "TOKEN_TENANT", "the issuer does not speak for that tenant; identity.issuers says for which it does"
            )
        token = VerifiedToken(text, issuer.issuer, _token_id(claims), identity, expires_at, claims)
        return Checked(token, keys, key_set)

    def _check_times(self, claims: dict[str, Json]) -> float:
        """Check when the token is valid, and give its end."""
        now, skew = self._clock(), self._settings.clock_skew_seconds
        expires_at = _moment(claims, "exp")
        if expires_at is None:
            _refuse("TOKEN_CLAIMS", "exp: is missing: a token must have an end")
        if self._is_past(expires_at):
            _refuse("TOKEN_EXPIRED", f"exp: the token ended {now - expires_at:.0f} seconds ago; get a new one")
        issued_at = _moment(claims, "iat")
        for name, begins_at in (("nbf", _moment(claims, "nbf")), ("iat", issued_at)):
            if begins_at is not None and begins_at > now + skew:
                ahead = f"is {begins_at - now:.0f} seconds from now"
                _refuse("TOKEN_NOT_YET_VALID", f"{name}: the beginning of the token {ahead}; is a clock wrong?")
        if expires_at - (now if issued_at is None else issued_at) > self._settings.max_lifetime_seconds:
            most = f"{self._settings.max_lifetime_seconds:.0f} seconds"
            _refuse("TOKEN_LIFETIME", f"exp: the token lasts longer than {most}; get one for a shorter time")
        return expires_at

    def _is_past(self, expires_at: float) -> bool:
        return self._clock() >= expires_at + self._settings.clock_skew_seconds


class _Believed:
    """Remembers tokens, the ones asked for last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Checked] = OrderedDict()

    def get(self, text: str) -> Checked | None:
        with self._lock:
            found = self._entries.get(text)
            if found is not None:
                self._entries.move_to_end(text)
            return found

    def put(self, text: str, checked: Checked) -> None:
        with self._lock:
            self._entries[text] = checked
            self._entries.move_to_end(text)
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)


def _read(text: str) -> tuple[dict[str, Json], dict[str, Json]]:
    """Give the header and the claims of a token, none of which is to be believed yet."""
    parts = text.split(".")
    if len(parts) != _PARTS:
        _refuse(
            "TOKEN_MALFORMED", f"the token must be a signed JWT: {_PARTS} parts with dots between, not {len(parts)}"
        )
    try:
        header, claims = (read_object(decode_base64url(part)) for part in parts[:2])
        decode_base64url(parts[2])
    except ValueError as fault:
        _refuse("TOKEN_MALFORMED", f"the token cannot be read: {fault}")
    return header, claims


def _check_header(header: dict[str, Json]) -> None:
    for name in _REFUSED_HEADERS:
        if name in header:
            _refuse("TOKEN_HEADER", f"{name}: is not accepted in the header of a token")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        _refuse("TOKEN_HEADER", "typ: must be JWT or at+jwt: this is a token for something else")
    key_id = header.get("kid", "")
    if not isinstance(key_id, str) or len(key_id) > _MOST_KEY_ID or not key_id.isprintable():
        _refuse("TOKEN_HEADER", f"kid: must be a text of at most {_MOST_KEY_ID} printable characters")


def _moment(claims: dict[str, Json], name: str) -> float | None:
    moment = claims.get(name)
    if name not in claims:
        return None
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment <= _END_OF_TIME:
        _refuse("TOKEN_CLAIMS", f"{name}: must be a number of seconds since 1970")
    return float(moment)


def _token_id(claims: dict[str, Json]) -> str:
    token_id = claims.get("jti", "")
    if "jti" in claims and (fault := id_fault(token_id) if isinstance(token_id, str) else "must be a text"):
        _refuse("TOKEN_CLAIMS", f"jti: {fault}")
    return str(token_id)


def _refuse(reason: str, message: str) -> NoReturn:
    raise UnauthenticatedError(message, reason)
