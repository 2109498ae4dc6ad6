"""Identities by proof: from the caller's token, with which the request may agree and nothing more."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from sidecar import translate
from sidecar.errors import InvalidRequestError, UnauthenticatedError
from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage
from sidecar.identity import Caller, named_tenants
from sidecar.identity.tokens import TokenVerifier
from sidecar.model import Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.identity.keys import Keys
    from sidecar.identity.tokens import VerifiedToken
    from sidecar.model import Actor, Identity, Json
    from sidecar.settings import IdentitySettings
    from sidecar.translate import Limits


class Verified:
    """Takes the identity from the token in the metadata ``authorization: Bearer ...`` (RFC 6750 section 2.1).

    What the request states is compared with it: tenants by the policy, which denies on a mismatch; all else here. Tokens that are
    ``refused`` are counted by the reason.
    """

    def __init__(self, settings: IdentitySettings, limits: Limits) -> None:
        self._tenant_headers = settings.tenant_headers
        self._limits = limits
        self._properties = {issuer.issuer: {*issuer.claims.properties} for issuer in settings.issuers}
        self._verifier = TokenVerifier(settings)
        self._lock = threading.Lock()
        self.refused: Counter[str] = Counter()

    @property
    def keys(self) -> Mapping[str, Keys]:
        """The keys of each issuer."""
        return self._verifier.keys

    def establish(self, stated: IdentityMessage, metadata: Mapping[str, Sequence[str]]) -> Caller:
        """Establish who is asking. Raises ``InvalidRequestError`` or ``UnauthenticatedError``."""
        try:
            checked = self._verifier.check(bearer_token(metadata))
        except UnauthenticatedError as fault:
            with self._lock:
                self.refused[fault.reason] += 1
            raise
        token, lasts = checked.token, partial(self._verifier.believes, checked)
        proven = token.identity
        named = named_tenants(metadata, self._tenant_headers)
        if not named and not stated.ByteSize():  # most callers leave it to the token
            return Caller(proven, token, lasts)
        if stated.tenant_id:
            named = (stated.tenant_id, *named)
        # the tenant may be left out here, and the checks of all the rest are those of an identity that is asserted
        whole = IdentityMessage()
        whole.CopyFrom(stated)
        whole.tenant_id = stated.tenant_id or proven.tenant.id
        repeated = translate.identity_from(whole, named, self._limits)
        _compare(repeated, proven)
        subject = replace(proven.subject, properties=self._merge(repeated, token))
        identity = replace(proven, tenant=Tenant(proven.tenant.id, named), subject=subject)
        return Caller(identity, token, lasts)

    def close(self) -> None:
        """Stop following the keys of the issuers."""
        self._verifier.close()

    def _merge(self, repeated: Identity, token: VerifiedToken) -> dict[str, Json]:
        """Put the properties of the token and those that the request states besides together."""
        proven, stated = token.identity.subject.properties, repeated.subject.properties
        for name in stated.keys() & self._properties[token.issuer]:
            if name not in proven or stated[name] != proven[name]:
                _refuse(f"identity.subject.properties.{name}")
        return {**stated, **proven}


def bearer_token(metadata: Mapping[str, Sequence[str]]) -> str:
    """Give the token that came with a request, empty if none did. Raises ``UnauthenticatedError`` if there are several."""
    values = metadata.get("authorization", ())
    if len(values) > 1:
        msg = f"authorization: there are {len(values)} values; give one token"
        raise UnauthenticatedError(msg, "TOKEN_MALFORMED")
    scheme, _, text = values[0].partition(" ") if values else ("", "", "")
    return text.lstrip(" ") if scheme.lower() == "bearer" else ""


def _compare(stated: Identity, proven: Identity) -> None:
    """Refuse a request that states something else than the token; what it leaves out it does not state."""
    pairs: dict[str, tuple[object, object]] = {
        "identity.principal.id": (stated.principal.id, proven.principal.id),
        "identity.subject.id": (stated.subject.id, proven.subject.id),
        "identity.subject.roles": ({*stated.subject.roles}, {*proven.subject.roles}),
        "identity.scopes": ({*stated.scopes}, {*proven.scopes}),
        "identity.delegation": (_comparable(stated.delegation), _comparable(proven.delegation)),
    }
    for field, (said, is_so) in pairs.items():
        if said and said != is_so:
            _refuse(field)


def _comparable(delegation: Sequence[Actor]) -> list[tuple[str, object]]:
    return [(actor.id, {*actor.scopes} if isinstance(actor.scopes, tuple) else None) for actor in delegation]


def _refuse(field: str) -> NoReturn:
    raise InvalidRequestError(field, "is not what the token says; leave it out, or repeat it as it is there")
