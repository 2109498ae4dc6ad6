"""Bundles that are not to be believed: refused, counted and shown, while the revision before serves on."""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jwt.utils import base64url_encode

from sidecar.engine.intake import REASONS
from sidecar.seal import canonical
from tests.support import wire
from tests.support.bundles import SECOND, Key, Publisher, entry, pack
from tests.support.following import bundle_status, comes, following, refused_for
from tests.support.metrics import samples
from tests.support.processes import REPOSITORY, running_sidecar, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from sidecar.server import Sidecar


def _unsigned(publisher: Publisher) -> bytes:
    return pack(publisher.base_files(9))


def _foreign(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    return pack(files | {".signatures.json": Key(publisher.folder, "theirs").sign(files)})


def _impostor(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    (publisher.folder / "other").mkdir()
    return pack(files | {".signatures.json": Key(publisher.folder / "other", "ours").sign(files)})


def _no_algorithm(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    token = _token({"alg": "none", "kid": "ours"}, files)
    return pack(files | {".signatures.json": canonical({"signatures": [token]})})


def _token(header: dict[str, str], files: dict[str, bytes]) -> str:
    """Write a token that nobody has signed."""
    body = json.dumps({"files": [{"name": name, "hash": "", "algorithm": "SHA-256"} for name in files]})
    return ".".join(base64url_encode(part.encode()).decode() for part in (json.dumps(header), body, ""))


def _changed(publisher: Publisher) -> bytes:
    files = publisher.signed(publisher.base_files(9))
    data = files["registry/base/data.json"]
    return pack(files | {"registry/base/data.json": data.replace(b"ALLOW", b"DENY!", 1)})


def _added(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(9)) | {"tenantgate/more/more.rego": b"package tenantgate.more\n"})


def _missing(publisher: Publisher) -> bytes:
    files = publisher.signed(publisher.base_files(9))
    del files["tenantgate/mask/mask.rego"]
    return pack(files)


def _truncated(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(9)))[:-100]


def _bad_checksum(publisher: Publisher) -> bytes:
    body = bytearray(pack(publisher.signed(publisher.base_files(9))))
    body[-6] ^= 1
    return bytes(body)


def _not_gzip(_publisher: Publisher) -> bytes:
    return b"<html>502 Bad Gateway</html>"


def _empty(_publisher: Publisher) -> bytes:
    return b""


def _no_manifest(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    del files[".manifest"]
    return pack(publisher.signed(files))


def _no_zone(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    manifest = json.loads(files[".manifest"])
    manifest["metadata"]["as_of"] = manifest["metadata"]["as_of"].removesuffix("Z")
    return pack(publisher.signed(files | {".manifest": canonical(manifest)}))


def _overlay_as_base(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.overlay_files(9, 0)))


def _other_roots(publisher: Publisher) -> bytes:
    files = publisher.base_files(9)
    manifest = json.loads(files[".manifest"]) | {"roots": [""]}
    return pack(publisher.signed(files | {".manifest": canonical(manifest)}))


def _older(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(3)))


def _of_the_same_moment(publisher: Publisher) -> bytes:
    return pack(publisher.signed(publisher.base_files(5, "other")))


def _larger_than_any(publisher: Publisher) -> bytes:
    return _begun_well(publisher, entry("registry/base/data.json", bytes(16 << 20), size=1 << 32))


def _extended_header(publisher: Publisher) -> bytes:
    return _begun_well(publisher, entry("x", bytes(16 << 20), kind=tarfile.XHDTYPE))


def _very_many_files(publisher: Publisher) -> bytes:
    return _begun_well(publisher, b"".join(entry(f"tenantgate/{number}") for number in range(5000)))


def _begun_well(publisher: Publisher, rest: bytes) -> bytes:
    """Write a bundle that begins as a good one, with its signature."""
    files = publisher.signed(publisher.base_files(9))
    first = [entry(name, files[name]) for name in (".manifest", ".signatures.json")]
    return gzip.compress(b"".join([*first, rest, bytes(1024)]), 1)


_REFUSED: dict[str, tuple[Callable[[Publisher], bytes], str]] = {
    "unsigned": (_unsigned, "UNSIGNED"),
    "signed with a foreign key": (_foreign, "FOREIGN_KEY"),
    "signed with a foreign key that has our key's name": (_impostor, "FOREIGN_KEY"),
    "signed with no algorithm": (_no_algorithm, "FOREIGN_KEY"),
    "changed in one file": (_changed, "TAMPERED"),
    "with a file more": (_added, "TAMPERED"),
    "with a file less": (_missing, "TAMPERED"),
    "truncated": (_truncated, "DAMAGED"),
    "with a wrong checksum": (_bad_checksum, "DAMAGED"),
    "not gzip": (_not_gzip, "DAMAGED"),
    "empty": (_empty, "DAMAGED"),
    "without a manifest": (_no_manifest, "DAMAGED"),
    "of a moment without a zone": (_no_zone, "DAMAGED"),
    "larger than any": (_larger_than_any, "DAMAGED"),
    "with an extended header": (_extended_header, "DAMAGED"),
    "with very many files": (_very_many_files, "DAMAGED"),
    "an overlay": (_overlay_as_base, "WRONG_KIND"),
    "with other roots": (_other_roots, "WRONG_KIND"),
    "older": (_older, "ROLLED_BACK"),
    "another of the same moment": (_of_the_same_moment, "FORKED"),
}


@pytest.fixture(scope="module")
def serving(sample_bundle: Path) -> Iterator[tuple[Publisher, Sidecar, grpc.Channel, str]]:
    """A sidecar that serves a base as of second 5, whatever else is published."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        publisher = Publisher(sample_bundle, Path(folder) / "published", Key(Path(folder)))
        base = publisher.base(5)
        with running_sidecar(following(publisher, listen__admin="127.0.0.1:0")) as (sidecar, channel):
            yield publisher, sidecar, channel, base


@pytest.mark.parametrize(("make", "reason"), _REFUSED.values(), ids=_REFUSED)
def test_the_previous_revision_serves_on_after_a_base_that_is(
    make: Callable[[Publisher], bytes], reason: str, serving: tuple[Publisher, Sidecar, grpc.Channel, str]
) -> None:
    publisher, sidecar, channel, base = serving
    before, counted = bundle_status(channel).refused, _counted(sidecar)
    publisher.put("base", make(publisher))
    wait_until(lambda: bundle_status(channel).refused == before + 1)
    refused = bundle_status(channel)
    counted_then = _counted(sidecar)
    decision = wire.authorize(channel)
    publisher.put("base", pack(publisher.signed(publisher.base_files(5))))
    wait_until(lambda: not bundle_status(channel).error)

    assert (decision.revision, decision.effect) == (base, 1)
    assert refused.last_refusal.reason == reason
    assert (refused.last_refusal.file, refused.refusals[reason] > 0) == ("base.tar.gz", True)
    assert refused.error == f"refused, {reason}: {refused.last_refusal.message}"
    assert abs(refused.last_refusal.time.ToMicroseconds() - time.time_ns() // 1000) < 60 * SECOND
    assert counted_then == counted | {("base", reason): counted["base", reason] + 1}


def _counted(sidecar: Sidecar) -> dict[tuple[str, str], float]:
    found = samples(sidecar, "tenantgate_bundle_refusals_total")
    return {(sample.labels["bundle"], sample.labels["reason"]): sample.value for sample in found}


def test_each_reason_has_its_test_and_is_documented() -> None:
    by_opa = {"NOT_ACTIVATED"}  # test_intake_restarts.py, test_admin.py
    documentation = (REPOSITORY / "docs" / "calling.md").read_text()

    assert {reason for _, reason in _REFUSED.values()} | by_opa == {*REASONS}
    assert [reason for reason in REASONS if f"\n| `{reason}` | " not in documentation] == []


def test_any_byte_that_is_changed_is_noticed(serving: tuple[Publisher, Sidecar, grpc.Channel, str]) -> None:
    publisher, _, channel, base = serving
    good = pack(publisher.signed(publisher.base_files(5)))
    # not the last bytes before the checksum, some bits of which mean nothing
    for at in range(10, len(good) - 16, len(good) // 25):
        before = bundle_status(channel).refused
        publisher.put("base", good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        wait_until(lambda before=before: bundle_status(channel).refused > before)
    publisher.put("base", good)
    wait_until(lambda: not bundle_status(channel).error)

    assert wire.authorize(channel).revision == base


def test_a_refused_file_is_counted_once(serving: tuple[Publisher, Sidecar, grpc.Channel, str]) -> None:
    publisher, _, channel, _ = serving
    before = bundle_status(channel).refused
    publisher.put("base", b"one")
    wait_until(lambda: bundle_status(channel).refused == before + 1)
    publisher.put("base", b"another")
    wait_until(lambda: "refused" in bundle_status(channel).error and bundle_status(channel).refused > before + 1)

    assert bundle_status(channel).refused == before + 2


def test_an_older_overlay_is_refused(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        overlay = publisher.overlay(5, since=0, removed="Tenant-A")
        comes(channel, overlay)
        publisher.overlay(4, since=0)
        refused_for(channel, "ROLLED_BACK", "overlay")

        assert wire.authorize(channel).revision == overlay


def test_opa_itself_refuses_what_nobody_has_signed(publisher: Publisher) -> None:
    base = publisher.base(0)
    with running_sidecar(following(publisher)) as (sidecar, channel):
        # as if the intake had let it through
        kept = publisher.folder.parent / "state" / "bundles" / "base.tar.gz"
        scratch = kept.with_name("scratch")
        scratch.write_bytes(pack(publisher.base_files(9)))
        scratch.replace(kept)
        sidecar._hand_on()
        wait_until(lambda: "OPA: " in bundle_status(channel).error)

        assert "bundle missing .signatures.json file" in bundle_status(channel).error
        assert wire.authorize(channel).revision == base


@pytest.mark.parametrize("rs256", [False, True], ids=["ES256", "RS256"])
def test_both_kinds_of_key_sign(rs256: bool, sample_bundle: Path, short_path: Path) -> None:  # noqa: FBT001 - a parameter
    publisher = Publisher(sample_bundle, short_path / "published", Key(short_path, "2026-11.k1", rs256=rs256))
    base = publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        assert wire.authorize(channel).revision == base
        assert bundle_status(channel).key_id == "2026-11.k1"


def test_unsigned_bundles_are_accepted_where_the_settings_say_so(sample_bundle: Path, short_path: Path) -> None:
    publisher = Publisher(sample_bundle, short_path / "published", None)
    base = publisher.base(0)
    settings = sidecar_settings(
        short_path / "state", None, bundles__source=str(publisher.folder), bundles__accept_unsigned=True
    )
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == base
        comes(channel, publisher.overlay(1, since=0))
