"""The door for AgentCore Gateway: the interceptor that the gateway calls before and after every request.

``events`` reads what the gateway hands over, ``mcp`` and ``http`` say what a message asks for and ``callers`` who asks,
``authorizer`` asks the sidecar, ``outputs`` writes the answer, and ``door`` puts them in order. Nothing passes that the table of
methods or a decision has not let through.
"""

from __future__ import annotations

from typing import Any


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one event: the handler that AWS Lambda is given by name."""
    # The one import upwards: a function is a process of its own, and this is where it begins.
    from sidecar.agentcore_lambda import answer  # noqa: PLC0415

    return answer(event, context)
