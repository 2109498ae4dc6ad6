"""What an application loads by importing the package, and what only when it uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sidecar import tenancy

_SERVER = {
    "sidecar.server",
    "sidecar.doors",
    "sidecar.engine",
    "sidecar.settings",
    "sidecar.registry",
    "sidecar.bundles",
    "sidecar.cli",
    "starlette",
    "uvicorn",
    "click",
    "rich",
    "structlog",
    "yaml",
    "boto3",
    "botocore",
}
_GRPC = {"grpc", "grpc_health", "grpc_reflection", "google.protobuf"}  # it looks for the two itself
_HEAVY = _GRPC | {"requests", "urllib3", "jwt", "cryptography"}


def _loaded_by(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"]
    return {*subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded_by("import sidecar.tenancy") & (_SERVER | _HEAVY) == set()


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        ("TenantContext, current, use, inject, extract, guard, TenantMiddleware, authorized_tool", set()),
        ("TenantAuth", {"requests", "urllib3"}),
        ("AuthorizationClient, AsyncAuthorizationClient, Decision", _GRPC),
        ("TenantInterceptor, aio_interceptors", _GRPC),
    ],
    ids=["most", "requests", "clients", "interceptors"],
)
def test_a_name_loads_what_it_needs_and_never_the_server(names: str, needed: set[str]) -> None:
    assert _loaded_by(f"from sidecar.tenancy import {names}") & (_SERVER | _HEAVY) <= needed


def test_every_name_that_is_offered_is_there() -> None:
    assert [name for name in tenancy.__all__ if not getattr(tenancy, name)] == []
    assert {*tenancy.__all__} == {*tenancy._HOMES}


def test_a_name_that_is_not_offered_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TenantContexts'"):
        _ = tenancy.TenantContexts
