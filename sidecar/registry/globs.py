"""Globs: ``*`` stays inside one ``:``- or ``/``-separated segment, ``**`` crosses them, nothing else is special.

The same translation stands in Rego (``policies/tenantgate/globs``) for globs known only with the request; a property
test holds the two together.
"""

from __future__ import annotations

import re
from functools import lru_cache

_STARS = re.compile(r"\*+")
_SPECIAL = re.compile(r"[\\.+?()|\[\]{}^$]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_glob(text: str) -> bool:
    """Tell whether a text is a glob rather than a plain id."""
    return "*" in text


def glob_fault(glob: str) -> str | None:
    """Say what is wrong with a glob, if anything."""
    if not glob:
        return "must not be empty"
    if "***" in glob:
        return f"bad glob {glob!r}: three or more `*` in a row mean nothing; write `*` or `**`"
    if _CONTROL.search(glob):
        return f"bad glob {glob!r}: control characters are not allowed"
    return None


@lru_cache(maxsize=65536)
def to_regex(glob: str) -> str:
    """Translate a glob to a regular expression that RE2 and Python read alike."""
    parts: list[str] = []
    position = 0
    for stars in _STARS.finditer(glob):
        parts += _quote(glob[position : stars.start()]), "[^:/]*" if stars.end() - stars.start() == 1 else ".*"
        position = stars.end()
    return f"^(?s:{''.join(parts)}{_quote(glob[position:])})$"


def matches(glob: str, text: str) -> bool:
    """Tell whether a glob accepts a text; a plain id accepts itself."""
    return _matcher(glob, "[^:/]*").fullmatch(text) is not None


def split(glob: str) -> tuple[str, str]:
    """Split a glob into the literal text before its first wildcard and the rest."""
    start = glob.index("*")
    return glob[:start], glob[start:]


def covers(general: str, special: str) -> bool:
    """Tell whether everything that ``special`` accepts is accepted by ``general``."""
    # A wildcard of ``special`` becomes a letter that occurs in no id. Only a wildcard of ``general`` can take it in,
    # and the letter for ``**`` only another ``**``, because it also stands for separators.
    witness = special.replace("**", "\x02").replace("*", "\x01")
    return _matcher(general, "[^:/\x02]*").fullmatch(witness) is not None


@lru_cache(maxsize=65536)
def _matcher(glob: str, star: str) -> re.Pattern[str]:
    # RE2 never goes back to an earlier wildcard to try again. Python does, and a glob of many wildcards would keep it
    # busy for ever. So each text between wildcards is looked for once, as early as it comes, and kept (``(?>``): the
    # wildcard after it can take in all that a later find would leave to it. Only the last text must wait for the end.
    *chunks, last = ([_quote(text) for text in chunk.split("*")] for chunk in glob.split("**"))
    found = ["".join([first, *(f"(?>{star}?{text})" for text in rest)]) for first, *rest in chunks]
    early = found[:1] + [f"(?>.*?{chunk})" for chunk in found[1:]]
    first, *middle = last[:1] + [f"(?>{star}?{text})" for text in last[1:-1]]
    end = [".*?" if chunks else "", first, *middle, *(star + text for text in last[1:][-1:])]
    return re.compile("".join(early + end), re.DOTALL)


def _quote(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)
