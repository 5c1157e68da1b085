from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from pathclip.config import build
from pathclip.errors import ConfigError, DataError
from pathclip.evaluate.measures.prompt_choices import (
    METRICS,
    QUANTILES,
    PromptChoices,
    Tried,
    answers,
    prompt_choices,
)
from pathclip.evaluate.measures.prompt_sections import _decisive, part_means, prompt_remarks
from pathclip.evaluate.subjects import Subject
from pathclip.runtime.classify import fill
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder
from tests.evaluate.measured import measured, pictures, split

CLASSES = {"one": ["one", "ones", "single"], "two": ["two"], "three": ["three", "threes"]}
TEMPLATES = ["{}", "a {}"]


@pytest.fixture(scope="module")
def task():
    similarity, truth = pictures(80, seed=0)
    groups = [f"g{number // 2}" for number in range(80)]
    subjects = [Subject("model", ColourEncoder(precision=precision), "abc") for precision in ("int8", "fp32")]
    keys = [one.key for one in subjects]
    return measured(split(similarity, truth, groups, keys, "test"), subjects=subjects)


@pytest.fixture(scope="module")
def result(task):
    return PromptChoices().run(task)


def by_hand(task, subject, variant, template, words):
    texts = [fill(template, word) for word in words]
    vectors = subject.encoder.encode_texts(texts)
    return (task.test.encoded.embeddings[subject.key][variant] @ vectors.T).argmax(axis=1)


def test_all_choices_are_one_template_and_one_wording_per_class():
    found = prompt_choices(CLASSES, TEMPLATES, 100, 0)
    assert found.total == len(found.rows) == 2 * 3 * 1 * 2
    assert len({tuple(row) for row in found.rows.tolist()}) == 12
    assert found.prompts(0) == {
        "templates": ["{}"],
        "classes": {"one": ["one"], "two": ["two"], "three": ["three"]},
    }
    texts, columns = found.texts(), found.columns()
    for number in range(12):
        prompts = found.prompts(number)
        asked = [fill(prompts["templates"][0], word) for (word,) in prompts["classes"].values()]
        assert [texts[column] for column in columns[number]] == asked


def test_of_too_many_a_sample_is_drawn_with_every_template_and_the_first_wordings():
    words = {name: ["a", "b", "c"] for name in "pqrstuvw"}
    found = prompt_choices(words, TEMPLATES, 500, 3)
    rows = [tuple(row) for row in found.rows.tolist()]
    assert found.total == 2 * 3**8 and len(rows) == len(set(rows)) == 500
    assert rows[:2] == [(0, *[0] * 8), (1, *[0] * 8)]
    assert (found.rows.max(axis=0) == [1, *[2] * 8]).all()
    assert np.array_equal(found.rows, prompt_choices(words, TEMPLATES, 500, 3).rows)
    assert not np.array_equal(found.rows, prompt_choices(words, TEMPLATES, 500, 4).rows)


def test_more_choices_than_a_number_can_count_are_sampled():
    words = {str(number): ["a", "b", "c"] for number in range(60)}
    assert len(prompt_choices(words, TEMPLATES, 50, 0).rows) == 50


def test_the_sample_is_drawn_evenly():
    words = {name: ["a", "b"] for name in "pqrstuvwxyz"}
    rows = prompt_choices(words, TEMPLATES, 1000, 0).rows[2:]
    assert abs(rows.mean(axis=0) - 0.5).max() < 0.07


def test_the_answer_is_the_first_of_the_nearest_classes():
    rng = np.random.default_rng(0)
    similar = np.round(rng.normal(size=(9, 500)), 1).astype(np.float32)  # with ties
    columns = np.array([3, 0, 8, 5])
    assert np.array_equal(answers(similar, columns), similar[columns].argmax(axis=0))


def test_the_answer_may_be_beyond_the_256th_class():
    similar = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    found = answers(similar, np.arange(300))
    assert np.array_equal(found, similar.argmax(axis=0)) and found.max() > 256


@pytest.mark.parametrize("variant", ["plain", "randomised_colour"])
def test_the_scores_are_those_of_choices_measured_one_by_one(variant, task, result):
    subject = task.subjects[1]
    found = {name: [] for name in METRICS}
    choices = prompt_choices(task.classes, task.templates, 2000, 0)
    for number in range(len(choices.rows)):
        prompts = choices.prompts(number)
        words = [word for (word,) in prompts["classes"].values()]
        said = by_hand(task, subject, variant, prompts["templates"][0], words)
        found["balanced_accuracy"].append(metrics.balanced_accuracy_score(task.test.truth, said))
        found["weighted_f1"].append(metrics.f1_score(task.test.truth, said, average="weighted"))
    for one in result.scores:
        if (one.context["variant"], one.context["precision"]) == (variant, "fp32"):
            name, quantile = one.name.split("_prompt_")
            assert one.value == pytest.approx(np.quantile(found[name], QUANTILES[quantile], method="lower"))
            assert one.low <= one.value <= one.high and one.n == 80
    assert len({round(value, 6) for value in found["balanced_accuracy"]}) > 5


