"""What a zero-shot task hands on: scores of both prompt protocols, marks, answers, what measures gave."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import recall_score

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.classification import zeroshot
from pathclip.evaluate.classification.zeroshot_task import ZeroShot
from pathclip.evaluate.reporting.report import LEAK, SOLVED_BY_COLOUR, Section
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings, TaskResult, exact, score, subject_context
from pathclip.train.training_pictures import from_hashes
from tests import tiny_shards
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder, ConstantEncoder

CLASSES = {name: [name, f"{name} square"] for name in tiny_shards.COLOURS}
TEMPLATES = ["a {} tile", "{}"]
GOOD = Subject("model", ColourEncoder(noise=1.0), "abc")
POOR = Subject("model", ColourEncoder(noise=1.5, precision="int8"), "abc")
COLLAPSED = Subject("untrained", ConstantEncoder(), "def")


def write_squares(folder: Path) -> datasets.LabelledData:
    """48 squares of four colours in groups of two, a third each to learn from, to fit on and to test on."""
    rows = []
    for number in range(48):
        colour = list(tiny_shards.COLOURS)[(number // 2) % 4]
        (folder / f"{number:02d}.jpg").write_bytes(tiny_shards.jpeg(tiny_shards.COLOURS[colour], number))
        split = ("train", "validation", "test")[number // 16]
        rows.append(
            {"path": f"{number:02d}.jpg", "label": colour, "group": f"g{number // 2}", "split": split}
        )
    with (folder / "squares.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    parts = {
        part: datasets.table(str(folder / "squares.csv"), group="group", where={"split": part}).test
        for part in ("train", "validation", "test")
    }
    return datasets.LabelledData(parts["test"], parts["train"], parts["validation"])


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def task(squares):
    return ZeroShot(squares, CLASSES, TEMPLATES)


@dataclass(frozen=True, slots=True)
class Asking:
    """A measure that keeps what it was given and gives one of everything."""

    learns: ClassVar[bool] = False
    given: list = field(default_factory=list)

    def run(self, measured):
        self.given.append(measured)
        about = {"variant": "plain", "method": "asking", **subject_context(measured.subjects[0])}
        return TaskResult(
            (score("asked", exact(0.5), 1, {**measured.context, **about}),),
            (Section("asked", "<p>asked</p>"),),
            ("It was asked.",),
            {"asked": True},
            fitted={"fp32": {"temperature": 2.0}},
        )


@dataclass(frozen=True, slots=True)
class Learning(Asking):
    learns: ClassVar[bool] = True


@pytest.fixture(scope="module")
def asked(task):
    measure = Asking()
    result = task.run(
        "squares", [POOR, GOOD, COLLAPSED], Settings(resamples=200, measures={"asked": measure})
    )
    return result, measure.given[0]


@pytest.fixture(scope="module")
def measured(asked):
    return asked[1]


def of(scores, name, **where):
    return [
        one
        for one in scores
        if one.name == name and all(one.context.get(key) == value for key, value in where.items())
    ]


def test_every_metric_has_an_interval_and_every_class_its_recall_and_n(asked):
    result, measured = asked
    own = [one for one in result.scores if one.context.get("method") == "zero_shot"]
    assert {one.name for one in own} == {*zeroshot.METRICS, "auroc", "recall"}
    shown = measured.test.encoded.embeddings["model fp32"]["plain"] @ measured.vectors["model fp32"].T
    expected = recall_score(measured.test.truth, shown.argmax(axis=1), average=None)
    recalls = of(own, "recall", precision="fp32", role="model", variant="plain")
    assert [one.value for one in recalls] == pytest.approx(expected)
    assert [(one.context["class"], one.n) for one in recalls] == [(name, 4) for name in CLASSES]
    assert all(one.low <= one.value <= one.high for one in own)
    (area,) = of(own, "auroc", precision="fp32", role="model", variant="plain")
    assert area.context["resamples"] == 200 and 0.5 < area.value < 1


def test_both_prompt_protocols_are_reported_with_their_prompts(asked):
    result, _ = asked
    where = {"precision": "fp32", "role": "model", "variant": "plain"}
    (ensemble,) = of(result.scores, "accuracy", prompt="ensemble", **where)
    (single,) = of(result.scores, "accuracy", prompt="first template", **where)
    assert ensemble.context["prompts"] == {"templates": TEMPLATES, "classes": CLASSES}
    assert single.context["prompts"] == {
        "templates": ["a {} tile"],
        "classes": {name: [name] for name in CLASSES},
    }
    assert single.context["method"] == "first_template"


def test_the_first_template_alone_is_measured_by_its_own_vectors(squares):
    wrong = {**CLASSES, "red": ["blue tile", "red"], "blue": ["red tile", "blue"]}  # the first are swapped
    result = ZeroShot(squares, wrong, ["{}"], ["plain"]).run(
        "s", [Subject("model", ColourEncoder())], Settings(resamples=20)
    )
    (single,) = of(result.scores, "recall", prompt="first template", **{"class": "red"})
    assert single.value == 0.0


def test_one_prompt_per_class_is_reported_once(squares):
    task = ZeroShot(squares, {name: [name] for name in CLASSES}, ["{}"], ["plain"])
    result = task.run("s", [GOOD], Settings(resamples=20))
    assert not [one for one in result.scores if one.context.get("prompt") == "first template"]


def test_a_collapsed_encoder_and_the_majority_have_auroc_one_half_and_no_correlation(asked):
    result, _ = asked
    for where in ({"role": "untrained", "method": "zero_shot"}, {"method": "majority"}):
        assert of(result.scores, "auroc", variant="plain", **where)[0].value == 0.5
        assert of(result.scores, "mcc", variant="plain", **where)[0].value == 0.0


def test_every_metric_has_its_chance(asked):
    result, _ = asked
    chance = {one.name: one.value for one in result.scores if one.context["method"] == "chance"}
    assert {*chance} == {*zeroshot.METRICS, "auroc"}


def test_a_majority_taken_from_the_test_rows_says_so(asked, squares):
    alone = ZeroShot(datasets.LabelledData(squares.test), CLASSES, ["{}"], ["plain"])
    result = alone.run("s", [GOOD], Settings(resamples=20))
    assert all(
        one.context["learnt_from_test"] for one in result.scores if one.context["method"] == "majority"
    )
    assert any("the majority class is that of the test rows themselves" in line for line in result.remarks)
    assert not any("learnt_from_test" in one.context for one in asked[0].scores)


def test_differences_are_paired_for_every_metric(asked):
    result, _ = asked
    (difference,) = of(result.scores, "auroc_difference", by="int8 minus fp32", variant="plain")
    poor, good = (
        of(result.scores, "auroc", precision=one, role="model", method="zero_shot", variant="plain")[0]
        for one in ("int8", "fp32")
    )
    assert difference.value == pytest.approx(poor.value - good.value)
    assert difference.low <= difference.value <= difference.high


def test_there_is_one_answer_sheet_per_encoder_and_variant(asked):
    result, measured = asked
    sheets = {(one.about["by"], one.about["variant"]): one for one in result.answers}
    assert len(sheets) == len(result.answers) == 6
    sheet = sheets[GOOD.title, "randomised_colour"]
    assert sheet.items == measured.test.encoded.sha256 and sheet.groups == measured.test.images.groups
    assert sheet.truth == measured.test.images.labels
    (found,) = of(
        result.scores,
        "accuracy",
        role="model",
        precision="fp32",
        method="zero_shot",
        variant="randomised_colour",
    )
    assert np.mean([a == b for a, b in zip(sheet.answer, sheet.truth, strict=True)]) == found.value
    assert ((sheet.sure > 0) & (sheet.sure <= 1)).all()


def test_what_a_measure_gives_is_part_of_the_result(asked):
    result, _ = asked
    assert of(result.scores, "asked")
    assert result.sections[-1].title == "asked"
    assert result.remarks[-1] == "It was asked."
    assert result.about["measures"] == {"asked": {"asked": True}}
    assert result.fitted == {"fp32": {"temperature": 2.0}}


def test_a_measure_gets_the_encoded_splits(measured):
    assert [len(part.images) for part in (measured.test, measured.train, measured.validation)] == [16, 16, 16]
    assert measured.validation.encoded.embeddings["model int8"]["plain"].shape == (16, 16)
    assert measured.train.encoded.embeddings == {}  # it does not learn, so nobody encoded them


def test_training_rows_are_encoded_for_a_measure_that_learns(squares):
    measure = Learning()
    task = ZeroShot(squares, CLASSES, TEMPLATES, ["plain"])
    task.run("s", [GOOD], Settings(resamples=20, measures={"learning": measure}))
    assert measure.given[0].train.encoded.embeddings["model fp32"]["plain"].shape == (16, 16)


def test_without_a_measure_the_validation_rows_are_not_read(squares):
    gone = datasets.LabelledData(squares.test, squares.train, BrokenFiles.of(squares.validation))
    ZeroShot(gone, CLASSES, TEMPLATES, ["plain"]).run("s", [GOOD], Settings(resamples=20))


class BrokenFiles:
    @staticmethod
    def of(images):
        def contents(numbers):
            raise DataError("read")

        return datasets.LabelledImages(images.paths, images.labels, images.groups, images.split, contents)


def test_a_leak_is_marked_on_the_models_scores_and_on_no_others(squares, task):
    seen = from_hashes(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in squares.test.paths[:1])
    subject = Subject("model", GOOD.encoder, "", seen)
    settings = Settings(resamples=20, measures={"asked": Asking()})
    result = task.run("squares", [subject, COLLAPSED], settings)
    for one in result.scores:
        # The difference to the untrained model is the model's too.
        own = one.context.get("first", one.context).get("role") == "model"
        assert (LEAK in one.context.get("marks", ())) == own, one.context
    assert of(result.scores, "asked")[0].context["marks"][0] == LEAK


def test_rows_shared_by_the_splits_are_held_against_the_colours_that_learn_from_them(squares):
    leaking = datasets.LabelledData(squares.test, squares.test)
    measures = {"learning": Learning(), "asking": Asking()}
    task = ZeroShot(leaking, CLASSES, TEMPLATES, ["plain"])
    result = task.run("s", [GOOD], Settings(resamples=20, measures=measures))
    for one in of(result.scores, "asked"):  # a measure that learns leaves them out
        assert LEAK not in one.context.get("marks", ())
    assert LEAK in of(result.scores, "accuracy", method="colour_only")[0].context["marks"]
    assert LEAK not in of(result.scores, "accuracy", method="zero_shot")[0].context.get("marks", ())


def test_what_colour_solves_is_marked_where_it_does(asked):
    result, _ = asked
    for one in result.scores:
        context = one.context
        if one.name == "balanced_accuracy" and context["method"] == "zero_shot":
            (colours,) = of(
                result.scores, "balanced_accuracy", method="colour_only", variant=context["variant"]
            )
            solved = context["role"] == "model" and colours.value >= one.low
            assert (SOLVED_BY_COLOUR in context.get("marks", ())) == solved
    assert of(result.scores, "balanced_accuracy", variant="plain", precision="fp32", role="model")[0].context[
        "marks"
    ] == [SOLVED_BY_COLOUR]


def test_classes_that_are_one_text_to_the_encoder_are_named(squares):
    words = {**CLASSES, "red": ["red"], "blue": ["crimson red"]}  # the encoder knows colours only
    result = ZeroShot(squares, words, ["{}"], ["plain"]).run("s", [GOOD], Settings(resamples=20))
    assert any("prompts of 'red' and 'blue' are the same text" in line for line in result.remarks)


def test_an_embedding_of_a_picture_that_is_not_a_number_names_the_picture(task):
    with pytest.raises(DataError, match=r"\d\d\.jpg: its embedding by broken .* is not a number"):
        task.run("squares", [Subject("model", BrokenEncoder())], Settings(resamples=20))


def test_an_embedding_of_a_prompt_that_is_not_a_number_names_the_class(task):
    with pytest.raises(DataError, match=r"task squares: .* class 'blue' is not a number"):
        task.run("squares", [Subject("model", BrokenEncoder("blue"))], Settings(resamples=20))


def test_a_picture_that_has_gone_is_named(tmp_path):
    data = write_squares(tmp_path)
    (tmp_path / "40.jpg").unlink()
    with pytest.raises(DataError, match=r"40\.jpg: cannot be read"):
        ZeroShot(data, CLASSES, TEMPLATES).run("squares", [GOOD], Settings(resamples=20))


def test_few_groups_are_said(asked, squares):
    assert "8 groups only: the intervals say little." in asked[0].remarks
    many = datasets.LabelledData(replace(squares.test, groups=tuple(map(str, range(16)))))
    remarks = ZeroShot(many, CLASSES, TEMPLATES, ["plain"]).run("s", [GOOD], Settings(resamples=20)).remarks
    assert not any("groups only" in line for line in remarks)


def coarse(name, quality):
    """Coarse noise, as structured as tissue; of another name the same pictures, saved otherwise."""
    contents = []
    for seed in range(8):
        noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((72, 72), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=quality
        )
        contents.append(buffer.getvalue())
    paths, groups = ([f"{name}{seed}" for seed in range(8)] for _ in range(2))
    labels = tuple(["red", "blue"] * 4)
    return datasets.LabelledImages(
        tuple(paths), labels, tuple(groups), name, lambda numbers: (contents[number] for number in numbers)
    )


def test_near_duplicates_among_the_rows_to_learn_from_are_held_against_what_was_learnt():
    classes = {name: [name] for name in ("red", "blue")}
    test, copies = coarse("test", 90), coarse("train", 60)
    for train, expected in ((copies, True), (replace(copies, groups=test.groups), False)):
        measure = Learning()
        task = ZeroShot(datasets.LabelledData(test, train), classes, ["{}"], ["plain"])
        result = task.run("s", [GOOD], Settings(resamples=20, measures={"learning": measure}))
        assert (LEAK in of(result.scores, "asked")[0].context.get("marks", ())) == expected
        assert LEAK in of(result.scores, "accuracy", method="colour_only")[0].context["marks"]
        assert measure.given[0].marks.colour_only.keys() == {"plain"}
