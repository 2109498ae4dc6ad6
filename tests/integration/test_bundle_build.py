"""From an export to a bundle: all or nothing, the same bytes for the same registry, and every fault named."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from sidecar.bundles.build import Recipe, Report, build_base
from sidecar.bundles.bundle import read_manifest
from sidecar.errors import BundleError, ExportError, MalformedItemsError, RegistryError
from sidecar.registry.exports import Export
from tests.support import wire
from tests.support.exports import md5, write_export
from tests.support.processes import EXTENSIONS, OPA, POLICIES, build_bundle, running_sidecar, sidecar_settings
from tests.support.registries import DATA, sample_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPORT_ID = "01764000000000-1a2b3c4d"
ITEMS: list[dict[str, Any]] = [
    {"pk": "TENANT#T", "sk": "TENANT", "membership": "OPTIONAL"},
    {
        "pk": "TENANT#T",
        "sk": "POLICY#P",
        "rules": [{"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"], "reason": "as it should be"}],
    },
    {"pk": "TENANT#T", "sk": "USER#u", "roles": ["r"]},
]


def _build(source: Path | str, out: Path, custom: Path | None = None) -> Report:
    return build_base(Export(str(source)), out, Recipe(POLICIES, custom))


def _folder(export: Path) -> Path:
    """Give the folder of the one export below a directory."""
    (summary,) = export.rglob("manifest-summary.json")
    return summary.parent


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file of an export, and the checksums that vouch for it."""
    path.write_bytes(change(path.read_bytes()))
    if path.name.startswith("manifest"):
        path.with_suffix(".md5").write_text(md5(path.read_bytes()))
        return
    manifest = path.parent.parent / "manifest-files.json"
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    for entry in entries:
        if entry["dataFileS3Key"].endswith(path.name):
            entry["md5Checksum"] = md5(path.read_bytes())
    _rewrite(manifest, lambda _: "".join(json.dumps(entry) + "\n" for entry in entries).encode())


def _summary(export: Path, **fields: Any) -> None:
    def change(body: bytes) -> bytes:
        return json.dumps(json.loads(body) | fields).encode()

    _rewrite(_folder(export) / "manifest-summary.json", change)


def _first_data(export: Path) -> Path:
    return min((_folder(export) / "data").iterdir())


