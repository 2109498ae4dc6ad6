"""The documents of a base come one at a time, as they are written, and no more than one is held."""

from __future__ import annotations

import io
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.bundles import documents
from sidecar.bundles.bundle import BASE_ROOTS, BundleInfo, Manifest, write_bundle
from sidecar.bundles.documents import read_documents
from sidecar.errors import BundleError
from sidecar.seal import canonical

_SHARED = {"resources": {"TOOL": {"t": {"access": "READ"}}}}

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


def base(out: Path, data: bytes) -> Path:
    """Write a base that holds this data."""
    manifest = Manifest("r", BASE_ROOTS, BundleInfo("2026-11-24T00:00:00Z", "test", 1, {}))
    write_bundle(out, manifest, {}, io.BytesIO(data))
    return out


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), values, max_size=3), max_size=4), st.integers(1, 50))
def test_they_are_those_that_were_written(tenants: dict[str, Any], chunk: int) -> None:
    data = canonical({"shared": _SHARED, "tenants": tenants})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_CHUNK", chunk)
        found = [*read_documents(base(Path(folder) / "base.tar.gz", data))]
    assert found == [
        ("SHARED", canonical(_SHARED).decode()),
        *((tenant_id, canonical(document).decode()) for tenant_id, document in sorted(tenants.items(), key=_by_bytes)),
    ]


def _by_bytes(entry: tuple[str, Any]) -> bytes:
    return entry[0].encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"shared":',
        b'{"shared":{},"tenants":{"a":{}',
        b'{"shared":{},"tenants":{"a":{}}',
        b'{"shared":{},"tenants":{"a":{},}}',
        b'{"shared":{},"tenants":{"a" {}}}',
        b'{"shared": {}, "tenants": {}}',
        b'{"tenants":{},"shared":{}}',
        b'{"shared":{},"tenants":{"\xff":{}}}',
        pytest.param(b'{"shared":' + b"[" * 100_000, id="nested without end"),
    ],
)
def test_what_is_no_base_is_told(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BundleError, match="not a bundle of tenantgate"):
        [*read_documents(base(tmp_path / "base.tar.gz", data))]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_base_is_told(tmp_path: Path, part: float) -> None:
    tenants = {f"t{number}": {"text": f"{number:032x}" * 50} for number in range(200)}
    path = base(tmp_path / "base.tar.gz", canonical({"shared": {}, "tenants": tenants}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BundleError):
        [*read_documents(path)]


def test_no_more_than_a_document_is_held(tmp_path: Path) -> None:
    document = {"rules": [{"reason": "x" * 1000}] * 500}
    data = canonical({"shared": {}, "tenants": {f"{number:03}": document for number in range(60)}})
    path = base(tmp_path / "base.tar.gz", data)
    tracemalloc.start()
    try:
        assert sum(len(json.loads(text)) for _, text in read_documents(path)) == 60
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < len(data) / 3
