"""The tenant, for the code of an application: from the request that comes in to every call that goes out.

Nothing here needs the server, and nothing is imported before it is used::

    from sidecar.tenancy import TenantMiddleware        # ASGI: a request is its token's tenant's
    from sidecar.tenancy import TenantContext, current, use
    from sidecar.tenancy import TenantAuth              # requests: the tenant and the token go with calls to other agents
    from sidecar.tenancy import TenantInterceptor, aio_interceptors     # gRPC: the same
    from sidecar.tenancy import inject, extract         # any other transport
    from sidecar.tenancy import AuthorizationClient, AsyncAuthorizationClient
    from sidecar.tenancy import authorized_tool         # tools that ask before they run
    from sidecar.tenancy import guard                   # boto3: nothing without a tenant
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.tenancy.asgi import TenantMiddleware
    from sidecar.tenancy.aws import guard
    from sidecar.tenancy.calls import Credentials, Decision, Exchanged, ListedTool
    from sidecar.tenancy.client import AsyncAuthorizationClient, AuthorizationClient, Tls
    from sidecar.tenancy.context import TenantContext, current, use
    from sidecar.tenancy.errors import NoDecisionError, NoTenantError, TenantMismatchError, ToolDeniedError
    from sidecar.tenancy.grpc import TenantInterceptor, aio_interceptors
    from sidecar.tenancy.headers import extract, inject
    from sidecar.tenancy.http import TenantAuth
    from sidecar.tenancy.tools import authorized_tool

_MODULES = {
    "asgi": ["TenantMiddleware"],
    "aws": ["guard"],
    "calls": ["Credentials", "Decision", "Exchanged", "ListedTool"],
    "client": ["AsyncAuthorizationClient", "AuthorizationClient", "Tls"],
    "context": ["TenantContext", "current", "use"],
    "errors": ["NoDecisionError", "NoTenantError", "TenantMismatchError", "ToolDeniedError"],
    "grpc": ["TenantInterceptor", "aio_interceptors"],
    "headers": ["extract", "inject"],
    "http": ["TenantAuth"],
    "tools": ["authorized_tool"],
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AsyncAuthorizationClient",
    "AuthorizationClient",
    "Credentials",
    "Decision",
    "Exchanged",
    "ListedTool",
    "NoDecisionError",
    "NoTenantError",
    "TenantAuth",
    "TenantContext",
    "TenantInterceptor",
    "TenantMiddleware",
    "TenantMismatchError",
    "Tls",
    "ToolDeniedError",
    "aio_interceptors",
    "authorized_tool",
    "current",
    "extract",
    "guard",
    "inject",
    "use",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, where it is at home."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
