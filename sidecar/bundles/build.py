"""From an export to a base bundle: read, group, compile, write; all or nothing."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from typing import IO, TYPE_CHECKING

import msgspec
from msgspec import Struct

from sidecar.bundles import compile as compiler
from sidecar.bundles.bundle import ROOTS, BundleInfo, Manifest, write_bundle
from sidecar.errors import BundleError
from sidecar.registry.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sidecar.model import Json
    from sidecar.registry.exports import Export


class Report(Struct, frozen=True):
    """What a build read, compiled and passed over.

    ``read`` are the items by kind; ``tenantless`` are tenants that have items and no tenant item, and so do not exist.
    """

    revision: str
    as_of: str
    read: dict[str, int]
    tenants: int
    rules: int
    extensions: tuple[str, ...]
    tenantless: tuple[str, ...]
    unknown_items: int
    unknown_examples: tuple[str, ...]
    unknown_attributes: dict[str, int]


def build_base(
    export: Export,
    out: Path,
    policies: Path,
    custom: Path | None,
    progress: Callable[[int], None] = lambda _count: None,
) -> Report:
    """Compile an export to a base bundle at ``out``. ``progress`` is told the number of items of each file read.

    Raises ``RegistryError``, and then leaves ``out`` as it was.
    """
    if not out.parent.is_dir():
        msg = f"{out}: the directory {out.parent} does not exist"
        raise BundleError(msg)
    rego = dict(rego_files(policies / "tenantgate", "tenantgate"))
    extensions = extension_names(custom)
    if custom is not None:
        rego |= dict(rego_files(custom, "custom"))
    with Spool() as spool, tempfile.TemporaryFile() as data:
        spool.add(export.items(progress))
        spool.check()
        written = write_data(spool, data)
        content = hashlib.sha256(written.digest)
        for name, body in sorted(rego.items()):
            content.update(f"{name}\0{len(body)}\0".encode() + body)
        revision = revision_name(export.as_of, content.hexdigest())
        meta = {"revision": revision, "as_of": export.as_of, "extensions": extensions, "format": compiler.FORMAT}
        as_of = moment(export.as_of).isoformat().replace("+00:00", "Z")
        counts = {"tenants": written.tenants, "rules": written.rules, **_by_kind(spool)}
        info = BundleInfo(
            as_of=as_of,
            source=export.arn or export.source,
            compiler=f"tenantgate {version('tenantgate')}",
            format=compiler.FORMAT,
            extensions=tuple(extensions),
            counts=counts,
        )
        small = {"registry/base/meta/data.json": msgspec.json.encode(meta, order="sorted"), **rego}
        write_bundle(out, Manifest(revision=revision, roots=ROOTS, metadata=info), small, data)
        return Report(
            revision=revision,
            as_of=as_of,
            read=_by_kind(spool),
            tenants=written.tenants,
            rules=written.rules,
            extensions=tuple(extensions),
            tenantless=tuple(written.tenantless),
            unknown_items=spool.unknown,
            unknown_examples=tuple(spool.examples),
            unknown_attributes=dict(sorted(spool.attributes.items())),
        )


def revision_name(as_of: int, content_hash: str) -> str:
    """Name a state of the registry: the moment that it reflects, so that names sort by time, and what it holds."""
    return f"{moment(as_of):%Y%m%dT%H%M%S.%fZ}-{content_hash[:12]}"


def moment(as_of: int) -> datetime:
    """Turn microseconds since 1970 into a moment."""
    return datetime.fromtimestamp(as_of // 1_000_000, UTC).replace(microsecond=as_of % 1_000_000)


def rego_files(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the Rego below a folder, tests left out, under the names that it has in the bundle."""
    for path in sorted(folder.rglob("*.rego")):
        if not path.name.endswith("_test.rego") and "testing" not in path.parts:
            yield f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def extension_names(custom: Path | None) -> list[str]:
    """List the extensions: the folders of ``custom`` that hold Rego."""
    if custom is None:
        return []
    return sorted({name.split("/")[1] for name, _ in rego_files(custom, "custom")})


class _Written(Struct):
    digest: bytes = b""
    tenants: int = 0
    rules: int = 0
    tenantless: list[str] = msgspec.field(default_factory=list)


def write_data(spool: Spool, out: IO[bytes]) -> _Written:
    """Write the data of ``registry/base``, one tenant at a time."""
    written = _Written()
    hashing = hashlib.sha256()
    encoder = msgspec.json.Encoder(order="sorted")

    def write(chunk: bytes) -> None:
        hashing.update(chunk)
        out.write(chunk)

    shared: dict[str, Json] = {"resources": compiler.compile_resources(spool.shared())}
    write(b'{"shared":' + encoder.encode(shared) + b',"tenants":{')
    for tenant_id, records in spool.tenants():
        document = compiler.compile_tenant(records)
        if document is None:
            written.tenantless.append(tenant_id)
            continue
        comma = b"," if written.tenants else b""
        write(comma + encoder.encode(tenant_id) + b":" + encoder.encode(document))
        written.tenants += 1
        written.rules += len(document.get("rules", ()))
    write(b"}}\n")
    written.digest = hashing.digest()
    return written


def _by_kind(spool: Spool) -> dict[str, int]:
    names: Iterable[tuple[str, str]] = (
        ("TENANT", "tenant_items"),
        ("POLICY", "policies"),
        ("USER", "memberships"),
        ("AGENT", "agents"),
        ("RESOURCE", "resources"),
    )
    return {name: spool.counts[kind] for kind, name in names}
