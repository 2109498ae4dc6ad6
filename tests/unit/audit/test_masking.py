"""Of arguments, only what a rule names is in the decision log, and in no other way than the rule says."""

from __future__ import annotations

import hashlib
import hmac
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audit.masking import Masking
from sidecar.errors import SettingsError
from sidecar.settings import ArgumentRule, load

KEY = b"0123456789abcdef0123456789abcdef"
TOOL = "agent:tool:payment-create"
CARD: dict[str, Any] = {"card": {"number": "4111", "brand": "visa"}, "amount": 5, "lines": [{"sku": "a", "price": 1}]}


def shown(arguments: dict[str, Any], *rules: dict[str, Any], tool: str = TOOL) -> Any:
    """Give what the log shows of arguments; None if there are none in it."""
    written = Masking([ArgumentRule(**rule) for rule in rules], KEY).written(tool, arguments)
    return json.loads(b"{" + written.removeprefix(b",") + b"}").get("arguments")


def digest(value: bytes) -> str:
    return "hmac-sha256:" + hmac.new(KEY, value, hashlib.sha256).hexdigest()


def test_without_rules_there_are_no_arguments_in_the_log() -> None:
    assert shown(CARD) is None


def test_a_rule_for_other_tools_is_no_rule() -> None:
    assert shown(CARD, {"tools": "agent:tool:refund-*", "how": "keep"}) is None


@pytest.mark.parametrize(
    ("glob", "fits"),
    [
        (TOOL, True),
        ("agent:tool:*", True),
        ("*", False),
        ("**", True),
        ("agent:*", False),
        ("agent:tool:payment.create", False),
    ],
)
def test_globs_are_those_of_the_registry(glob: str, *, fits: bool) -> None:
    assert (shown({"a": 1}, {"tools": glob, "how": "keep"}) == {"a": 1}) is fits


def test_what_no_rule_covers_is_left_out_with_its_name() -> None:
    assert shown(CARD, {"path": "/amount", "how": "keep"}) == {"amount": 5}


def test_a_mask_stands_for_the_value_whatever_is_in_it() -> None:
    assert shown(CARD, {"path": "/card", "how": "mask"}) == {"card": "***"}
    assert shown(CARD, {"how": "mask"}) == "***"


def test_a_star_is_any_one_name_or_position() -> None:
    assert shown(CARD, {"path": "/lines/*/sku", "how": "keep"}) == {"lines": [{"sku": "a"}]}
    assert shown(CARD, {"path": "/*", "how": "mask"}) == {"card": "***", "amount": "***", "lines": "***"}


def test_the_first_rule_that_covers_a_value_counts() -> None:
    rules = {"path": "/card/number", "how": "mask"}, {"path": "/amount", "how": "drop"}, {"how": "keep"}

    assert shown(CARD, *rules) == {"card": {"number": "***", "brand": "visa"}, "lines": [{"sku": "a", "price": 1}]}
    assert shown(CARD, *reversed(rules)) == CARD
    assert shown(CARD, {"path": "/card/brand", "how": "keep"}, {"path": "/card", "how": "mask"}) == {
        "card": {"number": "***", "brand": "visa"}
    }


def test_a_digest_is_that_of_the_value_as_json_under_the_key() -> None:
    rule = {"path": "/card/number", "how": "digest"}

    assert shown(CARD, rule) == {"card": {"number": digest(b'"4111"')}}
    assert shown({"card": {"number": {"b": 1, "a": "ü"}}}, rule) == {
        "card": {"number": digest('{"a":"ü","b":1}'.encode())}
    }


def test_names_with_slashes_and_tildes_are_written_as_json_pointer_has_it() -> None:
    assert shown({"a/b": {"c~d": 1, "e": 2}}, {"path": "/a~1b/c~0d", "how": "keep"}) == {"a/b": {"c~d": 1}}


