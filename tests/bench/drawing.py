"""A dashboard of Grafana as a picture: its panels, where they are, with what a Prometheus answers to their queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMN, _LINE, _GAP = 50, 30, 8  # pixels of the grid that panels stand in
_COLUMNS = 24
_COLORS = ("#3274d9", "#e0752d", "#299c46", "#a352cc", "#d44a3a", "#00a3a3", "#b8860b", "#8f3bb8", "#5b6770", "#c71585")
_INK, _PALE, _GRID, _PAPER, _BACK = "#24292e", "#6b7280", "#e5e7eb", "#ffffff", "#f4f5f5"
_LETTER = 6.2  # pixels, about
_MOST_NAMES = 8


class Series(Struct, frozen=True):
    """One line of a panel: points of a moment, in seconds since 1970, and a value."""

    name: str
    points: Sequence[tuple[float, float]]


def draw(dashboard: dict[str, Any], answers: dict[int, list[Series]], begin: float, end: float, note: str) -> str:
    """Give the picture, as SVG. ``answers`` are the series of each panel by its id; ``note`` stands below all."""
    panels = dashboard["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * _LINE
    width, height = _COLUMNS * _COLUMN, bottom + 40
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font} fill="{_INK}">',
        f'<rect width="{width}" height="{height}" fill="{_BACK}"/>',
    ]
    for panel in panels:
        parts += _panel(panel, answers.get(panel["id"], []), begin, end)
    parts += [_text(_GAP, bottom + 24, note, fill=_PALE), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(panel: dict[str, Any], series: list[Series], begin: float, end: float) -> Iterator[str]:
    place = panel["gridPos"]
    left, top = place["x"] * _COLUMN, place["y"] * _LINE
    width, height = place["w"] * _COLUMN, place["h"] * _LINE
    if panel["type"] == "row":
        yield _text(left + _GAP, top + 20, panel["title"], size=14, weight="bold")
        return
    yield (
        f'<rect x="{left + _GAP / 2}" y="{top + _GAP / 2}" width="{width - _GAP}" height="{height - _GAP}" rx="2" '
        f'fill="{_PAPER}" stroke="{_GRID}"/>'
    )
    yield _text(left + 12, top + 20, panel["title"], weight="bold")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "stat":
        last = series[0].points[-1][1] if series else None
        shown = "No data" if last is None else _written(last, unit)
        color = _PALE if last is None else _color_of(last, panel["fieldConfig"]["defaults"]["thresholds"]["steps"])
        yield _text(left + width / 2, top + height / 2 + 22, shown, size=26, anchor="middle", fill=color)
    elif not series:
        yield _text(left + width / 2, top + height / 2, "No data", anchor="middle", fill=_PALE)
    else:
        below = 63 + 13 * _rows(width - 24, series)
        yield from _chart((left + 62, top + 32, width - 82, height - below), series, unit, (begin, end))
        yield from _legend(left + 14, top + height - 14, width - 24, series)


def _chart(
    box: tuple[float, float, float, float], series: list[Series], unit: str, time: tuple[float, float]
) -> Iterator[str]:
    left, top, width, height = box
    begin, end = time
    highest = max(value for one in series for _, value in one.points)
    step = _step(highest, base=2 if unit == "bytes" else 10)
    most = step * max(1, math.ceil(highest / step - 1e-9))
    for number in range(round(most / step) + 1):
        y = top + height * (1 - number * step / most)
        yield f'<path d="M{left:.1f} {y:.1f}h{width:.1f}" stroke="{_GRID}"/>'
        yield _text(left - 6, y + 4, _written(number * step, unit), anchor="end", fill=_PALE)
    for number in range(5):
        seconds = (end - begin) * number / 4
        x = left + width * number / 4
        yield _text(x, top + height + 14, f"{seconds // 60:.0f}:{seconds % 60:02.0f}", anchor="middle", fill=_PALE)
    for number, one in enumerate(series):
        path, before = [], -math.inf
        gap = 3 * min(
            (later[0] - earlier[0] for earlier, later in zip(one.points, one.points[1:], strict=False)), default=1
        )
        for moment, value in one.points:
            x = left + width * (moment - begin) / (end - begin)
            y = top + height * (1 - max(0.0, value) / most)
            path.append(f"{'M' if moment - before > gap else 'L'}{x:.1f} {y:.1f}")
            before = moment
        color = _COLORS[number % len(_COLORS)]
        yield f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="1.5" stroke-linejoin="round"/>'


def _rows(width: float, series: list[Series]) -> int:
    """Tell in how many rows the names of lines go."""
    return 1 if sum(len(one.name) * _LETTER + 22 for one in series[:_MOST_NAMES]) <= width else 2


def _legend(left: float, bottom: float, width: float, series: list[Series]) -> Iterator[str]:
    """Name the lines; of long names, the end is left out."""
    shown, rows = series[:_MOST_NAMES], _rows(width, series)
    a_row = math.ceil(len(shown) / rows)
    room = int(width / a_row / _LETTER) - 4
    for number, one in enumerate(shown):
        x = left + width * (number % a_row) / a_row
        y = bottom - 13 * (rows - 1 - number // a_row)
        name = one.name if len(one.name) <= room else one.name[: room - 1] + "…"
        yield f'<rect x="{x:.1f}" y="{y - 6:.1f}" width="10" height="3" fill="{_COLORS[number % len(_COLORS)]}"/>'
        yield _text(x + 14, y, name, fill=_PALE)


def _text(
    x: float, y: float, text: str, *, size: int = 11, weight: str = "normal", anchor: str = "start", fill: str = _INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{fill}">'
        f"{escape(text)}</text>"
    )


def _color_of(value: float, steps: list[dict[str, Any]]) -> str:
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return {"red": "#c4162a", "green": "#37872d"}.get(reached[-1], _INK)


def _step(highest: float, base: int) -> float:
    """Give a number that is round in a system of numbers, of which some four fit into a height."""
    if highest <= 0:
        return 1.0
    rough = highest / 4
    power = float(base) ** math.floor(math.log(rough, base))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _written(value: float, unit: str) -> str:
    """Write a value in a unit of Grafana's."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    scales = {
        "s": ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")),
        "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
    }.get(unit, ((1e6, "M"), (1e3, "k"), (1, "")))
    size, name = next(((size, name) for size, name in scales if value >= size), scales[-1])
    if value == 0:
        size, name = 1, {"s": "s", "bytes": "B"}.get(unit, "")
    rate = "/s" if unit == "ops" else ""
    return f"{value / size:.3g} {name}{rate}".rstrip()