def test_each_score_names_the_choice_that_reached_it(task, result):
    for one in result.scores:
        if one.name == "balanced_accuracy_prompt_maximum":
            context = one.context
            subject = next(s for s in task.subjects if s.encoder.precision == context["precision"])
            words = [word for (word,) in context["prompts"]["classes"].values()]
            (template,) = context["prompts"]["templates"]
            said = by_hand(task, subject, context["variant"], template, words)
            assert metrics.balanced_accuracy_score(task.test.truth, said) == pytest.approx(one.value)


def test_remark_and_distribution_have_the_median_and_quartiles_that_the_scores_have(result):
    model = [one for one in result.scores if one.name.startswith("balanced_accuracy_prompt_")]
    for line, found in zip(result.remarks, result.about["distributions"], strict=True):
        own = {
            one.name.removeprefix("balanced_accuracy_prompt_"): one.value
            for one in model
            if all(one.context[key] == found[key] for key in ("by", "variant"))
        }
        assert found["balanced_accuracy"]["quantiles"] == pytest.approx(own)
        assert f"median {own['median']:.3f})" in line


def test_the_median_of_a_remark_is_that_of_a_choice_and_no_mean_of_two():
    choices = prompt_choices({"one": ["one"], "two": ["two"]}, TEMPLATES, 10, 0)
    subject = Subject("model", ColourEncoder(), "abc")
    tried = Tried(subject, "plain", dict.fromkeys(METRICS, np.array([0.2, 0.4])), dict.fromkeys(METRICS, 0.3))
    (line,) = prompt_remarks(choices, [tried])
    assert "all 2 choices; median 0.200)" in line


def test_both_precisions_and_both_variants_are_measured(result):
    found = {(one.context["precision"], one.context["variant"]) for one in result.scores}
    assert found == {(p, v) for p in ("int8", "fp32") for v in ("plain", "randomised_colour")}
    assert len(result.scores) == 4 * len(METRICS) * len(QUANTILES)


def test_the_report_says_how_many_choices_and_where_the_ensemble_stands(task, result):
    assert result.about["choices"] == result.about["of"] == 2 * 2**4
    assert "all 32 choices" in result.remarks[0] and "All prompts averaged" in result.remarks[0]
    sampled = PromptChoices(most=9).run(task)
    assert sampled.about["choices"] == 9
    assert "9 of 32 choices" in sampled.remarks[0] and "9 of 32 choices" in sampled.sections[0].caption
    one = result.about["distributions"][0]["balanced_accuracy"]
    (section,) = result.sections
    assert f"All prompts averaged: {one['ensemble']:.3f}" in section.html
    assert section.html.count("<svg") == 2


def test_the_wording_that_is_responsible_is_named():
    choices = prompt_choices(CLASSES, TEMPLATES, 100, 0)
    values = 0.9 - 0.3 * (choices.rows[:, 1] == 2) - 0.1 * choices.rows[:, 0]  # 'single' costs most
    means = {(owner, text): mean for owner, text, _, mean in part_means(choices, values)}
    assert means["one", "single"] == pytest.approx(0.55) and means["one", "ones"] == pytest.approx(0.85)
    assert means["template", "a {}"] == pytest.approx(0.7)
    said = _decisive(choices, values)
    assert said == (
        " Most depends on the wording of 'one': with 'ones' 0.850 in the mean, with 'single' 0.550."
    )


def test_one_prompt_per_class_leaves_nothing_to_choose(task):
    alone = replace(task, classes={name: [] for name in task.classes}, templates=["{}"])
    result = PromptChoices().run(alone)
    assert result.scores == () and "no choice to measure" in result.remarks[0]


def test_a_prompt_whose_embedding_is_not_a_number_is_quoted(task):
    broken = replace(task, subjects=[Subject("model", BrokenEncoder("threes"))])
    with pytest.raises(DataError, match="'threes': its embedding by broken"):
        PromptChoices().run(broken)


def test_no_choice_at_all_is_refused():
    node = {"_target_": "pathclip.evaluate.measures.prompt_choices.PromptChoices", "most": 0}
    with pytest.raises(ConfigError, match="most: 0 is no number of at least 1"):
        build(node, "measures.prompts")
