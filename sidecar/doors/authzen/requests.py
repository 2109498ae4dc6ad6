"""What a body asks: JSON of the Authorization API to the words of the model. Pure functions.

What the specification does not know is passed over, as it demands (section "JSON Serialization"); what it knows is read strictly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

from msgspec import Struct

from sidecar.errors import InvalidRequestError
from sidecar.identity.encoding import read_object
from sidecar.model import Action, Item, Resource, Subject, id_fault
from sidecar.translate import plain_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import Json
    from sidecar.translate import Limits

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]

STOPS_AT: dict[str, bool | None] = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
"""The decision after which an evaluations request goes no further, by its semantic."""

Kind = Literal["subjects", "resources", "actions"]

_FALLS_BACK = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id"), "context": ()}
"""The fields of each entity that are taken from the default where an evaluation's own entity leaves them out."""


class Asked(Struct, frozen=True):
    """One thing that is asked: may the subject do it? ``tenants`` are those that the context names.

    ``accepts`` are the types of obligation that the caller can carry out.
    """

    subject: Subject
    item: Item
    tenants: tuple[str, ...]
    accepts: tuple[str, ...]


class Batch(Struct, frozen=True):
    """Many things that are asked, each with what is wrong with it if anything is. ``stops_at`` is as in ``STOPS_AT``."""

    asked: tuple[Asked | InvalidRequestError, ...]
    stops_at: bool | None


class Page(Struct, frozen=True):
    """Which part of what there is a search wants; None where it does not say."""

    token: str | None
    limit: int | None


class Sought(Struct, frozen=True):
    """A search. What ``asked`` says of what is searched for holds for every candidate, and its id or name for none.

    ``prefix`` is what the ids of subjects of the wanted type begin with in the registry.
    """

    asked: Asked
    prefix: str
    page: Page


def read_body(body: bytes) -> dict[str, Json]:
    """Read a body. Raises ``InvalidRequestError`` if it is no JSON object that can be read in one way alone."""
    try:
        return read_object(body, most_brackets=len(body))
    except RecursionError as fault:
        _refuse("body", "is nested too deeply", fault)
    except ValueError as fault:
        _refuse("body", f"is not JSON that says one thing: {fault}", fault)


class Reader:
    """Reads bodies. ``user_types`` are the types of subject whose ids stand alone in the registry.

    Every method raises ``InvalidRequestError``, with the field that is wrong.
    """

    def __init__(self, limits: Limits, user_types: Sequence[str]) -> None:
        self._limits = limits
        self._user_types = frozenset(user_types)

    def evaluation(self, body: dict[str, Json], at: str = "") -> Asked:
        """Read an Access Evaluation request; ``at`` is its path within the body, for errors."""
        resource = _object(at, body, "resource")
        return self._asked(at, body, self._subject(at, body), self._resource(at, resource), self._action(at, body))

    def batch(self, body: dict[str, Json]) -> Batch | None:
        """Read an Access Evaluations request; None where it has no evaluations, and so is one evaluation itself."""
        entries = body.get("evaluations", [])
        if not isinstance(entries, list):
            _refuse("evaluations", "must be a list")
        if not entries:
            return None
        if len(entries) > self._limits.batch_items:
            _refuse("evaluations", f"must have at most {self._limits.batch_items} entries, has {len(entries)}")
        for name in _FALLS_BACK:
            if name in body:
                _object("", body, name)
        return Batch(tuple(self._entry(i, entry, body) for i, entry in enumerate(entries)), _stops_at(body))

    def search(self, kind: Kind, body: dict[str, Json]) -> Sought:
        """Read a Search request."""
        prefix = ""
        if kind == "subjects":
            said = _object("", body, "subject")
            prefix = self._prefix(_id("subject.", said, "type"))
            subject = Subject(properties=self._properties("subject.", said))
        else:
            subject = self._subject("", body)
        said = _object("", body, "resource")
        resource = self._resource("", {**said, "id": "any"} if kind == "resources" else said)
        action = Action() if kind == "actions" else self._action("", body)
        return Sought(self._asked("", body, subject, resource, action), prefix, _page(body))

    def _entry(self, number: int, entry: Json, body: dict[str, Json]) -> Asked | InvalidRequestError:
        at = f"evaluations[{number}]"
        if not isinstance(entry, dict):
            return InvalidRequestError(at, "must be an object")
        try:
            return self.evaluation(_with_defaults(entry, body), f"{at}.")
        except InvalidRequestError as fault:
            return fault

    def _asked(self, at: str, body: dict[str, Json], subject: Subject, resource: Resource, action: Action) -> Asked:
        said = _object(at, body, "context") if "context" in body else {}
        rest = {name: value for name, value in said.items() if name not in _LIFTED}
        context = plain_object(f"{at}context", rest, self._limits)
        arguments = plain_object(f"{at}context.arguments", said.get("arguments", {}), self._limits)
        return Asked(
            subject=subject,
            item=Item(resource, action, context, arguments),
            tenants=(_id(f"{at}context.", said, "tenant_id"),) if "tenant_id" in said else (),
            accepts=self._names(f"{at}context.accepted_obligations", said.get("accepted_obligations", [])),
        )

    def _subject(self, at: str, body: dict[str, Json]) -> Subject:
        said = _object(at, body, "subject")
        at = f"{at}subject."
        return Subject(
            id=self._prefix(_id(at, said, "type")) + _id(at, said, "id"), properties=self._properties(at, said)
        )

    def _prefix(self, subject_type: str) -> str:
        return "" if subject_type in self._user_types else f"{subject_type}:"

    def _resource(self, at: str, said: dict[str, Json]) -> Resource:
        at = f"{at}resource."
        return Resource(_id(at, said, "type"), _id(at, said, "id"), self._properties(at, said))

    def _action(self, at: str, body: dict[str, Json]) -> Action:
        said = _object(at, body, "action")
        return Action(_id(f"{at}action.", said, "name"), self._properties(f"{at}action.", said))

    def _properties(self, at: str, said: dict[str, Json]) -> dict[str, Json]:
        return plain_object(f"{at}properties", said.get("properties", {}), self._limits)

    def _names(self, field: str, said: Json) -> tuple[str, ...]:
        if not isinstance(said, list):
            _refuse(field, "must be a list")
        if len(said) > self._limits.list_entries:
            _refuse(field, f"must have at most {self._limits.list_entries} entries, has {len(said)}")
        return tuple(_checked(f"{field}[{i}]", name) for i, name in enumerate(said))


