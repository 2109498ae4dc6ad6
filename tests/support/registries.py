"""Registries for tests: plain items, and what the real compiler makes of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.bundles.build import write_data
from sidecar.registry.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parent.parent / "data"

AS_OF = 1_795_478_400_000_000
"""2026-11-24T00:00:00Z in microseconds since 1970: the moment of the exports that tests write."""


def sample_items() -> list[dict[str, Any]]:
    """Give the items of the sample registry: tenants A (members and agents), B (optional members) and C (suspended)."""
    return [entry["put"] for entry in json.loads((DATA / "registry-items.json").read_text())]


def compiled(items: Iterable[dict[str, Any]], extensions: Iterable[str] = ()) -> dict[str, Any]:
    """Compile plain items to the document at ``data.registry.base``."""
    out = io.BytesIO()
    with Spool() as spool:
        spool.add(items)
        spool.check()
        write_data(spool, out)
    document: dict[str, Any] = json.loads(out.getvalue())
    document["meta"] = {"revision": "test", "as_of": AS_OF, "extensions": list(extensions), "format": 1}
    return document
