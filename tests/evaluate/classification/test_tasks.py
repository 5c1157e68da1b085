"""Both kinds of task on coloured squares, with encoders whose answers can be thought through."""

from __future__ import annotations

import pytest

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.classification.zeroshot_task import SOLVED_BY_COLOUR, ZeroShot
from pathclip.evaluate.features import colour
from pathclip.evaluate.image_text.retrieval_task import DIRECTIONS, Retrieval
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings
from pathclip.train.training_pictures import from_hashes
from tests import tiny_shards
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder, ConstantEncoder

CLASSES = {name: [name, f"{name} square"] for name in tiny_shards.COLOURS}
SETTINGS = Settings(resamples=200, code_version="test")
GOOD = Subject("model", ColourEncoder(), "abc")
POOR = Subject("model", ColourEncoder(noise=1.5, precision="int8"), "abc")
COLLAPSED = Subject("untrained", ConstantEncoder(), "def")


def find(result, name, **where):
    found = [
        one
        for one in result.scores
        if one.name == name and all(one.context.get(key) == value for key, value in where.items())
    ]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def zero_shot(squares):
    return ZeroShot(datasets.table(str(squares), group="group", split="split"), CLASSES, ["{}", "a {} tile"])


@pytest.fixture
def retrieval(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=24)
    return Retrieval(datasets.shards(str(tmp_path / "shards")))


def test_an_encoder_that_knows_colours_reads_them_until_they_are_randomised(zero_shot):
    result = zero_shot.run("squares", [GOOD], SETTINGS)
    plain = find(result, "balanced_accuracy", method="zero_shot", variant="plain")
    randomised = find(result, "balanced_accuracy", method="zero_shot", variant="randomised_colour")
    assert plain.value == 1.0 and plain.n == 32
    assert randomised.value < 0.8


def test_every_score_says_what_it_was_measured_with(zero_shot):
    for score in zero_shot.run("squares", [GOOD], SETTINGS).scores:
        assert score.context["task"] == "squares"
        assert score.context["groups"] == 16
        assert len(score.context["data_hash"]) == 64
        single = score.context["method"] == "first_template"
        assert score.context["prompts"]["templates"] == (["{}"] if single else ["{}", "a {} tile"])
        assert score.context["code_version"] == "test"
        if score.context["method"] == "zero_shot":
            assert score.context["model_hash"] == "abc"
            assert score.context["precision"] == "fp32" and score.context["runtime"] == "numpy"


@pytest.mark.parametrize("variant", ["plain", "randomised_colour"])
def test_baselines_stand_beside_every_variant(variant, zero_shot):
    result = zero_shot.run("squares", [GOOD], SETTINGS)
    colour, majority, chance = (
        find(result, "balanced_accuracy", method=method, variant=variant).value
        for method in ("colour_only", "majority", "chance")
    )
    assert colour > (0.9 if variant == "plain" else 0.25)
    assert majority == chance == 0.25


def test_the_score_of_colour_says_which_classifier_it_was(zero_shot, squares):
    score = find(
        zero_shot.run("squares", [], SETTINGS), "accuracy", method="colour_only", variant="randomised_colour"
    )
    assert score.context["classifier"] in colour.CLASSIFIERS
    crossed = ZeroShot(datasets.table(str(squares), group="group"), CLASSES).run("squares", [], SETTINGS)
    score = find(crossed, "accuracy", method="colour_only", variant="plain")
    assert score.context["classifier"].endswith("of 5 folds")


def test_a_task_that_colour_solves_is_marked(zero_shot):
    remarks = zero_shot.run("squares", [GOOD], SETTINGS).remarks
    assert any(line.startswith(f"Plain: {SOLVED_BY_COLOUR}") for line in remarks)


def test_a_leaking_split_is_marked(squares):
    data = datasets.table(str(squares), group="label", split="split")
    remarks = ZeroShot(data, CLASSES).run("squares", [GOOD], SETTINGS).remarks
    assert any("4 groups are in the training and in the test rows" in line for line in remarks)


def test_pictures_that_the_model_was_trained_on_are_counted(zero_shot):
    import hashlib
    from pathlib import Path

    paths = zero_shot.dataset.test.paths
    seen = from_hashes(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths[:5])
    result = zero_shot.run("squares", [Subject("model", ColourEncoder(), "", seen)], SETTINGS)
    assert find(result, "accuracy", method="zero_shot", variant="plain").context["leaked"] == 5
    assert result.remarks[0].startswith("LEAK: colours was trained on 5 of these 32 pictures")


def test_unknown_groups_are_said_to_be_unknown(squares):
    result = ZeroShot(datasets.table(str(squares), split="split"), CLASSES).run("s", [GOOD], SETTINGS)
    assert any("Groups are not known" in line for line in result.remarks)
    assert all(score.context["groups"] == 32 and not score.context["grouped"] for score in result.scores)


def test_without_training_rows_colour_is_cross_validated_by_group(squares):
    data = datasets.table(str(squares), group="group")
    result = ZeroShot(data, CLASSES).run("squares", [GOOD], SETTINGS)
    score = find(result, "balanced_accuracy", method="colour_only", variant="plain")
    assert score.context["cross_validated"] and score.n == 96 and score.value > 0.9


