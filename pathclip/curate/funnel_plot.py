"""The funnel as a Sankey plot in SVG: what flows down stays, what bends off to the right was dropped.

Widths are proportional to counts, on one scale from the first row to the last pair; what is too thin to be
seen is drawn at the least width that is. Colours come from the page's style sheet, `report.css`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

LABELS = {
    "kept": "kept",
    "malformed": "cannot be read as a post",
    "repeated": "the same post again",
    "deleted": "deleted since",
    "retweet": "repeats another's post",
    "sensitive": "marked sensitive",
    "withheld": "withheld by law",
    "outside_dates": "outside the dates",
    "no_hashtag": "no pathology hashtag",
    "question": "asks, does not describe",
    "too_short": "too few words",
    "language": "in another language",
    "reply_without_diagnosis": "reply that names no disease",
    "reply_not_most_liked": "reply, not the most liked",
    "advertisement": "advertises",
    "no_image": "has no picture",
    "duplicate_pair": "same picture, same caption",
    "image_unreachable": "picture not found",
    "image_opted_out": "its owner opted out",
    "image_undecodable": "picture cannot be opened",
    "image_too_small": "picture too small",
    "mixed_figure": "several panels or a screenshot",
    "not_pathology": "shows no stained tissue",
    "near_duplicate": "picture seen before",
}
# Directional overrides and marks of embedding turn around what stands beside them; the rest has no shape.
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_THINNEST = 1.6  # pixels of the least that is seen


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things stand, in pixels of the drawing.

    Attributes:
        name: of the class in the style sheet, unique on the page.
        width: of the whole drawing.
        trunk: width of the largest count.
        labels: where the column of labels begins.
        row: least height of a step.
        end: least distance between the ends of two splits.
        stacked: numbers stand below the words, not before them.
    """

    name: str
    width: int
    trunk: int
    labels: int
    row: int
    end: int
    stacked: bool


WIDE = Layout("wide-plot", width=900, trunk=340, labels=384, row=29, end=96, stacked=False)
NARROW = Layout("narrow-plot", width=340, trunk=88, labels=108, row=42, end=92, stacked=True)


def label(reason: str) -> str:
    """A reason code in plain words, unescaped; of an unknown one the code without its underscores."""
    return LABELS.get(reason, reason.replace("_", " "))


def number(count: int) -> str:
    """A count with separators of thousands.

    >>> number(3000000)
    '3,000,000'
    """
    return f"{count:,}"


def share(part: int, whole: int) -> str:
    """A share in per cent, not escaped; never 0 % of something nor 100 % of not all.

    >>> share(1, 8).split(), share(1, 3000000).split(), share(0, 0)
    (['12.5', '%'], ['<0.1', '%'], '–')
    """
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1\xa0%"
    if 99.9 < percent < 100:
        return ">99.9\xa0%"
    return f"{percent:.1f}\xa0%"


def shown(text: object, longest: int | None = None) -> str:
    """Any text, safe between tags and in attributes; what has no shape or turns its surroundings is left out.

    Args:
        text: of unknown origin.
        longest: characters after which it is cut.
    """
    plain = _UNSHOWN.sub("", _SURROGATE.sub("\ufffd", str(text)))
    if longest is not None and len(plain) > longest:
        plain = plain[: longest - 1].rstrip() + "…"
    return escape(plain)


def split_counts(funnel: Mapping[str, Any]) -> dict[str, int]:
    """Pairs per split, whether `funnel["splits"]` holds numbers or mappings with a number of pairs."""
    return {
        str(name): int(held["pairs"] if isinstance(held, Mapping) else held)
        for name, held in funnel.get("splits", {}).items()
    }


