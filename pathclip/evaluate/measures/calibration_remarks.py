"""What a reader must know of a calibration: where it was fitted, what could not be, whether it works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pathclip.evaluate import stats
from pathclip.evaluate.measures import calibration
from pathclip.evaluate.measures.calibration_figures import PROBABILITY, SIMILARITY, Values
from pathclip.evaluate.reporting.report import value_text
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Split
from pathclip.types import Score

PLAIN = "plain"


def limits(
    subject: Subject, best: calibration.Fitted, groups: int, coverage: float, known_pass: float
) -> list[str]:
    """What could not be fitted on so many groups, and that nothing is kept then."""
    remarks = []
    if best.at_bound:
        remarks.append(
            f"{subject.title}: no temperature fits best (every answer is right, or similarities say "
            f"nothing); the factor of similarity is set to the bound {best.logit_scale:g}."
        )
    if best.conformal_threshold >= 1:
        remarks.append(
            f"{subject.title}: {groups} groups are too few, or too badly told apart, for sets of less "
            f"than all classes at {coverage:.0%} coverage."
        )
    if best.none_threshold <= -1:
        remarks.append(
            f"{subject.title}: {groups} groups are too few to let {known_pass:.0%} of new "
            "ones pass, so nothing is called none of these."
        )
    if not worth_keeping(best, groups):
        remarks.append(f"{subject.title}: {_why_not(best)} ({groups}) to keep a calibration.")
    return remarks


def worth_keeping(best: calibration.Fitted, groups: int) -> bool:
    """Whether every threshold could be fitted: a card is not to pass on what rules nothing out."""
    return groups >= stats.FEWEST_GROUPS and best.conformal_threshold < 1 and best.none_threshold > -1


def _why_not(best: calibration.Fitted) -> str:
    badly_told_apart = best.conformal_threshold >= 1 and best.none_threshold > -1
    return "too few groups, or classes too badly told apart," if badly_told_apart else "too few groups"


def where_fitted(measured: Measured, fitting: Split) -> list[str]:
    """On which pictures, and what that means for conformal sets."""
    groups, grouped = len(np.unique(fitting.groups)), any(fitting.images.groups)
    many = f"{len(fitting.truth)} pictures in {groups} groups"
    if measured.validation is None:
        remarks = [
            "Calibration: the task has no validation rows, so each half of the test groups is judged by "
            f"values that were fitted on the other half; the values to be stored are fitted on all {many}."
        ]
    else:
        remarks = [f"Calibration: all values are fitted on {many} of the validation rows."]
    remarks.append(
        "Conformal coverage holds for new groups that are exchangeable with those fitted on: not for another "
        "laboratory or scanner, and not for each class by itself."
        + ("" if grouped else " Groups are not known here: pictures count as independent, so it may be less.")
    )
    return remarks


def halves_too_small(subject: Subject, best: calibration.Fitted, values: Values, groups: int) -> list[str]:
    """What is stored was fitted on all groups; where a half has too few for that, it was not judged."""
    if not worth_keeping(best, groups) or not (values.conformal >= 1).any():
        return []
    return [
        f"{subject.title}: a half of the {groups} groups is too few for sets of less than all classes, so "
        f"coverage and size of the sets here are not those of the stored threshold "
        f"{best.conformal_threshold:.3f}, which is fitted on all of them and could not be judged."
    ]


def verdict_on(subject: Subject, scores: Sequence[Score], too_few: Sequence[str]) -> list[str]:
    """Whether it works on plain pictures, in numbers; of `too_few` classes there is no threshold."""
    mine = {
        (one.name, one.context.get("definition")): one
        for one in scores
        if one.context["by"] == subject.title
        and one.context["variant"] == PLAIN
        and "left_out" not in one.context
    }
    area, other = (mine["none_auroc_mean", definition] for definition in (SIMILARITY, PROBABILITY))
    areas = (
        f"AUROC {value_text(area)} by the highest similarity, {value_text(other)} by the highest probability."
    )
    if too_few:
        return [
            f"{subject.title}: 'none of these' cannot be judged: too few groups to fit a threshold on, with "
            f"{', '.join(too_few)} left out. {areas}"
        ]
    caught, lost = (mine[name, SIMILARITY] for name in ("none_rejected_mean", "known_rejected_mean"))
    if not area.low > 0.5:  # NaN does not work either
        verdict = "does not work here"
    elif caught.value < 0.5:
        verdict = "misses most here"
    else:
        verdict = "works in part here" if caught.value < 0.9 else "works here"
    return [
        f"{subject.title}: 'none of these' {verdict}. With one class left out in turn, it rejects "
        f"{value_text(caught)} of the pictures of that class, and {value_text(lost)} of the others. {areas}"
    ]
