"""Base64url and JSON as tokens and keys are written in, read in the one way that leaves nothing to choose.

Two readers of one token must not see two things in it. So what RFC 7515 (sections 2 and 4) and RFC 8259 (sections 4, 6 and 8)
leave to the reader is refused: spare bits and padding, a name that is there twice, numbers and texts that JSON cannot carry.
"""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, NoReturn

import msgspec

if TYPE_CHECKING:
    from sidecar.model import Json

_MOST_BRACKETS = 512
_SHOWN = 64


def decode_base64url(text: str) -> bytes:
    """Read base64url without padding. Raises ``ValueError`` for anything that it is not written as."""
    body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # the decoder passes over what it does not know
    if base64.urlsafe_b64encode(body).decode().rstrip("=") != text:
        msg = "not base64url"
        raise ValueError(msg)
    return body


def read_object(body: bytes, most_brackets: int = _MOST_BRACKETS) -> dict[str, Json]:
    """Read a JSON object. Raises ``ValueError``, which says what is wrong with it.

    With more brackets than the default it may be nested so deeply that it raises ``RecursionError``.
    """
    # It cannot be nested deeper than there are brackets, and no parser gets to see what is.
    if body.count(b"{") + body.count(b"[") > most_brackets:
        msg = f"more than {most_brackets} objects and lists"
        raise ValueError(msg)
    value = read_value(body)
    if not isinstance(value, dict):
        msg = "not an object"
        raise ValueError(msg)  # noqa: TRY004 - what is read is wrong, not what was passed
    return value


def read_value(body: bytes) -> Json:
    """Read any JSON. Raises ``ValueError``, which says what is wrong with it, or ``RecursionError``."""
    value = json.loads(body.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse)
    # Half a surrogate pair, which an escape can name, is no text: it could be read here and not be written again.
    msgspec.json.encode(value)
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        msg = f"the name {twice[:_SHOWN]!r} is there twice"
        raise ValueError(msg)
    return found


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(_text: str) -> NoReturn:
    msg = "a number that is not finite"
    raise ValueError(msg)
