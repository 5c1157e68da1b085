"""Retrieval as a task: text to image and image to text, under both definitions of a hit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import stats
from pathclip.evaluate.datasets import TextPairs
from pathclip.evaluate.features.encode import VARIANTS, Encoded, data_hash, encode_dataset
from pathclip.evaluate.image_text import retrieval, retrieval_sections
from pathclip.evaluate.image_text.retrieval_figures import Figures, Search, enough_resamples
from pathclip.evaluate.image_text.retrieval_pools import in_full_set, pooled
from pathclip.evaluate.marks import is_leaking, marks_of
from pathclip.evaluate.profile import measured
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Answers, Settings, TaskResult, few_groups, leaks, subject_context
from pathclip.types import Score

DIRECTIONS = ("text_to_image", "image_to_text")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Pictures with one text each.

    Attributes:
        dataset: the pairs; all of them are the pool that is searched.
        ks: of recall@k.
        pools: sizes of the random pools that are searched besides the full set.
        definitions: of 'exact_pair' and 'same_text_or_group'.
        variants: of 'plain' and 'randomised_colour'.
        licence: of the data.
        citation: of the data.
        note: what a reader must know of the data.
    """

    dataset: TextPairs
    ks: Sequence[int] = (1, 5, 10, 50)
    pools: Sequence[int] = (100, 1000)
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
            ConfigError: an unknown definition, or a k or pool that is no count.
        """
        pairs = self.dataset.first(settings.limit)
        self._check(name, pairs)
        texts = {one.key: text_vectors(one, pairs.texts) for one in subjects}
        encoded = encode_dataset(pairs, subjects, self.variants, settings, f"{name}: pictures")
        groups = stats.group_index(pairs.groups)
        relevant = [retrieval.relevance(one, pairs.texts, groups) for one in self.definitions]  # type: ignore[arg-type]
        ks, sizes, remarks = self._fitting(len(pairs))
        leaking, leak_lines = leaks(subjects, encoded)
        leaked = {key: {"leaked": one.exact, "near_leaked": one.near} for key, one in leaking.items()}
        remarks = [*leak_lines, *remarks, *filter(None, [self.note.strip()])]
        if not any(pairs.groups):
            remarks.append("Groups are not known: intervals treat every pair as independent; too narrow.")
        n_groups = int(groups.max()) + 1
        remarks += few_groups(n_groups)
        drawn = enough_resamples(settings.resamples, n_groups)
        if drawn < settings.resamples:
            remarks.append(f"Of so many groups, {n_groups:,}, intervals are of {drawn:,} resamples each.")
            settings = replace(settings, resamples=drawn)
        shared = {
            "task": name,
            "data_hash": data_hash(encoded.sha256, pairs.texts, pairs.groups),
            "groups": n_groups,
            "grouped": any(pairs.groups),
            "resamples": settings.resamples,
            "seed": settings.seed,
            "code_version": settings.code_version,
            "prompts": "the pairs' own texts",
        }
        scores: list[Score] = []
        answers: list[Answers] = []
        items: dict[str, tuple[str, ...]] = {}
        with measured(settings.profile, "retrieval"):
            searches = self._searches(subjects, texts, encoded, relevant, sizes, settings)
        for search in searches:
            context = {**shared, **search.where}
            figures = Figures(groups, ks, settings, context)
            scores += figures.measured(subjects, search.found, leaked)
            scores += figures.chance(search.relevant, (len(pairs), *sizes))
            for one in subjects:
                about = {**context, "method": "retrieval", **subject_context(one), **leaked[one.key]}
                suffix = f"{search.direction} {search.relevant.definition}"
                if suffix not in items:  # shared by all encoders and variants
                    items[suffix] = _items(encoded.sha256, suffix)
                rank = search.found[one.key][0].rank[:, 0].astype(np.int64)
                answers.append(Answers(about, items[suffix], pairs.groups, rank=rank))
        marks = marks_of([], {one.key: is_leaking(one, leaking[one.key]) for one in subjects}, False)
        scores = marks.put(scores)
        about = {
            "kind": "retrieval",
            "licence": self.licence,
            "citation": self.citation,
            "pairs": len(pairs),
            "groups": shared["groups"],
            "texts": len(set(pairs.texts)),
            "pools": list(sizes),
        }
        sections = retrieval_sections.score_sections(name, scores, remarks, about, ks, subjects, searches)
        if subjects:
            first = subjects[0]
            images = encoded.embeddings[first.key][self.variants[0]]
            shown = retrieval_sections.Shown(first, pairs, texts[first.key], images, relevant[-1])
            own = [
                one for one in searches if one.relevant is relevant[-1] and one.variant == self.variants[0]
            ]
            sections += [
                retrieval_sections.examples_section(name, shown),
                retrieval_sections.hardest_section(name, shown, own),
            ]
        return TaskResult(tuple(scores), tuple(sections), tuple(remarks), about, tuple(answers))

    def _searches(
        self,
        subjects: Sequence[Subject],
        texts: Mapping[str, NDArray[np.float32]],
        encoded: Encoded,
        relevant: Sequence[retrieval.Relevance],
        sizes: Sequence[int],
        settings: Settings,
    ) -> list[Search]:
        """By definition, variant and direction; the definitions share the work."""
        found = []
        for variant in self.variants:
            for direction in DIRECTIONS:
                by_key = {}
                for one in subjects:
                    sides = (texts[one.key], encoded.embeddings[one.key][variant])
                    queries, items = sides if direction == "text_to_image" else sides[::-1]
                    full = map(in_full_set, retrieval.places(queries, items, relevant))
                    pools = [pooled(queries, items, relevant, size, settings.seed) for size in sizes]
                    by_key[one.key] = list(zip(full, *pools, strict=True))
                for number, counts in enumerate(relevant):
                    places = {key: of_each[number] for key, of_each in by_key.items()}
                    found.append(Search(variant, direction, counts, places))
        return sorted(found, key=lambda one: self.definitions.index(one.relevant.definition))

    def _check(self, name: str, pairs: TextPairs) -> None:
        for definition in self.definitions or [""]:
            if definition not in retrieval.DEFINITIONS:
                raise ConfigError(
                    f"tasks.{name}.definitions: '{definition}' is none of {', '.join(retrieval.DEFINITIONS)}"
                )
        for key, values, least in (("ks", self.ks, 1), ("pools", self.pools, 2)):
            for value in values:
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise ConfigError(f"tasks.{name}.{key}: {value} is no whole number of at least {least}")
        if len(pairs) < 2:
            raise DataError(f"task {name}: retrieval needs at least two pairs, there is {len(pairs)}")
        for path, text in zip(pairs.paths, pairs.texts, strict=True):
            if not text.strip():
                raise DataError(f"task {name}: {path} has an empty text")

    def _fitting(self, n: int) -> tuple[list[int], list[int], list[str]]:
        """The ks and the sizes of pools that n pairs are enough for, and remarks on the others."""
        ks, remarks = sorted({k for k in self.ks if k <= n}), []
        sizes = sorted({size for size in self.pools if size < n})
        if left := sorted({k for k in self.ks if k > n}):
            names = ", ".join(f"recall@{k}" for k in left)
            remarks.append(f"Left out, because there are only {n} pairs: {names}.")
        if left := sorted({size for size in self.pools if size >= n}):
            names = " and ".join(f"{size:,}" for size in left)
            remarks.append(f"No random pools of {names}: the full set has {n:,} pairs.")
        return ks, sizes, remarks


def text_vectors(subject: Subject, texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts to L2-normalised float32 [n, d]; equal texts are encoded once.

    Raises:
        DataError: an embedding is not a number; quotes the text.
    """
    unique = list(dict.fromkeys(texts))
    vectors = subject.encoder.encode_texts(unique)
    for text, vector in zip(unique, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise DataError(f"'{text[:60]}': its embedding by {subject.title} is not a number")
    position = {text: number for number, text in enumerate(unique)}
    return vectors[[position[text] for text in texts]]


def _items(sha256: Sequence[str], suffix: str) -> tuple[str, ...]:
    """What names each query in the answers: its picture, direction and definition."""
    seen: Counter[str] = Counter()
    items = []
    for picture in sha256:
        seen[picture] += 1
        again = f" {seen[picture]}" if seen[picture] > 1 else ""  # a picture may have several texts
        items.append(f"{picture}{again} {suffix}")
    return tuple(items)
