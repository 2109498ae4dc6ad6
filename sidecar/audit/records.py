"""How records are written: one JSON object on a line. Pure functions.

Of a record, only the beginning is new every time: when it was, under which decision id, how long it took. What comes behind it is
the same whenever an answer is given again, and so is written once.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Struct

from sidecar.errors import InvalidRequestError, UnauthenticatedError
from sidecar.model import Actor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sidecar.model import Decision, Found, Identity, Item, Listing

_encoder = msgspec.json.Encoder()
_MICROSECONDS = 1_000_000


Told: TypeAlias = tuple[str, bytes]
"""What stands behind the decision id in the id of an item of a batch, else nothing; and of the record, what is not new."""


class ToolState(Struct, frozen=True, omit_defaults=True):
    """What came of one tool of a list; ``error`` in place of a state where it could not be asked about."""

    id: str
    state: str = ""
    code: str = ""
    rule_id: str = ""
    error: str = ""


class Record(Struct, frozen=True, omit_defaults=True):
    """What the decision log says, in the order in which it does, behind what is new every time.

    ``error`` is the stable reason of an error in place of a decision, and ``cause`` the field or the fault of the token that it
    is about. ``tools`` are those of a list, and ``found`` what a search gave.
    """

    tenant_id: str = ""
    principal_id: str = ""
    subject_id: str = ""
    delegation: tuple[Actor, ...] = ()
    scopes: tuple[str, ...] = ()
    resource_type: str = ""
    resource_id: str = ""
    action: str = ""
    effect: str = ""
    code: str = ""
    policy_id: str = ""
    rule_id: str = ""
    reason: str = ""
    error: str = ""
    cause: str = ""
    tools: tuple[ToolState, ...] = ()
    found: tuple[str, ...] | None = None
    revision: str = ""
    as_of: str = ""


def decided(identity: Identity, item: Item, decision: Decision) -> bytes:
    """Write the record of a decision."""
    return _written(
        **_who(identity),
        **_what(item),
        effect=decision.effect,
        code=decision.code,
        policy_id=decision.policy_id,
        rule_id=decision.rule_id,
        reason=decision.reason,
        revision=decision.revision,
        as_of=_moment(decision.as_of),
    )


def failed(reason: str, fault: Exception | None, identity: Identity | None, item: Item | None) -> bytes:
    """Write the record of an error in place of a decision, with what is known of who asked and for what."""
    cause = ""
    if isinstance(fault, InvalidRequestError):
        cause = fault.field
    elif isinstance(fault, UnauthenticatedError):
        cause = fault.reason
    who, what = {} if identity is None else _who(identity), {} if item is None else _what(item)
    return _written(**who, **what, error=reason, cause=cause)


def listed(identity: Identity, action: str, tools: Sequence[ToolState], listing: Listing | None) -> bytes:
    """Write the one record of a list of tools."""
    dated = {} if listing is None else {"revision": listing.revision, "as_of": _moment(listing.as_of)}
    return _written(**_who(identity), action=action, tools=tuple(tools), **dated)


def sought(identity: Identity, item: Item, ids: Sequence[str], found: Found) -> bytes:
    """Write the one record of a search."""
    return _written(
        **_who(identity), **_what(item), found=tuple(ids), revision=found.revision, as_of=_moment(found.as_of)
    )


def lines(
    method: str,
    decision_id: str,
    seconds: float,
    told: Iterable[Told],
    facts: Mapping[str, Any],
    *,
    cached: Iterable[bool],
) -> list[bytes]:
    """Write the lines of a call: what is new, and the rest of each record, to which arguments may have been added.

    ``cached`` says of each record whether what it is about was remembered; where it has ended, nothing was. ``facts`` may have a
    ``request_id`` and a ``trace_id``, as the caller gave them.
    """
    second, microsecond = divmod(time.time_ns() // 1000, _MICROSECONDS)
    begin = b'{"time":"%b.%06dZ","decision_id":"%b' % (_second(second), microsecond, decision_id.encode())
    ids = b""
    for name in ("request_id", "trace_id"):
        if name in facts:
            ids += b'"%b":%b,' % (name.encode(), _encode(str(facts[name])))
    anew, again = [
        b'","method":"%b","ms":%.3f,"cached":%b,%b' % (method.encode(), seconds * 1000, truth, ids)
        for truth in (b"false", b"true")
    ]
    known = iter(cached)
    return [
        b"%b%b%b%b}\n" % (begin, place.encode(), again if next(known, False) else anew, rest) for place, rest in told
    ]


def _written(**fields: Any) -> bytes:
    """Write what is the same every time: the members of the object, without its brackets."""
    return _encode(Record(**fields))[1:-1]


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair, which has no bytes but an escape
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def _who(identity: Identity) -> dict[str, Any]:
    return {
        "tenant_id": identity.tenant.id,
        "principal_id": identity.principal.id,
        "subject_id": identity.subject.id,
        "delegation": identity.delegation,
        "scopes": identity.scopes,
    }


def _what(item: Item) -> dict[str, str]:
    return {"resource_type": item.resource.type, "resource_id": item.resource.id, "action": item.action.name}


def _moment(microseconds: int) -> str:
    """Write a moment in microseconds since 1970."""
    second, microsecond = divmod(microseconds, _MICROSECONDS)
    return f"{_second(second).decode()}.{microsecond:06d}Z"


@lru_cache(16)
def _second(second: int) -> bytes:
    """Write a moment in seconds since 1970. Many records are of the same one."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
