"""Registries for tests: plain items, and what the real compiler makes of them."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.bundles.build import write_data
from sidecar.bundles.compile import FORMAT
from sidecar.registry.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parent.parent / "data"

AS_OF = 1_795_478_400_000_000
"""2026-11-24T00:00:00Z in microseconds since 1970: the moment of the exports that tests write."""


def sample_items() -> list[dict[str, Any]]:
    """Give the items of the sample registry: tenants A (members and agents), B (optional members) and C (suspended)."""
    return [entry["put"] for entry in json.loads((DATA / "registry-items.json").read_text())]


def compiled(
    items: Iterable[dict[str, Any]], extensions: Iterable[str] = (), as_of: int = AS_OF, revision: str = "test"
) -> dict[str, Any]:
    """Compile plain items to the document at ``data.registry.base``."""
    out = io.BytesIO()
    with Spool() as spool:
        spool.add(items)
        spool.check()
        write_data(spool, out)
    document: dict[str, Any] = json.loads(out.getvalue())
    document["meta"] = {"revision": revision, "as_of": as_of, "extensions": list(extensions), "format": FORMAT}
    return document


def overlay(*states: dict[str, Any], version: int | None = None) -> dict[str, Any]:
    """Make the document at ``data.registry.overlay`` that leads from the first of some compiled registries to the last.

    It holds all that any of them changed. ``version`` is the moment by which that was read; left out, it is for each document the
    moment of the registry that changed it last.
    """
    first, last = states[0]["meta"], states[-1]
    gone: dict[str, Any] = {"terms": {"removed": True}}
    tenants: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for before, after in pairwise(states):
        read = after["meta"]["as_of"] if version is None else version
        for tenant_id in before["tenants"] | after["tenants"]:
            if before["tenants"].get(tenant_id) != after["tenants"].get(tenant_id):
                document = last["tenants"].get(tenant_id, gone)
                tenants[tenant_id] = {**document, "terms": {**document["terms"], "version": read}}
        if before["shared"] != after["shared"]:
            shared = {"shared": {**last["shared"], "version": read}}
    meta = {**last["meta"], "since": first["as_of"], "base": first["revision"]}
    return {"meta": {name: meta[name] for name in ("revision", "as_of", "since", "base")}, "tenants": tenants, **shared}


def bundle_data(path: Path, name: str) -> Any:
    """Give a JSON file of a bundle."""
    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return json.loads(file.read())


def layers(base: Path, overlay: Path) -> dict[str, Any]:
    """Give the document at ``data.registry`` that OPA makes of two bundles."""
    below = bundle_data(base, "registry/base/data.json")
    below["meta"] = bundle_data(base, "registry/base/meta/data.json")
    return {"base": below, "overlay": bundle_data(overlay, "registry/overlay/data.json")}


def in_force(registry: dict[str, Any]) -> dict[str, Any]:
    """Put base and overlay together as the Rego does: whichever is newer, and the overlay in doubt."""
    below, above = registry["base"], registry["overlay"]
    as_of = below["meta"]["as_of"]
    tenants = dict(below["tenants"])
    for tenant_id, document in above.get("tenants", {}).items():
        terms = dict(document["terms"])
        if terms.pop("version") < as_of:
            continue
        if terms.pop("removed", False):
            tenants.pop(tenant_id, None)
        else:
            tenants[tenant_id] = {**document, "terms": terms}
    shared = above.get("shared")
    catalogue = {"resources": shared["resources"]} if shared and shared["version"] >= as_of else below["shared"]
    return {"tenants": tenants, "shared": catalogue}
