"""The overlay: the small bundle of everything that changed since the base, kept between publications.

It is the upper level of a log-structured merge. It holds the whole compiled document of every tenant that changed, or a
tombstone,
each with the version it reflects: a moment by which the document had surely been read. Rego takes a tenant from whichever of base
and overlay is newer (``policies/tenantgate/registry``), and from the overlay where that is in doubt: the stream will bring what
the overlay has missed, but nobody brings again what it had.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from sidecar.bundles import compile as compiler
from sidecar.bundles.build import COMPILER, revision_name, rfc3339
from sidecar.bundles.bundle import OVERLAY_ROOTS, BundleInfo, Manifest, write_bundle
from sidecar.errors import BundleError
from sidecar.model import Json
from sidecar.seal import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sidecar.bundles.signing import Signer
    from sidecar.registry import items

_DATA = "registry/overlay/data.json"


class _Meta(Struct):
    """``revision`` and ``as_of`` are of the last publication; ``since`` and ``base`` as in ``BundleInfo``."""

    revision: str
    as_of: int
    since: int
    base: str


class _Shared(Struct):
    version: int
    resources: dict[str, Json]


class Overlay(Struct, omit_defaults=True):
    """What has changed since the moment ``meta.since``. All moments are in microseconds since 1970."""

    meta: _Meta
    tenants: dict[str, dict[str, Json]] = field(default_factory=dict)
    shared: _Shared | None = None

    @classmethod
    def beside(cls, base: str, as_of: int) -> Overlay:
        """Begin one beside a base that reflects the moment ``as_of``: nothing has changed since."""
        return cls(_Meta("", as_of, as_of, base))

    @classmethod
    def read(cls, path: Path) -> Overlay:
        """Take up the one that was published last. Raises ``BundleError``."""
        try:
            with tarfile.open(path, mode="r:gz") as tar:
                file = tar.extractfile(_DATA)
                assert file is not None  # noqa: S101 - a regular file
                return msgspec.json.decode(file.read(), type=cls)
        except (OSError, EOFError, KeyError, tarfile.TarError, msgspec.DecodeError) as fault:
            msg = f"{path}: not an overlay of tenantgate: {fault}"
            raise BundleError(msg) from fault

    def set_tenant(self, tenant_id: str, records: items.TenantRecords, version: int) -> bool:
        """Take in a tenant as it was read by the moment ``version``; tell whether that is another state than before."""
        document = compiler.compile_tenant(records)
        terms: dict[str, Json] = {"removed": True} if document is None else document["terms"]
        before = self.tenants.get(tenant_id)
        now = {**(document or {}), "terms": {**terms, "version": version}}
        self.tenants[tenant_id] = now
        return before is None or _without_version(before) != _without_version(now)

    def set_shared(self, resources: Iterable[items.Resource], version: int) -> bool:
        """Take in the shared catalogue as it was read by the moment ``version``; tell whether it is another than before."""
        before = self.shared
        self.shared = _Shared(version, compiler.compile_resources(resources))
        return before is None or before.resources != self.shared.resources

    def fold(self, base: str, as_of: int) -> list[str]:
        """Drop what a newer base holds for sure; give the tenants that it may or may not hold, to be read again.

        ``base`` is the revision of the base and ``as_of`` the moment that it reflects.
        """
        self.tenants = {t: document for t, document in self.tenants.items() if document["terms"]["version"] >= as_of}
        if self.shared is not None and self.shared.version < as_of:
            self.shared = None
        self.meta = _Meta(self.meta.revision, max(self.meta.as_of, as_of), as_of, base)
        return sorted(self.tenants)

    def write(self, out: Path, as_of: int, signer: Signer | None) -> Manifest:
        """Publish it as of a moment. Raises ``BundleError`` or ``SealError``.

        A later publication always has a later as-of, by a microsecond where there is no more to say, so that whoever takes
        bundles in can tell which of two is newer.
        """
        as_of = max(as_of, self.meta.as_of + 1)
        content = canonical({"shared": msgspec.to_builtins(self.shared), "tenants": self.tenants})
        revision = revision_name(as_of, hashlib.sha256(self.meta.base.encode() + content).hexdigest())
        self.meta = _Meta(revision, as_of, self.meta.since, self.meta.base)
        removed = sum("removed" in document["terms"] for document in self.tenants.values())
        info = BundleInfo(
            as_of=rfc3339(as_of),
            compiler=COMPILER,
            format=compiler.FORMAT,
            counts={"tenants": len(self.tenants) - removed, "removed": removed},
            since=rfc3339(self.meta.since),
            base=self.meta.base,
        )
        manifest = Manifest(revision=revision, roots=OVERLAY_ROOTS, metadata=info)
        write_bundle(out, manifest, {}, io.BytesIO(canonical(msgspec.to_builtins(self))), signer)
        return manifest


def _without_version(document: dict[str, Json]) -> dict[str, Json]:
    return {**document, "terms": {name: value for name, value in document["terms"].items() if name != "version"}}