def test_int8_and_fp32_are_compared_on_the_same_pictures(zero_shot):
    result = zero_shot.run("squares", [POOR, GOOD], SETTINGS)
    values = [
        find(result, "balanced_accuracy", precision=precision, variant="plain", method="zero_shot").value
        for precision in ("int8", "fp32")
    ]
    difference = find(result, "balanced_accuracy_difference", variant="plain")
    assert difference.value == pytest.approx(values[0] - values[1])
    assert difference.value < 0 and difference.low < difference.value < difference.high
    assert difference.context["by"] == "int8 minus fp32"


def test_the_untrained_model_is_compared_with_the_trained_one(zero_shot):
    result = zero_shot.run("squares", [GOOD, COLLAPSED], SETTINGS)
    assert find(result, "accuracy", role="untrained", method="zero_shot", variant="plain").value == 0.25
    difference = find(result, "balanced_accuracy_difference", variant="plain")
    assert difference.value == 0.75 and difference.context["by"] == "model fp32 minus untrained fp32"


def test_classes_default_to_the_labels_themselves(squares):
    result = ZeroShot(datasets.table(str(squares))).run("squares", [GOOD], SETTINGS)
    assert result.about["prompts"]["classes"] == {name: [name] for name in sorted(tiny_shards.COLOURS)}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({**CLASSES, "violet": ["violet"]}, "task squares: class 'violet' has no example among the 32"),
        ({"red": ["red"], "blue": ["blue"]}, "its class 'green' is none of red, blue"),
        ({**CLASSES, "red": [""]}, "task squares: .*class 'red' has an empty prompt"),
        ({**CLASSES, "red": ["blue"]}, "share the prompt 'blue'"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes, message, squares):
    data = datasets.table(str(squares), split="split")
    with pytest.raises(DataError, match=message):
        ZeroShot(data, classes).run("squares", [GOOD], SETTINGS)


def test_a_class_without_example_can_be_left_out_and_is_named(squares):
    data = datasets.table(str(squares), split="split")
    fewer = datasets.LabelledData(data.test.of_classes(["red", "blue"]), data.train)
    result = ZeroShot(fewer, CLASSES, without_example="leave_out").run("squares", [GOOD], SETTINGS)
    assert find(result, "balanced_accuracy", method="chance", variant="plain").value == 0.5
    assert "Left out, because no picture to test on has them: green, grey." in result.remarks
    assert result.about["per_class"] == {"red": 8, "blue": 8}


def test_a_class_without_example_in_the_training_rows_is_no_error(squares):
    data = datasets.table(str(squares), split="split")
    fewer = datasets.LabelledData(data.test, data.train.of_classes({*CLASSES} - {"red"}))
    result = ZeroShot(fewer, CLASSES).run("squares", [GOOD], SETTINGS)
    assert find(result, "balanced_accuracy", method="colour_only", variant="plain").value == pytest.approx(
        0.75
    )


def test_retrieval_finds_colours_under_the_looser_definition(retrieval):
    result = retrieval.run("pairs", [GOOD], SETTINGS)
    exact, loose = (
        find(
            result,
            "text_to_image_recall@5",
            definition=definition,
            variant="plain",
            method="retrieval",
        )
        for definition in ("exact_pair", "same_text_or_group")
    )
    assert (
        loose.value
        > exact.value
        > find(
            result, "text_to_image_recall@5", definition="exact_pair", variant="plain", method="chance"
        ).value
    )
    assert exact.n == 24 and exact.context["pool"] == 24 and exact.context["groups"] == 12


def test_retrieval_has_both_directions_every_k_and_the_median_rank(retrieval):
    names = {score.name for score in retrieval.run("pairs", [GOOD], SETTINGS).scores}
    expected = {f"{way}_recall@{k}" for way in DIRECTIONS for k in (1, 5, 10)}
    for way in DIRECTIONS:
        expected |= {f"{way}_median_rank", f"{way}_mean_average_precision"}
    assert names == expected


def test_retrieval_compares_with_the_untrained_model(retrieval):
    result = retrieval.run("pairs", [GOOD, COLLAPSED], SETTINGS)
    found = find(
        result, "text_to_image_recall@10_difference", definition="same_text_or_group", variant="plain"
    )
    assert found.value > 0 and found.context["first"]["role"] == "model"


def test_a_k_beyond_the_pool_is_left_out(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=6)
    result = Retrieval(datasets.shards(str(tmp_path / "shards"))).run("pairs", [GOOD], SETTINGS)
    assert "text_to_image_recall@10" not in {score.name for score in result.scores}


def test_retrieval_among_one_pair_is_refused(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=1)
    with pytest.raises(DataError, match="needs at least two pairs"):
        Retrieval(datasets.shards(str(tmp_path / "shards"))).run("pairs", [GOOD], SETTINGS)


def test_a_text_whose_embedding_is_not_a_number_is_quoted(retrieval):
    with pytest.raises(DataError, match="'a blue square, number 2': its embedding by broken"):
        retrieval.run("pairs", [Subject("model", BrokenEncoder("blue"))], SETTINGS)
