"""What a call over HTTP asks for: an agent behind a target of the gateway, with what is sent to it."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

from sidecar.doors.mcp import fill, is_target
from sidecar.doors.verdicts import Asked, Refusal

if TYPE_CHECKING:
    from sidecar.doors.agentcore.events import HttpRequest
    from sidecar.model import Json

_PATH = re.compile(r"/([^/]+)/invocations")


def asked(event: HttpRequest, template: str) -> Asked | Refusal:
    """Say what a call asks for. ``template`` is the setting ``agentcore.agent_template``."""
    path = _PATH.fullmatch(event.path)
    if path is None or not is_target(path[1]):
        return Refusal("METHOD", "PATH_DENIED", "only /TARGET/invocations is let through")
    arguments = _arguments(event.body)
    if isinstance(arguments, Refusal):
        return arguments
    return Asked("AGENT", fill(template, target=path[1]), "invoke", arguments)


class _NameTwiceError(ValueError):
    """Raised when a JSON object has a name twice, so that two readers may see two things in it."""


def _arguments(body: str | None) -> dict[str, Json] | Refusal:
    """Give the object in a body, which goes on as it was sent; no arguments where it is something else."""
    try:
        value = json.loads(base64.b64decode(body or "", validate=True), object_pairs_hook=_once)
    except _NameTwiceError:
        return Refusal("MALFORMED", "REQUEST_INVALID", "the body has an object in which a name is there twice")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NameTwiceError
    return found
