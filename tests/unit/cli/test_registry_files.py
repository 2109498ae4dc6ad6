"""Items are read from files so that nothing is lost, and nothing turned into something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sidecar.cli.registry.files import find_files, read_files
from sidecar.errors import MalformedItemsError

if TYPE_CHECKING:
    from pathlib import Path


def _read(folder: Path, text: str, name: str = "f.yaml") -> list[tuple[str, Any]]:
    (folder / name).write_text(text)
    return [(place.removeprefix(f"{folder}/"), value) for place, value in read_files([folder / name])]


_VALUES: dict[str, tuple[str, Any]] = {
    "a date": ("2026-11-24", "2026-11-24"),
    "a time": ("2026-11-24T00:00:00Z", "2026-11-24T00:00:00Z"),
    "no": ("no", "no"),
    "on": ("on", "on"),
    "true": ("true", True),
    "null": ("null", None),
    "nothing": ("", None),
    "what YAML 1.1 takes for base 60": ("1:30", "1:30"),
    "an id of digits and colons": ("12:30:45", "12:30:45"),
    "an integer": ("-12", -12),
    "an integer with a leading zero": ("012", 12),
    "an integer beyond 64 bits": ("123456789012345678901234567890", 123456789012345678901234567890),
    "a fraction": ("0.1", 0.1),
    "an exponent": ("1e3", 1000.0),
    "a number with underscores is a text": ("1_000", "1_000"),
    "a quoted number": ("'5'", "5"),
    "a version of three parts": ("1.2.3", "1.2.3"),
}


@pytest.mark.parametrize(("text", "expected"), _VALUES.values(), ids=_VALUES)
def test_a_value_of_yaml_is_what_json_has(tmp_path: Path, text: str, expected: Any) -> None:
    ((_, item),) = _read(tmp_path, f"value: {text}\n")

    assert item == {"value": expected}
    assert type(item["value"]) is type(expected)


def test_anchors_and_merges_are_followed(tmp_path: Path) -> None:
    assert _read(tmp_path, "- &a {x: 1, y: 2}\n- {<<: *a, y: 3}\n")[1] == ("f.yaml: item 2", {"x": 1, "y": 3})


def test_each_item_is_read_with_its_place(tmp_path: Path) -> None:
    assert _read(tmp_path, "a: 1") == [("f.yaml", {"a": 1})]
    assert _read(tmp_path, "[{a: 1}]") == [("f.yaml: item 1", {"a": 1})]
    assert _read(tmp_path, "---\na: 1\n---\n- b: 2\n- c: 3\n") == [
        ("f.yaml: item 1", {"a": 1}),
        ("f.yaml: item 2", {"b": 2}),
        ("f.yaml: item 3", {"c": 3}),
    ]


def test_json_is_read_as_json(tmp_path: Path) -> None:
    assert _read(tmp_path, '{"a":\t1e3, "b": "\\u00e9"}', "f.json") == [("f.json", {"a": 1000.0, "b": "é"})]


_UNREADABLE: dict[str, tuple[str, str]] = {
    "a name that stands twice in YAML": ("{a: 1, b: {c: 1, c: 2}}", "'c' stands twice in one map"),
    "a name that stands twice in JSON": ('{"a": 1, "a": 2}', "'a' stands twice in one object"),
    "a number of too many digits in YAML": ("a: 0.12345678901234567890", "has more digits than JSON numbers carry"),
    "a number of too many digits in JSON": ('{"a": 0.12345678901234567890}', "has more digits than JSON numbers carry"),
    "a number that is none in YAML": ("a: .nan", ".nan is not a number"),
    "infinity in YAML": ("a: -.inf", "-.inf is not a number"),
    "a number that is none in JSON": ('{"a": NaN}', "NaN is not a number"),
    "a number beyond all": ("a: 1e999", "has more digits"),
    "a tag": ("!!python/object:os.system {}", "could not determine a constructor"),
    "what is not YAML": ("a: [", "while parsing"),
    "a name that is a list": ("? [a]\n: 1\n", "unhashable key"),
    "what is far too deep": ("[" * 100_000, "recursion"),
}


@pytest.mark.parametrize(("text", "said"), _UNREADABLE.values(), ids=_UNREADABLE)
def test_what_cannot_be_read_exactly_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MalformedItemsError) as refused:
        _read(tmp_path, text)

    assert refused.value.faults[0].startswith(f"{tmp_path}/f.yaml: cannot be read: ")
    assert said in refused.value.faults[0]


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(MalformedItemsError, match="cannot be read: 'utf-8' codec"):
        read_files([tmp_path / "f.yaml"])


def test_files_are_found_below_the_folder_by_their_names_in_order(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("z.yaml", "a.json", "b/m.yml", "b/c/d.yaml", "README.md", "x.yaml.bak"):
        (tmp_path / name).touch()
    (tmp_path / "folder.yaml").mkdir()

    assert [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)] == [
        "a.json",
        "b/c/d.yaml",
        "b/m.yml",
        "z.yaml",
    ]