def test_a_text_that_has_no_bytes_is_written_as_an_escape() -> None:
    assert shown({"a": "\ud800"}, {"how": "keep"}) == {"a": "\ud800"}
    assert shown({"a": "\ud800"}, {"how": "digest"}).startswith("hmac-sha256:")


# ── nothing that is to be hidden gets through, whatever it is and wherever ──────────────────────────────────────────────

SECRET = "sécrèt-✓-\U0001f511"
"""A text that nothing else holds, as it stands in JSON."""

plain = st.none() | st.booleans() | st.integers(-9, 9) | st.text(string.ascii_lowercase + '"\\/~*', max_size=4)
names = st.text(string.ascii_lowercase + '/~*"\u202e', max_size=4)


def holding(secret: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values with the secret in them, at any depth, as a value, an entry or a name."""
    return st.recursive(
        secret,
        lambda inner: (
            st.dictionaries(names, plain, max_size=2).flatmap(
                lambda others: st.builds(lambda name, value: {**others, name: value}, names, inner)
            )
            | st.builds(lambda before, value: [*before, value], st.lists(plain, max_size=2), inner)
        ),
        max_leaves=4,
    )


secrets = holding(st.sampled_from([SECRET, f"x{SECRET}", {SECRET: 1}, [[SECRET]], {"a": {SECRET: SECRET}}]))
other_rules = st.lists(
    st.fixed_dictionaries(
        {
            "path": st.sampled_from(
                ["/other", "/other/*", "/other/a", "/*/nothing-has-this", "/hidden/nothing-has-this"]
            ),
            "how": st.sampled_from(["keep", "mask", "digest", "drop"]),
        }
    ),
    max_size=3,
)


@given(secrets, plain, other_rules, st.sampled_from(["mask", "digest", "drop"]))
def test_a_hidden_value_does_not_get_through(value: Any, other: Any, rules: list[dict[str, str]], how: str) -> None:
    finer = [rule for rule in rules if "nothing" not in rule["path"]]
    seen = json.dumps(
        shown({"hidden": value, "other": other}, *finer, {"path": "/hidden", "how": how}, {"how": "keep"}),
        ensure_ascii=False,
    )

    assert SECRET not in seen


@given(holding(st.just(SECRET)), other_rules)
def test_a_hidden_text_does_not_get_through_where_earlier_rules_reach_into_it(
    value: Any, rules: list[dict[str, str]]
) -> None:
    seen = shown({"hidden": value, "other": 1}, *rules, {"path": "/hidden", "how": "mask"}, {"how": "keep"})

    assert SECRET not in json.dumps(seen, ensure_ascii=False)


@given(secrets, other_rules)
def test_what_no_rule_covers_does_not_get_through(value: Any, rules: list[dict[str, str]]) -> None:
    finer = [rule for rule in rules if rule["path"] != "/*/nothing-has-this"]

    assert SECRET not in json.dumps(shown({"hidden": value}, *finer), ensure_ascii=False)


@given(st.dictionaries(names, holding(plain), max_size=3))
def test_what_is_kept_is_as_it_was(arguments: dict[str, Any]) -> None:
    rules = {"path": "/*/nothing-has-this", "how": "drop"}, {"how": "keep"}

    assert shown(arguments, *rules) == (arguments or None)


# ── settings that cannot be meant ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("{path: card}", "audit.arguments[0].path: 'card' is no JSON Pointer; begin it with a slash"),
        (
            "{path: /a~b}",
            "audit.arguments[0].path: '/a~b' is no JSON Pointer; write ~0 for ~, and ~1 for / within a name",
        ),
        ("{tools: 'a***'}", "audit.arguments[0].tools: three or more `*` in a row mean nothing; write `*` or `**`"),
        (
            "{how: digest}",
            "audit.arguments[0].how: digest needs audit.digest_key_file, or who guesses a value could check it",
        ),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, {}, [f"audit.arguments=[{rule}]"])
    assert str(refused.value) == fault
