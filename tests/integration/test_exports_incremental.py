"""Incremental exports on top of a full one: what they change, what they cannot, and every fault named."""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from sidecar.bundles.build import Recipe, Report, build_base
from sidecar.cli import main
from sidecar.errors import ExportError, MalformedItemsError
from sidecar.registry.incremental import Changes, open_exports
from tests.support.exports import attributes, change, md5, write_export, write_incremental
from tests.support.processes import POLICIES
from tests.support.registries import DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Item = dict[str, Any]

MINUTE = 60_000_000
FULL = 1_795_478_400_000_000  # 2026-11-24T00:00:00Z, when the full exports of the tests are made
EXPORT_ID = "01764000900000-5e6f7a8b"

TENANT: Item = {"pk": "TENANT#T", "sk": "TENANT"}
BOB: Item = {"pk": "TENANT#T", "sk": "USER#bob", "roles": ["clerk"]}
EVE: Item = {"pk": "TENANT#T", "sk": "USER#eve", "roles": ["clerk"]}
RULE = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"]}


def _clock(minute: int) -> str:
    """Write a minute after (or before) the full export."""
    day, minute = divmod(minute, 24 * 60)
    return f"2026-11-{24 + day:02}T{minute // 60:02}:{minute % 60:02}:00.000Z"


def _at(minute: float) -> int:
    return FULL + int(minute * MINUTE)


