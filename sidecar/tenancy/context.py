"""Whose request is being worked on, for all code below: the tenant, and the token that proves it.

It is kept in a context variable, so that concurrent requests never see each other's: each asyncio task has its own, and
``asyncio.to_thread`` takes it along. A plain thread or executor starts without one; hand it over there::

    executor.submit(contextvars.copy_context().run, work)
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.model import id_fault
from sidecar.tenancy.errors import NoTenantError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.identity.tokens import VerifiedToken
    from sidecar.model import Actor


@dataclass(frozen=True, slots=True)  # which, unlike a Struct, can keep a field out of what is printed
class TenantContext:
    """A tenant, for whom of it the work is done and by which agent, and the token that says so.

    ``token`` is for calls on this request's behalf. It is left out where identities are asserted, by a caller that has verified
    them: then the other fields are what the sidecar is told. ``delegation`` are the earlier actors, outermost first.
    """

    tenant_id: str
    subject_id: str = ""
    principal_id: str = ""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    delegation: tuple[Actor, ...] = ()
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse a tenant that cannot be one."""
        fault = id_fault(self.tenant_id)
        if fault:
            msg = f"tenant_id: {fault}"
            raise ValueError(msg)

    @classmethod
    def of(cls, token: VerifiedToken) -> TenantContext:
        """Give the context that a verified token stands for."""
        identity = token.identity
        return cls(
            identity.tenant.id,
            identity.subject.id,
            identity.principal.id,
            identity.subject.roles,
            identity.scopes,
            identity.delegation,
            token.text,
        )


_current: ContextVar[TenantContext | None] = ContextVar("tenantgate_tenant", default=None)


def current() -> TenantContext:
    """Give the context that is in force. Raises ``NoTenantError``."""
    context = _current.get()
    if context is None:
        msg = (
            "no tenant: this code runs outside of a request. Put TenantMiddleware around the application, or "
            "`with use(context):` around the work; a thread of an executor gets it by contextvars.copy_context().run"
        )
        raise NoTenantError(msg)
    return context


@contextmanager
def use(context: TenantContext | None) -> Iterator[None]:
    """Put a context in force for a while; ``None`` for work that is no tenant's."""
    before = _current.set(context)
    try:
        yield
    finally:
        _current.reset(before)
