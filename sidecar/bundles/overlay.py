"""The overlay: the small bundle of everything that changed since the base, kept between publications.

It is the upper level of a log-structured merge. It holds the whole compiled document of every tenant that changed, or a
tombstone, each with the version it reflects: a moment by which the document had surely been read. Rego takes a tenant from
whichever of base and overlay is newer (``policies/tenantgate/registry``), and from the overlay where that is in doubt: the stream
will bring what the overlay has missed, but nobody brings again what it had.

It goes back to the base before the one that it is beside. So a new base and the overlay that follows may be activated in either
order, and the price is that an overlay holds the changes of up to two periods between bases.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from sidecar.bundles import compile as compiler
from sidecar.bundles.build import COMPILER, revision_name, rfc3339
from sidecar.bundles.bundle import OVERLAY_ROOTS, BundleInfo, Manifest, opened, read_manifest, write_bundle
from sidecar.bundles.documents import read_documents
from sidecar.errors import BundleError
from sidecar.model import Json
from sidecar.registry.items import SHARED, TenantRecords
from sidecar.seal import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sidecar.bundles.signing import Signer
    from sidecar.registry import items

_DATA = "registry/overlay/data.json"


class _Meta(Struct):
    """``revision`` and ``as_of`` are of the last publication; ``since`` and ``base`` as in ``BundleInfo``.

    ``base_as_of`` is the moment that the base reflects.
    """

    revision: str
    as_of: int
    since: int
    base: str
    base_as_of: int


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
        return cls(_Meta("", as_of, as_of, base, as_of))

    @classmethod
    def read(cls, path: Path) -> Overlay:
        """Take up the one that was published last. Raises ``BundleError``."""
        with opened(path, _DATA) as file:
            return msgspec.json.decode(file.read(), type=cls)

    def set_tenant(self, tenant_id: str, records: TenantRecords, version: int) -> bool:
        """Take in a tenant as it was read by the moment ``version``; tell whether that is another state than before."""
        document = compiler.compile_tenant(records)
        return self._set_tenant(tenant_id, _GONE if document is None else document, version)

    def set_shared(self, resources: Iterable[items.Resource], version: int) -> bool:
        """Take in the shared catalogue as it was read by the moment ``version``; tell whether it is another than before."""
        return self._set_shared(compiler.compile_resources(resources), version)

    def suspend(self, tenant_id: str, records: TenantRecords, version: int, base: Path) -> bool:
        """Shut off what well-formed records say is SUSPENDED in a tenant that has malformed ones; tell as ``set_tenant`` does.

        All else of it stays as it is in force, by the overlay or by the base at a path. What is ``SHARED`` is taken so too.
        Raises ``BundleError`` if that base is needed and cannot be read, or is not the one that the overlay is beside.
        """
        off = records.suspended()
        if off == TenantRecords.none():
            return False
        if tenant_id == SHARED:
            if self.shared is None or self.shared.version < self.meta.base_as_of:
                resources = self._of_base(base, SHARED)["resources"]
            else:
                resources = self.shared.resources
            return self._set_shared(compiler.suspend_resources(resources, off.resources), version)
        document = self.tenants.get(tenant_id)
        if document is None or document["terms"]["version"] < self.meta.base_as_of:
            document = self._of_base(base, tenant_id)
        return self._set_tenant(tenant_id, compiler.suspend(document, records), version)

    def fold(self, base: str, as_of: int) -> list[str]:
        """Go on beside a newer base, and drop what the base before it holds for sure; give the tenants to be read again.

        ``base`` is the revision of the newer base and ``as_of`` the moment that it reflects. What changed between the two stays,
        for those who have the older one still. To be read again are the tenants, or what is ``SHARED``, of which the newer base
        may have a newer state than the overlay, and Rego would take the overlay's.
        """
        since = self.meta.base_as_of
        self.tenants = {t: document for t, document in self.tenants.items() if document["terms"]["version"] >= since}
        if self.shared is not None and self.shared.version < since:
            self.shared = None
        self.meta = msgspec.structs.replace(self.meta, since=since, base=base, base_as_of=as_of)
        doubtful = [t for t, document in self.tenants.items() if document["terms"]["version"] >= as_of]
        return doubtful if self.shared is None or self.shared.version < as_of else [SHARED, *doubtful]

    def write(self, out: Path, as_of: int, signer: Signer | None) -> Manifest:
        """Publish it as of a moment. Raises ``BundleError`` or ``SealError``.

        A later publication always has a later as-of, by a microsecond where there is no more to say, so that whoever takes
        bundles in can tell which of two is newer.
        """
        as_of = max(as_of, self.meta.as_of + 1)
        content = canonical({"shared": msgspec.to_builtins(self.shared), "tenants": self.tenants})
        revision = revision_name(as_of, hashlib.sha256(self.meta.base.encode() + content).hexdigest())
        self.meta = msgspec.structs.replace(self.meta, revision=revision, as_of=as_of)
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

    def _set_tenant(self, tenant_id: str, document: dict[str, Json], version: int) -> bool:
        before = self.tenants.get(tenant_id)
        now = {**document, "terms": {**document["terms"], "version": version}}
        self.tenants[tenant_id] = now
        return before is None or _without_version(before) != _without_version(now)

    def _set_shared(self, resources: dict[str, Json], version: int) -> bool:
        before = self.shared
        self.shared = _Shared(version, resources)
        return before is None or before.resources != resources

    def _of_base(self, base: Path, document_id: str) -> dict[str, Json]:
        """Read what the base that the overlay is beside says of a tenant, or of what is shared. Raises ``BundleError``."""
        revision = read_manifest(base).revision
        if revision != self.meta.base:
            msg = f"{base}: its revision {revision} is not {self.meta.base}, which the overlay goes on from"
            raise BundleError(msg)
        for name, document in read_documents(base):
            if name == document_id:
                found: dict[str, Json] = msgspec.json.decode(document)
                return found
        return _GONE


_GONE: dict[str, Json] = {"terms": {"removed": True}}


def _without_version(document: dict[str, Json]) -> dict[str, Json]:
    return {**document, "terms": {name: value for name, value in document["terms"].items() if name != "version"}}