class _Exports:
    """A full export, and incremental ones that a test adds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full = folder / "full"
        self.increments: list[Path] = []

    def write_full(self, *items: Item, **options: Any) -> None:
        write_export(self.full, items, **options)

    def add(self, begin: int, end: int, *records: Item, **options: Any) -> Path:
        """Add an incremental export of some minutes. All of them share one folder of data files."""
        options = {"export_id": f"{len(self.increments):014}-5e6f7a8b"} | options
        below = self.folder / "incremental"
        self.increments.append(write_incremental(below, records, _clock(begin), _clock(end), **options))
        return self.increments[-1]

    def items(self) -> list[Item]:
        """Give the items of all the exports, in the order of their keys."""
        export = open_exports(str(self.full), [*map(str, self.increments)])
        return sorted(export.items(), key=lambda item: [str(item.get(name)) for name in ("pk", "sk", "policyId")])

    def build(self) -> Report:
        export = open_exports(str(self.full), [*map(str, self.increments)])
        return build_base(export, self.folder / "bundle.tar.gz", Recipe(POLICIES))

    def fault(self, kind: type[Exception] = ExportError) -> str:
        """Give the message with which a build fails; check that it leaves the bundle of before alone."""
        out = self.folder / "bundle.tar.gz"
        out.write_bytes(b"the bundle of yesterday")
        with pytest.raises(kind) as failed:
            self.build()
        assert out.read_bytes() == b"the bundle of yesterday"
        return str(failed.value)


@pytest.fixture
def exports(tmp_path: Path) -> _Exports:
    """A full export of tenant T with the user bob, and no incremental ones yet."""
    made = _Exports(tmp_path)
    made.write_full(TENANT, BOB)
    return made


# ── what changes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_items_are_made_replaced_and_deleted(exports: _Exports) -> None:
    suspended = {**TENANT, "status": "SUSPENDED"}
    exports.add(0, 15, change(_at(1), EVE), change(_at(2), suspended, TENANT), change(_at(3), old=BOB))

    assert exports.items() == [suspended, EVE]


def test_images_of_before_are_not_needed(exports: _Exports) -> None:
    deleted = change(_at(3), old=BOB)
    del deleted["OldImage"]
    exports.add(0, 15, change(_at(2), {**TENANT, "status": "SUSPENDED"}), deleted, summary={"outputView": "NEW_IMAGE"})

    assert exports.items() == [{**TENANT, "status": "SUSPENDED"}]


def test_what_was_written_before_the_full_export_is_in_it_already(exports: _Exports) -> None:
    exports.add(-15, 0, change(_at(-1), {**BOB, "roles": ["of the past"]}), change(_at(-2), old=TENANT))

    assert exports.items() == [TENANT, BOB]


def test_what_was_written_at_the_moment_of_the_full_export_applies(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(0), {**BOB, "roles": ["new"]}))

    assert exports.items() == [TENANT, {**BOB, "roles": ["new"]}]


def test_a_deletion_stands_against_earlier_writes_that_come_later(exports: _Exports) -> None:
    exports.add(15, 30, change(_at(20), old=BOB))
    exports.add(0, 15, change(_at(5), {**BOB, "roles": ["resurrected"]}, BOB))

    assert exports.items() == [TENANT]


def test_an_item_can_come_back_after_a_deletion(exports: _Exports) -> None:
    exports.add(15, 30, change(_at(20), BOB))
    exports.add(0, 15, change(_at(5), old=BOB))

    assert exports.items() == [TENANT, BOB]


def test_an_empty_incremental_export_changes_nothing_but_the_moment(exports: _Exports) -> None:
    exports.add(0, 15)
    report = exports.build()

    assert exports.items() == [TENANT, BOB]
    assert (report.as_of, report.changes) == ("2026-11-24T00:15:00Z", Changes(exports=1))


def test_without_incremental_exports_there_are_no_changes_to_report(exports: _Exports) -> None:
    assert exports.build().changes is None


_FORMS: dict[str, Any] = {"wrapped": {"N": str(_at(1))}, "a text": str(_at(1)), "a number": _at(1)}


@pytest.mark.parametrize("micros", _FORMS.values(), ids=_FORMS)
def test_a_write_time_may_be(micros: Any, exports: _Exports) -> None:
    exports.add(0, 15, {**change(_at(1), old=BOB), "Metadata": {"WriteTimestampMicros": micros}})

    assert exports.items() == [TENANT]


def test_a_fault_that_was_mended_since_the_full_export_is_none(exports: _Exports) -> None:
    faulty = json.dumps({"Item": {**attributes(BOB), "attributes": {"M": {"n": {"N": "0.1234567890123456789"}}}}})
    exports.write_full(lines=[json.dumps({"Item": attributes(TENANT)}), faulty])
    exports.add(0, 15, change(_at(1), BOB))

    assert exports.items() == [TENANT, BOB]


def test_a_fault_that_was_mended_by_a_later_write_is_none(exports: _Exports) -> None:
    faulty = change(_at(1), BOB)
    faulty["NewImage"]["version"] = {"N": "0.1234567890123456789"}
    exports.add(0, 15, faulty)
    exports.add(15, 30, change(_at(16), BOB))

    assert exports.items() == [TENANT, BOB]


# ── what an export does not say ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_item_that_an_overlapping_export_is_silent_about_was_deleted(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(12), EVE))
    exports.add(10, 25)  # made at 12, deleted before 25

    assert exports.items() == [TENANT, BOB]


def test_nothing_follows_from_the_silence_of_exports_that_do_not_overlap(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(15), EVE))  # at the end of its own time, which does not hold it
    exports.add(15, 30)

    assert exports.items() == [TENANT, BOB, EVE]


def test_nothing_follows_from_the_silence_of_exports_that_end_before_the_full_one(exports: _Exports) -> None:
    exports.add(-60, -30, change(_at(-40), BOB))
    exports.add(-45, -20)  # deleted before -20, and made anew after that
    exports.add(0, 15)

    assert exports.items() == [TENANT, BOB]


def test_an_export_that_begins_before_the_full_one_and_ends_after_it_is_refused(exports: _Exports) -> None:
    straddling = exports.add(-5, 10)
    fault = exports.fault()

    assert (
        f"{straddling}: begins at 2026-11-23T23:55:00Z, before the full export, which is of 2026-11-24T00:00:00Z"
        in fault
    )
    assert "Export from 2026-11-24T00:00:00Z on" in fault
    assert "or give the incremental exports of 2026-11-23T23:55:00Z to 2026-11-24T00:00:00Z too" in fault


def test_it_is_taken_where_others_tell_what_came_before(exports: _Exports) -> None:
    exports.write_full(TENANT, BOB, EVE)
    exports.add(-5, 10)  # eve was made at -2, deleted at 5
    exports.add(-15, 0, change(_at(-2), EVE))

    assert exports.items() == [TENANT, BOB]


def test_it_is_refused_where_others_tell_a_part_of_what_came_before(exports: _Exports) -> None:
    exports.add(-5, 10)
    exports.add(-20, -2)

    assert "the incremental exports of 2026-11-23T23:58:00Z to 2026-11-24T00:00:00Z too" in exports.fault()


def test_an_export_by_a_scan_is_of_no_one_moment_and_refused(exports: _Exports) -> None:
    exports.write_full(TENANT, summary={"exportMethod": "SCAN"})
    exports.add(0, 15)

    assert "was made by a scan" in exports.fault()


# ── a plain table ───────────────────────────────────────────────────────────────────────────────────────────────────────

P: Item = {"policyId": "P", "tenantId": "T", "rules": [RULE]}
Q: Item = {"policyId": "Q", "tenantId": "T", "rules": [RULE]}


@pytest.mark.parametrize("old_image", [True, False], ids=["with its old image", "by its key alone"])
def test_a_policy_document_is_deleted(old_image: bool, exports: _Exports) -> None:  # noqa: FBT001 - a case
    exports.write_full(P, Q)
    deleted = change(_at(1), old=P, keys=["policyId"])
    if not old_image:
        del deleted["OldImage"]
    exports.add(0, 15, deleted)

    assert exports.items() == [Q]


def test_a_policy_document_can_change_hands(exports: _Exports) -> None:
    exports.write_full(P, Q)
    exports.add(0, 15, change(_at(1), {**P, "tenantId": "U"}, P, keys=["policyId"]))

    assert exports.items() == [{**P, "tenantId": "U"}, Q]


def test_a_plain_table_may_have_a_key_of_two_attributes(exports: _Exports) -> None:
    exports.write_full(P, {**P, "tenantId": "U"})
    exports.add(0, 15, change(_at(1), old={**P, "tenantId": "U"}, keys=["tenantId", "policyId"]))

    assert exports.items() == [P]


# ── exports that do not go together ─────────────────────────────────────────────────────────────────────────────────────


def test_a_gap_after_the_full_export_is_named(exports: _Exports) -> None:
    late = exports.add(5, 20)

    assert exports.fault() == (
        f"nothing is known of the time from 2026-11-24T00:00:00Z, where {exports.full} ends, to 2026-11-24T00:05:00Z, where"
        f" {late} begins: export that time too"
    )


def test_a_gap_between_incremental_exports_is_named(exports: _Exports) -> None:
    exports.add(45, 60)
    first = exports.add(0, 30)
    exports.add(0, 15)

    assert f"from 2026-11-24T00:30:00Z, where {first} ends, to 2026-11-24T00:45:00Z" in exports.fault()


@pytest.mark.parametrize("name", ["tableArn", "tableId"])
def test_an_export_of_another_table_is_refused(name: str, exports: _Exports) -> None:
    other = exports.add(0, 15, summary={name: "another"})

    assert f"{other}: is of another table than {exports.full}: {name} is another, not " in exports.fault()


@pytest.mark.parametrize("name", ["tableArn", "tableId"])
def test_a_table_that_is_not_named_is_taken_to_be_the_same(name: str, exports: _Exports) -> None:
    exports.write_full(TENANT, BOB, summary={name: ""})
    exports.add(0, 15)

    assert exports.items() == [TENANT, BOB]


def test_keys_of_another_form_than_the_items_of_the_full_export_are_refused(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(1), P, keys=["policyId"]))

    assert "does not have 'policyId', by which the incremental exports know items" in exports.fault()


def test_keys_of_two_forms_are_refused(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(1), EVE), change(_at(2), P, keys=["policyId"]))

    assert "a key of policyId after one of pk and sk; these are not exports of one table" in exports.fault()


def test_two_changes_of_one_item_at_one_moment_are_refused(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(1), BOB))
    exports.add(0, 30, change(_at(1), old=BOB))

    assert "item TENANT#T / USER#bob: two different changes have the write time 2026-11-24T00:01:00Z" in exports.fault()


def test_two_malformed_changes_at_one_moment_are_two_changes(exports: _Exports) -> None:
    for number in ("many", "few"):
        record = change(_at(1), BOB)
        record["NewImage"]["version"] = {"N": number}
        exports.add(0, 15, record)

    assert "two different changes have the write time" in exports.fault()


def test_the_order_of_a_set_makes_no_difference_to_a_change(exports: _Exports) -> None:
    for roles in (["a", "b"], ["b", "a"]):
        record = change(_at(1), BOB)
        record["NewImage"]["roles"] = {"SS": roles}
        exports.add(0, 15, record)

    assert exports.items() == [TENANT, {**BOB, "roles": ["a", "b"]}]


# ── incremental exports that are refused ────────────────────────────────────────────────────────────────────────────────

_BAD_SUMMARIES: dict[str, tuple[dict[str, Any], str]] = {
    "a full one": (
        {"exportType": "FULL_EXPORT", "exportTime": _clock(0)},
        "this is a FULL_EXPORT; --incremental takes an INCREMENTAL_EXPORT",
    ),
    "one in ION": ({"outputFormat": "ION"}, "the format is ION; export the table as DYNAMODB_JSON"),
    "a filtered one": ({"filterSpecification": {"FilterExpression": "a = b"}}, "this export is filtered"),
    "one without new images": ({"outputView": "KEYS_ONLY"}, "outputView is 'KEYS_ONLY'; new images are needed"),
    "one without a beginning": ({"exportFromTime": None}, "exportFromTime is missing"),
    "one without an end": ({"exportToTime": None}, "exportToTime is missing"),
    "one without a time zone": ({"exportToTime": "2026-11-24T00:15:00"}, "exportToTime has no time zone"),
    "one that ends where it begins": ({"exportToTime": _clock(0)}, "exportFromTime is not before exportToTime"),
}


@pytest.mark.parametrize(("summary", "words"), _BAD_SUMMARIES.values(), ids=_BAD_SUMMARIES)
def test_an_incremental_export_is_refused_that_is(summary: Item, words: str, exports: _Exports) -> None:
    exports.add(0, 15, summary=summary)

    assert f"manifest-summary.json: {words}" in exports.fault()


def test_an_incremental_export_is_refused_as_the_full_one(exports: _Exports) -> None:
    exports.full = exports.add(0, 15)
    exports.increments = []
    fault = exports.fault()

    assert "this is an INCREMENTAL_EXPORT; a base bundle is built from a FULL_EXPORT" in fault
    assert "others go on top with --incremental" in fault


def test_a_filtered_full_export_is_refused(exports: _Exports) -> None:
    exports.write_full(TENANT, summary={"filterSpecification": {"FilterExpression": "a = b"}})

    assert "this export is filtered; a registry is only good as a whole" in exports.fault()


_GOOD = change(_at(1), BOB)
_BAD_RECORDS: dict[str, tuple[Item, str]] = {
    "no metadata": ({"Keys": _GOOD["Keys"]}, "Metadata"),
    "no write time": ({**_GOOD, "Metadata": {}}, "WriteTimestampMicros"),
    "a write time of another type": (
        {**_GOOD, "Metadata": {"WriteTimestampMicros": {"S": "1"}}},
        "Metadata.WriteTimestampMicros: {'S': '1'} is not a number of microseconds",
    ),
    "a write time in words": ({**_GOOD, "Metadata": {"WriteTimestampMicros": "now"}}, "'now' is not a number"),
    "a negative write time": ({**_GOOD, "Metadata": {"WriteTimestampMicros": -1}}, "-1 is not a number"),
    "a write time with a fraction": ({**_GOOD, "Metadata": {"WriteTimestampMicros": 1.5}}, "WriteTimestampMicros"),
    "a write time too large": ({**_GOOD, "Metadata": {"WriteTimestampMicros": "9" * 19}}, "is not a number"),
    "no keys": ({**_GOOD, "Keys": {}}, "Keys: are missing"),
    "keys of no type": ({**_GOOD, "Keys": {"pk": "TENANT#T", "sk": "USER#bob"}}, "pk: not a DynamoDB attribute value"),
    "another key in the image": ({**_GOOD, "NewImage": attributes(EVE)}, "NewImage: has another key than Keys"),
    "no key in the image": ({**_GOOD, "NewImage": {}}, "NewImage: has another key than Keys"),
    "a new image of null": ({**_GOOD, "NewImage": None}, "NewImage"),
    "an item, as a full export has it": ({"Item": attributes(BOB)}, "Metadata"),
}


@pytest.mark.parametrize(("record", "words"), _BAD_RECORDS.values(), ids=_BAD_RECORDS)
def test_an_incremental_export_is_refused_with_a_record_that_has(record: Item, words: str, exports: _Exports) -> None:
    exports.add(0, 15, record)
    fault = exports.fault()

    assert "AWSDynamoDB/data/p000" in fault
    assert "line 1: " in fault
    assert words in fault


def test_a_value_that_is_none_is_named_by_its_item(exports: _Exports) -> None:
    record = change(_at(1), BOB)
    record["NewImage"]["version"] = {"N": "many"}
    exports.add(0, 15, record)

    assert "item TENANT#T / USER#bob: version: not a DynamoDB attribute value" in exports.fault()


def test_a_malformed_item_fails_the_build(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(1), {**BOB, "status": "AWAY"}))

    assert "TENANT#T / USER#bob: status" in exports.fault(MalformedItemsError)


def _truncate(increment: Path) -> None:
    data = _data_file(increment)
    data.write_bytes(data.read_bytes()[:-9])


def _count_wrongly(increment: Path) -> None:
    data = _data_file(increment)
    data.write_bytes(gzip.compress(b""))
    manifest = increment / "manifest-files.json"
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    entries[0]["md5Checksum"] = md5(data.read_bytes())
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (increment / "manifest-files.md5").write_text(md5(manifest.read_bytes()))


def _edit_the_summary(increment: Path) -> None:
    summary = increment / "manifest-summary.json"
    summary.write_text(summary.read_text() + "\n")


def _data_file(increment: Path) -> Path:
    return min((increment.parent / "data").glob(f"p000{increment.name}*"))


_DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a truncated data file": (_truncate, "is damaged"),
    "another number of records": (_count_wrongly, "holds 0 items, the manifest says 1"),
    "a missing data file": (lambda increment: _data_file(increment).unlink(), "is missing"),
    "an edited summary": (_edit_the_summary, "does not have the MD5"),
    "a missing manifest": (lambda increment: (increment / "manifest-files.json").unlink(), "is missing"),
    "no summary": (lambda increment: (increment / "manifest-summary.json").unlink(), "no export here"),
}


@pytest.mark.parametrize(("damage", "words"), _DAMAGES.values(), ids=_DAMAGES)
def test_an_incremental_export_is_refused_that_has(
    damage: Callable[[Path], None], words: str, exports: _Exports
) -> None:
    damage(exports.add(0, 15, change(_at(1), EVE)))

    assert words in exports.fault()


def test_temporary_files_are_gone_after_a_build_and_after_a_failure(
    exports: _Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    increment = exports.add(0, 15, change(_at(1), EVE))
    exports.build()
    _truncate(increment)
    exports.fault()

    assert [*scratch.iterdir()] == []


# ── where they lie, and what is told of them ────────────────────────────────────────────────────────────────────────────


def test_exports_that_share_a_folder_of_data_files_are_kept_apart(exports: _Exports) -> None:
    exports.add(0, 15, change(_at(1), EVE))
    other = exports.add(15, 30, change(_at(20), old=BOB))
    exports.increments.remove(other)

    assert exports.items() == [TENANT, BOB, EVE]


@pytest.mark.parametrize("prefix", ["", "exports/daily/"], ids=["no prefix", "a prefix"])
@pytest.mark.parametrize("written", [True, False], ids=["in the keys", "left out of the keys"])
def test_a_prefix_may_be(prefix: str, written: bool, exports: _Exports) -> None:  # noqa: FBT001 - a case
    summary = {} if written else {"manifestFilesS3Key": f"AWSDynamoDB/{EXPORT_ID}/manifest-files.json"}
    exports.add(0, 15, change(_at(1), EVE), prefix=prefix, export_id=EXPORT_ID, summary=summary)

    assert exports.items() == [TENANT, BOB, EVE]


def _build(*options: str | Path) -> Any:
    return CliRunner().invoke(main, ["bundle", "build", *map(str, options)])


def _manifest(bundle: Path) -> dict[str, Any]:
    with tarfile.open(bundle) as tar:
        file = tar.extractfile(".manifest")
        assert file is not None
        manifest: dict[str, Any] = json.load(file)
    return manifest


_SAMPLES: list[str | Path] = ["--export", DATA / "export-full", "--incremental", DATA / "export-incremental"]


def test_the_command_builds_from_all_of_them(tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar.gz"
    ended = _build(*_SAMPLES, "--out", out, "--json")

    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.stdout)
    assert report["changes"] == {"exports": 1, "applied": 4, "ignored": 0}
    assert report["as_of"] == "2026-11-24T00:15:00Z"
    assert report["revision"].startswith("20261124T001500.000000Z-")
    assert report["read"]["memberships"] == 2


def test_the_bundle_names_all_its_sources(tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar.gz"
    _build(*_SAMPLES, "--out", out)
    source = _manifest(out)["metadata"]["source"]

    assert [arn.rpartition("/")[2] for arn in source.split(", ")] == ["01764000000000-1a2b3c4d", EXPORT_ID]


def test_the_command_tells_what_was_applied(exports: _Exports, tmp_path: Path) -> None:
    increment = exports.add(0, 15, change(_at(1), EVE), change(_at(2), old=BOB))
    twice: list[str | Path] = ["--incremental", increment, "--incremental", increment]
    ended = _build("--export", exports.full, *twice, "--out", tmp_path / "bundle.tar.gz")

    assert "Changed 2 items by incremental exports; ignored 2 older or repeated records." in ended.stdout


def test_the_command_ends_with_one_message_when_they_do_not_join(exports: _Exports, tmp_path: Path) -> None:
    late = exports.add(5, 20)
    ended = _build("--export", exports.full, "--incremental", late, "--out", tmp_path / "bundle.tar.gz")

    assert ended.exit_code == 2
    assert ended.stderr.startswith("tenantgate: nothing is known of the time from 2026-11-24T00:00:00Z")
    assert not (tmp_path / "bundle.tar.gz").exists()


def _digests(exports: _Exports, orders: Iterable[list[Path]]) -> set[bytes]:
    digests = set()
    for order in orders:
        exports.increments = order
        exports.build()
        digests.add((exports.folder / "bundle.tar.gz").read_bytes())
    return digests


def test_the_same_exports_in_any_order_and_repeated_give_the_same_bundle(exports: _Exports) -> None:
    one = exports.add(0, 15, change(_at(1), EVE), change(_at(2), old=BOB))
    two = exports.add(10, 30, change(_at(20), BOB))
    three = exports.add(30, 45, change(_at(40), old=EVE))

    assert len(_digests(exports, [[one, two, three], [three, two, one], [two, one, three, one, two]])) == 1
