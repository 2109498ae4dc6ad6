"""An empty or shrunken export does not silently remove tenants, and what would change, or be refused, is told."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from tests.support.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def tenants(numbers: range, status: str = "ACTIVE") -> list[dict[str, Any]]:
    """Make tenants by number."""
    return [{"pk": f"TENANT#T{n:03}", "sk": "TENANT", "status": status} for n in numbers]


def build(tmp_path: Path, items: list[dict[str, Any]], *options: str) -> Result:
    """Build the bundle at base.tar.gz from an export of items."""
    source = tmp_path / f"export-{len(list(tmp_path.iterdir()))}"
    command = ["bundle", "build", "--export", str(write_export(source, items)), "--out", str(tmp_path / "base.tar.gz")]
    return CliRunner().invoke(main, [*command, *options])


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (3, 2, True),
        (3, 0, False),
        (1, 0, False),
        (20, 10, True),
        (20, 9, False),
        (200, 180, True),
        (200, 179, False),
        (200, 0, False),
        (3, 300, True),
    ],
)
def test_a_base_may_leave_out_few_tenants_and_never_all(tmp_path: Path, before: int, after: int, allowed: bool) -> None:  # noqa: FBT001
    assert build(tmp_path, tenants(range(before))).exit_code == 0
    published = (tmp_path / "base.tar.gz").read_bytes()
    done = build(tmp_path, tenants(range(after)))
    assert done.exit_code == (0 if allowed else 2)
    if not allowed:
        assert f"{before - after} of {before} tenants would be left out (T{after:03}" in done.stderr
        assert f"--max-removals {before - after}" in done.stderr
        assert (tmp_path / "base.tar.gz").read_bytes() == published


def test_other_tenants_do_not_make_up_for_those_that_are_left_out(tmp_path: Path) -> None:
    build(tmp_path, tenants(range(100)))
    assert build(tmp_path, tenants(range(100, 300))).exit_code == 2


def test_removals_that_are_meant_are_made(tmp_path: Path) -> None:
    build(tmp_path, tenants(range(100)))
    assert build(tmp_path, tenants(range(50)), "--max-removals", "49").exit_code == 2
    assert build(tmp_path, tenants(range(50)), "--max-removals", "50").exit_code == 0
    assert build(tmp_path, [], "--max-removals", "50").exit_code == 0


def test_a_dry_run_tells_what_would_change_and_writes_nothing(tmp_path: Path) -> None:
    build(tmp_path, tenants(range(5)))
    published = (tmp_path / "base.tar.gz").read_bytes()
    items = [*tenants(range(1, 4)), *tenants(range(4, 5), "SUSPENDED"), *tenants(range(9, 10))]
    told = build(tmp_path, items, "--dry-run")
    assert told.exit_code == 0
    for line in ("1 tenants added: T009", "1 tenants removed: T000", "1 tenants changed: T004", "wrote nothing"):
        assert line in told.stdout
    as_json = json.loads(build(tmp_path, items, "--dry-run", "--json").stdout)
    assert as_json["difference"] == {"added": ["T009"], "removed": ["T000"], "changed": ["T004"]}
    assert (tmp_path / "base.tar.gz").read_bytes() == published


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["build", "dry run"])
def test_it_is_told_that_sidecars_will_refuse_another_base_of_the_same_moment(
    tmp_path: Path, options: list[str]
) -> None:
    first = build(tmp_path, tenants(range(3)))
    again = build(tmp_path, tenants(range(3)), *options)
    assert "FORKED" not in first.stdout + again.stdout
    (before,) = re.findall(r"Revision (\S+),", first.stdout)
    (tmp_path / "custom" / "other").mkdir(parents=True)
    (tmp_path / "custom" / "other" / "other.rego").write_text("package custom.other\n\ndeny := set()\n")
    forked = build(tmp_path, tenants(range(3)), "--custom", str(tmp_path / "custom"), *options)
    assert f"base.tar.gz was revision {before}, of the same moment" in forked.stdout
    assert "FORKED" in forked.stdout
    assert forked.exit_code == 0


def test_a_newer_base_is_no_fork(tmp_path: Path) -> None:
    build(tmp_path, tenants(range(3)))
    source = write_export(tmp_path / "later", tenants(range(2)), summary={"exportTime": "2026-11-24T01:00:00.000Z"})
    out = str(tmp_path / "base.tar.gz")
    done = CliRunner().invoke(main, ["bundle", "build", "--export", str(source), "--out", out, "--json"])
    assert json.loads(done.stdout)["forked"] == ""
