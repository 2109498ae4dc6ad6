"""Under what an answer is remembered: all of the request that it depended on, such that equal keys have equal answers.

Who asks and on which terms, and what is asked about, count in any case. Which of the other parts count is for the policy to say,
in ``depends_on``, and is known once there is an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from sidecar.model import Actor, Item, Part, Question, Tenant

ALL_PARTS: tuple[Part, ...] = (
    "arguments",
    "context",
    "subject.properties",
    "resource.properties",
    "action.properties",
)
"""What may count besides. What depends on the time is not remembered."""

_encoder = msgspec.json.Encoder(order="deterministic")


class Key(Struct, frozen=True):
    """The key of one answer. ``about`` is what counts in any case; ``part`` gives the value of another part."""

    about: tuple[Hashable, ...]
    part: Callable[[Part], Any]

    def with_parts(self, parts: Sequence[Part]) -> tuple[Hashable, ...]:
        """Give the whole key of an answer that depends on those parts, by their values written as JSON."""
        return (*self.about, *parts, _encoder.encode([self.part(part) for part in parts]))


class _Who(Struct, frozen=True, array_like=True):
    tenant: Tenant
    principal: str
    subject: str
    roles: tuple[str, ...]
    delegation: tuple[Actor, ...]
    scopes: tuple[str, ...]
    may_act: tuple[str, ...] | None
    accepts: tuple[str, ...]
    explain: bool


def key_of_item(question: Question) -> Key:
    """Give the key of the answer to a question about one item."""
    (item,) = question.items
    return _of_item(_who(question), question, item)


def keys_of_items(question: Question) -> list[Key]:
    """Give the keys of the answers to a question about many items."""
    who = _who(question)
    return [_of_item(who, question, item) for item in question.items]


def key_of_tools(question: Question) -> Key:
    """Give the key of the one answer about a list of tools, which share the action and the context."""
    first = question.items[0]
    listed = _encoder.encode([(item.resource.type, item.resource.id) for item in question.items])

    def part(name: Part) -> Any:
        if name == "resource.properties":
            return [item.resource.properties for item in question.items]
        return _part(question, first, name)

    return Key((_who(question), first.action.name, listed), part)


def _of_item(who: bytes, question: Question, item: Item) -> Key:
    resource = item.resource
    return Key((who, resource.type, resource.id, item.action.name), lambda name: _part(question, item, name))


def _who(question: Question) -> bytes:
    identity, subject = question.identity, question.identity.subject
    return _encoder.encode(
        _Who(
            identity.tenant,
            identity.principal.id,
            subject.id,
            subject.roles,
            identity.delegation,
            identity.scopes,
            None if identity.may_act is UNSET else identity.may_act,
            question.accepts,
            question.explain,
        )
    )


def _part(question: Question, item: Item, name: Part) -> Any:
    match name:
        case "arguments":
            return None if item.arguments is UNSET else item.arguments
        case "context":
            return item.context
        case "subject.properties":
            return question.identity.subject.properties
        case "resource.properties":
            return item.resource.properties
        case "action.properties":
            return item.action.properties
    raise AssertionError(name)
