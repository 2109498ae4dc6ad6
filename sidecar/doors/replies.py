"""Responses as bytes that may be given again: only the decision id and the age of the registry are new every time.

All the rest is written once. A message on the wire is one field after the other, in any order
(https://protobuf.dev/programming-guides/encoding/#order), so that what is new goes behind what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.duration_pb2 import Duration
from msgspec import Struct

from sidecar import translate
from sidecar.audit.records import Told
from sidecar.engine.cache import Lease
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb_service
from sidecar.gen.tenantgate.v1 import decision_pb2 as pb
from sidecar.model import Decision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from sidecar.engine.cache import Held
    from sidecar.engine.decide import Decider

_BYTES = 1500
"""What a reply takes besides what is in the request, the metadata and the response."""


Write: TypeAlias = Callable[[str, bytes], bytes]
"""Puts a response together from the decision id and the age of the registry, which is a message already."""


Key: TypeAlias = tuple[Any, ...]
"""The method, the request, and the metadata that count."""


Counts: TypeAlias = Mapping[tuple[str, str], int]
"""How many decisions have which effect and code."""


class Reply(Struct, frozen=True):
    """A response, but for what is new every time.

    ``size`` is about how many bytes it has, with its ``records``. ``lasts`` tells whether who asks would be believed once more.
    ``facts``, ``decisions`` with their ``counts``, ``failures`` and ``records`` are those of a call.
    """

    write: Write
    size: int
    as_of: int
    lease: Lease | None
    lasts: Callable[[], bool]
    facts: dict[str, Any]
    decisions: Sequence[Decision] = ()
    counts: Counts = {}
    failures: Sequence[str] = ()
    answers: int = 1
    records: tuple[Told, ...] = ()


class Replies:
    """Remembers replies under the requests that they answer. ``headers`` are the metadata keys that answers may depend on.

    ``remembered`` says whether any are remembered at all.
    """

    def __init__(self, decider: Decider, headers: Iterable[str]) -> None:
        self._decider = decider
        self._headers = frozenset(headers)
        self.remembered = decider.remembers

    def key_of(self, request: Message, key: Key, what: str) -> Key | None:
        """Give another key of a request that has one: as the message is now, in one order of its parts. ``what`` is what differs.

        None where nothing is remembered.
        """
        if not self.remembered:
            return None
        method, _, *headers = key
        return (f"{method}, {what}", request.SerializeToString(deterministic=True), *headers)

    def key(self, method: str, request: bytes, metadata: Iterable[tuple[str, str | bytes]]) -> Key:
        """Give the key of a request: all that its answer may depend on. Where nothing is remembered, it is empty."""
        if not self.remembered:
            return ()
        headers = self._headers
        return (method, request, *[entry for entry in metadata if entry[0] in headers])

    def find(self, key: Key) -> tuple[Reply, int] | None:
        """Give the reply to a request, if it may be given again now, and the moment of that."""
        return self._decider.recall(key)

    def keep(self, key: Key, reply: Reply) -> tuple[Reply, int]:
        """Remember the reply to a request, if it may be given again. Gives it back, and the moment."""
        if key:
            _, request, *headers = key
            # a token is kept once more, with what it was checked with
            metadata = 2 * sum([len(value) for _, value in headers])
            self._decider.remember(key, reply, _BYTES + reply.size + len(request) + metadata)
        return reply, self._decider.clock()


def counted(decisions: Iterable[Decision]) -> Counts:
    """Count decisions by their effect and code."""
    counts: dict[tuple[str, str], int] = {}
    for decision in decisions:
        kind = decision.effect, decision.code
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def written(reply: Reply, now: int, decision_id: str) -> bytes:
    """Give the response to a call that ends now."""
    seconds, rest = divmod(max(0, now - reply.as_of), translate.MICROSECONDS)
    return reply.write(decision_id, Duration(seconds=seconds, nanos=rest * 1000).SerializeToString())


# ── responses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def decided(held: Held[Decision], tenant_id: str) -> tuple[Write, int]:
    """Say how an AuthorizeResponse is written, and how long it is without what is new."""
    known = _known(held, tenant_id)

    def write(decision_id: str, age: bytes) -> bytes:
        size = len(known) + _NEW_BYTES + len(decision_id) + len(age)
        return _GIVEN % (_varint(size), known, len(decision_id), decision_id.encode(), len(age), age)

    return write, len(known)


def all_decided(outcomes: Iterable[Held[Decision] | pb_service.ItemError], tenant_id: str) -> tuple[Write, int]:
    """Say how a BatchAuthorizeResponse is written: decisions, each with an id of its own, and errors."""
    decisions: list[tuple[bytes, bytes, bytes]] = []  # the errors before one, what is known of it, its place
    errors = b""
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, pb_service.ItemError):
            errors += _field(_RESULTS, _field(_RESULT_ERROR, outcome.SerializeToString()))
        else:
            decisions.append((errors, _known(outcome, tenant_id), b".%d" % number))
            errors = b""
    parts_by_length: dict[tuple[int, int], list[bytes]] = {}

    def write(decision_id: str, age: bytes) -> bytes:
        # Of the pieces of a response, only the id and the age differ among all whose ids and ages are as long.
        lengths = len(decision_id), len(age)
        parts = parts_by_length.get(lengths)
        if parts is None:
            parts = parts_by_length[lengths] = [
                part for decision in decisions for part in _parts(*decision, *lengths)
            ] + [errors]
        parts = parts.copy()
        parts[_ID_PART::_PARTS] = [decision_id.encode()] * len(decisions)
        parts[_AGE_PART::_PARTS] = [age] * len(decisions)
        return b"".join(parts)

    size = sum([len(before) + len(known) + _PARTS_BYTES for before, known, _ in decisions]) + len(errors)
    return write, size


def listed(response: pb_service.FilterToolsResponse) -> tuple[Write, int]:
    """Say how a FilterToolsResponse is written, which has neither id nor age yet; without a revision it has no age."""
    known, dated = response.SerializeToString(), bool(response.revision)

    def write(decision_id: str, age: bytes) -> bytes:
        return known + _field(_LISTING_ID, decision_id.encode()) + (_field(_LISTING_AGE, age) if dated else b"")

    return write, len(known)


def _known(held: Held[Decision], tenant_id: str) -> bytes:
    """Give a decision without what is new. It is written once for all the responses that it is given in."""
    if not held.wire:
        held.wire = translate.decision_message(held.answer, tenant_id).SerializeToString()
    return held.wire


def _parts(before: bytes, known: bytes, place: bytes, id_bytes: int, age_bytes: int) -> list[bytes]:
    """Give the pieces of a decision in a batch, with room for its id and its age, which have so many bytes."""
    id_bytes += len(place)
    size = len(known) + _NEW_BYTES + id_bytes + age_bytes
    decision = _RESULT_DECISION + _varint(size)
    head = before + _RESULTS + _varint(len(decision) + size) + decision
    return [head, known, _ID % id_bytes, b"", place + _AGE % age_bytes, b""]


_PARTS, _ID_PART, _AGE_PART = 6, 3, 5
_PARTS_BYTES = 600
"""What the pieces of a decision take besides what is known of it, for ages of three lengths."""


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    if number < 1 << 7:
        return b"%c" % number
    if number < 1 << 14:
        return b"%c%c" % (number & 0x7F | 0x80, number >> 7)
    return b"%c" % (number & 0x7F | 0x80) + _varint(number >> 7)


def _tag(message: type[Message], name: str) -> bytes:
    """Write the number of a field that is a text or a message."""
    return _varint(message.DESCRIPTOR.fields_by_name[name].number << 3 | 2)


_DECISION = _tag(pb_service.AuthorizeResponse, "decision")
_RESULTS = _tag(pb_service.BatchAuthorizeResponse, "results")
_RESULT_DECISION = _tag(pb_service.BatchAuthorizeResult, "decision")
_RESULT_ERROR = _tag(pb_service.BatchAuthorizeResult, "error")
_LISTING_ID = _tag(pb_service.FilterToolsResponse, "decision_id")
_LISTING_AGE = _tag(pb_service.FilterToolsResponse, "age")
_ID, _AGE = _tag(pb.Decision, "decision_id") + b"%c", _tag(pb.Decision, "age") + b"%c"
"""The beginnings of what is new in a decision: two fields that are shorter than 128 bytes."""

_NEW_BYTES = len(_ID % 0 + _AGE % 0)
_GIVEN = _DECISION + b"%b%b" + _ID + b"%b" + _AGE + b"%b"
