"""What the report shows of a retrieval task: curves, tables, retrieved pictures, and the hardest queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.datasets import TextPairs
from pathclip.evaluate.image_text import retrieval
from pathclip.evaluate.image_text.retrieval_chance import chance_missed, recall_of
from pathclip.evaluate.image_text.retrieval_figures import Search
from pathclip.evaluate.reporting import report
from pathclip.evaluate.subjects import Subject
from pathclip.runtime.preprocess import open_image
from pathclip.types import Score

QUERIES = 6
HITS = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """What one encoder made of the pairs in one variant.

    Attributes:
        subject: the encoder.
        pairs: pictures and texts.
        texts: L2-normalised float32 [n, d].
        images: the same of the pictures.
        relevant: which counts for which.
    """

    subject: Subject
    pairs: TextPairs
    texts: NDArray[np.float32]
    images: NDArray[np.float32]
    relevant: retrieval.Relevance

    def first(self, direction: str, query: int) -> NDArray[np.int64]:
        """Numbers of the first items found for a query."""
        sides = (self.texts, self.images)
        queries, items = sides if direction == "text_to_image" else sides[::-1]
        return np.argsort(-(items @ queries[query]), kind="stable")[:HITS]

    def right(self, query: int, numbers: NDArray[np.int64]) -> list[bool]:
        """Which of the items count for the query."""
        return [bool(one) for one in self.relevant.mask(np.array([query]))[0][numbers]]

    def pictures(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """The encoded bytes of these pictures, each read once."""
        wanted = sorted({int(number) for number in numbers})
        return dict(zip(wanted, self.pairs.contents(wanted), strict=True))


def score_sections(
    name: str,
    scores: Sequence[Score],
    remarks: Sequence[str],
    about: Mapping[str, Any],
    ks: Sequence[int],
    subjects: Sequence[Subject],
    searches: Sequence[Search],
) -> list[report.Section]:
    """Recall over k and the table of the full set; and that of random pools, if there are any."""
    html = report.marks_explained(scores) + report.paragraphs(remarks, "remark")
    for search in searches:
        if search.variant == searches[0].variant:
            title = f"{report.words(search.direction)}, {report.words(search.relevant.definition)}"
            html += f"<h3>{title}</h3>{_curves(search, subjects, ks)}"
    full = [one for one in scores if one.context["pool"] == about["pairs"]]
    html += report.score_table(full)
    html += report.paragraphs([f"Licence: {about['licence'] or 'not stated'}", about["citation"]], "caption")
    caption = (
        f"{about['pairs']} pairs with {about['texts']} different texts in {about['groups']} groups. "
        f"Lines: recall@k for every k, {report.words(searches[0].variant)}. "
        "Intervals: 95 % bootstrap over the groups of the queries; the pool that is searched stays whole."
    )
    sections = [report.Section(f"{name}: retrieval", html, caption)]
    pooled = [one for one in scores if one.context["pool"] != about["pairs"]]
    if pooled:
        drawn = {one.context["pool"]: one.context["shuffles"] for one in pooled}
        sizes = ", ".join(f"{size:,} ({times}×)" for size, times in drawn.items())
        caption = (
            f"The pairs were shuffled and cut into pools, in brackets how often: {sizes}. Every query is "
            "looked for in its own pool; its figures are means over its pools, the median rank that of all."
        )
        sections.append(report.Section(f"{name}: retrieval in pools", report.score_table(pooled), caption))
    return sections


def examples_section(name: str, shown: Shown) -> report.Section:
    """The first pictures found for a few texts spread over the data; the relevant ones framed in green."""
    texts = shown.pairs.texts
    firsts = sorted({text: number for number, text in reversed(list(enumerate(texts)))}.values())
    spread = np.linspace(0, len(firsts) - 1, min(QUERIES, len(firsts))).astype(int)
    found = {firsts[number]: shown.first("text_to_image", firsts[number]) for number in spread}
    contents = shown.pictures([int(number) for numbers in found.values() for number in numbers])
    html = ""
    for query, numbers in found.items():
        html += f"<h3>{report.escape(texts[query][:200])}</h3>"
        html += report.picture_grid(
            [_picture(shown, contents, int(number)) for number in numbers],
            marks=shown.right(query, numbers),
        )
    caption = (
        f"{shown.subject.title}: the {HITS} nearest pictures to each text, each with its own text below. "
        f"Green: {report.words(shown.relevant.definition)} as the query."
    )
    return report.Section(f"{name}: retrieved pictures", html, caption)


def hardest_section(name: str, shown: Shown, searches: Sequence[Search]) -> report.Section:
    """The queries with the worst ranks, each text once: its own picture, and what came first instead.

    Args:
        name: of the task.
        shown: the encoder.
        searches: what it found, one for each direction, under the definition of `shown`.
    """
    html = ""
    for search in searches:
        rank = search.found[shown.subject.key][0].rank[:, 0]
        html += f"<h3>{report.words(search.direction)}</h3>"
        worst = _worst(rank, shown.pairs.texts)
        if not worst:
            html += report.paragraphs(["Every query has a right item in the first place."])
        for query in worst:
            html += _hard_query(shown, search.direction, query, int(rank[query]))
    caption = (
        f"{shown.subject.title}: the queries whose first right item comes last, by "
        f"{report.words(shown.relevant.definition)}, with what stands first instead. Green: what counts."
    )
    return report.Section(f"{name}: hardest queries", html, caption)


def _hard_query(shown: Shown, direction: str, query: int, rank: int) -> str:
    numbers = [int(number) for number in shown.first(direction, query)]
    own = f"{shown.pairs.texts[query][:200]} – first right item in place {rank:,} of {len(shown.pairs):,}"
    html = report.paragraphs([own])
    listed = [query, *(number for number in numbers if number != query)]
    contents = shown.pictures(listed)
    pictures = [_picture(shown, contents, number) for number in listed]
    return html + report.picture_grid(pictures, marks=shown.right(query, np.array(listed)))


def _worst(rank: NDArray[Any], texts: Sequence[str]) -> list[int]:
    """The worst queries that have no right item in the first place, worst first, each text once."""
    chosen: dict[str, int] = {}
    for query in np.argsort(-rank, kind="stable"):
        if rank[query] == 1 or len(chosen) == QUERIES:
            break
        chosen.setdefault(texts[query], int(query))
    return list(chosen.values())


def _picture(shown: Shown, contents: Mapping[int, bytes], number: int) -> tuple[Any, str]:
    caption = shorten(shown.pairs.texts[number], 90, placeholder=" …")
    return open_image(contents[number], name=shown.pairs.paths[number]), caption


def _curves(search: Search, subjects: Sequence[Subject], ks: Sequence[int]) -> str:
    """Recall over k as lines, chance dashed."""
    places = range(1, max(ks, default=1) + 1)
    series = {
        one.title: [
            (float(k), float(retrieval.recall_at(k, search.found[one.key][0].rank).mean())) for k in places
        ]
        for one in subjects
    }
    missed = chance_missed(search.relevant)
    series["chance"] = [(float(k), recall_of(missed, k)) for k in places]
    return report.line_chart(series, "k", "recall@k", (0.0, 1.0), dashed=["chance"])
