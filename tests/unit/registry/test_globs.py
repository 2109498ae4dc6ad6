"""What globs accept, how they become regular expressions, and when one covers another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.registry import globs

# few letters, so that globs and texts meet often; regular expression syntax, so that it is seen to mean nothing
_LETTERS = "ab:/.?[{$\\\n"
_TEXTS = st.text(_LETTERS, max_size=8)
_GLOBS = (
    st.lists(st.sampled_from([*_LETTERS, "*", "**"]), min_size=1, max_size=8)
    .map("".join)
    .filter(lambda glob: "***" not in glob)
)


def _accepts(glob: str, text: str) -> bool:
    """Tell whether a glob accepts a text, slowly and straight from the definition of the wildcards."""
    if glob.startswith("**"):
        return any(_accepts(glob[2:], text[n:]) for n in range(len(text) + 1))
    if glob.startswith("*"):
        ends = [n for n in range(len(text) + 1) if not {":", "/"} & set(text[:n])]
        return any(_accepts(glob[1:], text[n:]) for n in ends)
    return text == "" if glob == "" else text[:1] == glob[0] and _accepts(glob[1:], text[1:])


@st.composite
def _glob_and_text(draw: st.DrawFn) -> tuple[str, str]:
    """A glob, and a text that it accepts."""
    glob = draw(_GLOBS)
    segment = st.text("".join(set(_LETTERS) - {":", "/"}), max_size=3)
    parts = re.split(r"(\*+)", glob)
    return glob, "".join(draw({"*": segment, "**": _TEXTS}.get(part, st.just(part))) for part in parts)


@pytest.mark.parametrize(
    ("glob", "text", "accepted"),
    [
        pytest.param("agent:tool:refund", "agent:tool:refund", True, id="plain id, itself"),
        pytest.param("agent:tool:refund", "agent:tool:refunds", False, id="plain id, a longer one"),
        pytest.param("agent:tool:refund-*", "agent:tool:refund-create", True, id="star, rest of a segment"),
        pytest.param("agent:tool:refund-*", "agent:tool:refund-", True, id="star, nothing"),
        pytest.param("agent:tool:*", "agent:tool:a:b", False, id="star does not cross a colon"),
        pytest.param("docs/*", "docs/a/b", False, id="star does not cross a slash"),
        pytest.param("agent:*:read", "agent:tool:read", True, id="star within"),
        pytest.param("agent:**", "agent:tool:a/b", True, id="two stars cross both separators"),
        pytest.param("**", "", True, id="two stars, nothing"),
        pytest.param("**:read", "a:b:read", True, id="two stars at the start"),
        pytest.param("a*b*c", "a-b-b-c", True, id="two wildcards, a later find"),
        pytest.param("*a*b", "aab", True, id="wildcards around letters"),
        pytest.param("**a*b", "a/ab", True, id="both wildcards, only a later start will do"),
        pytest.param("**a:*b", "a:a:b", True, id="both wildcards around a separator"),
        pytest.param("a*", "xa", False, id="nothing may go before"),
        pytest.param("/todos/{todoId}", "/todos/{todoId}", True, id="braces mean themselves"),
        pytest.param("a.c", "abc", False, id="a dot means itself"),
        pytest.param("a?", "a", False, id="a question mark means itself"),
        pytest.param("[ab]", "a", False, id="brackets mean themselves"),
        pytest.param("*.azurecr.io", "evil.azurecr.io:malicious.com", False, id="nothing may follow"),
        pytest.param("a*", "A", False, id="case counts"),
        pytest.param("a*", "a\nb", True, id="a line break is a letter like others"),
        pytest.param("a", "a\n", False, id="a line break at the end counts"),
    ],
)
def test_a_glob_accepts(glob: str, text: str, *, accepted: bool) -> None:
    assert globs.matches(glob, text) is accepted


@pytest.mark.parametrize(
    ("glob", "regex"),
    [
        ("agent:tool:refund-*", "^(?s:agent:tool:refund-[^:/]*)$"),
        ("agent:**", "^(?s:agent:.*)$"),
        ("a.b+(c)?[d]{e}^$|\\", r"^(?s:a\.b\+\(c\)\?\[d\]\{e\}\^\$\|\\)$"),
    ],
)
def test_the_regular_expression_is_the_one_that_the_rego_makes(glob: str, regex: str) -> None:
    assert globs.to_regex(glob) == regex


@pytest.mark.parametrize(
    ("glob", "fault"),
    [
        pytest.param("", "must not be empty", id="empty"),
        pytest.param("a***", "three or more", id="three stars"),
        pytest.param("a****b", "three or more", id="four stars"),
        pytest.param("a\n*", "control characters", id="line break"),
        pytest.param("a\x7f*", "control characters", id="delete"),
    ],
)
def test_a_bad_glob_is_told_what_is_wrong_with_it(glob: str, fault: str) -> None:
    assert fault in (globs.glob_fault(glob) or "")


@pytest.mark.parametrize("glob", ["a", "*", "**", "a*b**c", "a** *", "ä*"])
def test_a_good_glob_has_no_fault(glob: str) -> None:
    assert globs.glob_fault(glob) is None


@pytest.mark.parametrize(("text", "is_one"), [("a*", True), ("**", True), ("{a}?[b]", False), ("", False)])
def test_a_glob_is_a_text_with_a_star(text: str, *, is_one: bool) -> None:
    assert globs.is_glob(text) is is_one


@pytest.mark.parametrize(("glob", "halves"), [("a:*b", ("a:", "*b")), ("**", ("", "**")), ("a*b*", ("a", "*b*"))])
def test_a_glob_splits_before_its_first_wildcard(glob: str, halves: tuple[str, str]) -> None:
    assert globs.split(glob) == halves


@pytest.mark.parametrize(
    ("general", "special", "covered"),
    [
        pytest.param("a", "a", True, id="an id covers itself"),
        pytest.param("a", "b", False, id="an id covers no other"),
        pytest.param("a", "*", False, id="an id covers no glob"),
        pytest.param("a*", "a*", True, id="a glob covers itself"),
        pytest.param("*", "a", True, id="star covers an id"),
        pytest.param("*", "a:b", False, id="star does not cover an id of two segments"),
        pytest.param("**", "a:*/**", True, id="two stars cover anything"),
        pytest.param("*", "**", False, id="star does not cover two stars"),
        pytest.param("a:**", "a:*:**", True, id="two stars cover deeper globs"),
        pytest.param("a:*", "a:**", False, id="star does not cover what crosses segments"),
        pytest.param("a:*:c", "a:b*:c", True, id="star covers a narrower star"),
        pytest.param("a:b*:c", "a:*:c", False, id="a narrower star does not cover a star"),
        pytest.param("*a*", "a", True, id="wildcards may take in nothing"),
        pytest.param("*a*", "*", False, id="a letter is demanded"),
        pytest.param("**a", "**ba", True, id="two stars cover a longer ending"),
        pytest.param("a*b", "a*", False, id="an ending is demanded"),
        pytest.param("**:**", "*:*", True, id="two stars around a separator"),
        pytest.param("*:*", "**:**", False, id="star around a separator"),
        pytest.param("a.c", "abc", False, id="a dot covers no letter"),
    ],
)
def test_a_glob_covers_another(general: str, special: str, *, covered: bool) -> None:
    assert globs.covers(general, special) is covered


@given(_GLOBS | _TEXTS, _TEXTS)
def test_the_regular_expression_accepts_what_the_definition_says(glob: str, text: str) -> None:
    assert (re.search(globs.to_regex(glob)[:-1] + r"\Z", text) is not None) is _accepts(glob, text)


@given(_GLOBS | _TEXTS, _TEXTS)
def test_matching_agrees_with_the_definition(glob: str, text: str) -> None:
    assert globs.matches(glob, text) is _accepts(glob, text)


@given(_glob_and_text())
def test_a_text_made_from_a_glob_is_accepted_by_it(case: tuple[str, str]) -> None:
    glob, text = case
    assert globs.matches(glob, text)


@given(_GLOBS, _glob_and_text())
def test_what_a_covered_glob_accepts_the_covering_one_accepts_too(general: str, case: tuple[str, str]) -> None:
    special, text = case
    assert not globs.covers(general, special) or _accepts(general, text)


@given(_glob_and_text(), st.data())
def test_a_glob_covers_what_becomes_of_it_when_a_wildcard_is_filled_in(
    case: tuple[str, str], data: st.DataObject
) -> None:
    glob, text = case
    narrower = data.draw(st.sampled_from([text, glob, glob.replace("**", "*"), glob.replace("**", "a:**", 1)]))
    assert globs.covers(glob, narrower)


@given(_GLOBS, _glob_and_text(), _GLOBS)
def test_covering_passes_on(wide: str, case: tuple[str, str], middle: str) -> None:
    narrow, _ = case
    assert not (globs.covers(wide, middle) and globs.covers(middle, narrow)) or globs.covers(wide, narrow)


@pytest.mark.parametrize("star", ["*", "**"])
def test_a_glob_of_many_wildcards_is_soon_done_with_a_text_that_nearly_fits(star: str) -> None:
    assert not globs.matches(f"{star}a" * 30 + "b", "a" * 500)
