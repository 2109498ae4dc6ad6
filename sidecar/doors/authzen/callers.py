"""Who asks, and about whom: the principal is the enforcement point that calls, the subject is whom it asks about.

With verified identities a token says which enforcement point it is, of which tenant, with which scopes. What it says of its own
subject counts where that is whom the request is about, and never for anybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, Struct
from msgspec.structs import replace

from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage
from sidecar.identity import named_tenants
from sidecar.model import Identity, Principal, Subject, Tenant, id_fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.doors.authzen.requests import Asked
    from sidecar.identity import IdentitySource
    from sidecar.model import Json
    from sidecar.settings import IdentitySettings


class Asking(Struct, frozen=True):
    """Who calls. ``identity`` has an empty tenant where no token says it; ``path`` and ``headers`` name tenants besides.

    ``of_tokens`` are the names of properties of subjects that nobody but a token can state.
    """

    identity: Identity
    path: tuple[str, ...]
    headers: tuple[str, ...]
    of_tokens: frozenset[str]

    def about(self, asked: Asked) -> Identity:
        """Give the identity of a question about a subject. Raises ``InvalidRequestError``."""
        subject, own = asked.subject, self.identity.subject
        if own.id != subject.id:
            properties = self._merge(subject.properties, {})
            about = replace(self.identity, subject=replace(subject, properties=properties), may_act=UNSET)
        else:
            properties = self._merge(subject.properties, own.properties)
            about = replace(self.identity, subject=replace(own, properties=properties))
        return replace(about, tenant=self._tenant(asked))

    def seeking(self, asked: Asked) -> Identity:
        """Give the identity of a search for subjects: its subject is the token's own. Raises ``InvalidRequestError``."""
        own = self.identity.subject
        properties = {**self._merge(asked.subject.properties, {}), **own.properties}
        return replace(self.identity, tenant=self._tenant(asked), subject=replace(own, properties=properties))

    def _merge(self, stated: dict[str, Json], proven: dict[str, Json]) -> dict[str, Json]:
        for name in stated.keys() & self.of_tokens:
            if name not in proven or stated[name] != proven[name]:
                field = f"subject.properties.{name}"
                raise InvalidRequestError(field, "comes from the token of the subject alone; leave it out")
        return {**stated, **proven}

    def _tenant(self, asked: Asked) -> Tenant:
        named = (*self.path, *asked.tenants, *self.headers)
        if self.identity.tenant.id:
            return Tenant(self.identity.tenant.id, named)
        if not named:
            field = "context.tenant_id"
            raise InvalidRequestError(
                field, "is missing: name the tenant here, in the path (/tenants/TENANT/access/v1/...) or in a header"
            )
        return Tenant(named[0], named[1:])


class Callers:
    """Establishes who calls. ``principal`` is that of all calls where identities are asserted; else it is None."""

    def __init__(self, identities: IdentitySource, settings: IdentitySettings, principal: str | None) -> None:
        self._identities = identities
        self._tenant_headers = settings.tenant_headers
        self._of_tokens = frozenset(name for issuer in settings.issuers for name in issuer.claims.properties)
        self._principal = principal

    def establish(self, metadata: Mapping[str, Sequence[str]], tenant: str | None) -> Asking:
        """Establish who calls; ``tenant`` is the one that the path names. Raises as ``IdentitySource.establish`` does."""
        path = () if tenant is None else (_checked("path", tenant),)
        if self._principal is None:
            identity = self._identities.establish(IdentityMessage(), metadata).identity
            return Asking(identity, path, identity.tenant.named, self._of_tokens)
        headers = named_tenants(metadata, self._tenant_headers)
        for named in headers:
            _checked("header", named)
        return Asking(Identity(Tenant(""), Principal(self._principal), Subject()), path, headers, self._of_tokens)


def _checked(where: str, tenant: str) -> str:
    if fault := id_fault(tenant):
        field = f"tenant of the {where}"
        raise InvalidRequestError(field, fault)
    return tenant
