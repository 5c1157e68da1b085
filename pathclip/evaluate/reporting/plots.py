"""Plots as SVG text: small, sharp at any size, and selectable. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
_LETTER = 6.6  # average width of a letter at 12 px, for the room that labels need
_LONGEST = 44  # letters of a label; the middle of a longer one is left out


def bar_chart(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[Interval]] | None = None,
    reference: tuple[str, float] | None = None,
    top: float | None = None,
) -> str:
    """Horizontal bars, one group per label and one bar per series, with whiskers for the intervals.

    Args:
        labels: names of the groups.
        series: name → one value per label; NaN leaves the bar out.
        intervals: name of a series → (low, high) per label.
        reference: a name and a value to mark with a dashed line: chance, say.
        top: right end of the axis; by default the largest value, or 1 if all are shares near it.

    Returns:
        An `<svg>` element.
    """
    values = [value for row in series.values() for value in row if math.isfinite(value)]
    top = top or _round_up(max(values, default=1.0))
    labels = [_short(label) for label in labels]
    left = 20 + _LETTER * max(map(len, labels), default=0)
    bar, gap, head = 16, 12, 26 if len(series) > 1 or reference else 8
    width = 760.0
    span = width - left - 150
    height = head + len(labels) * (len(series) * bar + gap) + 24
    parts = [_legend(list(series), left)] if len(series) > 1 else []
    parts += _vertical_grid(left, span, top, head, height - 22)
    y = float(head)
    for position, label in enumerate(labels):
        middle = y + len(series) * bar / 2 + 4
        parts.append(f'<text x="{left - 8:.1f}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>')
        for number, (name, row) in enumerate(series.items()):
            interval = intervals[name][position] if intervals and name in intervals else None
            parts.append(_bar(left, y, span / top, bar, number, float(row[position]), interval))
            y += bar
        y += gap
    if reference:
        x = left + span * reference[1] / top
        parts.append(
            f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{head - 6}" y2="{height - 22}"/>'
        )
        parts.append(
            f'<text class="small" x="{x + 4:.1f}" y="{head - 8}">{escape(reference[0])} '
            f"{number_text(reference[1])}</text>"
        )
    return svg(width, height, parts)


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str = "",
    y_label: str = "",
    y_range: Interval | None = None,
    dashed: Collection[str] = (),
) -> str:
    """Lines over a common x axis.

    Args:
        series: name → points (x, y) in the order of x; a y that is not finite breaks the line.
        x_label: of the axis.
        y_label: of the axis.
        y_range: ends of the y axis; by default what the points need.
        dashed: names of the series that are no measurement: chance, say.

    Returns:
        An `<svg>` element.
    """
    points = [point for row in series.values() for point in row if math.isfinite(point[1])]
    width, height, left, head, foot = 760.0, 300.0, 64.0, 30.0, 44.0
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = y_range or _range([y for _, y in points])
    across, up = (width - left - 20) / (x_high - x_low), (height - head - foot) / (y_high - y_low)
    parts = [_legend(list(series), left)]
    for tick in ticks(y_low, y_high):
        y = height - foot - (tick - y_low) * up
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 20}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(small_text(left - 8, y + 4, number_text(tick), "end"))
    for tick in ticks(x_low, x_high):
        parts.append(
            small_text(left + (tick - x_low) * across, height - foot + 16, number_text(tick), "middle")
        )
    for number, (name, row) in enumerate(series.items()):
        path, pen = [], "M"
        for x, y in row:
            if not math.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{left + (x - x_low) * across:.1f} {height - foot - (y - y_low) * up:.1f}")
            pen = "L"
        if path:
            kind = " dashed" if name in dashed else ""
            parts.append(f'<path class="line s{number % 6}{kind}" d="{" ".join(path)}"/>')
    parts.append(small_text(left + (width - left - 20) / 2, height - 8, x_label, "middle"))
    parts.append(small_text(left - 8, head - 12, y_label, "end") if y_label else "")
    return svg(width, height, parts)


def difference_chart(labels: Sequence[str], values: Sequence[tuple[float, float, float]]) -> str:
    """Differences as dots with their intervals, about a line at zero.

    Args:
        labels: of the rows.
        values: (value, low, high) of each; one that is not finite leaves its row empty.

    Returns:
        An `<svg>` element.
    """
    shown = [_short(label) for label in labels]
    edges = [abs(edge) for row in values for edge in row if math.isfinite(edge)]
    far = _round_up(max(edges, default=1.0))
    left, width, row_height, head = 24 + _LETTER * max(map(len, shown), default=0), 760.0, 26, 10
    height = head + row_height * len(labels) + 26
    scale = (width - left - 30) / (2 * far)
    middle = left + far * scale
    parts = [f'<line class="reference" x1="{middle:.1f}" x2="{middle:.1f}" y1="{head}" y2="{height - 22}"/>']
    for tick in ticks(-far, far):
        parts.append(small_text(middle + tick * scale, height - 6, number_text(tick), "middle"))
    for number, (label, (value, low, high)) in enumerate(zip(shown, values, strict=True)):
        y = head + row_height * (number + 0.5)
        parts.append(_text(left - 8, y + 4, label, "end"))
        if math.isfinite(value) and math.isfinite(low) and math.isfinite(high):
            ends = f"M{middle + low * scale:.1f} {y:.1f}H{middle + high * scale:.1f}"
            parts.append(f'<path class="whisker" d="{ends}"/>')
            parts.append(f'<circle class="s0" cx="{middle + value * scale:.1f}" cy="{y:.1f}" r="4"/>')
    return svg(width, height, parts)


def confusion_svg(
    counts: NDArray[Any] | Sequence[Sequence[int]],
    names: Sequence[str],
    links: Mapping[tuple[int, int], str] | None = None,
) -> str:
    """A confusion matrix: rows are true classes, columns predictions, shade is the share of the row.

    Args:
        counts: [true, predicted].
        names: of the classes.
        links: (true, predicted) → id of the element of the page that its cell leads to.

    Returns:
        An `<svg>` element.
    """
    table = np.asarray(counts)
    shown = [_short(name) for name in names]
    left = 24 + _LETTER * max(map(len, shown), default=0)
    cell = max(44.0, min(84.0, (760 - left) / max(1, len(names))))
    head = 14 + 0.72 * left
    width, height = left + cell * len(names) + 0.5 * left, head + cell * len(names) + 8
    parts = []
    for column in range(len(names)):
        x, y = left + cell * (column + 0.5), head - 8
        parts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-40)">{escape(shown[column])}</text>'
        )
    for row, name in enumerate(names):
        y = head + cell * row
        total = int(table[row].sum())
        parts.append(_text(left - 8, y + cell / 2 + 4, shown[row], "end"))
        for column, other in enumerate(names):
            x, anchor = left + cell * column, (links or {}).get((row, column))
            label = f"{name} → {other}: {int(table[row, column])} of {total}"
            drawn = _cell(x, y, cell - 2, int(table[row, column]), total, row == column, label)
            if anchor:
                says = escape(f"{label}; show pictures")
                drawn = f'<a href="#{escape(anchor)}" aria-label="{says}">{drawn}</a>'
            parts.append(drawn)
    return svg(width, height, parts)


def number_text(value: float) -> str:
    """A number as a reader wants it: three decimals at most, no needless zeros.

    >>> [number_text(v) for v in (0.5, 12.0, 0.12345, float("nan"))]
    ['0.5', '12', '0.123', 'n/a']
    """
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.3g}" if abs(value) < 0.001 and value else f"{value:.3f}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between low and high.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / about
    if raw <= 0 or not math.isfinite(raw):
        return [low]
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _bar(
    left: float, y: float, scale: float, height: float, number: int, value: float, interval: Interval | None
) -> str:
    if not math.isfinite(value):
        return ""
    text, end = number_text(value), value
    parts = [
        f'<rect class="s{number % 6}" x="{left:.1f}" y="{y + 1:.1f}" width="{max(0.0, value * scale):.1f}" '
        f'height="{height - 3}"/>'
    ]
    if interval and all(map(math.isfinite, interval)) and interval[1] > interval[0]:
        low, high = (left + edge * scale for edge in interval)
        middle = y + height / 2 - 0.5
        parts.append(
            f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8'
            f'M{high:.1f} {middle - 4:.1f}v8"/>'
        )
        text, end = f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]", interval[1]
    parts.append(small_text(left + end * scale + 6, y + height - 5, text, "start"))
    return "".join(parts)


def _cell(x: float, y: float, side: float, count: int, total: int, right: bool, label: str) -> str:
    """One cell of a confusion matrix, as dark as its share of the row."""
    share, kind = count / total if total else 0.0, "right" if right else "wrong"
    square = f'x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}"'
    ink = "on" if share > 0.8 else ""
    return (
        f'<g><title>{escape(label)}</title><rect class="cell" {square}/>'
        f'<rect class="{kind}" {square} fill-opacity="{share:.3f}"/>'
        f'<text class="{ink}" x="{x + side / 2:.1f}" y="{y + side / 2 + 5:.1f}" text-anchor="middle">'
        f"{count}</text></g>"
    )


def _vertical_grid(left: float, span: float, top: float, head: float, foot: float) -> list[str]:
    parts = []
    for tick in ticks(0, top):
        x = left + span * tick / top
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{head}" y2="{foot}"/>')
        parts.append(small_text(x, foot + 15, number_text(tick), "middle"))
    return parts


def _legend(names: Sequence[str], left: float) -> str:
    parts, x = [], left
    for number, name in enumerate(names):
        parts.append(f'<rect class="s{number % 6}" x="{x:.1f}" y="4" width="11" height="11"/>')
        parts.append(small_text(x + 16, 14, name, "start"))
        x += 36 + _LETTER * len(name)
    return "".join(parts)


def _range(values: Sequence[float]) -> Interval:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    if 0.5 < value <= 1:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return float(next(s * scale for s in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if s * scale >= value))


def _short(label: str) -> str:
    half = (_LONGEST - 1) // 2
    return label if len(label) <= _LONGEST else f"{label[:half]}…{label[-half:]}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def small_text(x: float, y: float, text: str, anchor: str) -> str:
    """A label in the small type of axes, as SVG."""
    return f'<text class="small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def svg(width: float, height: float, parts: Sequence[str]) -> str:
    """A picture of its parts, in pixels."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
