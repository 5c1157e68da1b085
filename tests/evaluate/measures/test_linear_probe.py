"""The linear probe, and what all measures that learn share: rows to learn from, scores, spread over seeds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathclip.config import build
from pathclip.errors import ConfigError
from pathclip.evaluate import stats
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.measures.learning import Rows, inner_split, learnable, share_of_groups
from pathclip.evaluate.measures.linear_probe import LinearProbe, fit_probe
from pathclip.evaluate.reporting import report
from tests.evaluate.learning_cases import CLASSES, FP32, INT8, SUBJECTS, find, split, task

CORRECTED = LinearProbe(published=False, seeds=2)
ONE = [FP32]
TEST = split("test", 60, subjects=ONE)


def embeddings(part):
    return part.encoded.embeddings[FP32.key]["plain"]


def scikit_learn(train, unseen, c):
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=c, max_iter=1000, class_weight="balanced")
    ).fit(embeddings(train), train.truth)
    return probe.predict(embeddings(unseen))


def chosen(result, method="linear_probe"):
    return find(result, "balanced_accuracy", method=method, by=FP32.title).context["inverse_strength"]


def test_the_figures_equal_those_of_scikit_learn():
    measured = task(subjects=ONE, test=TEST, validation=split("validation", 60, subjects=ONE))
    result = CORRECTED.run(measured)
    said = scikit_learn(measured.train, TEST, chosen(result)[0])
    values = {
        "balanced_accuracy": balanced_accuracy_score(TEST.truth, said),
        "accuracy": (TEST.truth == said).mean(),
        "macro_f1": f1_score(TEST.truth, said, average="macro"),
        "weighted_f1": f1_score(TEST.truth, said, average="weighted"),
    }
    for name, value in values.items():
        assert find(result, name, method="linear_probe").value == pytest.approx(value)
    names = list(CLASSES)
    assert result.answers[0].answer == tuple(names[number] for number in said)
    assert all(1 / 3 <= sure <= 1 for sure in result.answers[0].sure)


def best_on(measured, part):
    """The strength that is best on some rows, if it were chosen there."""
    grid = sorted(CORRECTED.inverse_strengths)
    values = [balanced_accuracy_score(part.truth, scikit_learn(measured.train, part, c)) for c in grid]
    return grid[int(np.argmax(values))]


@pytest.mark.parametrize("validated", [True, False], ids=["validation rows", "no validation rows"])
def test_the_strength_is_chosen_without_the_test_rows(validated):
    rng = np.random.default_rng(3)
    validation = split("validation", 90, subjects=ONE, seed=5) if validated else None
    measured = task(subjects=ONE, test=TEST, validation=validation)
    before = chosen(CORRECTED.run(measured))
    wrong = [replace(TEST, truth=rng.permutation(TEST.truth)) for _ in range(3)]
    assert {best_on(measured, one) for one in wrong} > {before[0]}, "the test rows would choose otherwise"
    for one in wrong:
        assert chosen(CORRECTED.run(replace(measured, test=one))) == before
    if validated:
        assert before == [best_on(measured, validation)]


def test_without_validation_rows_whole_groups_are_held_back_of_every_class():
    part = split(
        "train", 90, groups=[f"g{number // 6}" for number in range(90)], truth=np.arange(90) // 6 % 3
    )
    fit, held = inner_split(Rows(part, np.arange(90)), 0.3, seed=1)
    assert sorted([*fit, *held]) == list(range(90))
    assert not {*part.groups[fit]} & {*part.groups[held]}
    assert {*part.truth[fit]} == {*part.truth[held]} == {0, 1, 2}
    assert len(held) == 3 * 6 * 2  # 2 of 5 groups of each class


def test_of_a_class_with_one_group_nothing_is_held_back():
    part = split("train", truth=[0, 0, 1, 1], groups=["a", "a", "b", "c"], subjects=ONE)
    fit, held = inner_split(Rows(part, np.arange(4)), 0.9, seed=0)
    assert {0, 1} < {*fit} and len(held) == 1
    part = split("train", truth=[0, 0, 1, 1], groups=["a", "a", "b", "b"], subjects=ONE)
    assert inner_split(Rows(part, np.arange(4)), 0.9, seed=0) is None


def test_a_smaller_share_of_the_groups_lies_within_a_larger_one():
    rng = np.random.default_rng(0)
    groups = np.arange(300) // 3
    truth = rng.integers(0, 3, 100)[groups]
    shares = [share_of_groups(truth, groups, share, seed=4) for share in (0.01, 0.1, 0.5, 1.0)]
    assert shares[-1].all()
    for smaller, larger in pairwise(shares):
        assert smaller.sum() < larger.sum() and not (smaller & ~larger).any()
    assert {*truth[shares[0]]} == {0, 1, 2} and shares[0].sum() == 9


def test_as_published_reports_the_best_alpha_on_the_test_rows_and_says_so():
    measured = task(subjects=ONE, test=TEST)
    result = LinearProbe(seeds=3).run(measured)
    found = find(result, "weighted_f1", method="linear_probe_as_published")
    values = {}
    for alpha in (0.0001, 0.001, 0.01, 0.1):
        for seed in range(3):
            probe = SGDClassifier(
                loss="log_loss", alpha=alpha, max_iter=10_000, class_weight="balanced", random_state=seed
            )
            said = probe.fit(embeddings(measured.train), measured.train.truth).predict(embeddings(TEST))
            values.setdefault(alpha, []).append(f1_score(TEST.truth, said, average="weighted"))
    means = {alpha: np.mean(row) for alpha, row in values.items()}
    best = max(means, key=means.get)
    assert found.context["alpha"] == best and found.value == pytest.approx(means[best])
    assert found.context["sd_over_seeds"] == pytest.approx(np.std(values[best], ddof=1))
    assert found.context["chosen_on"] == "test rows, as published"
    assert any("flatters" in remark for remark in result.remarks)
    by_alpha = result.about["weighted_f1_by_alpha"]["model fp32, plain"]
    assert [*by_alpha.values()] == pytest.approx([*means.values()])


def test_the_interval_is_that_of_the_bootstrap_over_groups():
    measured = task(subjects=ONE, test=TEST, validation=split("validation", 60, subjects=ONE))
    result = CORRECTED.run(measured)
    found = find(result, "macro_f1", method="linear_probe")
    said = scikit_learn(measured.train, TEST, chosen(result)[0])
    sums = zeroshot.grouped_confusion(TEST.truth, said, 3, TEST.groups)
    interval = stats.bootstrap(sums, zeroshot.macro_f1, 200, 0)
    assert (found.value, found.low, found.high) == pytest.approx(
        (interval.value, interval.low, interval.high)
    )
    assert found.context["sd_over_seeds"] is None and found.context["seeds"] == 1


def test_tested_pictures_and_their_groups_are_left_out_of_the_training_rows():
    train = split("train", 90, subjects=ONE)
    digests, groups = list(train.encoded.sha256), list(train.images.groups)
    digests[:4] = TEST.encoded.sha256[10:14]
    groups[20:26] = ["test3"] * 6
    leaking = replace(
        train,
        images=replace(train.images, groups=tuple(groups)),
        groups=stats.group_index(groups),
        encoded=replace(train.encoded, sha256=tuple(digests)),
    )
    given = learnable(task(leaking, test=TEST, subjects=ONE))
    assert [*given.train.numbers] == [*range(4, 20), *range(26, 90)]
    assert "10 of 90 training pictures were left out: 4 are themselves" in given.remarks[0]
    assert "6 more are of groups" in given.remarks[0]
    result = CORRECTED.run(task(leaking, test=TEST, subjects=ONE))
    assert find(result, "accuracy", method="linear_probe").context["learnt_from"] == 80
    assert given.remarks[0] in result.remarks


def test_unknown_groups_are_no_common_group():
    train, test = (split(name, 60, groups=[""] * 60, subjects=ONE) for name in ("train", "test"))
    given = learnable(task(train, test=test, subjects=ONE))
    assert len(given.train) == 60 and not given.remarks


def test_validation_rows_that_are_learnt_from_are_not_chosen_on():
    train = split("train", 90, subjects=ONE)
    given = learnable(task(train, test=TEST, validation=train, subjects=ONE))
    assert given.validation is None
    assert "90 of 90 validation pictures were left out" in given.remarks[0]


@pytest.mark.parametrize(
    ("train", "line"),
    [
        (None, "the task has no rows to learn from"),
        (split("train", truth=[0, 1] * 20, subjects=ONE), "class 'malignant' has no example among the 40"),
    ],
    ids=["no rows", "no example of a class"],
)
def test_what_cannot_be_learnt_gives_a_line_and_no_figure(train, line):
    result = CORRECTED.run(task(train, test=TEST, subjects=ONE))
    assert result.scores == () and line in result.remarks[-1]
    assert line in result.sections[0].html.replace("&#x27;", "'")


def test_colours_alone_stand_beside_and_mark_what_they_solve():
    train, test = split("train", 90, subjects=ONE), split("test", 60, subjects=ONE)
    for part in (train, test):
        part.encoded.colours["plain"][np.arange(len(part.truth)), part.truth] += 9
    result = CORRECTED.run(task(train, test=test, subjects=ONE))
    colour = find(result, "balanced_accuracy", method="linear_probe_on_colour_only")
    probe = find(result, "balanced_accuracy", method="linear_probe")
    assert colour.value > 0.95 and "role" not in colour.context
    assert probe.context["marks"] == [report.SOLVED_BY_COLOUR]
    assert any("solved by colour" in remark for remark in result.remarks)
    plain = CORRECTED.run(task(subjects=ONE, test=TEST))
    assert "marks" not in find(plain, "balanced_accuracy", method="linear_probe").context


def test_every_encoder_is_measured_in_every_variant_and_compared_in_pairs():
    result = CORRECTED.run(task(variants=("plain", "randomised_colour")))
    for variant in ("plain", "randomised_colour"):
        for one in SUBJECTS:
            find(result, "balanced_accuracy", variant=variant, method="linear_probe", by=one.title)
    first, second = (
        find(result, "balanced_accuracy", variant="plain", method="linear_probe", by=one.title)
        for one in (INT8, FP32)
    )
    difference = find(
        result,
        "balanced_accuracy_difference",
        variant="plain",
        by="linear probe, int8 minus fp32",
    )
    assert difference.value == pytest.approx(first.value - second.value)
    assert difference.low < difference.value < difference.high
    better = find(
        result,
        "balanced_accuracy_difference",
        variant="plain",
        by="linear probe, model fp32 minus untrained fp32",
    )
    assert better.low > 0


def test_a_fit_that_goes_on_from_another_ends_where_a_fresh_one_does():
    train = split("train", 90, subjects=ONE)
    rows = embeddings(train).astype(np.float64)
    first = fit_probe(rows, train.truth, 0.01)
    onward, fresh = (fit_probe(rows, train.truth, 0.1, start=start) for start in (first[-1], None))
    assert onward[-1].coef_ == pytest.approx(fresh[-1].coef_, abs=1e-2)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"seeds": 0}, "measures.linear_probe: seeds: at least 1 is needed, not 0"),
        ({"inverse_strengths": []}, "inverse_strengths: at least one number above 0"),
        ({"inner_share": 1.0}, "inner_share: a share between 0 and 1 is needed, not 1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, line):
    node = {"_target_": "pathclip.evaluate.measures.linear_probe.LinearProbe", **options}
    with pytest.raises(ConfigError, match=line):
        build(node, "measures.linear_probe")
