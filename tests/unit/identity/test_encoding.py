"""Base64url and JSON, read in one way alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.identity.encoding import decode_base64url, read_object


@pytest.mark.parametrize(("text", "body"), [("", b""), ("AA", b"\0"), ("__79", b"\xff\xfe\xfd"), ("YWxpY2U", b"alice")])
def test_base64url_without_padding_is_read(text: str, body: bytes) -> None:
    assert decode_base64url(text) == body


@pytest.mark.parametrize(
    "text", ["A", "AA==", "AAA=", "A A", "AA\n", " AA", "AB", "//79", "++", "AA.", "AAAAA", "=", "é", "AA\0"]
)
def test_what_is_no_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64url(text)


@pytest.mark.parametrize(
    "value", [{}, {"a": 1, "b": [1.5, True, None, "é\u2028😀", {"a": {}}]}, {"n": 2**63, "m": -(10**30), "x": 1e308}]
)
def test_an_object_is_read(value: Any) -> None:
    assert read_object(json.dumps(value).encode()) == value
    assert read_object(json.dumps(value, ensure_ascii=False).encode()) == value


_BAD: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "a text": b'"{}"',
    "null": b"null",
    "a brace": b"{",
    "two objects": b"{}{}",
    "UTF-16": "{}".encode("utf-16"),
    "UTF-16 without a mark": "{}".encode("utf-16-le"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "bytes that are no UTF-8": b'{"a": "\xff"}',
    "a surrogate in bytes": b'{"a": "\xed\xa0\x80"}',
    "the first half of a pair": b'{"a": "\\ud83d"}',
    "the second half of a pair": b'{"a": ["\\ude00"]}',
    "half a pair in a name": b'{"\\ud83d": 1}',
    "a name twice": b'{"a": 1, "a": 1}',
    "a name twice within": b'{"a": [{"b": {"c": 1, "d": 2, "c": 3}}]}',
    "a name twice, once in escapes": b'{"a": 1, "\\u0061": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [Infinity]}',
    "-Infinity": b'{"a": -Infinity}',
    "more than a number holds": b'{"a": 1e999}',
    "less than a number holds": b'{"a": -1e999}',
    "more digits than anyone reads": b'{"a": ' + b"9" * 5000 + b"}",
    "a comment": b'{"a": 1 /* one */}',
    "a comma too many": b'{"a": 1,}',
    "other quotes": b"{'a': 1}",
    "a control character": b'{"a": "\n"}',
    "lists nested deep": b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "objects nested deep": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "nested 10,000 deep": b"[" * 10_000,
    "nested a million deep": b'{"a":' * 1_000_000,
}


@pytest.mark.parametrize("body", _BAD.values(), ids=_BAD)
def test_what_can_be_read_in_two_ways_or_none_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_object(body)


def test_the_refusal_names_the_name_that_is_there_twice() -> None:
    with pytest.raises(ValueError, match="the name 'exp' is there twice"):
        read_object(b'{"exp": 1, "iat": 2, "exp": 3}')


def test_nesting_as_deep_as_a_chain_of_actors_is_read() -> None:
    value: dict[str, Any] = {}
    for _ in range(500):
        value = {"a": value}

    assert read_object(json.dumps(value).encode()) == value
