"""Items from files: YAML or JSON, one item or a list of them, read so that nothing is lost or turned into something else.

YAML is read by its core schema, which is JSON's: a date stays a text, ``no`` is a text, ``1:30`` is a text.
"""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sidecar.errors import MalformedItemsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIXES = {".yaml", ".yml", ".json"}
STDIN = Path("-")


def find_files(folder: Path) -> list[Path]:
    """List the files of items below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())


def read_files(paths: Iterable[Path]) -> list[tuple[str, Any]]:
    """Read the items of files, or of standard input for ``-``; each with the place where it stands.

    Raises ``MalformedItemsError``, which names every file that cannot be read.
    """
    found: list[tuple[str, Any]] = []
    faults: list[str] = []
    for path in paths:
        name = "standard input" if path == STDIN else str(path)
        try:
            text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
            found += _numbered(name, [*_documents(text)])
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as fault:
            faults.append(f"{name}: cannot be read: {fault}")
    if faults:
        raise MalformedItemsError(faults)
    return found


def _numbered(name: str, documents: list[Any]) -> Iterator[tuple[str, Any]]:
    if len(documents) == 1 and not isinstance(documents[0], list):
        yield name, documents[0]
        return
    items = [item for document in documents for item in (document if isinstance(document, list) else [document])]
    for number, item in enumerate(items, start=1):
        yield f"{name}: item {number}", item


def _documents(text: str) -> Iterator[Any]:
    if text.lstrip()[:1] in {"{", "["}:
        try:
            yield json.loads(text, object_pairs_hook=_once, parse_float=_float, parse_constant=_no_number)
        except json.JSONDecodeError:
            pass  # YAML may begin like that as well
        else:
            return
    yield from (document for document in yaml.load_all(text, _Loader) if document is not None)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members. A name that stands there twice would lose one of its values."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"{twice!r} stands twice in one object"
        raise ValueError(msg)
    return members


def _float(text: str) -> float:
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        msg = f"the number {text} has more digits than JSON numbers carry (about 15)"
        raise ValueError(msg)
    return number


def _no_number(text: str) -> Any:
    msg = f"{text} is not a number that can be stored"
    raise ValueError(msg)


class _Loader(yaml.SafeLoader):
    """YAML's core schema, and no map in which a name stands twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's shape; those of YAML 1.1 are left out

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's shape
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        names = [name.value for name, _ in pairs if isinstance(name, yaml.ScalarNode)]
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            msg = f"{twice!r} stands twice in one map"
            raise yaml.constructor.ConstructorError(None, None, msg, node.start_mark)
        return super().construct_mapping(node, deep=deep)


for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)

_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor(
    "tag:yaml.org,2002:float",
    lambda _, node: _no_number(node.value) if node.value[-1] in "fFnN" else _float(node.value),
)
