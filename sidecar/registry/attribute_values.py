"""DynamoDB JSON to plain JSON: ``{"N": "5"}`` becomes 5.

boto3's deserializer is not used because it makes a Decimal of every number, which JSON does not have, and because an
export is read at hundreds of thousands of items.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model import Json


class _DigitsError(ValueError):
    """Raised when a number has more digits than a JSON number is sure to keep."""


def plain(attributes: dict[str, Any]) -> dict[str, Json]:
    """Turn the attributes of an item into plain JSON.

    Sets become sorted lists, so that the same item always gives the same text; binary stays base64 text.

    Raises ``ValueError`` for a value that is not a well-formed attribute value, naming the attribute.
    """
    item = {}
    name = ""
    try:
        for name, value in attributes.items():  # noqa: B007 - the handler needs the name
            item[name] = _value(value)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as fault:
        reason = fault if isinstance(fault, _DigitsError) else "not a DynamoDB attribute value"
        msg = f"{name}: {reason}"
        raise ValueError(msg) from fault
    return item


def _value(value: dict[str, Any]) -> Json:
    ((kind, content),) = value.items()
    # Most values are texts: they are spared the way through the table.
    return content if kind == "S" and type(content) is str else _READERS[kind](content)


def _text(content: str) -> str:
    if type(content) is not str:
        raise TypeError
    return content


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
    "B": _text,
    "BS": lambda content: sorted(map(_text, _list(content))),
}
