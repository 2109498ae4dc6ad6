"""What the decision log says of arguments: what a rule names, in the way that the rule says, and nothing else.

Rule 1. The first rule that is about a tool and covers a value decides about it: its path leads to the value, or to an object or
        array that the value is in.

Rule 2. What no rule covers is left out, and its name with it. Without rules, no argument and no name of one is in the log.

Rule 3. `mask` and `digest` stand in for a value as a whole, whatever is in it; only where an earlier rule reaches into it, for
        each of its members.

Paths are JSON Pointers (RFC 6901) in which a `*` is any one name or position.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import UNSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sidecar.model import Json
    from sidecar.settings import ArgumentRule

MASK = "***"
DIGEST = "hmac-sha256:"

_Steps: TypeAlias = tuple[str, ...]
_Rules: TypeAlias = tuple[tuple[_Steps, str], ...]
"""Rules in their order: the steps that are left of the path of each, none where it covers the value at hand, and how."""

_ANY = "*"
_SEEN = 1024  # tools whose rules are remembered
_encoder = msgspec.json.Encoder(order="deterministic")


class Masking:
    """Writes arguments as the rules say. ``key`` is what digests are made with; without one, `digest` masks."""

    def __init__(self, rules: Sequence[ArgumentRule], key: bytes = b"") -> None:
        self._key = key
        self._rules = [(pattern(rule.tools), _steps(rule.path), rule.how) for rule in rules]
        self._about = lru_cache(_SEEN)(self._find)

    def written(self, resource_id: str, arguments: dict[str, Json]) -> bytes:
        """Give the arguments of a call as the last member of a JSON object, comma and all; empty if there is nothing to say."""
        rules = self._about(resource_id)
        if not rules or not arguments:
            return b""
        shown = self._shown(arguments, rules)
        return b"" if shown is UNSET else b',"arguments":' + as_json(shown)

    def _find(self, resource_id: str) -> _Rules:
        return tuple((steps, how) for about, steps, how in self._rules if about.fullmatch(resource_id))

    def _shown(self, value: Json, rules: _Rules) -> Json:
        """Give what is shown of a value; ``UNSET`` if nothing is."""
        how, inside = "drop", bool(rules)
        for number, (steps, said) in enumerate(rules):
            if not steps:
                how, inside = said, number > 0
                rules = rules[: number + 1]
                break
        if how == "keep" and not inside:
            return value
        if isinstance(value, dict | list) and value and inside:
            return self._members(value, rules)
        match how:
            case "keep":
                return value
            case "mask":
                return MASK
            case "digest":
                return self._digest(value)
        return UNSET

    def _members(self, value: Json, rules: _Rules) -> Json:
        """Look at each member of an object or array on its own."""
        shown = [(name, self._shown(member, _below(rules, name))) for name, member in _named(value)]
        some = [(name, member) for name, member in shown if member is not UNSET]
        if not some:
            return UNSET
        return dict(some) if isinstance(value, dict) else [member for _, member in some]

    def _digest(self, value: Json) -> str:
        """Give the same text for the same value, which tells nothing of it to who has not the key."""
        if not self._key:
            return MASK
        return DIGEST + hmac.new(self._key, as_json(value), hashlib.sha256).hexdigest()


def _steps(path: str) -> _Steps:
    """Split a JSON Pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:])


def as_json(value: Json) -> bytes:
    """Write a value as JSON, whatever texts are in it, and always in the same way."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair, which has no bytes but an escape
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _named(value: Json) -> Iterable[tuple[str, Json]]:
    return value.items() if isinstance(value, dict) else ((str(place), entry) for place, entry in enumerate(value))


def _below(rules: _Rules, name: str) -> _Rules:
    """Give the rules for a member of a value: those that cover the value, and those whose path goes on to the member."""

    def those() -> Iterator[tuple[_Steps, str]]:
        for steps, how in rules:
            if not steps:
                yield steps, how
            elif steps[0] in {_ANY, name}:
                yield steps[1:], how

    return tuple(those())


def pattern(glob: str) -> re.Pattern[str]:
    """Read a glob as the registry does: ``*`` stays inside one ``:``- or ``/``-separated segment, ``**`` crosses them."""
    parts = re.split(r"(\*+)", glob)
    written = {"*": "[^:/]*", "**": ".*"}
    return re.compile("".join(written.get(part, re.escape(part)) for part in parts), re.DOTALL)
