"""The numbers of the bench as a reader sees them: a table, a picture, and beside each aim what was measured."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

TITLES = {
    "echo": "gRPC alone: an echo",
    "echo_lean": "gRPC alone, on the sidecar's threads",
    "hit": "Authorize, remembered",
    "hit_logged": "Authorize, remembered, with both logs",
    "zipf": "Authorize, 10,000 tenants, mixed",
    "miss": "Authorize, not remembered",
    "miss_extended": "Authorize, not remembered, with an extension",
    "batch50_hit": "BatchAuthorize of 50, remembered",
    "batch50_miss": "BatchAuthorize of 50, not remembered",
    "filter200": "FilterTools of 200, not remembered",
    "opa_rest": "OPA's REST API, called directly",
    "hit_most": "Authorize, remembered, 100,000 tenants",
    "miss_most": "Authorize, not remembered, 100,000 tenants",
}
"""The kinds of call, in the order in which they are shown."""

_BEGIN, _END = "<!-- numbers: written by `make bench` -->\n", "<!-- end of numbers -->\n"
_BAR = 60  # characters
_PARTS = {
    "python_s": "Python and its modules",
    "opa_version_s": "which OPA it is",
    "opa_process_s": "OPA's process",
    "opa_bundle_s": "OPA takes in the bundle",
    "serve_s": "first decision",
}


class Aim(NamedTuple):
    """What is aimed at, what was measured, and whether that is as good."""

    what: str
    aim: str
    measured: str
    met: bool


def as_markdown(measured: Mapping[str, Any]) -> str:
    """Write all of it."""
    made = measured["made"]
    others = max(measured[name]["others"] for name in _shown(measured))
    machine = f"{made['processor']}, {made['cores']} cores, Python {made['python']}"
    runs = f"medians of {made['rounds']} runs of {made['seconds']:g} s"
    lines = [
        f"{machine}; {runs}. Other processes took up to {others:.0%} of the server's core.",
        "",
        *_rates(measured),
        "",
        f"Of the mixed calls, {measured['zipf_remembered']:.0%} were remembered.",
        "",
        *_picture(measured),
        "",
        *_latencies(measured),
        "",
        *_starts(measured),
        "",
        *_table(
            ("what", "aim", "measured", ""),
            [(aim.what, aim.aim, aim.measured, "met" if aim.met else "missed") for aim in aims(measured)],
        ),
    ]
    return "\n".join(lines) + "\n"


def rewrite(page: Path, measured: Mapping[str, Any]) -> None:
    """Put the numbers into their place in a page."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, found, after = rest.partition(_END)
    if not found:
        msg = f"{page} has no place for the numbers"
        raise SystemExit(msg)
    page.write_text(f"{before}{_BEGIN}\n{as_markdown(measured)}\n{_END}{after}")


