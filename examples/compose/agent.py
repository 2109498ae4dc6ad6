"""The agent runtime of compose.yaml: tools that ask the sidecar before they run, and AWS credentials in exchange for a token.

It has nothing but the tokens of those it acts for, and the sidecar's socket. Run it with `make compose-demo`; it ends with 1 if
what must be allowed is not, or what must not be is.
"""

from __future__ import annotations

import base64
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sidecar.tenancy import (
    AuthorizationClient,
    NoDecisionError,
    TenantContext,
    ToolDeniedError,
    authorized_tool,
    current,
    guard,
    use,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = Path("/var/lib/tenantgate/tokens")
MEMORY = "acme-0123456789"

client = AuthorizationClient("unix:/run/tenantgate/tenantgate.sock", timeout=10)
console = Console(width=124, highlight=False)

# ── the tools ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@authorized_tool("agent:tool:order-lookup", client=client)
def order_lookup(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id} of {current().tenant_id}: shipped"


@authorized_tool("agent:tool:refund-create", client=client)
def refund_create(order_id: str, amount: float) -> str:
    """Refund an order."""
    return f"refunded {amount} for order {order_id} of {current().tenant_id}"


@authorized_tool("agent:tool:admin-refund", client=client)
def admin_refund(order_id: str) -> str:
    """Refund an order without approval."""
    return f"refunded all of order {order_id} of {current().tenant_id}"


@authorized_tool(
    "agent:tool:order-cancel", client=client, obligations={"REQUIRE_APPROVAL": lambda _what, _arguments: True}
)
def order_cancel(order_id: str) -> str:
    """Cancel an order, of which a human approves."""
    return f"order {order_id} of {current().tenant_id} is cancelled"


@authorized_tool("agent:tool:globex-forecast", client=client)
def globex_forecast() -> str:
    """Forecast the sales of one tenant."""
    return f"forecast of {current().tenant_id}"


def memory_identity(name: str = MEMORY) -> str:
    """Exchange the token for credentials that read a memory, and ask AWS whose they are."""
    exchanged = client.exchange(name, type="MEMORY", action="read")
    credentials, decision = exchanged.credentials, exchanged.decision
    if credentials is None:
        raise ToolDeniedError(name, decision.code, decision.reason, decision.decision_id)
    session = boto3.Session(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
    guard(session, credentials)
    identity: str = session.client("sts").get_caller_identity()["Arn"]
    return f"{identity}, until {credentials.expiration:%H:%M:%S}"


# ── what the model would call ───────────────────────────────────────────────────────────────────────────────────────────

CALLS: list[tuple[str, Callable[..., str], dict[str, Any], str]] = [
    ("alice", order_lookup, {"order_id": "o-1"}, "ALLOWED"),
    ("alice", refund_create, {"order_id": "o-1", "amount": 120}, "ALLOWED"),
    ("alice", refund_create, {"order_id": "o-1", "amount": 900}, "CONDITION_NOT_MET"),
    ("alice", order_cancel, {"order_id": "o-1"}, "ALLOWED"),
    ("alice", admin_refund, {"order_id": "o-1"}, "DENIED_BY_RULE"),
    ("alice", globex_forecast, {}, "NO_MATCHING_RULE"),
    ("alice-reads", refund_create, {"order_id": "o-1", "amount": 120}, "SCOPE_INSUFFICIENT"),
    ("mallory", order_lookup, {"order_id": "o-1"}, "SUBJECT_NOT_MEMBER"),
    ("carol", globex_forecast, {}, "ALLOWED"),
    ("peter", order_lookup, {"order_id": "o-1"}, "TENANT_SUSPENDED"),
    ("alice, edited", order_lookup, {"order_id": "o-1"}, "CALLER_UNAUTHENTICATED"),
    ("alice", memory_identity, {}, "ALLOWED"),
    ("carol", memory_identity, {}, "NO_MATCHING_RULE"),
]
"""Whose token, which tool with which arguments, and what must come of it."""


def main() -> int:
    """Make the calls and show what came of each; give the exit status."""
    columns = [Column(header, overflow="fold") for header in ("token", "call", "code", "what came of it")]
    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    wrong = 0
    for name, tool, arguments, expected in CALLS:
        with use(context_of(name)):
            code, told = called(functools.partial(tool, **arguments))
        shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
        style = "bold green" if code == "ALLOWED" else "bold red"
        table.add_row(name, f"{tool.__name__}({shown})", Text(code, style), Text(told, "dim"))
        if code != expected:
            wrong += 1
            table.add_row("", "", Text(f"must be {expected}", "reverse"), "")
    client.close()
    console.print(table)
    return 1 if wrong else 0


def called(tool: Callable[[], str]) -> tuple[str, str]:
    """Call a tool; give the code of what came of it, and what the model is told."""
    try:
        return "ALLOWED", tool()
    except ToolDeniedError as denied:
        return denied.code, denied.reason
    except NoDecisionError as fault:
        return fault.reason, str(fault)


def context_of(name: str) -> TenantContext:
    """Give the context of a request that came with a token, which the sidecar verifies; here, it is only read."""
    name, _, edited = name.partition(", ")
    token = (TOKENS / f"{name}.jwt").read_text().strip()
    head, payload, signature = token.split(".")
    claims = base64.urlsafe_b64decode(payload + "==")
    tenant = claims.split(b'"tenant_id":"')[1].split(b'"')[0].decode()
    if edited:
        claims = claims.replace(b'"alice"', b'"admin"')
        token = ".".join([head, base64.urlsafe_b64encode(claims).rstrip(b"=").decode(), signature])
    return TenantContext(tenant, token=token)


if __name__ == "__main__":
    sys.exit(main())
