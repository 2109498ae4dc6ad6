"""Who is calling: how the identity behind a request is established."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar import translate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage
    from sidecar.model import Identity
    from sidecar.translate import Limits


class IdentitySource(Protocol):
    """What turns the identity that a request states, and the metadata that came with it, into the one that counts."""

    def establish(self, stated: IdentityMessage, metadata: Mapping[str, Sequence[str]]) -> Identity:
        """Establish who is asking. Raises ``InvalidRequestError`` or ``UnauthenticatedError``."""


class Asserted:
    """Takes the identity from the request: for callers that have verified it, on a listener that only they can reach.

    The tenant header is never believed, only compared.
    """

    def __init__(self, tenant_header: str, limits: Limits) -> None:
        self._tenant_header = tenant_header
        self._limits = limits

    def establish(self, stated: IdentityMessage, metadata: Mapping[str, Sequence[str]]) -> Identity:
        """Establish who is asking. Raises ``InvalidRequestError``."""
        return translate.identity_from(stated, metadata.get(self._tenant_header, ()), self._limits)
