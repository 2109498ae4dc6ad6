"""Tools for a graph of LangGraph that ask before they run, without blocking the loop, and without what the graph injects.

``@tool`` reads name, documentation and parameters of the function below ``@authorized_tool``. With ``ToolNode(TOOLS,
handle_tool_errors=(ToolDeniedError,))`` a graph tells its model of a denial. Where LangGraph is not installed, the functions are
called as they are. With `make run` in another terminal::

    .venv/bin/python examples/agents/langgraph_tools.py
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sidecar.identity.development import AUDIENCE, ISSUER
from sidecar.identity.tokens import TokenVerifier
from sidecar.settings import IdentitySettings, Issuer
from sidecar.telemetry import configure_logs
from sidecar.tenancy import AsyncAuthorizationClient, TenantContext, ToolDeniedError, authorized_tool, current, use

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from langchain_core.tools import tool as langchain_tool  # type: ignore[import-not-found]
    from langgraph.prebuilt import InjectedState  # type: ignore[import-not-found]
except ImportError:
    langchain_tool, InjectedState = None, object
tool: Callable[[Any], Any] = langchain_tool or (lambda function: function)

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--address", default="unix:.tenantgate/tenantgate.sock", help="the sidecar")
parser.add_argument("--token-file", default=".tenantgate/alice.jwt", type=Path, help="the token of the user")
parser.add_argument("--keys", default=".tenantgate/issuer/jwks.json", help="the public keys of the issuer of the token")
options = parser.parse_args()

client = AsyncAuthorizationClient(options.address)


@tool
@authorized_tool("agent:tool:refund-create", client=client, exclude=["state"])
async def refund_create(order_id: str, amount: float, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Refund an order."""
    return f"refunded {amount} for order {order_id} of {current().tenant_id}, in turn {len(state['messages'])}"


@tool
@authorized_tool("agent:tool:order-lookup", client=client)
async def order_lookup(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id} of {current().tenant_id}: shipped"


TOOLS = [refund_create, order_lookup]


async def main() -> None:
    """Call the tools as the graph would within a request of the user whose token this is."""
    configure_logs("warning", "text")
    issuer = Issuer(issuer=ISSUER, audiences=(AUDIENCE,), jwks=options.keys)
    verifier = TokenVerifier(IdentitySettings(issuers=(issuer,)))
    state = {"messages": ["refund o-1"]}
    with use(TenantContext.of(verifier.verify(options.token_file.read_text().strip()))):
        told = await asyncio.gather(
            called(order_lookup, order_id="o-1"),
            called(refund_create, order_id="o-1", amount=120, state=state),
            called(refund_create, order_id="o-1", amount=900, state=state),
        )
    print("\n".join(told))
    await client.close()


async def called(function: Any, **arguments: Any) -> str:
    """Call a tool, as what LangChain made of it or as it is, and give what the model is told."""
    try:
        result = await (function.ainvoke(arguments) if hasattr(function, "ainvoke") else function(**arguments))
    except ToolDeniedError as denied:
        result = denied
    return str(result)


if __name__ == "__main__":
    asyncio.run(main())
