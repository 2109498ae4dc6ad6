"""Marks that do not go back, and waits that end in time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from sidecar.engine.durable import read_durable, write_durably
from sidecar.engine.freshness import Served, Waiting, unshare
from sidecar.engine.intake import Mark, judge
from sidecar.errors import StartError
from sidecar.seal import Sealed

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_795_478_400_000_000


def test_what_was_served_is_remembered(tmp_path: Path) -> None:
    served = Served(tmp_path / "served.json")
    served.rise(5, "five")
    served.rise(4, "four")

    assert (served.as_of, Served(tmp_path / "served.json").as_of) == (5, 5)


def test_nothing_was_served_at_first(tmp_path: Path) -> None:
    assert Served(tmp_path / "served.json").as_of == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"as_of": "1", "revision": ""}', '{"as_of": 1}'])
def test_a_record_that_cannot_be_read_stops_the_start(text: str, tmp_path: Path) -> None:
    (tmp_path / "served.json").write_text(text)

    with pytest.raises(StartError, match="removing it makes this sidecar forget how new a registry it has served"):
        Served(tmp_path / "served.json")


def test_processes_share_the_mark_at_once_and_none_takes_it_back(tmp_path: Path) -> None:
    one, other = (Served(tmp_path / "served.json", shared=True) for _ in range(2))
    one.rise(5, "five")
    assert other.as_of == 5

    other.rise(4, "four")
    assert (one.as_of, Served(tmp_path / "served.json").as_of) == (5, 5)


def test_what_processes_shared_that_are_gone_is_forgotten_unless_it_was_written(tmp_path: Path) -> None:
    Served(tmp_path / "served.json", shared=True).rise(5, "five")
    unshare(tmp_path / "served.json")
    assert Served(tmp_path / "served.json", shared=True).as_of == 5

    (tmp_path / "served.json").unlink()
    unshare(tmp_path / "served.json")
    assert Served(tmp_path / "served.json", shared=True).as_of == 0


def test_a_record_that_cannot_be_written_leaves_the_mark_in_memory(tmp_path: Path) -> None:
    served = Served(tmp_path / "none" / "served.json")
    served.rise(5, "five")

    assert served.as_of == 5


def test_a_crash_while_a_record_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_durably(tmp_path / "mark", Mark(1, "one"))

    def fail(_descriptor: int) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="I/O error"):
        write_durably(tmp_path / "mark", Mark(2, "two"))

    assert read_durable(tmp_path / "mark", Mark, "") == Mark(1, "one")


def _waiting(*, there: bool = True, most: int = 1) -> tuple[Waiting, list[tuple[int, float]]]:
    waits: list[tuple[int, float]] = []

    def wait(as_of: int, deadline: float) -> bool:
        waits.append((as_of, deadline - time.monotonic()))
        return there

    return Waiting(wait, most, lambda: NOW), waits


@pytest.mark.parametrize("there", [True, False])
def test_a_wait_tells_whether_the_registry_is_there(there: bool) -> None:  # noqa: FBT001 - a parameter
    waiting, _ = _waiting(there=there)

    assert waiting(NOW, time.monotonic() + 10) is there


@pytest.mark.parametrize(("deadline", "most"), [(10.0, 9.91), (0.5, 0.41), (0.1, 0.081)])
def test_a_wait_ends_before_the_deadline(deadline: float, most: float) -> None:
    waiting, waits = _waiting()
    waiting(NOW, time.monotonic() + deadline)
    (_, waited), *_ = waits

    assert waited <= most


def test_a_deadline_that_has_passed_leaves_no_wait() -> None:
    waiting, waits = _waiting()

    assert (waiting(NOW, time.monotonic() - 1), waits) == (False, [])


def test_a_registry_that_cannot_be_there_in_time_is_not_waited_for() -> None:
    waiting, waits = _waiting()

    assert (waiting(NOW + 3_600_000_000, time.monotonic() + 10), waits) == (False, [])


def test_no_more_wait_than_may() -> None:
    nested: list[bool] = []

    def wait(_as_of: int, deadline: float) -> bool:
        nested.append(waiting(NOW, deadline))
        return True

    waiting = Waiting(wait, 1, lambda: NOW)

    assert waiting(NOW, time.monotonic() + 10)
    assert waiting(NOW, time.monotonic() + 10)  # the place is free again
    assert nested == [False, False]


@pytest.mark.parametrize(
    ("kind", "as_of", "revision", "mark", "reason"),
    [
        ("base", 5, "a", None, None),
        ("base", 6, "b", Mark(5, "a"), None),
        ("base", 5, "a", Mark(5, "a"), None),
        ("base", 5, "b", Mark(5, "a"), "FORKED"),
        ("base", 4, "a", Mark(5, "a"), "ROLLED_BACK"),
        ("overlay", 9, "b", Mark(5, "a"), "WRONG_KIND"),
    ],
)
def test_a_bundle_is_taken_in_if_it_is_newer(
    kind: str, as_of: int, revision: str, mark: Mark | None, reason: str | None
) -> None:
    found = judge("base", Sealed(kind, revision, as_of, 0, "", "k"), mark)

    assert (found and found[0]) == reason