def _files(export: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    def rewritten(body: bytes) -> bytes:
        entries = [json.loads(line) for line in body.splitlines()]
        change(entries)
        return "".join(json.dumps(entry) + "\n" for entry in entries).encode()

    _rewrite(_folder(export) / "manifest-files.json", rewritten)


# ── damaged exports ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _truncate_data(export: Path) -> None:
    data = _first_data(export)
    data.write_bytes(data.read_bytes()[:-9])


def _truncate_data_whose_checksum_is_right(export: Path) -> None:
    _rewrite(_first_data(export), lambda body: body[:-9])


def _swap_a_byte(export: Path) -> None:
    data = _first_data(export)
    lines = gzip.decompress(data.read_bytes()).replace(b"as it should be", b"as it shouldn't")
    data.write_bytes(gzip.compress(lines))


def _append_to_data(export: Path) -> None:
    with _first_data(export).open("ab") as file:
        file.write(b"\0\0\0\0")


def _uncompressed_data(export: Path) -> None:
    _rewrite(_first_data(export), lambda _: b"plain")


def _remove_data(export: Path) -> None:
    _first_data(export).unlink()


def _edit_manifest(export: Path) -> None:
    manifest = _folder(export) / "manifest-files.json"
    manifest.write_text(manifest.read_text() + "\n")


def _edit_summary(export: Path) -> None:
    summary = _folder(export) / "manifest-summary.json"
    summary.write_text(summary.read_text() + "\n")


def _remove_files_manifest(export: Path) -> None:
    (_folder(export) / "manifest-files.json").unlink()


def _remove_checksum(export: Path) -> None:
    (_folder(export) / "manifest-files.md5").unlink()


def _remove_summary(export: Path) -> None:
    (_folder(export) / "manifest-summary.json").unlink()


def _manifest_in_the_way(export: Path) -> None:
    _remove_files_manifest(export)
    (_folder(export) / "manifest-files.json").mkdir()


def _count_one_item_elsewhere(entries: list[dict[str, Any]]) -> None:
    entries[0]["itemCount"] -= 1
    entries[1]["itemCount"] += 1


def _another_export(export: Path) -> None:
    write_export(export, ITEMS, export_id="01764000009999-ffffffff")


_DAMAGES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "a truncated data file": (_truncate_data, ["data/p000", "damaged"]),
    "a truncated data file whose checksum is right": (_truncate_data_whose_checksum_is_right, ["data/p000", "damaged"]),
    "a data file with other content": (_swap_a_byte, ["data/p000", "does not have the MD5 that the manifest says"]),
    "a data file with something behind it": (_append_to_data, ["data/p000", "MD5"]),
    "a data file that is not compressed": (_uncompressed_data, ["data/p000", "damaged"]),
    "a missing data file": (_remove_data, ["data/p000", "is missing"]),
    "an edited manifest": (_edit_manifest, ["manifest-files.json", "manifest-files.md5", "damaged"]),
    "an edited summary": (_edit_summary, ["manifest-summary.json", "manifest-summary.md5", "damaged"]),
    "a missing manifest": (_remove_files_manifest, ["manifest-files.json", "is missing"]),
    "a manifest that cannot be read": (_manifest_in_the_way, ["manifest-files.json", "cannot be read"]),
    "a missing checksum file": (
        _remove_checksum,
        ["manifest-files.json", "has no checksum file", "manifest-files.md5"],
    ),
    "a missing summary": (_remove_summary, ["no export here", "manifest-summary.json", "unfinished"]),
    "a summary that counts other items": (
        lambda export: _summary(export, itemCount=4),
        ["manifest-files.json", "lists 3 items", "says 4"],
    ),
    "a manifest that counts other items": (
        lambda export: _files(export, _count_one_item_elsewhere),
        ["data/p000", "holds 2 items, the manifest says 1"],
    ),
    "a summary without a time": (lambda export: _summary(export, exportTime=None), ["exportTime is missing"]),
    "a summary without a manifest": (
        lambda export: _summary(export, manifestFilesS3Key=None),
        ["manifest-summary.json"],
    ),
    "a summary that is no JSON": (
        lambda export: _rewrite(_folder(export) / "manifest-summary.json", lambda _: b"{"),
        ["manifest-summary.json", "truncated"],
    ),
    "a manifest that is no JSON": (
        lambda export: _rewrite(_folder(export) / "manifest-files.json", lambda _: b"nonsense\n"),
        ["manifest-files.json"],
    ),
    "a manifest that leads elsewhere": (
        lambda export: _files(
            export, lambda entries: entries[0].update(dataFileS3Key=f"AWSDynamoDB/{EXPORT_ID}/../../../../etc/hosts")
        ),
        ["etc/hosts", "is missing"],
    ),
    "ION": (lambda export: _summary(export, outputFormat="ION"), ["ION", "export the table as DYNAMODB_JSON"]),
    "two exports": (_another_export, ["2 exports here; name one of them", EXPORT_ID, "01764000009999-ffffffff"]),
}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A small export that is all right."""
    return write_export(tmp_path / "export", ITEMS)


def _check_that_nothing_is_written(folder: Path, fault: type[RegistryError], words: list[str], build: Any) -> None:
    """Check that a build fails, that its message has the words, and that it leaves what was there as it was."""
    good = folder / "bundle.tar.gz"
    good.write_bytes(b"the bundle of yesterday")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(fault) as failed:
        build(good)

    assert [word for word in words if word not in str(failed.value)] == [], str(failed.value)
    assert good.read_bytes() == b"the bundle of yesterday"
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(("damage", "words"), _DAMAGES.values(), ids=_DAMAGES)
def test_an_export_is_refused_that_has(
    damage: Callable[[Path], Any], words: list[str], export: Path, tmp_path: Path
) -> None:
    damage(export)

    _check_that_nothing_is_written(tmp_path, ExportError, words, lambda out: _build(export, out))


def test_an_incremental_export_is_refused(tmp_path: Path) -> None:
    words = ["INCREMENTAL_EXPORT", "a base bundle is built from a FULL_EXPORT"]

    _check_that_nothing_is_written(tmp_path, ExportError, words, lambda out: _build(DATA / "export-incremental", out))


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    words = [f"{tmp_path}/nowhere: no such directory"]

    _check_that_nothing_is_written(tmp_path, ExportError, words, lambda out: _build(tmp_path / "nowhere", out))


def test_files_that_no_manifest_lists_are_not_read(export: Path, tmp_path: Path) -> None:
    stray = _folder(export) / "data" / "p999abcdefghijklmnopqrst.json.gz"
    stray.write_bytes(gzip.compress(b"nonsense\n"))

    assert _build(export, tmp_path / "bundle.tar.gz").read["policies"] == 1


# ── malformed items ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _policy(policy_id: str, *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"pk": "TENANT#T", "sk": f"POLICY#{policy_id}", "rules": list(rules), **fields}


_RULE = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"]}
_AT = "TENANT#T / POLICY#P: "

_BAD_ITEMS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "an unknown effect": ([_policy("P", _RULE | {"effect": "MAYBE"})], [_AT + "rules[0].effect"]),
    "no resources": ([_policy("P", _RULE | {"resources": []})], [_AT + "rules[0].resources"]),
    "a misspelt narrowing": ([_policy("P", _RULE | {"principal": ["a"]})], [_AT, "rules[0]", "principal"]),
    "a bad glob": ([_policy("P", _RULE | {"resources": ["a***b"]})], [_AT + "rules[0].resources[0]"]),
    "an unknown operator": (
        [_policy("P", _RULE | {"conditions": [{"path": "/arguments/a", "op": "like", "value": 1}]})],
        [_AT + "rules[0].conditions[0].op"],
    ),
    "two policies with one id": (
        [_policy("P", _RULE), {"policyId": "P", "tenantId": "T", "rules": [_RULE | {"effect": "DENY"}]}],
        ["tenant 'T' has two items of kind POLICY with the id 'P'"],
    ),
    "the same policy twice": ([_policy("P", _RULE)] * 2, ["two items of kind POLICY with the id 'P'"]),
    "two rules with one id": (
        [_policy("P", _RULE | {"ruleId": "r"}, _RULE | {"ruleId": "r"})],
        [_AT + "rules[1].ruleId"],
    ),
    "an id that contradicts the key": ([_policy("P", policyId="Q")], [_AT + "policyId: 'Q' contradicts the key"]),
    "an unknown status": ([{"pk": "TENANT#T", "sk": "TENANT", "status": "ON"}], ["TENANT#T / TENANT: status"]),
    "a misspelt attribute": ([{"pk": "TENANT#T", "sk": "TENANT", "Status": "SUSPENDED"}], ["did you mean status?"]),
    "several faults": (
        [_policy("P", _RULE | {"effect": "MAYBE"}), _policy("Q", _RULE | {"resources": []})],
        ["2 malformed item(s)", "POLICY#P: rules[0].effect", "POLICY#Q: rules[0].resources"],
    ),
}


@pytest.mark.parametrize(("items", "words"), _BAD_ITEMS.values(), ids=_BAD_ITEMS)
def test_a_registry_is_refused_that_has(items: list[dict[str, Any]], words: list[str], tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", items)

    _check_that_nothing_is_written(tmp_path, MalformedItemsError, words, lambda out: _build(export, out))


_BAD_LINES: dict[str, tuple[str, list[str]]] = {
    "that is not JSON": ("nonsense", ["line 1"]),
    "without an item": ('{"Itm": {}}', ["line 1", "Item"]),
    "with plain values": ('{"Item": {"pk": "TENANT#T"}}', ["line 1", "pk: not a DynamoDB attribute value"]),
    "with two types in one value": ('{"Item": {"pk": {"S": "a", "N": "1"}}}', ["line 1", "pk: not a DynamoDB"]),
    "with an unknown type": ('{"Item": {"pk": {"X": "a"}}}', ["line 1", "pk: not a DynamoDB"]),
    "with a number that is none": ('{"Item": {"n": {"N": "NaN"}}}', ["line 1", "n: not a DynamoDB"]),
    "with more digits than JSON carries": (
        '{"Item": {"n": {"N": "0.1234567890123456789"}}}',
        ["n: the number", "digits"],
    ),
    "that is not UTF-8": ('{"Item": {"pk": {"S": "\udcff"}}}', ["line 1"]),
}


@pytest.mark.parametrize(("line", "words"), _BAD_LINES.values(), ids=_BAD_LINES)
def test_an_export_is_refused_with_a_line(line: str, words: list[str], tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", ITEMS[:1])
    body = gzip.compress(line.encode(errors="surrogateescape") + b"\n")
    _rewrite(_first_data(export), lambda _: body)

    _check_that_nothing_is_written(tmp_path, ExportError, ["data/p000", *words], lambda out: _build(export, out))


# ── places that cannot be written to ────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_output_directory_is_named(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "missing" / "bundle.tar.gz"
    with pytest.raises(BundleError, match=f"{out}: the directory {out.parent} does not exist"):
        _build(export, out)

    assert not out.parent.exists()


def test_an_output_that_is_a_directory_is_refused_and_nothing_is_left_in_it(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BundleError, match=f"{out}: cannot be written"):
        _build(export, out)

    assert [*out.iterdir()] == []
    assert {path.name for path in tmp_path.iterdir()} == {"export", "out"}


def test_an_output_name_that_the_file_system_does_not_take_is_refused(export: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be written"):
        _build(export, tmp_path / ("x" * 255))

    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_good_build_replaces_the_bundle_and_leaves_nothing_else(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar.gz"
    out.write_bytes(b"the bundle of yesterday")
    _build(export, out)

    assert tarfile.is_tarfile(out)
    assert {path.name for path in tmp_path.iterdir()} == {"export", "bundle.tar.gz"}


def test_a_bundle_can_be_read_by_others(export: Path, tmp_path: Path) -> None:
    out = build_bundle(export, tmp_path / "bundle.tar.gz")

    assert out.stat().st_mode & 0o777 == 0o644


def test_temporary_files_are_gone_after_a_build_and_after_a_failure(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    _build(export, tmp_path / "bundle.tar.gz")
    _truncate_data(export)
    with pytest.raises(ExportError):
        _build(export, tmp_path / "bundle.tar.gz")

    assert [*scratch.iterdir()] == []


# ── the same bytes for the same registry ────────────────────────────────────────────────────────────────────────────────


def _digest(export: Path, out: Path) -> str:
    return hashlib.sha256(build_bundle(export, out).read_bytes()).hexdigest()


_SAME: dict[str, Callable[[Path], Path]] = {
    "built once more": lambda folder: write_export(folder, sample_items()),
    "in another order": lambda folder: write_export(folder, reversed(sample_items())),
    "in more files": lambda folder: write_export(folder, sample_items(), files=7),
    "in one file": lambda folder: write_export(folder, sample_items(), files=1),
    "below a prefix": lambda folder: write_export(folder, sample_items(), prefix="exports/daily/"),
    "with attributes in another order": lambda folder: write_export(
        folder, [dict(reversed(item.items())) for item in sample_items()]
    ),
}


@pytest.mark.parametrize("write", _SAME.values(), ids=_SAME)
def test_the_same_registry_gives_the_same_bytes(write: Callable[[Path], Path], tmp_path: Path) -> None:
    first = _digest(write_export(tmp_path / "a", sample_items()), tmp_path / "a.tar.gz")
    second = _digest(write(tmp_path / "b"), tmp_path / "b.tar.gz")

    assert first == second


def test_another_registry_of_the_same_moment_is_another_revision(tmp_path: Path) -> None:
    first = _build(write_export(tmp_path / "a", ITEMS), tmp_path / "a.tar.gz")
    second = _build(write_export(tmp_path / "b", ITEMS[:2]), tmp_path / "b.tar.gz")

    assert first.revision != second.revision


def test_other_extensions_are_another_revision(export: Path, tmp_path: Path) -> None:
    first = _build(export, tmp_path / "a.tar.gz", EXTENSIONS)
    second = _build(export, tmp_path / "b.tar.gz", None)

    assert first.revision != second.revision


def test_revisions_sort_by_the_moment_of_the_registry(tmp_path: Path) -> None:
    moments = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z", "2026-11-01T00:00:00Z"]
    revisions = [
        _build(write_export(tmp_path / str(i), ITEMS, summary={"exportTime": moment}), tmp_path / "b.tar.gz").revision
        for i, moment in enumerate(moments)
    ]

    assert revisions == sorted(revisions)


# ── layouts that are accepted ───────────────────────────────────────────────────────────────────────────────────────────


def _with_checksum_names(export: Path) -> None:
    for path in _folder(export).glob("*.md5"):
        path.rename(path.with_suffix(".checksum"))


def _with_keys_below_another_prefix(export: Path) -> None:
    def rename(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry["dataFileS3Key"] = "elsewhere/" + entry["dataFileS3Key"]

    _files(export, rename)
    _summary(export, manifestFilesS3Key=f"elsewhere/AWSDynamoDB/{EXPORT_ID}/manifest-files.json")


def _with_line_breaks_at_the_end_of_checksums(export: Path) -> None:
    for path in _folder(export).glob("*.md5"):
        path.write_text(path.read_text() + "\n")


_LAYOUTS: dict[str, Callable[[Path], None]] = {
    "checksum files named .checksum": _with_checksum_names,
    "keys with a prefix that is not there": _with_keys_below_another_prefix,
    "checksums that end in a line break": _with_line_breaks_at_the_end_of_checksums,
    "fields that we do not know": lambda export: _summary(export, exportFlavour="vanilla"),
    "an explicit type": lambda export: _summary(export, exportType="FULL_EXPORT"),
    "the file that S3 leaves behind": lambda export: (_folder(export) / "_started").touch(),
}


@pytest.mark.parametrize("change", _LAYOUTS.values(), ids=_LAYOUTS)
def test_an_export_is_read_with(change: Callable[[Path], None], export: Path, tmp_path: Path) -> None:
    change(export)

    assert _build(export, tmp_path / "bundle.tar.gz").tenants == 1


@pytest.mark.parametrize(
    "below", ["", "AWSDynamoDB", f"AWSDynamoDB/{EXPORT_ID}"], ids=["prefix", "AWSDynamoDB", "export"]
)
@pytest.mark.parametrize("prefix", ["", "exports/daily/"], ids=["no prefix", "a prefix"])
def test_an_export_is_found_from_each_level(below: str, prefix: str, tmp_path: Path) -> None:
    write_export(tmp_path / "export", ITEMS, prefix=prefix)

    assert _build(tmp_path / "export" / prefix / below, tmp_path / "bundle.tar.gz").tenants == 1


def test_the_folder_of_an_export_can_stand_alone(export: Path, tmp_path: Path) -> None:
    shutil.move(_folder(export), tmp_path / "alone")

    assert _build(tmp_path / "alone", tmp_path / "bundle.tar.gz").tenants == 1


def test_of_two_exports_the_one_that_is_named_is_read(export: Path, tmp_path: Path) -> None:
    _another_export(export)

    assert _build(_folder_of(export, EXPORT_ID), tmp_path / "bundle.tar.gz").tenants == 1


def _folder_of(export: Path, export_id: str) -> Path:
    return export / "AWSDynamoDB" / export_id


def test_an_export_of_an_empty_table_gives_a_bundle_without_tenants(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", [], files=0)

    assert _build(export, tmp_path / "bundle.tar.gz").tenants == 0


# ── s3 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket; the environment leads boto3 to it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    resource = boto3.session.Session().resource("s3")
    made = resource.create_bucket(Bucket="registry-exports")
    yield made
    made.objects.all().delete()
    made.delete()
    resource.meta.client.close()


def _upload(bucket: Any, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), path.relative_to(folder).as_posix())


@pytest.mark.parametrize(
    "source",
    [
        "s3://registry-exports/exports/daily",
        "s3://registry-exports/exports/daily/",
        "s3://registry-exports",
        f"s3://registry-exports/exports/daily/AWSDynamoDB/{EXPORT_ID}",
    ],
)
def test_a_bucket_gives_the_same_bytes_as_a_directory(bucket: Any, source: str, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", sample_items(), prefix="exports/daily/")
    _upload(bucket, export)
    _build(source, tmp_path / "s3.tar.gz")
    _build(export, tmp_path / "directory.tar.gz")

    assert (tmp_path / "s3.tar.gz").read_bytes() == (tmp_path / "directory.tar.gz").read_bytes()


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_named(tmp_path: Path) -> None:
    words = ["s3://nobodys-bucket", "NoSuchBucket"]

    _check_that_nothing_is_written(tmp_path, ExportError, words, lambda out: _build("s3://nobodys-bucket/exports", out))


@pytest.mark.usefixtures("bucket")
def test_a_prefix_without_an_export_is_named(tmp_path: Path) -> None:
    words = ["s3://registry-exports/nowhere: no export here"]

    _check_that_nothing_is_written(
        tmp_path, ExportError, words, lambda out: _build("s3://registry-exports/nowhere", out)
    )


def test_an_object_that_is_missing_is_named(bucket: Any, export: Path, tmp_path: Path) -> None:
    _upload(bucket, export)
    bucket.Object(_first_data(export).relative_to(export).as_posix()).delete()
    words = ["s3://registry-exports", "data/p000", "is missing"]

    _check_that_nothing_is_written(tmp_path, ExportError, words, lambda out: _build("s3://registry-exports", out))


def test_a_damaged_object_is_named(bucket: Any, export: Path, tmp_path: Path) -> None:
    _swap_a_byte(export)
    _upload(bucket, export)
    words = ["s3://registry-exports", "data/p000", "MD5"]

    _check_that_nothing_is_written(tmp_path, ExportError, words, lambda out: _build("s3://registry-exports", out))


def test_s3_out_of_reach_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch, bucket: Any, tmp_path: Path) -> None:
    assert bucket.name == "registry-exports"
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        _check_that_nothing_is_written(
            tmp_path, ExportError, ["s3://registry-exports"], lambda out: _build("s3://registry-exports", out)
        )


# ── what a build tells, and makes ───────────────────────────────────────────────────────────────────────────────────────


def test_the_report_counts_what_was_read_and_compiled(tmp_path: Path) -> None:
    report = _build(DATA / "export-full", tmp_path / "bundle.tar.gz")

    assert report.read == {"tenant_items": 3, "policies": 4, "memberships": 3, "agents": 4, "resources": 7}
    assert (report.tenants, report.rules) == (3, 8)
    assert report.as_of == "2026-11-24T00:00:00Z"


def test_the_report_has_nothing_odd_to_tell_of_a_tidy_registry(tmp_path: Path) -> None:
    report = _build(DATA / "export-full", tmp_path / "bundle.tar.gz")

    assert (report.tenantless, report.unknown_items, report.unknown_examples, report.unknown_attributes) == (
        (),
        0,
        (),
        {},
    )


def test_the_report_tells_of_what_was_passed_over(tmp_path: Path) -> None:
    items = [
        *ITEMS,
        {"pk": "TENANT#Ghost", "sk": "POLICY#P", "rules": [_RULE]},
        {"pk": "TENANT#T", "sk": "USER#v", "colour": "blue"},
        {"pk": "TENANT#T", "sk": "USER#w", "colour": "red"},
        *({"pk": f"INVOICE#{i}", "sk": "LINE#1"} for i in range(7)),
        {"id": "of another table"},
    ]
    report = _build(write_export(tmp_path / "export", items), tmp_path / "bundle.tar.gz")

    assert report.tenantless == ("Ghost",)
    assert report.unknown_items == 8
    assert len(report.unknown_examples) == 5
    assert report.unknown_attributes == {"USER.colour": 2}


def test_progress_is_told_for_every_data_file(export: Path, tmp_path: Path) -> None:
    told: list[int] = []
    build_base(Export(str(export)), tmp_path / "bundle.tar.gz", Recipe(POLICIES), told.append)

    assert told == [2, 1, 0]


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """Two extensions and their tests."""
    folder = tmp_path / "custom"
    for name in ("night", "weekend"):
        (folder / name).mkdir(parents=True)
        rule = f'deny contains "not at {name}" if input.arguments.when == "{name}"'
        (folder / name / f"{name}.rego").write_text(f"package custom.{name}\n\n{rule}\n")
        (folder / name / f"{name}_test.rego").write_text(f"package custom.{name}_test\n\ntest_it if true\n")
    return folder


def test_extensions_are_in_the_bundle_and_listed_and_their_tests_are_not(
    export: Path, custom: Path, tmp_path: Path
) -> None:
    _build(export, tmp_path / "bundle.tar.gz", custom)
    with tarfile.open(tmp_path / "bundle.tar.gz") as tar:
        names = [name for name in tar.getnames() if name.startswith("custom/")]
        manifest = tar.extractfile(".manifest")
        assert manifest is not None
        listed = json.load(manifest)["metadata"]["extensions"]

    assert names == ["custom/night/night.rego", "custom/weekend/weekend.rego"]
    assert listed == ["night", "weekend"]


def test_a_folder_without_rego_gives_the_bundle_no_extension(export: Path, tmp_path: Path) -> None:
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "README.md").write_text("package custom.words")
    _build(export, tmp_path / "bundle.tar.gz", tmp_path / "custom")
    manifest = read_manifest(tmp_path / "bundle.tar.gz")

    assert manifest.metadata.extensions == ()
    assert {*manifest.roots} == {"custom", "registry/base", "tenantgate"}


def test_no_name_of_a_folder_keeps_an_extension_out_of_the_bundle(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "testing" / "custom" / "testing"
    folder.mkdir(parents=True)
    (folder / "testing.rego").write_text("package custom.testing\n\ndeny := set()\n")

    assert _build(export, tmp_path / "bundle.tar.gz", folder.parent).extensions == ("testing",)


def test_rego_beside_the_folders_of_the_extensions_is_no_extension(export: Path, custom: Path, tmp_path: Path) -> None:
    stray = custom / "holidays.rego"
    stray.write_text("package custom.holidays\n\ndeny := set()\n")

    with pytest.raises(
        BundleError, match=rf"{stray}: an extension is a folder; move it to {custom}/holidays/holidays.rego"
    ):
        _build(export, tmp_path / "bundle.tar.gz", custom)


def test_an_extension_in_the_bundle_denies(export: Path, custom: Path, short_path: Path) -> None:
    _build(export, short_path / "bundle.tar.gz", custom)
    identity = wire.identity("T", subject="u")
    with running_sidecar(sidecar_settings(short_path, short_path / "bundle.tar.gz")) as (_, channel):
        by_day, by_night = (
            wire.authorize(channel, wire.question("t", {"when": when}, identity=identity)) for when in ("day", "night")
        )

    assert (by_day.effect, by_night.effect) == (1, 2)
    assert (by_night.policy_id, by_night.reason) == ("custom.night", "not at night")


def test_opa_accepts_the_bundle_and_knows_its_revision(sample_bundle: Path) -> None:
    inspected = subprocess.run(
        [OPA, "inspect", "--format", "json", sample_bundle], capture_output=True, text=True, check=True
    )
    manifest = json.loads(inspected.stdout)["manifest"]

    assert manifest["revision"].startswith("20261124T000000.000000Z-")
    assert {*manifest["roots"]} == {"custom", "registry/base", "tenantgate"}


def test_the_bundle_says_where_it_comes_from(tmp_path: Path) -> None:
    _build(DATA / "export-full", tmp_path / "bundle.tar.gz")
    with tarfile.open(tmp_path / "bundle.tar.gz") as tar:
        file = tar.extractfile(".manifest")
        assert file is not None
        manifest = json.load(file)

    assert manifest["metadata"]["source"].startswith("arn:aws:dynamodb:")
    assert manifest["metadata"]["as_of"] == "2026-11-24T00:00:00Z"
    assert manifest["metadata"]["compiler"].startswith("tenantgate ")


def test_the_bundle_tells_nothing_of_the_machine_that_built_it(sample_bundle: Path) -> None:
    with tarfile.open(sample_bundle) as tar:
        owners = {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in tar}

    assert owners == {(0, 0, "", "", 0)}
    assert os.fsencode(Path.cwd()) not in gzip.decompress(sample_bundle.read_bytes())
