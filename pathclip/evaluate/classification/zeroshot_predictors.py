"""Who answers in a zero-shot task: the encoders, by all prompts and by the first alone, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pathclip.evaluate import profile
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.classification.auroc import log_odds
from pathclip.evaluate.classification.zeroshot_figures import Predictor
from pathclip.evaluate.classification.zeroshot_inputs import prompt_vectors
from pathclip.evaluate.features import colour
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Answers, Measured, subject_context
from pathclip.runtime.calibration import softmax

# More alike than this, two classes are one text to the encoder: float32 tells nothing closer apart.
_SAME = 1 - 1e-6


def first_prompts(
    classes: Mapping[str, Sequence[str]], templates: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]] | None:
    """The first wording of each class and the first template; None if there are no others.

    That is how most figures were published: one template for each set, chosen by hand (PLIP: Huang et al.
    2023, doi:10.1038/s41591-023-02504-3).

    >>> first_prompts({"a": ["tumour", "cancer"], "b": []}, ["{}", "a {}"])
    ({'a': ['tumour'], 'b': ['b']}, ['{}'])
    """
    if len(templates) < 2 and all(len(words) < 2 for words in classes.values()):
        return None
    return {key: list(words[:1]) or [key] for key, words in classes.items()}, list(templates[:1])


def encoder_predictors(
    measured: Measured, subject: Subject, leak: Mapping[str, Any]
) -> tuple[list[Predictor], list[Answers]]:
    """What an encoder says in each variant: by all prompts averaged, and by the first where there are more.

    Args:
        measured: the task.
        subject: the encoder.
        leak: entries of the scores' context.

    Returns:
        The predictors, and the answers by all prompts.

    Raises:
        DataError: the text tower gives NaN for a first prompt.
    """
    ways: list[tuple[str, dict[str, Any], Any]] = [
        (subject.key, {"method": "zero_shot", "prompt": "ensemble"}, measured.vectors[subject.key])
    ]
    if (single := first_prompts(measured.classes, measured.templates)) is not None:
        prompts = {"templates": single[1], "classes": single[0]}
        about = {"method": "first_template", "prompt": "first template", "prompts": prompts}
        vectors = prompt_vectors(subject, *single, measured.settings)
        ways.append((f"{subject.key}, first template", about, vectors))
    found, answers = [], []
    for variant in measured.variants:
        embeddings = measured.test.encoded.embeddings[subject.key][variant]
        for key, about, vectors in ways:
            similar = zeroshot.similarities(embeddings, vectors)
            context = {"variant": variant, **about, **subject_context(subject), **leak}
            said = zeroshot.predict(similar)
            found.append(Predictor(key, context, said, log_odds(similar, subject.encoder.logit_scale)))
            if about["method"] == "zero_shot":
                shares = softmax(similar, subject.encoder.logit_scale)
                answers.append(_answers(measured, context, said, shares.max(axis=1)))
    return found, answers


def baseline_predictors(measured: Measured, variant: str) -> list[Predictor]:
    """Colour only and the majority class in one variant.

    Without training rows the former is cross-validated, and the latter is that of the test rows themselves.
    """
    test, train, classes = measured.test, measured.train, len(measured.classes)
    rows, seed = test.encoded.colours[variant], measured.settings.seed
    about: dict[str, Any] = {"variant": variant, "method": "colour_only"}
    answers: colour.ColourAnswers | None
    with profile.measured(measured.settings.profile, "colour baseline"):
        if train is not None:
            seen = train.encoded.colours[variant]
            answers = colour.classify_by_colour(seen, train.truth, train.groups, rows, seed)
            most = colour.majority_class(train.truth, classes)
        else:
            about["cross_validated"] = True
            answers = colour.cross_classify_by_colour(rows, test.truth, test.groups, seed)
            most = colour.majority_class(test.truth, classes)
    found = []
    if answers is not None:
        about["classifier"] = answers.classifier
        found.append(Predictor("colour only", about, answers.classes))
    constant = np.zeros((len(test.truth), classes))
    said = np.full(len(test.truth), most, np.int64)
    about = {"variant": variant, "method": "majority"}
    if train is None:
        about["learnt_from_test"] = True
    found.append(Predictor("majority", about, said, constant))
    return found


def indistinct_classes(measured: Measured) -> list[str]:
    """A remark for each encoder of the model and pair of classes whose prompts are one text to it."""
    names = list(measured.classes)
    found = []
    for one in measured.subjects:
        if one.role != "model":
            continue
        alike = measured.vectors[one.key] @ measured.vectors[one.key].T
        for first, second in np.argwhere(np.triu(alike > _SAME, 1)):
            found.append(
                f"To {one.title} the prompts of '{names[first]}' and '{names[second]}' are the same text: "
                "its tokenizer does not know their words or cuts them off. No answer tells them apart."
            )
    return found


def _answers(measured: Measured, context: Mapping[str, Any], said: Any, sure: Any) -> Answers:
    names, test = list(measured.classes), measured.test
    return Answers(
        {**measured.context, **context},
        test.encoded.sha256,
        test.images.groups,
        tuple(names[number] for number in test.truth),
        tuple(names[number] for number in said),
        sure,
    )
