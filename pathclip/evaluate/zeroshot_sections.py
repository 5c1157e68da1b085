"""What the report shows of a zero-shot task: figures, confusion matrix, wrong examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import report, zeroshot
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import headline
from pathclip.runtime.preprocess import open_image
from pathclip.types import Score

Numbers = NDArray[np.int64]


def scores_section(
    name: str, scores: Sequence[Score], remarks: Sequence[str], about: Mapping[str, Any]
) -> report.Section:
    """Remarks, balanced accuracy as bars, every score, the prompts; `about` as in `TaskResult`."""
    labels, columns = headline(scores, "balanced_accuracy")
    chart = report.bar_chart(
        labels,
        {variant: [one.value for one in row] for variant, row in columns.items()},
        {variant: [(one.low, one.high) for one in row] for variant, row in columns.items()},
        top=1.0,
    )
    prompts = about["prompts"]
    wordings = [f"{key}: {', '.join(value)}" for key, value in prompts["classes"].items()]
    details = (
        "<details><summary>Prompts, licence, citation</summary>"
        + report.paragraphs([f"Templates: {'; '.join(prompts['templates'])}", *wordings])
        + report.paragraphs([f"Licence: {about['licence'] or 'not stated'}", about["citation"]])
        + "</details>"
    )
    html = report.paragraphs(remarks, "remark") + chart + report.score_table(scores) + details
    caption = (
        f"Balanced accuracy above, with 95 % bootstrap intervals over {about['groups']} groups of "
        f"{about['images']} pictures. Randomised colour: hue, saturation, brightness and contrast drawn "
        "anew for each picture, so that a class shares none of them; the spread of its colours still "
        "tells something, which the figure of colour only shows."
    )
    return report.Section(f"{name}: zero-shot classification", html, caption)


def confusion_section(
    name: str, shown: Subject, variant: str, truth: Numbers, similar: Any, classes: list[str]
) -> report.Section:
    """Confusion matrix of one encoder; `truth` int64 [n], `similar` [n, classes]."""
    counts = zeroshot.confusion_matrix(truth, zeroshot.predict(similar), len(classes))
    caption = f"{shown.title}, {report.words(variant)}. Rows are true classes, columns predictions."
    return report.Section(f"{name}: confusion matrix", report.confusion_svg(counts, classes), caption)


def wrong_section(
    name: str,
    shown: Subject,
    variant: str,
    test: LabelledImages,
    truth: Numbers,
    similar: Any,
    classes: list[str],
    most: int = 16,
) -> list[report.Section]:
    """At most `most` pictures that the encoder was wrong about and surest of; none if it was never wrong."""
    shares = zeroshot.probabilities(similar, shown.encoder.logit_scale)
    predicted = zeroshot.predict(similar)
    sure = np.where(predicted != truth, shares.max(axis=1), -1)
    chosen = [int(number) for number in np.argsort(-sure, kind="stable")[:most] if sure[number] >= 0]
    if not chosen:
        return []
    contents = dict(zip(sorted(chosen), test.contents(sorted(chosen)), strict=True))
    pictures = [
        (
            open_image(contents[number], name=test.paths[number]),
            f"{classes[truth[number]]}, taken for {classes[predicted[number]]} ({sure[number]:.2f})",
        )
        for number in chosen
    ]
    total = int((predicted != truth).sum())
    caption = (
        f"{len(chosen)} of {total} wrong answers of {shown.title} ({report.words(variant)}), surest first."
    )
    return [report.Section(f"{name}: wrong examples", report.picture_grid(pictures), caption)]
