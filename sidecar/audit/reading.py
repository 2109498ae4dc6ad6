"""Records read again, as a sink has written them: from files, rotated and compressed ones too, or from a stream."""

from __future__ import annotations

import gzip
import os
import time
from contextlib import suppress
from io import BufferedReader
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import msgspec

from sidecar.errors import TenantgateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_GZIP = b"\x1f\x8b"  # https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1
_LOOK_SECONDS = 0.2


class LogError(TenantgateError):
    """Raised when a decision log cannot be read."""


class Lines:
    """Reads records out of lines, and counts those ``damaged``: half of one is left where its writer was killed."""

    def __init__(self) -> None:
        self.damaged = 0

    def records(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the record of each line that has one."""
        for line in lines:
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.damaged += bool(line.strip())
                continue
            if isinstance(record, dict) and isinstance(record.get("decision_id"), str):
                yield record
            else:
                self.damaged += 1


def rotated(path: Path) -> list[Path]:
    """Give a file and those that it was rotated to, which may have been compressed since, the oldest first.

    Raises ``LogError`` if there are none.
    """
    numbered: dict[int, Path] = {}
    for candidate in path.parent.glob(f"{path.name}.*"):
        number = candidate.name.removeprefix(f"{path.name}.").removesuffix(".gz")
        if number.isdigit():
            numbered[int(number)] = candidate
    found = [numbered[number] for number in sorted(numbered, reverse=True)]
    found += [path] if path.exists() else []
    if not found:
        msg = f"{path}: there is no such decision log; name its files, or its settings with --config"
        raise LogError(msg)
    return found


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file. Raises ``LogError``."""
    try:
        with path.open("rb") as file:
            yield from plain(file)
    except (OSError, EOFError) as fault:
        msg = f"{path}: cannot be read: {getattr(fault, 'strerror', None) or fault}"
        raise LogError(msg) from fault


def plain(file: BufferedReader | BinaryIO) -> Iterable[bytes]:
    """Give the lines of a file that can be looked into, decompressed if it is compressed."""
    compressed = isinstance(file, BufferedReader) and file.peek(len(_GZIP)).startswith(_GZIP)
    return gzip.open(file) if compressed else file


def following(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that is written to, as they come, and those of the files that take its place; without end."""
    while True:
        with suppress(FileNotFoundError), path.open("rb") as file:
            yield from _lines_while_there(path, file)
        time.sleep(_LOOK_SECONDS)


def _lines_while_there(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    begun = b""
    while True:
        # asked before the end is read: what is written to it before another takes its place is read
        there = _is(path, file)
        while read := file.readline():
            begun += read
            if begun.endswith(b"\n"):
                yield begun
                begun = b""
        if not there:
            return
        time.sleep(_LOOK_SECONDS)


def _is(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
