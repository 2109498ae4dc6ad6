"""DynamoDB JSON to plain JSON and back: ``{"N": "5"}`` becomes 5.

boto3's deserializer is not used because it makes a Decimal of every number, which JSON does not have, and because an
export is read at hundreds of thousands of items. Its serializer is not used because it refuses floats.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.model import Json


class _DigitsError(ValueError):
    """Raised when a number has more digits than a JSON number is sure to keep."""


def plain(attributes: dict[str, Any]) -> dict[str, Json]:
    """Turn the attributes of an item into plain JSON.

    Sets become sorted lists, so that the same item always gives the same text; binary becomes the base64 text that it is in an
    export.

    Raises ``ValueError`` for a value that is not a well-formed attribute value, naming the attribute.
    """
    item = {}
    name = ""
    try:
        for name, value in attributes.items():
            item[name] = _value(value)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as fault:
        reason = fault if isinstance(fault, _DigitsError) else "not a DynamoDB attribute value"
        msg = f"{name}: {reason}"
        raise ValueError(msg) from fault
    return item


def typed(item: Mapping[str, Json]) -> dict[str, Any]:
    """Turn plain JSON into the attributes of an item: what ``plain`` reads as the same again.

    Raises ``ValueError`` for a value that DynamoDB cannot hold exactly, naming the attribute.
    """
    attributes = {}
    for name, value in item.items():
        try:
            attributes[_name(name)] = _typed(value)
        except ValueError as fault:
            msg = f"{name}: {fault}"
            raise ValueError(msg) from fault
    return attributes


def _typed(value: Json, depth: int = 0) -> dict[str, Any]:
    if depth > _DEPTH:
        msg = f"is nested more than {_DEPTH} deep"
        raise ValueError(msg)
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": _exact(value)}
        case str():
            return {"S": _encodable(value)}
        case dict():
            return {"M": {_name(name): _typed(entry, depth + 1) for name, entry in value.items()}}
        case list() | tuple():
            return {"L": [_typed(entry, depth + 1) for entry in value]}
    msg = f"{value!r} is not JSON"
    raise ValueError(msg)


def _name(name: Json) -> str:
    if type(name) is not str or not name:
        msg = f"{name!r} cannot be the name of an attribute"
        raise ValueError(msg)
    return _encodable(name)


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        msg = f"{text!r} holds half of a surrogate pair, which is not a character"
        raise ValueError(msg) from fault
    return text


_DEPTH = 31
_DIGITS = 38
_EXPONENTS = range(-130, 126)


def _exact(number: float) -> str:
    # for a float, the shortest text that reads as the same double
    text = repr(number)
    exact = Decimal(text)
    if not exact.is_finite():
        msg = f"{text} is not a number that can be stored"
        raise ValueError(msg)
    digits = "".join(map(str, exact.as_tuple().digits)).strip("0")
    if exact and (exact.adjusted() not in _EXPONENTS or len(digits) > _DIGITS):
        msg = f"{text} is too large, too small or has too many digits for DynamoDB, which keeps {_DIGITS} of them"
        raise ValueError(msg)
    return text


def _value(value: dict[str, Any]) -> Json:
    ((kind, content),) = value.items()
    # Most values are texts: they are spared the way through the table.
    return content if kind == "S" and type(content) is str else _READERS[kind](content)


def _text(content: str) -> str:
    if type(content) is not str:
        raise TypeError
    return content


def _binary(content: str | bytes) -> str:
    # base64 text in an export, bytes from boto3
    return base64.b64encode(content).decode() if type(content) is bytes else _text(content)  # type: ignore[arg-type]


def _true_or_false(content: bool) -> bool:  # noqa: FBT001 - the value, not an option
    if type(content) is not bool:
        raise TypeError
    return content


def _null(content: bool) -> None:  # noqa: FBT001 - the value, not an option
    if content is not True:
        raise TypeError


def _list(content: list[Any]) -> list[Any]:
    # a text can be iterated over as well, and would become a list of its letters
    if type(content) is not list:
        raise TypeError
    return content


def _number(content: str) -> int | float:
    try:
        return int(_text(content))
    except ValueError:
        exact = Decimal(content)
    if not exact.is_finite():
        raise TypeError
    if exact == exact.to_integral_value():
        return int(exact)
    nearest = float(exact)
    if Decimal(repr(nearest)) != exact:
        msg = f"the number {content} has more digits than JSON numbers carry (about 15)"
        raise _DigitsError(msg)
    return nearest


_READERS: dict[str, Callable[[Any], Json]] = {
    "S": _text,
    "N": _number,
    "BOOL": _true_or_false,
    "NULL": _null,
    "M": lambda content: {_text(name): _value(value) for name, value in content.items()},
    "L": lambda content: [_value(value) for value in _list(content)],
    "SS": lambda content: sorted(map(_text, _list(content))),
    "NS": lambda content: sorted(map(_number, _list(content))),
    "B": _binary,
    "BS": lambda content: sorted(map(_binary, _list(content))),
}
