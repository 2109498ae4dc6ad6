"""DynamoDB JSON becomes plain JSON and back, and what is neither becomes an error that names the attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.registry.attribute_values import plain, typed
from sidecar.registry.edits import same

if TYPE_CHECKING:
    from sidecar.model import Json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"S": "text"}, "text", id="text"),
        pytest.param({"S": ""}, "", id="empty text"),
        pytest.param({"N": "5"}, 5, id="integer"),
        pytest.param({"N": "-12"}, -12, id="negative integer"),
        pytest.param({"N": "0.25"}, 0.25, id="fraction"),
        pytest.param({"N": "0.1"}, 0.1, id="fraction that binary numbers only come near to"),
        pytest.param({"N": "1E+3"}, 1000, id="integer in exponent form"),
        pytest.param({"N": "2.50"}, 2.5, id="trailing zero"),
        pytest.param({"N": "1E-130"}, 1e-130, id="smallest number"),
        pytest.param({"N": "9" * 38}, 10**38 - 1, id="integer of all the digits that DynamoDB keeps"),
        pytest.param({"BOOL": True}, True, id="true"),
        pytest.param({"BOOL": False}, False, id="false"),
        pytest.param({"NULL": True}, None, id="null"),
        pytest.param({"M": {"a": {"N": "1"}, "b": {"M": {}}}}, {"a": 1, "b": {}}, id="map"),
        pytest.param({"L": [{"S": "a"}, {"L": [{"BOOL": True}]}]}, ["a", [True]], id="list"),
        pytest.param({"L": []}, [], id="empty list"),
        pytest.param({"SS": ["b", "a"]}, ["a", "b"], id="set of texts is sorted"),
        pytest.param({"NS": ["10", "9", "1.5"]}, [1.5, 9, 10], id="set of numbers is sorted as numbers"),
        pytest.param({"B": "aGk="}, "aGk=", id="binary stays base64"),
        pytest.param({"BS": ["eg==", "YQ=="]}, ["YQ==", "eg=="], id="set of binaries is sorted"),
    ],
)
def test_each_type_becomes_plain_json(value: dict[str, Any], expected: Json) -> None:
    assert plain({"it": value}) == {"it": expected}


@pytest.mark.parametrize("number", ["7", "7.0", "70E-1"])
def test_a_number_without_a_fraction_becomes_an_integer(number: str) -> None:
    assert type(plain({"it": {"N": number}})["it"]) is int


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"X": "text"}, id="unknown type"),
        pytest.param({}, id="no type"),
        pytest.param({"S": "a", "N": "1"}, id="two types"),
        pytest.param("text", id="no type descriptor"),
        pytest.param(None, id="null instead of a value"),
        pytest.param({"S": 5}, id="text that is a number"),
        pytest.param({"S": None}, id="text that is null"),
        pytest.param({"N": 5}, id="number that is not written as a text"),
        pytest.param({"N": True}, id="number that is a boolean"),
        pytest.param({"N": "five"}, id="number that is a word"),
        pytest.param({"N": ""}, id="empty number"),
        pytest.param({"N": "NaN"}, id="not a number"),
        pytest.param({"N": "Infinity"}, id="infinity"),
        pytest.param({"BOOL": "false"}, id="boolean that is a text"),
        pytest.param({"BOOL": 0}, id="boolean that is a number"),
        pytest.param({"NULL": False}, id="null that is not true"),
        pytest.param({"L": "ab"}, id="list that is a text"),
        pytest.param({"L": {}}, id="list that is a map"),
        pytest.param({"L": ["a"]}, id="list of bare values"),
        pytest.param({"M": []}, id="map that is a list"),
        pytest.param({"M": {"a": "b"}}, id="map of bare values"),
        pytest.param({"SS": "ab"}, id="set that is a text"),
        pytest.param({"SS": [1]}, id="set of texts that holds a number"),
        pytest.param({"NS": [1]}, id="set of numbers that are not written as texts"),
        pytest.param({"B": 1}, id="binary that is a number"),
    ],
)
def test_a_value_of_no_dynamodb_type_is_refused_by_the_name_of_its_attribute(value: Json) -> None:
    with pytest.raises(ValueError, match=r"^odd: not a DynamoDB attribute value$"):
        plain({"fine": {"S": "a"}, "odd": value})


@pytest.mark.parametrize("number", ["0.12345678901234567890", "1234567890.12345678901", "9.9999999999999999"])
def test_a_number_of_more_digits_than_json_keeps_is_refused_rather_than_rounded(number: str) -> None:
    with pytest.raises(ValueError, match=rf"^price: the number {number} has more digits than JSON numbers carry"):
        plain({"price": {"M": {"exact": {"N": number}}}})


def _written(value: Json) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": repr(value)}
        case str():
            return {"S": value}
        case list():
            return {"L": [_written(element) for element in value]}
        case _:
            return {"M": {name: _written(member) for name, member in value.items()}}


_NAMES = st.text(max_size=3)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e6, 1e6) | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_NAMES, _JSON, max_size=3))
def test_reading_what_was_written_gives_the_same_values(item: dict[str, Json]) -> None:
    assert plain({name: _written(value) for name, value in item.items()}) == item


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.randoms())
def test_a_set_reads_the_same_in_whichever_order_it_is_exported(texts: list[str], random: Any) -> None:
    shuffled = random.sample(texts, len(texts))
    assert plain({"it": {"SS": shuffled}}) == plain({"it": {"SS": texts}})


def test_binary_from_boto3_is_the_base64_text_that_exports_have() -> None:
    assert plain({"b": {"B": b"hi"}, "bs": {"BS": [b"z", b"a"]}}) == {"b": "aGk=", "bs": ["YQ==", "eg=="]}


# ── and back ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_names = st.text(min_size=1)
_numbers = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1),
    st.floats(-1e125, 1e125).filter(lambda number: number == 0 or abs(number) >= 1e-130),
)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(_names, _json, max_size=3))
def test_plain_json_that_goes_out_comes_back_the_same(item: dict[str, Json]) -> None:
    assert same(plain(typed(item)), item)


@given(st.dictionaries(_names, _json, max_size=3))
def test_what_was_read_goes_back_as_it_was(item: dict[str, Json]) -> None:
    read = plain(typed(item))

    assert plain(typed(read)) == read


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("", {"S": ""}, id="empty text"),
        pytest.param(5, {"N": "5"}, id="integer"),
        pytest.param(0.1, {"N": "0.1"}, id="fraction, in the digits that were written"),
        pytest.param(1e-130, {"N": "1e-130"}, id="smallest number"),
        pytest.param(10**38 - 1, {"N": "9" * 38}, id="integer of all the digits that DynamoDB keeps"),
        pytest.param(10**125, {"N": "1" + "0" * 125}, id="integer with many zeros"),
        pytest.param(True, {"BOOL": True}, id="true is no number"),
        pytest.param(None, {"NULL": True}, id="null"),
        pytest.param([1, ["a"], {}], {"L": [{"N": "1"}, {"L": [{"S": "a"}]}, {"M": {}}]}, id="list"),
        pytest.param({"a": {"b": 1}}, {"M": {"a": {"M": {"b": {"N": "1"}}}}}, id="map"),
    ],
)
def test_each_type_goes_out(value: Json, expected: dict[str, Any]) -> None:
    assert typed({"it": value}) == {"it": expected}


def _nested(levels: int) -> Json:
    value: Json = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(float("nan"), "nan is not a number that can be stored", id="not a number"),
        pytest.param(float("inf"), "inf is not a number that can be stored", id="infinity"),
        pytest.param([{"a": float("-inf")}], "-inf is not a number", id="infinity within"),
        pytest.param(1e126, "too large, too small or has too many digits", id="too large"),
        pytest.param(1e-131, "too large, too small or has too many digits", id="too small"),
        pytest.param(10**38 + 1, "which keeps 38 of them", id="too many digits"),
        pytest.param({"": 1}, "'' cannot be the name of an attribute", id="empty name"),
        pytest.param({1: 1}, "1 cannot be the name of an attribute", id="name that is a number"),
        pytest.param("\ud800", "half of a surrogate pair", id="half a character"),
        pytest.param({"\udfff": 1}, "half of a surrogate pair", id="half a character in a name"),
        pytest.param(b"hi", "b'hi' is not JSON", id="bytes"),
        pytest.param({1}, "{1} is not JSON", id="set"),
        pytest.param(_nested(32), "is nested more than 31 deep", id="too deep"),
        pytest.param(_nested(5000), "is nested more than 31 deep", id="far too deep"),
    ],
)
def test_what_dynamodb_cannot_hold_exactly_is_an_error_that_names_the_attribute(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"^it: ") as refused:
        typed({"it": value})

    assert said in str(refused.value)


def test_an_empty_name_at_the_top_is_refused_too() -> None:
    with pytest.raises(ValueError, match=r"'' cannot be the name of an attribute"):
        typed({"": 1})


def test_as_deep_as_dynamodb_takes_goes_out() -> None:
    assert plain(typed({"it": _nested(31)})) == {"it": _nested(31)}
