"""What a bundle that nobody should believe costs to refuse."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from jwt.utils import base64url_encode

from sidecar import seal
from sidecar.errors import SealError
from sidecar.seal import canonical
from tests.support.bundles import Key, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1 << 20
END = bytes(1024)
FILES = {
    ".manifest": canonical(
        {"revision": "r", "roots": ["registry/overlay"], "metadata": {"as_of": "2026-11-24T00:00:00Z"}}
    ),
    "registry/overlay/data.json": b"{}",
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """A key that bundles are signed with."""
    return Key(tmp_path_factory.mktemp("keys"))


def _keys(key: Key) -> dict[str, seal.PublicKey]:
    return seal.public_keys([key.public])


def _tar(files: Mapping[str, bytes]) -> bytes:
    return b"".join(entry(name, body) for name, body in files.items())


def _first(key: Key) -> bytes:
    """Write what a bundle begins with: here with a good signature, of something else."""
    return _tar({".manifest": FILES[".manifest"], ".signatures.json": key.sign(FILES)})


def _whole(key: Key) -> bytes:
    return _first(key) + entry("registry/overlay/data.json", FILES["registry/overlay/data.json"]) + END


def _check(body: bytes, keys: dict[str, seal.PublicKey]) -> tuple[str, int, int]:
    """Give the reason for a refusal, the most memory that it took, and how much of the file was read, both in bytes."""
    file = io.BytesIO(body)
    tracemalloc.start()
    try:
        with pytest.raises(SealError) as refused:
            seal.check(file, keys)
        return refused.value.reason, tracemalloc.get_traced_memory()[1], file.tell()
    finally:
        tracemalloc.stop()


def _extended(kind: bytes) -> Callable[[Key], bytes]:
    return lambda key: _first(key) + entry("x", bytes(64 * MIB), kind=kind) + END


def _many_signatures(_key: Key) -> bytes:
    return _tar({".manifest": FILES[".manifest"], ".signatures.json": canonical({"signatures": ["ab"] * 150_000})})


DAMAGED: dict[str, Callable[[Key], bytes]] = {
    "a file that is larger than all files may be": lambda key: (
        _first(key) + entry("registry/overlay/data.json", bytes(64 * MIB), size=(1 << 30) + 1)
    ),
    "a manifest that is larger than any": lambda _: entry(".manifest", bytes(64 * MIB)) + END,
    "a signature that is larger than any": lambda _: entry(".signatures.json", bytes(64 * MIB)) + END,
    "a long pax header": _extended(tarfile.XHDTYPE),
    "a long global pax header": _extended(tarfile.XGLTYPE),
    "a long GNU name": _extended(tarfile.GNUTYPE_LONGNAME),
    "a sparse file": _extended(tarfile.GNUTYPE_SPARSE),
    "a link": lambda key: _first(key) + entry("registry/overlay/data.json", kind=tarfile.SYMTYPE) + END,
    "very many files": lambda key: _first(key) + b"".join(entry(f"{n:x}") for n in range(20_000)) + END,
    "very much after its last file": lambda key: _whole(key) + bytes(64 * MIB),
    "something after its last file": lambda key: _whole(key) + b"x",
    "no end": lambda key: _whole(key)[:-1024],
    "half a header": lambda key: _whole(key)[:-1024] + bytes([1]) * 100,
    "a bad header": lambda key: _whole(key)[:-1024] + bytes([1]) * 512 + END,
    "a file twice": lambda key: _first(key) + _first(key) + END,
    "very many signatures": _many_signatures,
}


@pytest.mark.parametrize("make", DAMAGED.values(), ids=DAMAGED)
def test_refusing_takes_little_memory_for(make: Callable[[Key], bytes], key: Key) -> None:
    reason, memory, _ = _check(gzip.compress(make(key), 1), _keys(key))

    assert reason == "DAMAGED"
    assert memory < 8 * MIB


@pytest.mark.parametrize("signed", [True, False], ids=["with keys", "without keys"])
def test_very_many_files_are_not_read_to_the_end(signed: bool, key: Key) -> None:  # noqa: FBT001 - a parameter
    body = gzip.compress(DAMAGED["very many files"](key), 1)
    reason, memory, read = _check(body, _keys(key) if signed else {})

    assert reason == "DAMAGED"
    assert memory < 8 * MIB
    assert read < len(body) / 2


def test_a_large_file_that_was_not_signed_is_read_piece_by_piece(key: Key) -> None:
    large = _first(key) + entry("registry/overlay/data.json", bytes(128 * MIB)) + END
    reason, memory, _ = _check(gzip.compress(large, 1), _keys(key))

    assert reason == "TAMPERED"
    assert memory < 8 * MIB


def test_without_a_signature_at_its_beginning_nothing_of_it_is_read_on(key: Key) -> None:
    late = {".manifest": FILES[".manifest"], "registry/overlay/data.json": bytes(64 * MIB)} | {
        ".signatures.json": key.sign(FILES)
    }
    body = gzip.compress(_tar(late) + END, 1)
    reason, memory, read = _check(body, _keys(key))

    assert reason == "UNSIGNED"
    assert memory < MIB
    assert read < len(body) / 4


@pytest.mark.parametrize("more", [b"x", gzip.compress(b""), gzip.compress(b"") * 100_000], ids=["x", "a part", "parts"])
def test_what_comes_after_the_end_of_the_zipped_file_is_refused(more: bytes, key: Key) -> None:
    reason, memory, _ = _check(gzip.compress(_whole(key)) + more, _keys(key))

    assert reason == "DAMAGED"
    assert memory < MIB


def test_a_file_of_very_many_empty_parts_is_not_read_on(key: Key) -> None:
    reason, _, read = _check(gzip.compress(b"") * 100_000, _keys(key))

    assert reason == "DAMAGED"
    assert read < MIB


def test_json_that_is_nested_very_deep_is_refused(key: Key) -> None:
    deep = b"[" * 500_000
    token = base64url_encode(deep).decode() + ".e30.e30"
    header, _, _ = _check(
        gzip.compress(_tar({".signatures.json": canonical({"signatures": [token]})}) + END), _keys(key)
    )
    manifest, _, _ = _check(gzip.compress(_tar({".manifest": b'{"x":' + deep}) + END), {})

    assert (header, manifest) == ("FOREIGN_KEY", "DAMAGED")


def test_a_file_without_these_faults_passes(key: Key) -> None:
    sealed = seal.check(io.BytesIO(gzip.compress(_whole(key) + bytes(10240))), _keys(key))

    assert (sealed.kind, sealed.revision, sealed.key_id) == ("overlay", "r", "ours")


def test_a_name_that_is_no_text_can_be_told(key: Key) -> None:
    header = bytearray(entry("x", kind=tarfile.SYMTYPE))
    header[0] = 0xFF
    header[148:156] = f"{sum(header[:148]) + sum(header[156:512]) + 8 * 32:06o}\0 ".encode()
    with pytest.raises(SealError) as refused:
        seal.check(io.BytesIO(gzip.compress(bytes(header) + END)), _keys(key))

    assert json.loads(json.dumps(str(refused.value)).encode()) == "\ufffd: not a plain file, or there twice"
