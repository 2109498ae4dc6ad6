"""Break what decisions hang on, and see that nobody is allowed what the registry does not allow. Run it with `make test-faults`.

Real processes: the sidecar, its OPA, the server of its bundles. While each fault lasts and after it, eight callers ask questions
whose answers are known. Prints a table, and writes build/faults.json and the table in docs/operations.md. Fails if a wrong ALLOW
was given, if calls did not succeed again within two seconds of its end, or if a change of the registry did not come through.
"""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from tests.faults.faults import FAULTS, HOLD, soak
from tests.faults.stand import Stand
from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from tests.faults.faults import Fault

MOST_RECOVERY = 2.0
"""Seconds after the end of a fault by which calls must succeed."""

MOST_GROWTH = 1.1
"""How much more memory the last third of the soak may take than the second."""


def run(fault: Fault, seconds: float = HOLD) -> dict[str, Any]:
    """Do what goes wrong, have it last for so long, and give what came of it."""
    if reason := fault.missing():
        return {"fault": fault.name, "skipped": reason}
    with fault.stand() as stand:
        before = len(stand.callers.failures)
        with ExitStack() as happening:
            happening.enter_context(fault.happens(stand))
            if fault.changes:
                stand.publish()
            healed = time.monotonic()
            stand.hold(seconds)
        if not fault.momentary:
            healed = time.monotonic()
        recovery = stand.callers.recovery(healed)
        change = stand.in_force(stand.publish())
        failures = stand.callers.failures[before:]
        row = {
            "fault": fault.name,
            "calls": stand.callers.answered + len(stand.callers.failures),
            "wrong_allows": stand.truth.verdicts.wrong_allows,
            "wrong_denies": stand.truth.verdicts.wrong_denies,
            "errors": len(failures),
            "recovery_s": round(recovery, 3) if math.isfinite(recovery) else None,
            "change_s": round(change, 3),
        }
        if stand.truth.examples:
            row["examples"] = stand.truth.examples
        return row


def run_soak(seconds: float) -> dict[str, Any]:
    """Let it run for long, with a change of the registry every few seconds."""
    with Stand() as stand:
        resident = soak(stand, seconds)
        second, third = resident.peak(1), resident.peak(2)
        return {
            "fault": f"none, for {seconds:.0f} s",
            "calls": stand.callers.answered + len(stand.callers.failures),
            "wrong_allows": stand.truth.verdicts.wrong_allows,
            "wrong_denies": stand.truth.verdicts.wrong_denies,
            "errors": len(stand.callers.failures),
            "recovery_s": 0.0,
            "change_s": 0.0,
            "memory_mb": round(third, 1),
            "memory_growth": round(third / second, 3),
        }


def faulty(row: dict[str, Any]) -> bool:
    """Tell whether what came of a fault is not what must."""
    if "skipped" in row:
        return False
    wrong = row["wrong_allows"] or row["wrong_denies"]
    late = row["recovery_s"] is None or row["recovery_s"] > MOST_RECOVERY
    return bool(wrong or late or row.get("memory_growth", 0.0) > MOST_GROWTH)


def show(rows: list[dict[str, Any]]) -> Table:
    """Make the table."""
    table = Table("fault", *(("calls", "wrong ALLOWs", "wrong DENYs", "errors", "recovery", "next change", "")))
    for row in rows:
        if "skipped" in row:
            table.add_row(row["fault"], *[""] * 6, f"skipped: {row['skipped']}")
            continue
        recovery = "never" if row["recovery_s"] is None else f"{row['recovery_s']:.2f} s"
        memory = f"{row['memory_mb']:.0f} MB, {row['memory_growth']:.3f} times" if "memory_mb" in row else ""
        counts = [f"{row[name]:,}" for name in ("calls", "wrong_allows", "wrong_denies", "errors")]
        table.add_row(row["fault"], *counts, recovery, f"{row['change_s']:.2f} s", memory)
    return table


def write(rows: list[dict[str, Any]]) -> None:
    """Write what came of all faults, for machines and for the docs."""
    out = REPOSITORY / "build" / "faults.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    lines = ["| fault | calls | wrong ALLOWs | errors | recovery | next change after |", "|---|---|---|---|---|---|"]
    for row in rows:
        if "skipped" not in row:
            counts = " | ".join(f"{row[name]:,}" for name in ("calls", "wrong_allows", "errors"))
            lines.append(f"| {row['fault']} | {counts} | {row['recovery_s']} s | {row['change_s']} s |")
    for row in rows:
        if "memory_mb" in row:
            memory = f"Without a fault, sidecar and OPA took {row['memory_mb']:.0f} MB at the most in the last third of the time,"
            lines += ["", f"{memory} {row['memory_growth']} times what they took in the second."]
    page = REPOSITORY / "docs" / "operations.md"
    before, mark, rest = page.read_text().partition("<!-- faults -->\n")
    _, end, after = rest.partition("<!-- /faults -->")
    page.write_text(before + mark + "\n".join([*lines, ""]) + end + after)


@click.command(help=__doc__)
@click.option("--only", help="The faults whose names contain this.")
@click.option(
    "--soak", "seconds", type=float, default=600.0, show_default=True, help="Seconds without a fault; 0 for none."
)
def main(only: str | None, seconds: float) -> None:
    """Do all that goes wrong, one after the other."""
    console, rows = Console(stderr=True), []
    for fault in FAULTS:
        if only is None or only in fault.name:
            console.print(f"{fault.name} …")
            rows.append(run(fault))
    if seconds and only is None:
        console.print(f"{seconds:.0f} s without a fault …")
        rows.append(run_soak(seconds))
    Console().print(show(rows))
    if only is None:
        write(rows)
    sys.exit(any(map(faulty, rows)))


if __name__ == "__main__":
    main()
