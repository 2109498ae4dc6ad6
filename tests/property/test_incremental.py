"""A full export and incremental ones on top give the same bytes as a full export of the later moment, whatever their order."""

from __future__ import annotations

import io
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.bundles.build import rfc3339, write_data
from sidecar.registry.incremental import open_exports
from sidecar.registry.spool import Spool
from tests.support.exports import change, write_export, write_incremental

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = dict[str, Any]

START = 1_795_478_400_000_000
MINUTE = 60_000_000
LAST = 60  # minutes of history


class History(NamedTuple):
    """What was written to a table: for every item, in order, when, and the item after it (``None``: deleted)."""

    keys: tuple[str, ...]
    writes: list[list[tuple[int, Item | None]]]

    def at(self, moment: int) -> list[Item]:
        """Give the items that a full export of a moment holds."""
        states = (_state(writes, moment) for writes in self.writes)
        return [item for item in states if item is not None]

    def between(self, begin: int, end: int) -> list[dict[str, Any]]:
        """Give the records that an incremental export holds: one for each item that was written, and is or was there."""
        records = []
        for writes in self.writes:
            before, after = _state(writes, begin), _state(writes, end)
            times = [written for written, _ in writes if begin <= written < end]
            if times and (before or after):
                records.append(change(times[-1], after, before, self.keys))
        return records


class Case(NamedTuple):
    """A history, the moment of the full export, and when the incremental ones begin and end, in any order."""

    history: History
    full: int
    windows: list[tuple[int, int]]
    shuffled: list[tuple[int, int]]


def _state(writes: list[tuple[int, Item | None]], moment: int) -> Item | None:
    earlier = [item for written, item in writes if written < moment]
    return earlier[-1] if earlier else None


def _registry_item(key: int, payload: int) -> Item:
    """Make an item of a registry: a tenant, a user or a policy of one of two tenants."""
    tenant, kind = divmod(key, 4)
    base = {"pk": f"TENANT#{tenant}"}
    if kind == 0:
        return {**base, "sk": "TENANT", "status": "SUSPENDED" if payload % 2 else "ACTIVE"}
    if kind == 1:
        return {**base, "sk": "POLICY#P", "rules": _rules(payload)}
    return {**base, "sk": f"USER#{kind}", "roles": [f"role-{payload}"]}


def _plain_item(key: int, payload: int) -> Item:
    """Make a policy document of a plain table, whose key does not tell the tenant, and which may change hands."""
    return {"policyId": f"P{key}", "tenantId": f"T{payload % 2}", "rules": _rules(payload)}


def _rules(payload: int) -> list[Item]:
    return [{"effect": "ALLOW", "resourceType": "TOOL", "resources": [f"tool-{payload}"], "reason": "r"}]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Make up a case. All the time from the full export on is covered, and so is what comes before it where that is needed."""
    plain = draw(st.booleans())
    make = _plain_item if plain else _registry_item
    writes = []
    for key in range(8):
        times = sorted(draw(st.sets(st.integers(0, LAST * 4 - 1), max_size=6)))
        payloads = draw(st.lists(st.none() | st.integers(0, 5), min_size=len(times), max_size=len(times)))
        moments = [START + quarter * MINUTE // 4 for quarter in times]
        writes.append([(at, None if p is None else make(key, p)) for at, p in zip(moments, payloads, strict=True)])
    full = draw(st.integers(0, LAST - 1))
    earliest = draw(st.integers(0, full))
    inner = draw(st.sets(st.integers(earliest, LAST), max_size=4))
    cuts = sorted({earliest, full, LAST} | inner)
    extra = draw(st.lists(st.tuples(st.integers(earliest, LAST), st.integers(earliest, LAST)), max_size=4))
    others = [(min(pair), max(pair)) for pair in extra if pair[0] != pair[1]]
    if draw(st.booleans()):
        windows = [*pairwise(cuts), *others]
    else:  # what is told of the time before is of no account, and incomplete
        chain = [pair for pair in pairwise(cuts) if pair[0] >= full]
        windows = [*chain, *((begin, end) for begin, end in others if end <= full or begin >= full)]
    repeated = draw(st.lists(st.sampled_from(windows), max_size=2))
    shuffled = draw(st.permutations([*windows, *repeated]))
    history = History(("policyId",) if plain else ("pk", "sk"), writes)

    def moments_of(minutes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(START + begin * MINUTE, START + end * MINUTE) for begin, end in minutes]

    return Case(history, START + full * MINUTE, moments_of(windows), moments_of(shuffled))


def _data(full: Path, increments: list[Path]) -> tuple[bytes, int, str]:
    """Compile exports; give the bytes of the data of the bundle, their moment and their source."""
    export = open_exports(str(full), [str(each) for each in increments])
    out = io.BytesIO()
    with Spool() as spool:
        spool.add(export.items())
        spool.check()
        write_data(spool, out)
    return out.getvalue(), export.as_of, export.arn


@settings(max_examples=200, deadline=None)
@given(cases())
def test_incremental_exports_in_any_order_and_repeated_are_a_full_export_of_the_later_moment(case: Case) -> None:
    with tempfile.TemporaryDirectory(prefix="tg-") as name:
        folder = Path(name)
        end = START + LAST * MINUTE
        full = write_export(folder / "full", case.history.at(case.full), summary={"exportTime": rfc3339(case.full)})
        later = write_export(folder / "later", case.history.at(end), summary={"exportTime": rfc3339(end)})
        written = {
            (begin, until): write_incremental(
                folder / "incremental",
                case.history.between(begin, until),
                rfc3339(begin),
                rfc3339(until),
                export_id=f"{number:014}-5e6f7a8b",
            )
            for number, (begin, until) in enumerate(dict.fromkeys(case.windows))
        }
        expected = _data(later, [])
        in_order = _data(full, [written[window] for window in sorted(case.windows)])
        shuffled = _data(full, [written[window] for window in case.shuffled])

    assert in_order[:2] == expected[:2]
    assert shuffled == in_order
