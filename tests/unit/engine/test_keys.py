"""Under what an answer is remembered: two questions have one key only if nothing that counts tells them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from sidecar.engine.keys import ALL_PARTS, key_of_item, key_of_tools, keys_of_items
from sidecar.model import Action, Actor, Identity, Item, Part, Principal, Question, Resource, Subject, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable

IDENTITY = Identity(
    Tenant("T", ("T",)),
    Principal("agent:bot"),
    Subject("alice", ("clerk",), {"region": "eu"}),
    (Actor("agent:hop", ("read",)),),
    ("read", "write"),
)
ITEM = Item(
    Resource("TOOL", "tool:x", {"size": 1}),
    Action("invoke", {"dry": True}),
    {"ticket": 1},
    {"amount": 5, "to": {"a": 1}},
)
QUESTION = Question(IDENTITY, (ITEM,), ("LOG",))


def of_identity(**fields: Any) -> Callable[[Question], Question]:
    """Change who asks."""
    return lambda question: replace(question, identity=replace(question.identity, **fields))


def of_subject(**fields: Any) -> Callable[[Question], Question]:
    """Change for whom it is asked."""
    return of_identity(subject=replace(IDENTITY.subject, **fields))


def of_item(**fields: Any) -> Callable[[Question], Question]:
    """Change what is asked about."""
    return lambda question: replace(question, items=tuple(replace(item, **fields) for item in question.items))


def of_terms(**fields: Any) -> Callable[[Question], Question]:
    """Change the terms."""
    return lambda question: replace(question, **fields)


_COUNTS: dict[str, Callable[[Question], Question]] = {
    "another tenant": of_identity(tenant=Tenant("U", ("T",))),
    "another tenant that is named": of_identity(tenant=Tenant("T", ("U",))),
    "no tenant that is named": of_identity(tenant=Tenant("T")),
    "one more tenant that is named": of_identity(tenant=Tenant("T", ("T", "U"))),
    "another principal": of_identity(principal=Principal("agent:other")),
    "another subject": of_subject(id="bob"),
    "another role": of_subject(roles=("boss",)),
    "one more role": of_subject(roles=("clerk", "boss")),
    "no role": of_subject(roles=()),
    "another hop": of_identity(delegation=(Actor("agent:else", ("read",)),)),
    "a hop without scopes": of_identity(delegation=(Actor("agent:hop", ()),)),
    "a hop that declares none": of_identity(delegation=(Actor("agent:hop"),)),
    "no hop": of_identity(delegation=()),
    "fewer scopes": of_identity(scopes=("read",)),
    "agents that may act": of_identity(may_act=("agent:bot",)),
    "agents that may act, of which there are none": of_identity(may_act=()),
    "other obligations": of_terms(accepts=("LOG", "REDACT")),
    "an explanation": of_terms(explain=True),
    "another type": of_item(resource=Resource("AGENT", "tool:x", {"size": 1})),
    "another id": of_item(resource=Resource("TOOL", "tool:y", {"size": 1})),
    "another action": of_item(action=Action("read", {"dry": True})),
}
_PARTS: dict[str, tuple[Part, Callable[[Question], Question]]] = {
    "arguments": ("arguments", of_item(arguments={"amount": 6, "to": {"a": 1}})),
    "arguments deep within": ("arguments", of_item(arguments={"amount": 5, "to": {"a": 2}})),
    "arguments of another type": ("arguments", of_item(arguments={"amount": "5", "to": {"a": 1}})),
    "true for one": ("arguments", of_item(arguments={"amount": 5, "to": {"a": True}})),
    "null for nothing": ("arguments", of_item(arguments={"amount": 5, "to": {"a": 1}, "x": None})),
    "no arguments": ("arguments", of_item(arguments={})),
    "the context": ("context", of_item(context={"ticket": 2})),
    "properties of the subject": ("subject.properties", of_subject(properties={"region": "us"})),
    "properties of the resource": ("resource.properties", of_item(resource=Resource("TOOL", "tool:x", {"size": 2}))),
    "properties of the action": ("action.properties", of_item(action=Action("invoke", {"dry": False}))),
}


@pytest.mark.parametrize("change", _COUNTS.values(), ids=_COUNTS)
def test_who_asks_on_which_terms_and_about_what_counts_in_any_case(change: Callable[[Question], Question]) -> None:
    assert key_of_item(change(QUESTION)).about != key_of_item(QUESTION).about


@pytest.mark.parametrize(("part", "change"), _PARTS.values(), ids=_PARTS)
def test_a_part_counts_where_the_answer_depends_on_it_and_nowhere_else(
    part: Part, change: Callable[[Question], Question]
) -> None:
    before, after = key_of_item(QUESTION), key_of_item(change(QUESTION))
    others = [other for other in ALL_PARTS if other != part]

    assert after.with_parts([part]) != before.with_parts([part])
    assert after.with_parts(ALL_PARTS) != before.with_parts(ALL_PARTS)
    assert after.with_parts(others) == before.with_parts(others)
    assert after.about == before.about


def test_the_order_in_which_an_object_was_written_does_not_count() -> None:
    other = of_item(arguments={"to": {"a": 1}, "amount": 5})(QUESTION)

    assert key_of_item(other).with_parts(ALL_PARTS) == key_of_item(QUESTION).with_parts(ALL_PARTS)


def test_the_registry_that_is_wanted_is_no_part_of_the_key() -> None:
    assert key_of_item(replace(QUESTION, min_as_of=7)).about == key_of_item(QUESTION).about


def test_arguments_that_are_not_known_are_not_those_that_are_empty() -> None:
    unknown, none = key_of_item(of_item(arguments=UNSET)(QUESTION)), key_of_item(of_item(arguments={})(QUESTION))

    assert unknown.with_parts(["arguments"]) != none.with_parts(["arguments"])


def test_answers_that_depend_on_different_parts_have_different_keys_though_the_values_are_alike() -> None:
    alike = of_item(arguments={}, context={})(QUESTION)
    key = key_of_item(alike)

    assert key.with_parts(["arguments"]) != key.with_parts(["context"])


def test_every_part_that_a_decision_may_depend_on_but_the_time_has_a_value() -> None:
    parts = {*get_args(Part)}

    assert parts == {*ALL_PARTS, "time"}
    assert len({key_of_item(QUESTION).with_parts([part])[-1] for part in ALL_PARTS}) == len(ALL_PARTS)


def test_an_item_has_one_key_alone_and_in_a_batch() -> None:
    other = replace(ITEM, resource=Resource("TOOL", "tool:y"))
    keys = keys_of_items(replace(QUESTION, items=(other, ITEM)))

    assert keys[1].about == key_of_item(QUESTION).about
    assert keys[1].with_parts(ALL_PARTS) == key_of_item(QUESTION).with_parts(ALL_PARTS)
    assert keys[0].about != keys[1].about


# ── lists of tools ──────────────────────────────────────────────────────────────────────────────────────────────────────

_TOOLS = replace(
    QUESTION,
    items=tuple(Item(Resource("TOOL", name, {"n": name}), ITEM.action, ITEM.context, UNSET) for name in ("a", "b")),
)


@pytest.mark.parametrize(
    "change", [change for name, change in _COUNTS.items() if name not in {"another type", "another id"}]
)
def test_a_list_counts_who_asks_and_on_which_terms(change: Callable[[Question], Question]) -> None:
    assert key_of_tools(change(_TOOLS)).about != key_of_tools(_TOOLS).about


_LISTS: dict[str, tuple[Item, ...]] = {
    "the other way round": _TOOLS.items[::-1],
    "the first alone": _TOOLS.items[:1],
    "one of them twice": (*_TOOLS.items, _TOOLS.items[0]),
    "another type": (_TOOLS.items[0], replace(_TOOLS.items[1], resource=Resource("AGENT", "b"))),
}


@pytest.mark.parametrize("items", _LISTS.values(), ids=_LISTS)
def test_another_list_has_another_key(items: tuple[Item, ...]) -> None:
    assert key_of_tools(replace(_TOOLS, items=items)).about != key_of_tools(_TOOLS).about


def test_a_list_depends_on_the_properties_of_every_tool() -> None:
    other = replace(_TOOLS.items[1], resource=Resource("TOOL", "b", {"n": "else"}))
    changed = replace(_TOOLS, items=(_TOOLS.items[0], other))
    before, after = key_of_tools(_TOOLS), key_of_tools(changed)

    assert after.with_parts(["resource.properties"]) != before.with_parts(["resource.properties"])
    assert after.with_parts(["context"]) == before.with_parts(["context"])


def test_a_list_of_one_tool_is_not_the_question_about_that_tool() -> None:
    one = replace(_TOOLS, items=_TOOLS.items[:1])

    assert key_of_tools(one).about != key_of_item(one).about
    assert key_of_tools(one).with_parts(ALL_PARTS) != key_of_item(one).with_parts(ALL_PARTS)
