"""What a sidecar takes for itself on its machine: a state directory, and a place for its socket."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from typing import IO, TYPE_CHECKING

import structlog

from sidecar.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

_LONGEST_UNIX_PATH = 107  # bytes; sun_path of unix(7) less its end


def claim(state_dir: Path) -> IO[str]:
    """Make the state directory and hold a lock on it for as long as the file stays open. Raises ``StartError``."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("a+")
    except OSError as fault:
        msg = f"state_dir: {state_dir} cannot be used: {fault.strerror or fault}"
        raise StartError(msg) from fault
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        msg = (
            f"state_dir: {state_dir} is in use by process {owner}; stop it, or give this sidecar a state_dir of its own"
        )
        raise StartError(msg) from fault
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def check_socket(path: Path) -> None:
    """Make room for a socket: a stale file is removed, a live one is somebody else's. Raises ``StartError``."""
    check_path_length(path)
    folder = path.parent
    try:
        # For what may stand in a directory that everybody writes to, such as a volume.
        folder.mkdir(mode=0o750, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as fault:
        msg = f"listen.socket: the directory of {path} cannot be made: {fault.strerror or fault}"
        raise StartError(msg) from fault
    if mode & stat.S_IWOTH:
        msg = (
            f"listen.socket: everybody may write to {folder}, and could put another socket there; name a path one directory "
            "further in, which is made for owner and group"
        )
        raise StartError(msg)
    if not path.exists():
        return
    if not path.is_socket():
        msg = f"listen.socket: {path} exists and is not a socket; remove it or choose another path"
        raise StartError(msg)
    with socket.socket(socket.AF_UNIX) as attempt:
        try:
            attempt.connect(str(path))
        except ConnectionRefusedError:
            log.info("stale_socket_removed", path=str(path))
            path.unlink()
            return
        except OSError:  # a socket of another kind, or one that is not ours to use
            pass
    msg = f"listen.socket: another process serves on {path}; stop it or choose another path"
    raise StartError(msg)


def check_path_length(path: Path) -> None:
    """Refuse a socket whose path is too long for the kernel. Raises ``StartError``."""
    if len(os.fsencode(path)) > _LONGEST_UNIX_PATH:
        msg = (
            f"{path} is longer than the {_LONGEST_UNIX_PATH} bytes of a Unix socket's path; choose a shorter state_dir"
        )
        raise StartError(msg)
