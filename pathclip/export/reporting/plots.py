"""The two pictures of an export's report, as SVG text: the Pareto front, and the error over the network."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape

from pathclip.evaluate.reporting.plots import number_text, small_text, svg, ticks
from pathclip.export.gate.layers import LayerError
from pathclip.export.search.search import Trial

WIDTH = 760.0
_LEAST_LOSS = 1e-5  # nothing is drawn nearer to fp32 than this
_LABEL = 12.0  # px between two labels, one above the other
_LETTER = 6.3


def pareto_plot(trials: Sequence[Trial], on_front: Collection[int], chosen: int) -> str:
    """Speed against fidelity; every trial is a dot with its number, from 1.

    The axis of fidelity is logarithmic in what is lost, so fp32, which loses nothing, stands at its top edge.

    Args:
        trials: in the order of the table.
        on_front: numbers, from 0, of those that no other one beats.
        chosen: number, from 0, of the one taken.

    Returns:
        An `<svg>` element.
    """
    height, left, right, head, foot = 380.0, 66.0, 34.0, 34.0, 48.0
    losses = [max(trial.fidelity.loss, _LEAST_LOSS) for trial in trials]
    speeds = [1.0, *(trial.speed for trial in trials)]
    low, high = min(speeds), max(speeds)
    room = max(0.08 * (high - low), 0.05)
    x_low, x_high = low - room, high + room
    bottom, top = math.log10(max(losses) * 1.6), math.log10(min(losses) / 4)
    across, up = (WIDTH - left - right) / (x_high - x_low), (height - head - foot) / (bottom - top)

    def x_of(speed: float) -> float:
        return left + (speed - x_low) * across

    def y_of(loss: float) -> float:
        return head + (math.log10(loss) - top) * up

    parts = []
    for loss in _round_losses(10**top, 10**bottom):
        y = y_of(loss)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(small_text(left - 8, y + 4, f"{1 - loss:.6f}".rstrip("0"), "end"))
    for tick in ticks(x_low, x_high, 8):
        parts.append(small_text(x_of(tick), height - foot + 18, f"{number_text(tick)} ×", "middle"))
    parts.append(small_text((left + WIDTH - right) / 2, height - 8, "speed, times fp32", "middle"))
    parts.append(small_text(8, 14, "fidelity", "start"))
    x = x_of(1.0)
    parts.append(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{head}" y2="{height - foot}"/>')
    parts.append(f'<path class="fp32" d="M{x:.1f} {head - 6}l6 6l-6 6l-6 -6z"/>')
    parts.append(small_text(x + 10, head + 4, "fp32", "start"))
    points = [(x_of(trial.speed), y_of(loss)) for trial, loss in zip(trials, losses, strict=True)]
    front = sorted((points[number] for number in on_front), key=lambda point: point[0])
    if len(front) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in front)
        parts.append(f'<path class="front" d="M{path}"/>')
    for number, ((x, y), (label_x, label_y)) in enumerate(zip(points, _apart(points), strict=True)):
        kind = "chosen" if number == chosen else "best" if number in on_front else "beaten"
        title = f"{number + 1}. {trials[number].describe()}"
        parts.append(
            f'<g><title>{escape(title)}</title><circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{7 if number == chosen else 4.5}"/>'
            f'<path class="leader" d="M{x:.1f} {y:.1f}L{label_x - 2:.1f} {label_y - 4:.1f}"/>'
            f'<text class="small {kind}" x="{label_x:.1f}" y="{label_y:.1f}">{number + 1}'
            f"{' taken' if number == chosen else ''}</text></g>"
        )
    return svg(WIDTH, height, parts)


def layer_plot(layers: Sequence[LayerError]) -> str:
    """Signal over noise of each layer in its order; a bar each, those in fp32 in another colour and named.

    Args:
        layers: of one tower.

    Returns:
        An `<svg>` element.
    """
    kept = [layer.name for layer in layers if layer.kept_fp32]
    head = 26.0 + (_LETTER * max(map(len, kept)) + 6 if kept else 0)
    left, right, foot, body = 48.0, 10.0, 40.0, 200.0
    height = head + body + foot
    finite = [value for layer in layers for value in (layer.snr_db,) if math.isfinite(value)]
    top, bottom = 5 * math.ceil(max(finite, default=40.0) / 5 + 0.2), min(0.0, min(finite, default=0.0))
    step, scale = (WIDTH - left - right) / max(len(layers), 1), body / (top - bottom)
    parts = [_key(left, (("in int8", "s0"), ("in fp32", "s1")) if kept else (("in int8", "s0"),))]
    for tick in ticks(bottom, top, 5):
        y = head + (top - tick) * scale
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(small_text(left - 8, y + 4, number_text(tick), "end"))
    base = head + (top - max(bottom, 0.0)) * scale
    for number, layer in enumerate(layers):
        value = min(layer.snr_db, top) if not math.isnan(layer.snr_db) else 0.0
        x, y = left + step * number, head + (top - value) * scale
        title = f"{number + 1}. {layer.name} ({layer.op_type}): {decibel_text(layer.snr_db)}"
        if layer.kept_fp32:
            title += f"; fp32, {layer.reason}"
        wide = max(step - (2 if step > 6 else 0.5), 1.0)
        parts.append(
            f'<g><title>{escape(title)}</title><rect class="{"s1" if layer.kept_fp32 else "s0"}" '
            f'x="{x:.1f}" y="{min(y, base):.1f}" width="{wide:.1f}" height="{abs(base - y):.1f}"/></g>'
        )
        if layer.kept_fp32:
            at = f"{x + wide / 2 + 4:.1f} {min(y, base) - 5:.1f}"
            parts.append(
                f'<text class="small" transform="translate({at}) rotate(-90)">{escape(layer.name)}</text>'
            )
        if number == 0 or (number + 1) % 10 == 0:
            parts.append(small_text(x + wide / 2, height - foot + 16, str(number + 1), "middle"))
    parts.append(
        small_text((left + WIDTH - right) / 2, height - 6, "layer, from input to embedding", "middle")
    )
    parts.append(small_text(8, 14, "dB", "start"))
    return svg(WIDTH, height, parts)


def decibel_text(value: float) -> str:
    """'31.4 dB'; 'exact' where there is no noise.

    >>> decibel_text(31.42), decibel_text(math.inf)
    ('31.4 dB', 'exact')
    """
    if math.isnan(value):
        return "not measured"
    return f"{value:.1f} dB" if math.isfinite(value) else "exact"


def _round_losses(least: float, most: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or fewer where those would be many."""
    decades = math.log10(most / least)
    factors = (1, 2, 5) if decades < 1.6 else (1, 3) if decades < 3 else (1,)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    return [f * 10.0**p for p in powers for f in factors if least <= f * 10.0**p <= most]


def _apart(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A place for the label of each point, right of it and below its neighbour's label."""
    placed: dict[int, tuple[float, float]] = {}
    for number in sorted(range(len(points)), key=lambda one: points[one][1]):
        x, y = points[number][0] + 11, points[number][1] + 4
        while any(abs(x - a) < 2.2 * _LABEL and abs(y - b) < _LABEL for a, b in placed.values()):
            y += 2
        placed[number] = (x, y)
    return [placed[number] for number in range(len(points))]


def _key(left: float, entries: Sequence[tuple[str, str]]) -> str:
    parts, x = [], left
    for name, kind in entries:
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="4" width="11" height="11"/>')
        parts.append(small_text(x + 16, 14, name, "start"))
        x += 40 + _LETTER * len(name)
    return "".join(parts)
