"""What publishing a base would change: which tenants it adds, removes and changes, against the base that is there."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.bundles.documents import read_documents
from sidecar.errors import BundleError
from sidecar.registry.items import SHARED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DIGEST_BYTES = 8
_FREELY = 10


class Difference(Struct, frozen=True):
    """The ids of the tenants that are added, removed and changed, each in order."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def digest(document: bytes) -> bytes:
    """Give a short digest of a tenant's compiled document."""
    return hashlib.blake2b(document, digest_size=_DIGEST_BYTES).digest()


def compare(before: Path, after: Mapping[str, bytes]) -> Difference | None:
    """Compare the base at a path with the digests of a new one by tenant; ``None`` if there is no base, or none of ours."""
    added = {*after}
    removed: list[str] = []
    changed: list[str] = []
    try:
        for tenant_id, document in read_documents(before):
            if tenant_id == SHARED:
                continue
            added.discard(tenant_id)
            if tenant_id not in after:
                removed.append(tenant_id)
            elif digest(document.encode()) != after[tenant_id]:
                changed.append(tenant_id)
    except BundleError:
        return None
    return Difference(added=tuple(sorted(added)), removed=tuple(sorted(removed)), changed=tuple(sorted(changed)))


def check_removals(out: Path, difference: Difference, remaining: int, most: int | None) -> None:
    """Refuse a base that would leave out more tenants than ``most``.

    Where nobody says how many, it may be ten, or a tenth of them if that is more, but never all. An export of an empty table,
    or of the wrong one, must not shut everyone out. Raises ``BundleError``.
    """
    removed = len(difference.removed)
    before = remaining - len(difference.added) + removed
    allowed = max(_FREELY, math.ceil(before / 10)) if most is None else most
    if removed > allowed or (most is None and removed and removed == before):
        shown = ", ".join(difference.removed[:5]) + (", ..." if removed > 5 else "")  # noqa: PLR2004 - a few
        msg = (
            f"{out}: {removed} of {before} tenants would be left out ({shown}); nothing is written. "
            f"If that is meant, --max-removals {removed} says so"
        )
        raise BundleError(msg)