def aims(measured: Mapping[str, Any]) -> Iterator[Aim]:
    """Compare what counts with what is aimed at."""
    rate = {name: measured[name]["per_second"] for name in _shown(measured)}
    decisions = {name: measured[name]["decisions_per_second"] for name in rate}
    one = {name: measured[name]["one"]["p50_us"] for name in rate if "one" in measured[name]}

    def at_least(what: str, value: float, bound: float) -> Aim:
        return Aim(what, f"at least {bound:g}", f"{value:.2f}", value >= bound)

    def below(what: str, value: float, bound: float, unit: str = "") -> Aim:
        return Aim(what, f"below {bound:,g}{unit}", f"{value:,.2f}{unit}", value < bound)

    for name, bound in (("hit", 0.85), ("zipf", 0.7), ("miss", 0.4)):
        yield at_least(f"{TITLES[name]}: calls a second, of the echo's", rate[name] / rate["echo"], bound)
    for name, bound in (("batch50_hit", 10), ("batch50_miss", 2)):
        what = f"{TITLES[name]}: decisions a second, of those remembered one by one"
        yield at_least(what, decisions[name] / decisions["hit"], bound)
    yield below(f"{TITLES['filter200']}: one at a time", one["filter200"] / 1000, 10, " ms")
    yield below(f"{TITLES['hit']}: one at a time, of the echo's time", one["hit"] / one["echo"], 1.3)
    yield below(f"{TITLES['miss']}: one at a time, over the echo", (one["miss"] - one["echo"]) / 1000, 1, " ms")
    for name in ("hit", "zipf", "miss"):
        half = measured[name]["half"]
        yield below(f"{TITLES[name]}: at half capacity, p99 of p50", half["p99_us"] / half["p50_us"], 3)
    if "hit_most" in rate:
        for name in ("hit", "miss"):
            what = f"{TITLES[f'{name}_most']}: calls a second, of those with 1,000"
            yield at_least(what, rate[f"{name}_most"] / rate[name], 0.95)
        tenants, memory = [*measured["memory_mb"].items()][-1]
        yield below(f"Memory of sidecar and OPA with {int(tenants):,} tenants", memory / 1000, 1.5, " GB")
    for (tenants, start), bound in zip(measured["start"].items(), (1.5, 10), strict=False):
        yield below(f"First decision with {int(tenants):,} tenants", start["total_s"], bound, " s")


def _shown(measured: Mapping[str, Any]) -> list[str]:
    return [name for name in TITLES if name in measured]


def _rates(measured: Mapping[str, Any]) -> list[str]:
    echo = measured["echo"]["per_second"]
    rows = [
        (
            TITLES[name],
            f"{row['per_second']:,.0f}",
            f"{row['spread'][0]:,} to {row['spread'][1]:,}",
            f"{row['per_second'] / echo:.2f}",
            f"{row['decisions_per_second']:,}",
            _time(row["p50_us"]),
            _time(row["p99_us"]),
            _time(row["cpu_us"]),
            _time(row["opa_us"]) if row["opa_us"] else "",
        )
        for name, row in ((name, measured[name]) for name in _shown(measured))
    ]
    return _table(
        ("16 in flight", "calls/s", "runs", "of the echo", "decisions/s", "p50", "p99", "CPU", "of it OPA"), rows
    )


def _latencies(measured: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in _shown(measured):
        row = measured[name]
        if "one" in row:
            pairs = [
                (_time(row[kind]["p50_us"]), _time(row[kind]["p99_us"])) if kind in row else ("", "")
                for kind in ("one", "half")
            ]
            rows.append((TITLES[name], *pairs[0], *pairs[1]))
    return _table(("", "one at a time: p50", "p99", "at half capacity: p50", "p99"), rows)


def _starts(measured: Mapping[str, Any]) -> list[str]:
    rows = [
        (f"{int(tenants):,}", f"{start['total_s']:.2f} s", *(f"{start[part]:.2f} s" for part in _PARTS))
        for tenants, start in measured["start"].items()
    ]
    memory = [(f"{int(tenants):,}", f"{size:,} MB") for tenants, size in measured["memory_mb"].items()]
    return [
        *_table(("tenants", "to the first decision", *_PARTS.values()), rows),
        "",
        *_table(("tenants", "memory of sidecar and OPA"), memory),
    ]


def _picture(measured: Mapping[str, Any]) -> list[str]:
    """Draw the calls of one decision each as bars, but for what is beside the point of the picture: an extension."""
    left_out = re.compile("batch|filter|miss_extended")
    rates = {name: measured[name]["per_second"] for name in _shown(measured) if not left_out.match(name)}
    widest = max(map(len, map(TITLES.__getitem__, rates)))
    most = max(rates.values())
    bars = [f"{TITLES[name]:<{widest}}  {'█' * round(rate / most * _BAR)} {rate:,.0f}" for name, rate in rates.items()]
    return ["```text", "calls a second on one core, 16 in flight", "", *bars, "```"]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def _time(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms" if microseconds < 100_000 else f"{microseconds / 1000:,.0f} ms"