_LIFTED = {"arguments", "tenant_id", "accepted_obligations"}
"""What a context may hold that has a place of its own in the model."""


def _with_defaults(entry: dict[str, Json], body: dict[str, Json]) -> dict[str, Json]:
    """Give an evaluation with the defaults of the whole request.

    An entity of its own replaces the default as a whole (section "Default values"), but for the fields that every entity must
    have (https://openid.net/specs/authorization-api-1_0-scenario.html, "Batch with default value merging").
    """
    whole: dict[str, Json] = {}
    for name, fields in _FALLS_BACK.items():
        default = body.get(name, {})
        if name not in entry and name in body:
            whole[name] = default
        elif isinstance(entry.get(name), dict):
            whole[name] = {field: default[field] for field in fields if field in default} | entry[name]
        elif name in entry:
            whole[name] = entry[name]
    return whole


def _stops_at(body: dict[str, Json]) -> bool | None:
    options = _object("", body, "options") if "options" in body else {}
    semantic = options.get("evaluations_semantic", "execute_all")
    if not isinstance(semantic, str) or semantic not in STOPS_AT:
        _refuse("options.evaluations_semantic", f"must be one of {', '.join(STOPS_AT)}")
    return STOPS_AT[semantic]


def _page(body: dict[str, Json]) -> Page:
    said = _object("", body, "page") if "page" in body else {}
    token, limit = said.get("token"), said.get("limit")
    if "token" in said and not isinstance(token, str):
        _refuse("page.token", "must be a text")
    if "limit" in said:
        # of JSON's numbers, 2.0 is an integer too
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0 or limit != int(limit):
            _refuse("page.limit", "must be an integer, 0 or more")
        limit = int(limit)
    return Page(token, limit)


def _object(at: str, body: dict[str, Json], name: str) -> dict[str, Json]:
    if name not in body:
        _refuse(f"{at}{name}", "is missing")
    value = body[name]
    if not isinstance(value, dict):
        _refuse(f"{at}{name}", "must be an object")
    return value


def _id(at: str, said: dict[str, Json], name: str) -> str:
    if name not in said:
        _refuse(f"{at}{name}", "is missing")
    return _checked(f"{at}{name}", said[name])


def _checked(field: str, value: Json) -> str:
    if not isinstance(value, str):
        _refuse(field, "must be a text")
    if fault := id_fault(value):
        _refuse(field, fault)
    return value


def _refuse(field: str, fault: str, cause: Exception | None = None) -> NoReturn:
    raise InvalidRequestError(field, fault) from cause
