"""The documents of a base, read one at a time: a base may be larger than memory, a document of it is not."""

from __future__ import annotations

import io
from json import JSONDecodeError, JSONDecoder
from typing import IO, TYPE_CHECKING

from sidecar.bundles.bundle import opened
from sidecar.registry.items import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DATA = "registry/base/data.json"
_CHUNK = 1 << 20  # characters


def read_documents(base: Path) -> Iterator[tuple[str, str]]:
    """Yield the JSON of what is shared, under the id ``SHARED``, and then that of each tenant, in the order of the ids.

    Raises ``BundleError`` where it shows that this is no base, or a damaged one, which may be after some of them.
    """
    with opened(base, _DATA) as file:
        data = _Pieces(file)
        data.expect('{"shared":')
        yield SHARED, data.value()
        data.expect(',"tenants":{')
        more = not data.take("}}")
        while more:
            tenant_id = JSONDecoder().decode(data.value())
            data.expect(":")
            yield tenant_id, data.value()
            more = data.take(",")
            if not more:
                data.expect("}}")


class _Pieces:
    """JSON as ``seal.canonical`` writes it, taken piece by piece; no more is held of it than a piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="")
        self._decode = JSONDecoder().raw_decode
        self._held = ""
        self._at = 0

    def take(self, expected: str) -> bool:
        """Take this, if it comes next; tell whether it did."""
        while len(self._held) - self._at < len(expected) and self._hold_more():
            pass
        found = self._held.startswith(expected, self._at)
        self._at += len(expected) if found else 0
        return found

    def expect(self, expected: str) -> None:
        """Take this. Raises ``ValueError`` if something else comes next."""
        if not self.take(expected):
            msg = f"its {_DATA} has something else where {expected} is due"
            raise ValueError(msg)

    def value(self) -> str:
        """Take a text or an object, as it is written. Raises ``ValueError`` if there is none."""
        while True:
            try:
                _, end = self._decode(self._held, self._at)
            except JSONDecodeError:
                if not self._hold_more():
                    raise
            else:
                begin, self._at = self._at, end
                return self._held[begin:end]

    def _hold_more(self) -> bool:
        """Hold more of it, twice as much where that was not enough; tell whether there was more."""
        rest = self._held[self._at :]
        more = self._text.read(max(_CHUNK, len(rest)))
        self._held, self._at = rest + more, 0
        return bool(more)