def losses(part: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Reason and count of each step that dropped anything, in the order of the rules."""
    return ((str(step["reason"]), int(step["dropped"])) for step in part["steps"] if step["dropped"])


def funnel_plot(funnel: Mapping[str, Any]) -> str:
    """The plot twice, for wide and for narrow screens; the style sheet shows the one that fits."""
    return "".join(_plot(funnel, layout) for layout in (WIDE, NARROW))


def description(funnel: Mapping[str, Any]) -> str:
    """The plot in sentences, for those who do not see it."""
    posts, pairs = funnel["posts"], funnel["pairs"]

    def fell(part: Mapping[str, Any]) -> str:
        return ", ".join(f"{number(count)} {label(reason)}" for reason, count in losses(part)) or "none"

    held = ", ".join(f"{name} {number(count)}" for name, count in split_counts(funnel).items())
    return (
        f"{number(posts['read'])} rows read. Dropped: {fell(posts)}. {number(posts['kept'])} posts kept, "
        f"with {number(pairs['read'])} pictures. Dropped: {fell(pairs)}. "
        f"{number(pairs['kept'])} pairs: {held}."
    )


def _plot(funnel: Mapping[str, Any], layout: Layout) -> str:
    posts, pairs = funnel["posts"], funnel["pairs"]
    most = max(posts["read"], pairs["read"], 1)
    pen = _Pen(layout, layout.trunk / most, digits=max(3, len(number(most))))
    pen.node(posts["read"], "rows read")
    for reason, count in losses(posts):
        pen.loss(count, posts["read"], reason)
    pen.node(posts["kept"], "posts kept")
    # One post has several pictures, or shares one with its reply: the flow changes its unit and its width.
    pen.turn(pairs["read"])
    pen.node(pairs["read"], "pictures")
    for reason, count in losses(pairs):
        pen.loss(count, pairs["read"], reason)
    pen.node(pairs["kept"], "pairs")
    pen.fan(split_counts(funnel))
    name = layout.name
    return (
        f'<svg class="plot {name}" viewBox="0 0 {layout.width} {pen.y:.0f}" width="{layout.width}" '
        f'role="img" aria-labelledby="{name}-title {name}-text"><title id="{name}-title">'
        f'From rows to pairs</title><desc id="{name}-text">{shown(description(funnel))}</desc>'
        f"{''.join(pen.flows)}{''.join(pen.words)}</svg>"
    )


@dataclass
class _Pen:
    """Draws downwards and knows how wide the flow is where it stands."""

    layout: Layout
    scale: float
    digits: int
    y: float = 6.0
    left: float = 2.0
    right: float = 2.0
    kind: str = "posts"
    edge: list[str] = field(default_factory=list)
    flows: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def width(self, count: int) -> float:
        return max(self.scale * count, _THINNEST) if count else 0.0

    def node(self, count: int, words: str) -> None:
        """A bar across the flow, with what it is and how much; the flow goes on below it."""
        self.y += 10 if self.edge else 0
        self.close()
        self.right = self.left + self.width(count)
        self._bar(self.left, self.width(count))
        x = self.layout.labels
        if x - 8 > self.right + 6:
            self.flows.append(
                f'<line class="leader" x1="{self.right + 6:.1f}" x2="{x - 8}" y1="{self.y + 2.5:.1f}" '
                f'y2="{self.y + 2.5:.1f}"/>'
            )
        self._write(self.y + 7, number(count), "", words, kind="strong")
        self.y += 5
        self.edge = [f"M{self.left} {self.y:.1f}H{self.right:.1f}"]
        # Two lines of words need more room below the bar than one.
        self.y += 26 if self.layout.stacked else 16

    def loss(self, count: int, whole: int, reason: str) -> None:
        """A part of the flow that bends off to its label, at constant width."""
        radius, wide = 8.0, self.width(count)
        start, end = max(self.right - wide, self.left), self.layout.labels - 8
        outer = radius + wide
        self.flows.append(
            f'<path class="loss" d="M{self.right:.1f} {self.y:.1f}a{radius} {radius} 0 0 0 {radius} {radius}'
            f"H{end}v{wide:.1f}H{self.right + radius:.1f}"
            f'A{outer:.1f} {outer:.1f} 0 0 1 {self.right - wide:.1f} {self.y:.1f}Z">'
            f"<title>{shown(label(reason))}: {number(count)}</title></path>"
        )
        self.edge.append(f"V{self.y:.1f}H{start:.1f}")
        self.right = start
        middle = self.y + radius + wide / 2
        self._write(middle + 4, f"−{number(count)}", share(count, whole), label(reason), reason)
        self.y += max(self.layout.row, radius + wide + 14)

    def turn(self, count: int) -> None:
        """The flow widens or narrows to another count."""
        self.close()
        top, self.y = self.y, self.y + 34
        other = self.left + self.width(count)
        if count and self.right > self.left:
            half = (top + self.y) / 2
            self.flows.append(
                f'<path class="turn" d="M{self.left} {top:.1f}H{self.right:.1f}C{self.right:.1f} {half:.1f} '
                f'{other:.1f} {half:.1f} {other:.1f} {self.y:.1f}H{self.left}Z"/>'
            )
        self.right, self.kind = other, "pictures"

    def fan(self, counts: Mapping[str, int]) -> None:
        """The end: the flow parts, and below each part stands how much it is and its name."""
        self.close()
        top, self.y = self.y, self.y + 64
        whole, x, end = sum(counts.values()), self.left, self.left
        half = (top + self.y) / 2
        for place, (name, count) in enumerate(counts.items()):
            wide = self.width(count)
            self.flows.append(
                f'<path class="split{place % 3}" d="M{x:.1f} {top:.1f}'
                f"C{x:.1f} {half:.1f} {end:.1f} {half:.1f} {end:.1f} {self.y:.1f}h{wide:.1f}"
                f'C{end + wide:.1f} {half:.1f} {x + wide:.1f} {half:.1f} {x + wide:.1f} {top:.1f}Z">'
                f"<title>{shown(name)}: {number(count)}</title></path>"
            )
            self._bar(end, wide)
            self.words.append(
                f'<text class="strong" x="{end:.1f}" y="{self.y + 22:.1f}">{number(count)}</text>'
                f'<text class="soft" x="{end:.1f}" y="{self.y + 38:.1f}">{shown(name)} '
                f'<tspan dx="3">{shown(share(count, whole))}</tspan></text>'
            )
            x, end = x + wide, end + max(wide + 14, self.layout.end)
        self.y += 48

    def close(self) -> None:
        """Draws the flow from the last bar to here."""
        if self.edge and (self.right > self.left or len(self.edge) > 1):
            self.flows.append(
                f'<path class="{self.kind}" d="{"".join(self.edge)}V{self.y:.1f}H{self.left}Z"/>'
            )
        self.edge = []

    def _bar(self, x: float, width: float) -> None:
        self.flows.append(f'<rect class="node" x="{x:.1f}" y="{self.y:.1f}" width="{width:.1f}" height="5"/>')

    def _write(self, y: float, count: str, percent: str, words: str, code: str = "", kind: str = "") -> None:
        x, percent = self.layout.labels, shown(percent)
        small = f'<tspan class="code" dx="7">{shown(code)}</tspan>' if code else ""
        if not self.layout.stacked:
            column = x + 8.2 * (self.digits + 1)
            self.words.append(
                f'<text class="{kind}" x="{column:.1f}" y="{y:.1f}" text-anchor="end">{count}</text>'
                f'<text class="soft" x="{column + 58:.1f}" y="{y:.1f}" text-anchor="end">{percent}</text>'
                f'<text class="{kind}" x="{column + 74:.1f}" y="{y:.1f}">{shown(words)}{small}</text>'
            )
        elif kind:
            self.words.append(f'<text class="{kind}" x="{x}" y="{y:.1f}">{count} {shown(words)}</text>')
        else:
            # A long code beside a count of millions leaves no room for the share; the table has it.
            fits = 6.4 * len(f"{count} · {percent}") + 5.4 * len(code) < self.layout.width - x - 12
            numbers = f"{count} · {percent}" if fits else count
            self.words.append(
                f'<text x="{x}" y="{y - 6:.1f}">{shown(words)}</text>'
                f'<text class="soft" x="{x}" y="{y + 9:.1f}">{numbers}{small}</text>'
            )
