"""Who is calling: how the identity behind a request is established."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from sidecar import translate
from sidecar.identity.tokens import VerifiedToken
from sidecar.model import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage
    from sidecar.translate import Limits


def _ends_at_once() -> bool:
    return False


def _for_good() -> bool:
    return True


class Caller(Struct, frozen=True):
    """Who is asking, and the token that proves it, where one does.

    ``lasts`` tells whether the same would be established once more, now, from the same.
    """

    identity: Identity
    token: VerifiedToken | None = None
    lasts: Callable[[], bool] = _ends_at_once


class IdentitySource(Protocol):
    """What turns the identity that a request states, and the metadata that came with it, into the one that counts."""

    def establish(self, stated: IdentityMessage, metadata: Mapping[str, Sequence[str]]) -> Caller:
        """Establish who is asking. Raises ``InvalidRequestError`` or ``UnauthenticatedError``."""

    def close(self) -> None:
        """Stop what goes on to that end."""


class Asserted:
    """Takes the identity from the request: for callers that have verified it, on a listener that only they can reach.

    The tenant headers are never believed, only compared.
    """

    def __init__(self, tenant_headers: Sequence[str], limits: Limits) -> None:
        self._tenant_headers = tenant_headers
        self._limits = limits

    def establish(self, stated: IdentityMessage, metadata: Mapping[str, Sequence[str]]) -> Caller:
        """Establish who is asking. Raises ``InvalidRequestError``."""
        named = named_tenants(metadata, self._tenant_headers)
        return Caller(translate.identity_from(stated, named, self._limits), lasts=_for_good)

    def close(self) -> None:
        """Do nothing: nothing goes on."""


def named_tenants(metadata: Mapping[str, Sequence[str]], headers: Sequence[str]) -> tuple[str, ...]:
    """List the tenants that the metadata names, in the order of ``headers``."""
    return tuple([tenant for header in headers for tenant in metadata.get(header, ())])
