"""How figures are spread, as SVG text: a histogram with a box below, and values that stand out marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from pathclip.evaluate.reporting.plots import number_text, ticks

_WIDTH, _LEFT, _RIGHT = 760.0, 250.0, 24.0
_HEAD, _FOOT, _ROW = 30.0, 26.0, 74.0
_BINS = 60
_PENS = ("s4", "s1", "s2", "s3")  # of the marks; s0 is the histogram


def distribution_svg(
    rows: Mapping[str, Sequence[float]],
    marks: Mapping[str, Mapping[str, float]],
    title: str = "",
) -> str:
    """Spread of several sets of values over one axis.

    Args:
        rows: label → values; those that are not finite are left out.
        marks: label → name → a value to draw a line at; the same name has the same colour in every row.
        title: what is drawn, for those who cannot see it.

    Returns:
        An `<svg>` element: each row a histogram, and below it the range (line), the middle half (box) and
        the median.
    """
    names = list(dict.fromkeys(name for one in marks.values() for name in one))
    low, high = _ends([*rows.values(), *(list(one.values()) for one in marks.values())])
    scale = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    height = _HEAD + _ROW * len(rows) + _FOOT
    parts = [f"<title>{escape(title)}</title>"] if title else []
    x = _LEFT
    for number, name in enumerate(names):
        parts.append(f'<path class="line {_pen(number)}" d="M{x:.1f} 4v12"/>{_label(x + 6, 14, name)}')
        x += 30 + 6.6 * len(name)
    for tick in ticks(low, high):
        place = _LEFT + (tick - low) * scale
        parts.append(
            f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{_HEAD}" y2="{height - _FOOT:.1f}"/>'
            + _label(place, height - 8, number_text(tick), "middle")
        )
    for number, (label, values) in enumerate(rows.items()):
        top = _HEAD + _ROW * number
        parts.append(_label(_LEFT - 10, top + 34, label, "end"))
        finite = np.array([one for one in values if math.isfinite(one)])
        if len(finite):
            parts += _spread(finite, low, high, scale, top)
        for name, value in marks.get(label, {}).items():
            if math.isfinite(value):
                place = _LEFT + (value - low) * scale
                says = escape(f"{name}: {number_text(value)}")
                # Each name has its own part of the height, so that equal values do not hide one another.
                part, tall = names.index(name), 62 / len(names)
                parts.append(
                    f'<g><title>{says}</title><path class="line {_pen(part)}" '
                    f'd="M{place:.1f} {top + 2 + part * tall:.1f}v{tall:.1f}"/></g>'
                )
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height:.0f}" width="{_WIDTH:.0f}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _spread(values: np.ndarray, low: float, high: float, scale: float, top: float) -> list[str]:
    counts, edges = np.histogram(values, _BINS, (low, high))
    parts = []
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            tall, wide = 40 * count / counts.max(), (right - left) * scale - 0.6
            says = escape(f"{number_text(left)} to {number_text(right)}: {count} of {len(values)}")
            parts.append(
                f'<g><title>{says}</title><rect class="s0" x="{_LEFT + (left - low) * scale:.1f}" '
                f'y="{top + 44 - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/></g>'
            )
    least, lower, median, upper, most = (
        _LEFT + (float(one) - low) * scale for one in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    )
    y = top + 54
    parts.append(f'<path class="whisker" d="M{least:.1f} {y:.1f}H{most:.1f}"/>')
    wide = max(1.0, upper - lower)
    parts.append(f'<rect class="cell" x="{lower:.1f}" y="{y - 6:.1f}" width="{wide:.1f}" height="12"/>')
    parts.append(
        f'<path class="whisker" d="M{lower:.1f} {y - 6:.1f}H{upper:.1f}v12H{lower:.1f}z'
        f'M{median:.1f} {y - 6:.1f}v12"/>'
    )
    return parts


def _ends(several: Sequence[Sequence[float]]) -> tuple[float, float]:
    values = [value for row in several for value in row if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.03 * (high - low) or 0.05
    return low - margin, high + margin


def _pen(number: int) -> str:
    return _PENS[number % len(_PENS)]


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
