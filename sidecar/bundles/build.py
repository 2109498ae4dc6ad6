"""From an export to a base bundle: read, group, compile, write; all or nothing."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

import msgspec
from msgspec import Struct

from sidecar.bundles import compile as compiler
from sidecar.bundles.bundle import BASE_ROOTS, BundleInfo, Manifest, read_manifest, write_bundle
from sidecar.bundles.difference import Difference, check_removals, compare, digest
from sidecar.errors import BundleError
from sidecar.registry.incremental import Changes
from sidecar.registry.spool import Spool
from sidecar.seal import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sidecar.bundles.signing import Signer
    from sidecar.model import Json
    from sidecar.registry.exports import Export
    from sidecar.registry.incremental import UpdatedExport

COMPILER = f"tenantgate {version('tenantgate')}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes a base of a registry: the Rego (``custom`` is the customer's), and who signs it, if anyone does.

    ``max_removals`` is how many tenants of the base that is there it may leave out; see ``check_removals``. With ``dry_run``,
    nothing is written.
    """

    policies: Path
    custom: Path | None = None
    signer: Signer | None = None
    max_removals: int | None = None
    dry_run: bool = False


class Report(Struct, frozen=True):
    """What a build read, compiled and passed over.

    ``read`` are the items by kind; ``tenantless`` are tenants that have items and no tenant item, and so do not exist;
    ``changes`` is what came of incremental exports, if there were any; ``difference`` is what it changes against the base that
    was there, if there was one. ``forked`` is the revision of that base, if it is another of the same moment.
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
    changes: Changes | None = None
    difference: Difference | None = None
    forked: str = ""


def build_base(
    export: Export | UpdatedExport, out: Path, recipe: Recipe, progress: Callable[[int], None] = lambda _count: None
) -> Report:
    """Compile an export to a base bundle at ``out``. ``progress`` is told the number of items of each file read.

    Raises ``RegistryError`` or ``SealError``, and then leaves ``out`` as it was.
    """
    check_directory(out)
    with Spool() as spool:
        spool.add(export.items(progress))
        report = write_base(spool, export.as_of, export.arn or export.source, out, recipe)
    return msgspec.structs.replace(report, changes=export.changes)


def check_directory(out: Path) -> None:
    """Raise ``BundleError`` where the directory of a file to be written does not exist: before the work, not after it."""
    if not out.parent.is_dir():
        msg = f"{out}: the directory {out.parent} does not exist"
        raise BundleError(msg)


def write_base(spool: Spool, as_of: int, source: str, out: Path, recipe: Recipe) -> Report:
    """Compile what a spool holds, which reflects the moment ``as_of`` and came from ``source``, to a base bundle at ``out``.

    Raises ``MalformedItemsError`` if any of it was malformed, and ``BundleError`` if it would leave out too many tenants, or an
    extension is not in a folder of its own.
    """
    spool.check()
    rego = dict(rego_files(recipe.policies / "tenantgate", "tenantgate"))
    extensions = extension_names(recipe.custom)
    if recipe.custom is not None:
        rego |= dict(rego_files(recipe.custom, "custom"))
    with tempfile.TemporaryFile() as data:
        written = write_data(spool, data)
        difference = compare(out, written.index)
        if difference is not None:
            check_removals(out, difference, written.tenants, recipe.max_removals)
        content = hashlib.sha256(written.digest)
        for name, body in sorted(rego.items()):
            content.update(f"{name}\0{len(body)}\0".encode() + body)
        revision = revision_name(as_of, content.hexdigest())
        meta = {"revision": revision, "as_of": as_of, "extensions": extensions, "format": compiler.FORMAT}
        info = BundleInfo(
            as_of=rfc3339(as_of),
            compiler=COMPILER,
            format=compiler.FORMAT,
            counts={"tenants": written.tenants, "rules": written.rules, **_by_kind(spool)},
            source=source,
            extensions=tuple(extensions),
        )
        small = {"registry/base/meta/data.json": canonical(meta), **rego}
        forked = _forked(out, info.as_of, revision)
        if not recipe.dry_run:
            write_bundle(out, Manifest(revision=revision, roots=BASE_ROOTS, metadata=info), small, data, recipe.signer)
    return Report(
        revision=revision,
        as_of=rfc3339(as_of),
        read=_by_kind(spool),
        tenants=written.tenants,
        rules=written.rules,
        extensions=tuple(extensions),
        tenantless=tuple(written.tenantless),
        unknown_items=spool.unknown,
        unknown_examples=tuple(spool.examples),
        unknown_attributes=dict(sorted(spool.attributes.items())),
        difference=difference,
        forked=forked,
    )


def _forked(out: Path, as_of: str, revision: str) -> str:
    """Give the revision of the base that is there, if it is another of the same moment: who took that in refuses this one."""
    try:
        before = read_manifest(out)
    except BundleError:
        return ""
    return before.revision if before.metadata.as_of == as_of and before.revision != revision else ""


def revision_name(as_of: int, content_hash: str) -> str:
    """Name a state of the registry: the moment that it reflects, so that names sort by time, and what it holds."""
    return f"{moment(as_of):%Y%m%dT%H%M%S.%fZ}-{content_hash[:12]}"


def moment(as_of: int) -> datetime:
    """Turn microseconds since 1970 into a moment."""
    return datetime.fromtimestamp(as_of // 1_000_000, UTC).replace(microsecond=as_of % 1_000_000)


def rfc3339(as_of: int) -> str:
    """Write microseconds since 1970 as RFC 3339 has it."""
    return moment(as_of).isoformat().replace("+00:00", "Z")


def rego_files(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the Rego below a folder, tests left out, under the names that it has in the bundle."""
    for path in sorted(folder.rglob("*.rego")):
        if not path.name.endswith("_test.rego"):
            yield f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def extension_names(custom: Path | None) -> list[str]:
    """List the extensions: the folders of ``custom`` that hold Rego. Raises ``BundleError`` for Rego that is in none."""
    if custom is None:
        return []
    names = [PurePosixPath(name).relative_to("custom") for name, _ in rego_files(custom, "custom")]
    for name in names:
        if len(name.parts) == 1:
            msg = f"{custom / name}: an extension is a folder; move it to {custom / name.stem / name}"
            raise BundleError(msg)
    return sorted({name.parts[0] for name in names})


class _Written(Struct):
    digest: bytes = b""
    tenants: int = 0
    rules: int = 0
    tenantless: list[str] = msgspec.field(default_factory=list)
    index: dict[str, bytes] = msgspec.field(default_factory=dict)


def write_data(spool: Spool, out: IO[bytes]) -> _Written:
    """Write the data of ``registry/base``, one tenant at a time."""
    written = _Written()
    hashing = hashlib.sha256()

    def write(chunk: bytes) -> None:
        hashing.update(chunk)
        out.write(chunk)

    shared: dict[str, Json] = {"resources": compiler.compile_resources(spool.shared())}
    write(b'{"shared":' + canonical(shared) + b',"tenants":{')
    for tenant_id, records in spool.tenants():
        document = compiler.compile_tenant(records)
        if document is None:
            written.tenantless.append(tenant_id)
            continue
        comma = b"," if written.tenants else b""
        body = canonical(document)
        written.index[tenant_id] = digest(body)
        write(comma + canonical(tenant_id) + b":" + body)
        written.tenants += 1
        written.rules += len(document.get("rules", ()))
    write(b"}}")
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
