"""One HTML file without any other: the funnel as bars, and examples of what each rule dropped."""

from __future__ import annotations

import base64
import html
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pathclip.curate.funnel import RuleScore
from pathclip.errors import DataError
from pathclip.runtime.images import open_image

EXAMPLES = 10
THUMBNAIL = 128  # pixels
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
table{border-collapse:collapse}td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}
.row{display:flex;flex-wrap:wrap;gap:.6rem}.card{width:150px;font-size:12px;overflow-wrap:anywhere}
.card img{width:128px;height:128px;object-fit:cover;border-radius:4px;background:#eee}
.note{color:#666;font-size:13px}svg text{font:12px system-ui,sans-serif}
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A row to show: its text, what the rule saw, and its picture if there is one."""

    id: str
    text: str
    detail: str = ""
    path: str | None = None


def render(
    funnel: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    scores: Sequence[RuleScore] = (),
    seed: int = 0,
) -> str:
    """The report as HTML.

    Args:
        funnel: the content of `funnel.json`.
        examples: reason, or 'kept' → rows, of which ten are shown at random.
        scores: of the rules where the truth is known.
        seed: of the choice of examples.
    """
    parts = [
        "<h1>Curation</h1>",
        '<p class="note">Research software, not for diagnosis.</p>',
        "<h2>Posts</h2>",
        _bars(funnel["posts"]),
        "<h2>Pictures with a caption</h2>",
        _bars(funnel["pairs"]),
        f"<p>Split by {funnel['split_by']}: "
        + ", ".join(f"{name} {count}" for name, count in funnel["splits"].items())
        + "</p>",
    ]
    if scores:
        parts += ["<h2>Rules against the known truth</h2>", _scores(scores)]
    parts.append("<h2>Examples</h2>")
    rng = random.Random(seed)
    for reason, rows in examples.items():
        chosen = rng.sample(list(rows), min(EXAMPLES, len(rows)))
        parts.append(f"<h3>{html.escape(reason)} ({len(rows)})</h3>")
        parts.append(f'<div class="row">{"".join(map(_card, chosen))}</div>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Curation</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _bars(part: Mapping[str, Any]) -> str:
    """What is left after each rule, as horizontal bars; the lighter end is what the rule dropped."""
    steps = [step for step in part["steps"] if step["dropped"]]
    whole = max(part["read"], 1)
    height, width, left = 22, 480, 190
    rows = [("read", part["read"], 0), *((s["reason"], s["left"], s["dropped"]) for s in steps)]
    shapes = []
    for number, (name, count, lost) in enumerate(rows):
        y = number * height
        kept_width, lost_width = width * count / whole, width * lost / whole
        loss = f" (−{lost})" if lost else ""
        shapes.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{kept_width:.1f}" height="16" fill="#7b4b94"/>'
            f'<rect x="{left + kept_width:.1f}" y="{y + 3}" width="{lost_width:.1f}" height="16" '
            'fill="#dcc7e6"/>'
            f'<text x="{left + kept_width + lost_width + 6:.1f}" y="{y + 15}">{count}{loss}</text>'
        )
    total = len(rows) * height + 4
    return f'<svg viewBox="0 0 {left + width + 110} {total}" width="100%">{"".join(shapes)}</svg>'


def _scores(scores: Sequence[RuleScore]) -> str:
    rows = "".join(
        f"<tr><td>{s.reason}</td><td>{s.n}</td><td>{s.found}</td>"
        f"<td>{s.precision:.3f}</td><td>{s.recall:.3f}</td></tr>"
        for s in scores
    )
    head = "<tr><th>rule</th><th>truly</th><th>found</th><th>precision</th><th>recall</th></tr>"
    return f"<table>{head}{rows}</table>"


def _card(example: Example) -> str:
    picture = _thumbnail(example.path)
    image = f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else ""
    return (
        f'<div class="card">{image}<div>{html.escape(example.text[:200])}</div>'
        f'<div class="note">{html.escape(example.id)} {html.escape(example.detail[:120])}</div></div>'
    )


def _thumbnail(path: str | None) -> str:
    if path is None:
        return ""
    try:
        image = open_image(Path(path), draft_to=THUMBNAIL)
    except DataError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
