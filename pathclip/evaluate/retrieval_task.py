"""Retrieval as a task: text to image and image to text, under both definitions of a hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import report, retrieval, stats
from pathclip.evaluate.datasets import TextPairs
from pathclip.evaluate.encode import VARIANTS, data_hash, encode_pictures
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import (
    Settings,
    TaskResult,
    compared,
    exact,
    headline,
    leaks,
    paired,
    score,
    subject_context,
)
from pathclip.runtime.preprocess import open_image
from pathclip.types import Score

DIRECTIONS = ("text_to_image", "image_to_text")
Rank = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Pictures with one text each.

    Attributes:
        dataset: the pairs; all of them are the pool that is searched.
        ks: of recall@k.
        definitions: of 'exact_pair' and 'same_text_or_group'.
        variants: of 'plain' and 'randomised_colour'.
        licence: of the data.
        citation: of the data.
        note: what a reader must know of the data.
    """

    dataset: TextPairs
    ks: Sequence[int] = (1, 5, 10)
    definitions: Sequence[str] = retrieval.DEFINITIONS
    variants: Sequence[str] = VARIANTS
    licence: str = ""
    citation: str = ""
    note: str = ""

    def run(self, name: str, subjects: Sequence[Subject], settings: Settings) -> TaskResult:
        """Measures every subject.

        Raises:
            DataError: fewer than two pairs, a picture that cannot be read, a pair without text, embeddings
                that are not numbers.
            ConfigError: an unknown definition.
        """
        pairs = self.dataset.first(settings.limit)
        _check(name, pairs, self.definitions)
        texts = {one.key: text_vectors(one, pairs.texts) for one in subjects}
        encoded = encode_pictures(
            pairs.contents,
            pairs.paths,
            subjects,
            self.variants,
            settings.batch_size,
            settings.seed,
            f"{name}: pictures",
        )
        groups = stats.group_index(pairs.groups)
        ks = [k for k in self.ks if k <= len(pairs)]
        shared = {
            "task": name,
            "data_hash": data_hash(encoded.sha256, pairs.texts, pairs.groups),
            "groups": int(groups.max()) + 1,
            "grouped": any(pairs.groups),
            "pool": len(pairs),
            "resamples": settings.resamples,
            "seed": settings.seed,
            "code_version": settings.code_version,
            "prompts": "the pairs' own texts",
        }
        counts, remarks = leaks(subjects, encoded.sha256)
        scores: list[Score] = []
        for definition in self.definitions:
            relevant = retrieval.relevance(definition, pairs.texts, groups)  # type: ignore[arg-type]
            for variant in self.variants:
                context = {**shared, "variant": variant, "definition": definition}
                figures = _Figures(groups, ks, settings, context)
                for direction in DIRECTIONS:
                    found = {}
                    for one in subjects:
                        images = encoded.embeddings[one.key][variant]
                        sides = (texts[one.key], images)
                        queries, items = sides if direction == "text_to_image" else sides[::-1]
                        found[one.key] = retrieval.ranks(queries, items, relevant)
                        about = {**subject_context(one), "leaked": counts[one.key]}
                        scores += figures.all(direction, found[one.key], about)
                    scores += figures.chance(direction, relevant)
                    for first, second in paired(subjects):
                        scores += figures.differences(direction, found, first, second)
        remarks += [self.note.strip()] if self.note.strip() else []
        if not any(pairs.groups):
            remarks.append("Groups are not known: intervals treat every pair as independent; too narrow.")
        described = {
            "kind": "retrieval",
            "licence": self.licence,
            "citation": self.citation,
            "pairs": len(pairs),
            "groups": shared["groups"],
            "texts": len(set(pairs.texts)),
        }
        sections = [_scores_section(name, scores, remarks, described, ks, self.definitions)]
        if subjects:
            best, variant = subjects[0], self.variants[0]
            relevant = retrieval.relevance("same_text_or_group", pairs.texts, groups)
            sections.append(
                _examples_section(
                    name, best, pairs, texts[best.key], encoded.embeddings[best.key][variant], relevant
                )
            )
        return TaskResult(tuple(scores), tuple(sections), tuple(remarks), described)


