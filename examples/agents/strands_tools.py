"""Tools for an agent of Strands that ask before they run, one of which needs a human's approval.

``@tool`` reads name, documentation and parameters of the function below ``@authorized_tool``, and the agent tells its model of a
denial. Where Strands is not installed, the functions are called as they are. With `make run` in another terminal::

    .venv/bin/python examples/agents/strands_tools.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.identity.development import AUDIENCE, ISSUER
from sidecar.identity.tokens import TokenVerifier
from sidecar.settings import IdentitySettings, Issuer
from sidecar.telemetry import configure_logs
from sidecar.tenancy import AuthorizationClient, TenantContext, ToolDeniedError, authorized_tool, current, use

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from strands import tool as strands_tool  # type: ignore[import-not-found]
except ImportError:
    strands_tool = None
tool: Callable[[Any], Any] = strands_tool or (lambda function: function)

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--address", default="unix:.tenantgate/tenantgate.sock", help="the sidecar")
parser.add_argument("--token-file", default=".tenantgate/alice.jwt", type=Path, help="the token of the user")
parser.add_argument("--keys", default=".tenantgate/issuer/jwks.json", help="the public keys of the issuer of the token")
options = parser.parse_args()

client = AuthorizationClient(options.address)


def ask_a_human(obligation: dict[str, Any], arguments: dict[str, Any]) -> bool:
    """Carry out REQUIRE_APPROVAL. Here, the one who is asked approves of one order."""
    approved: bool = arguments["order_id"] == "o-1"
    print(f"  {obligation['by']}, may order {arguments['order_id']} be cancelled? {'yes' if approved else 'no'}")
    return approved


@tool
@authorized_tool("agent:tool:order-lookup", client=client)
def order_lookup(order_id: str, limit: int = 10) -> str:
    """Look up an order.

    Args:
        order_id: Which one.
        limit: How many of its lines.
    """
    return f"{limit} lines of order {order_id} of {current().tenant_id}"


@tool
@authorized_tool("agent:tool:order-cancel", client=client, obligations={"REQUIRE_APPROVAL": ask_a_human})
def order_cancel(order_id: str) -> str:
    """Cancel an order.

    Args:
        order_id: Which one.
    """
    return f"order {order_id} of {current().tenant_id} is cancelled"


@tool
@authorized_tool("agent:tool:admin-refund", client=client)
def admin_refund(order_id: str) -> str:
    """Refund an order without approval.

    Args:
        order_id: Which one.
    """
    return f"order {order_id} of {current().tenant_id} is refunded"


TOOLS = [order_lookup, order_cancel, admin_refund]  # Agent(model=..., tools=TOOLS)


def main() -> None:
    """Call the tools as the agent would within a request of the user whose token this is."""
    configure_logs("warning", "text")
    issuer = Issuer(issuer=ISSUER, audiences=(AUDIENCE,), jwks=options.keys)
    verifier = TokenVerifier(IdentitySettings(issuers=(issuer,)))
    with use(TenantContext.of(verifier.verify(options.token_file.read_text().strip()))):
        for call, order_id in (
            (order_lookup, "o-1"),
            (order_cancel, "o-1"),
            (order_cancel, "o-2"),
            (admin_refund, "o-1"),
        ):
            try:
                print(call(order_id=order_id))
            except ToolDeniedError as denied:
                print(denied)


if __name__ == "__main__":
    main()
