"""What the report shows of a zero-shot task: figures, each class, confusion matrix, wrong examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.classification.zeroshot_figures import RECALL
from pathclip.evaluate.reporting import report
from pathclip.evaluate.reporting.confusion_pictures import confusion_with_pictures, wrong_examples
from pathclip.evaluate.reporting.task_parts import prompt_details, score_chart
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured
from pathclip.runtime.calibration import softmax
from pathclip.types import Score


def scores_section(
    name: str, scores: Sequence[Score], remarks: Sequence[str], about: Mapping[str, Any]
) -> report.Section:
    """Remarks, balanced accuracy as bars, every score, the prompts; `about` as in `TaskResult`."""
    chart, details = score_chart(scores, "balanced_accuracy"), prompt_details(about)
    table = report.score_table([one for one in scores if one.name != RECALL])
    html = report.marks_explained(scores) + report.paragraphs(remarks, "remark") + chart + table + details
    caption = (
        f"Balanced accuracy above, with 95 % bootstrap intervals over {about['groups']} groups of "
        f"{about['images']} pictures. Prompts are averaged; 'first template' is the first alone, with the "
        "first wording of each class. Chance is a uniform guess. Randomised colour: hue, saturation, "
        "brightness and contrast drawn anew for each picture, so that a class shares none of them; the "
        "spread of its colours still tells something, which the figure of colour only shows."
    )
    return report.Section(f"{name}: zero-shot classification", html, caption)


def recall_section(name: str, scores: Sequence[Score]) -> report.Section:
    """Recall of each class with its n, by whoever answered."""
    rows: dict[str, dict[str, Score]] = {}
    for one in scores:
        if one.name == RECALL and one.context["method"] in ("zero_shot", "colour_only"):
            by = f"{report.method_text(one.context)}, {report.words(one.context['variant'])}"
            rows.setdefault(one.context["class"], {})[by] = one
    columns = list(dict.fromkeys(by for cells in rows.values() for by in cells))
    table = report.html_table(
        ["class", "n", *columns],
        [
            [
                report.escape(key),
                str(next(iter(cells.values())).n),
                *(report.value_text(cells[by]) for by in columns),
            ]
            for key, cells in rows.items()
        ],
    )
    caption = "The share of each class that was recognised; balanced accuracy is the mean of a column."
    return report.Section(f"{name}: each class", table, caption)


def confusion_section(measured: Measured, shown: Subject, variant: str) -> report.Section:
    """Confusion matrix of one encoder, its cells leading to pictures."""
    test = measured.test
    html = confusion_with_pictures(
        measured.name, test.images, test.truth, _shares(measured, shown, variant), list(measured.classes)
    )
    caption = f"{shown.title}, {report.words(variant)}. Rows are true classes, columns predictions."
    return report.Section(f"{measured.name}: confusion matrix", html, caption)


def wrong_section(measured: Measured, shown: Subject, variant: str, most: int = 16) -> list[report.Section]:
    """At most `most` pictures that the encoder was wrong about and surest of; none if it was never wrong."""
    test, shares = measured.test, _shares(measured, shown, variant)
    html, total = wrong_examples(test.images, test.truth, shares, list(measured.classes), most)
    if not total:
        return []
    by = f"{shown.title} ({report.words(variant)})"
    caption = f"{min(most, total)} of {total} wrong answers of {by}, surest first."
    return [report.Section(f"{measured.name}: wrong examples", html, caption)]


def _shares(measured: Measured, shown: Subject, variant: str) -> NDArray[np.float64]:
    """Probabilities [n, classes] of one encoder, all prompts averaged."""
    embeddings = measured.test.encoded.embeddings[shown.key][variant]
    similar = zeroshot.similarities(embeddings, measured.vectors[shown.key])
    return softmax(similar, shown.encoder.logit_scale)