@dataclass(frozen=True, slots=True)
class _Figures:
    """Turns ranks into scores; holds what all of them share."""

    groups: Rank
    ks: Sequence[int]
    settings: Settings
    context: dict[str, Any]

    def all(self, direction: str, rank: Rank, about: dict[str, Any]) -> list[Score]:
        about = {**self.context, "method": "retrieval", **about}
        found = [
            score(f"{direction}_recall@{k}", self._mean(retrieval.recall_at(k, rank)), len(rank), about)
            for k in self.ks
        ]
        median, resamples = stats.bootstrap_median(
            rank, self.groups, self.settings.resamples, self.settings.seed
        )
        about = {**about, "resamples": resamples}
        return [*found, score(f"{direction}_median_rank", median, len(rank), about)]

    def chance(self, direction: str, relevant: retrieval.Relevance) -> list[Score]:
        about = {**self.context, "method": "chance"}
        n = len(relevant.texts)
        found = [
            score(f"{direction}_recall@{k}", exact(retrieval.chance_recall(k, relevant)), n, about)
            for k in self.ks
        ]
        median = exact(retrieval.chance_median_rank(relevant))
        return [*found, score(f"{direction}_median_rank", median, n, about)]

    def differences(
        self, direction: str, ranks: dict[str, Rank], first: Subject, second: Subject
    ) -> list[Score]:
        about = {**self.context, **compared(first, second)}
        found = []
        for k in self.ks:
            hits = [retrieval.recall_at(k, ranks[one.key]) for one in (first, second)]
            interval = self._mean(hits[0] - hits[1])
            found.append(score(f"{direction}_recall@{k}_difference", interval, len(hits[0]), about))
        return found

    def _mean(self, values: Any) -> stats.Interval:
        return stats.bootstrap_mean(values, self.groups, self.settings.resamples, self.settings.seed)


def text_vectors(subject: Subject, texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts to L2-normalised float32 [n, d]; equal texts are encoded once.

    Raises:
        DataError: an embedding is not a number; quotes the text.
    """
    unique = list(dict.fromkeys(texts))
    vectors = subject.encoder.encode_texts(unique)
    good = [bool(np.isfinite(vector).all()) for vector in vectors]
    for number, text in enumerate(unique):
        if not good[number]:
            raise DataError(f"'{text[:60]}': its embedding by {subject.title} is not a number")
    position = {text: number for number, text in enumerate(unique)}
    return vectors[[position[text] for text in texts]]


def _check(name: str, pairs: TextPairs, definitions: Sequence[str]) -> None:
    if len(pairs) < 2:
        raise DataError(f"task {name}: retrieval needs at least two pairs, there is {len(pairs)}")
    for path, text in zip(pairs.paths, pairs.texts, strict=True):
        if not text.strip():
            raise DataError(f"task {name}: {path} has an empty text")
    for definition in definitions:
        if definition not in retrieval.DEFINITIONS:
            raise ConfigError(
                f"tasks.{name}.definitions: '{definition}' is none of {', '.join(retrieval.DEFINITIONS)}"
            )


def _scores_section(
    name: str,
    scores: Sequence[Score],
    remarks: Sequence[str],
    about: dict[str, Any],
    ks: Sequence[int],
    definitions: Sequence[str],
) -> report.Section:
    html = report.paragraphs(remarks, "remark")
    for direction in DIRECTIONS:
        figure = f"{direction}_recall@{ks[-1]}"
        labels, columns = headline(scores, figure, definition=definitions[0])
        html += f"<h3>{report.words(figure)}, {report.words(definitions[0])}</h3>"
        html += report.bar_chart(
            labels,
            {variant: [one.value for one in row] for variant, row in columns.items()},
            {variant: [(one.low, one.high) for one in row] for variant, row in columns.items()},
            top=1.0,
        )
    html += report.score_table(scores)
    html += report.paragraphs([f"Licence: {about['licence'] or 'not stated'}", about["citation"]], "caption")
    caption = (
        f"{about['pairs']} pairs with {about['texts']} different texts in {about['groups']} groups. "
        "Intervals: 95 % bootstrap over the groups of the queries; the pool that is searched stays whole."
    )
    return report.Section(f"{name}: retrieval", html, caption)


def _examples_section(
    name: str,
    subject: Subject,
    pairs: TextPairs,
    texts: NDArray[np.float32],
    images: NDArray[np.float32],
    relevant: retrieval.Relevance,
    queries: int = 6,
    hits: int = 5,
) -> report.Section:
    """The first pictures found for a few texts spread over the data; the relevant ones framed in green."""
    firsts = list({text: number for number, text in reversed(list(enumerate(pairs.texts)))}.values())
    firsts.sort()
    spread = np.linspace(0, len(firsts) - 1, min(queries, len(firsts))).astype(int)
    chosen = [firsts[number] for number in spread]
    found = {query: np.argsort(-(images @ texts[query]), kind="stable")[:hits] for query in chosen}
    needed = sorted({int(number) for numbers in found.values() for number in numbers})
    contents = dict(zip(needed, pairs.contents(needed), strict=True))
    html = ""
    for query, numbers in found.items():
        right = relevant.mask(query, query + 1)[0]
        pictures = []
        for n in map(int, numbers):
            caption = shorten(pairs.texts[n], 90, placeholder=" …")
            pictures.append((open_image(contents[n], name=pairs.paths[n]), caption))
        html += f"<h3>{report.escape(pairs.texts[query][:200])}</h3>"
        html += report.picture_grid(pictures, marks=[bool(right[int(n)]) for n in numbers])
    caption = (
        f"{subject.title}: the {hits} nearest pictures to each text, each with its own text below. "
        "Green: same text or group as the query."
    )
    return report.Section(f"{name}: retrieved pictures", html, caption)
