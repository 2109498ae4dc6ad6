"""Small files that outlive a crash: what is written is on disk, whole, before anything is done because of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from sidecar.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

_Kind = TypeVar("_Kind", bound=Struct)


def write_durably(path: Path, value: Struct) -> None:
    """Replace a file by a value as JSON. Raises ``OSError``, and then the file is as it was."""
    scratch = path.with_name(f".{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    replace_durably(scratch, path)


def replace_durably(scratch: Path, path: Path) -> None:
    """Let a file that is on disk take the place of another, such that a crash leaves one of them. Raises ``OSError``."""
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_durable(path: Path, kind: type[_Kind], what: str) -> _Kind | None:
    """Read what ``write_durably`` wrote; ``None`` if it never did. Raises ``StartError``, which says what is forgotten."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as fault:
        msg = f"state_dir: {path} cannot be read: {fault}; removing it makes this sidecar forget {what}"
        raise StartError(msg) from fault
