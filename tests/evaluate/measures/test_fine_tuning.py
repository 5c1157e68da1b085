"""Fine-tuning of a tiny ViT on coloured squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import pathclip
from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import stats
from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.features.encode import encode_pictures
from pathclip.evaluate.marks import Marks
from pathclip.evaluate.measures.fine_tuning import FineTuning, trainable
from pathclip.evaluate.measures.tower_training import TunedTower, pixels_of
from pathclip.evaluate.reporting.report import LEAK
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Measured, Settings, Split
from pathclip.model.build import from_open_clip
from pathclip.model_folder import open_model_folder
from pathclip.runtime.preprocess import Preprocess
from tests.evaluate.learning_cases import find
from tests.tiny_shards import jpeg

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"layers": 1, "width": 16, "heads": 2},
}
COLOURS = {"red": (200, 60, 60), "blue": (60, 60, 200)}
QUICK = FineTuning(fractions=(0.1, 1.0), learning_rates=(1e-3,), epochs=4, batch_size=16, device="cpu")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    torch.manual_seed(0)
    towers = from_open_clip("ViT-B-32", image_size=16, context_length=16, overrides=TINY)
    folder = towers.save(tmp_path_factory.mktemp("tuned") / "model")
    return Subject("model", pathclip.load(folder, runtime="torch", precision="fp32"), "abc")


def squares(name, n, subjects):
    """Noisy squares of two colours in groups of two."""
    truth = np.arange(n) // 2 % 2
    contents = [jpeg(list(COLOURS.values())[number], seed) for seed, number in enumerate(truth)]
    groups = tuple(f"{name}{number // 2}" for number in range(n))
    images = LabelledImages(
        tuple(f"{name}{number}.jpg" for number in range(n)),
        tuple(list(COLOURS)[number] for number in truth),
        groups,
        name,
        lambda numbers: (contents[number] + name.encode() for number in numbers),  # bytes of its own
    )
    encoded = encode_pictures(images.contents, images.paths, subjects, ["plain"])
    return Split(images, truth, stats.group_index(groups), encoded)


@pytest.fixture(scope="module")
def measured(subject):
    test, train = (squares(name, n, [subject]) for name, n in (("test", 24), ("train", 40)))
    return Measured(
        "squares",
        [subject],
        Settings(resamples=100),
        {name: [name] for name in COLOURS},
        ["{}"],
        ["plain"],
        {},
        test,
        train,
        None,
        {"task": "squares"},
    )


def test_a_tower_that_is_trained_on_all_labels_tells_colours_apart(measured):
    result = QUICK.run(measured)
    whole = find(result, "balanced_accuracy", fraction=1.0)
    assert whole.value > 0.9
    assert whole.context["learnt_from"] == 40
    assert (whole.context["precision"], whole.context["runtime"]) == ("fp32", "torch")
    tenth = find(result, "balanced_accuracy", fraction=0.1)
    assert tenth.context["learnt_from"] == 4  # one group of two of each class
    assert "% of the labels" in result.sections[0].html


def test_the_same_seed_gives_the_same_answers_and_leaves_the_generator_alone(measured):
    before = torch.random.get_rng_state()
    first, again = (QUICK.run(measured).answers[0] for _ in range(2))
    assert first.answer == again.answer
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.fixture
def tower(subject, measured):
    folder = open_model_folder(subject.encoder.folder.path)
    return TunedTower(folder, subject.encoder.preprocess, 2, (2, 16, 0.1), "cpu")


def test_every_training_starts_from_the_weights_of_the_folder(tower, subject, measured):
    pixels = pixels_of(measured.train, subject.encoder.preprocess, "plain", 0)
    rows, truth, found = np.arange(40), measured.train.truth, []
    for rate in (1e-3, 1e-2, 1e-3):
        assert len([*tower.train(pixels, rows, truth, rate, seed=3)]) == 2 * 3
        found.append(tower.logits(pixels, rows))
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


def test_another_seed_gives_other_weights(tower, subject, measured):
    pixels = pixels_of(measured.train, subject.encoder.preprocess, "plain", 0)
    found = []
    for seed in (0, 1):
        list(tower.train(pixels, np.arange(40), measured.train.truth, 1e-3, seed))
        found.append(tower.logits(pixels, np.arange(40)))
    assert not np.allclose(*found)


def test_the_pixels_are_those_that_the_encoder_sees(subject, measured):
    pixels = pixels_of(measured.test, subject.encoder.preprocess, "plain", 0)
    assert pixels.dtype == np.uint8 and pixels.shape == (24, 16, 16, 3)
    found = subject.encoder.encode_images(np.asarray(pixels))
    assert found == pytest.approx(measured.test.encoded.embeddings[subject.key]["plain"], abs=1e-5)
    randomised = pixels_of(measured.test, subject.encoder.preprocess, "randomised_colour", 0)
    assert not np.array_equal(pixels, randomised)


def test_the_learning_rate_is_chosen_without_the_test_rows(measured):
    two = replace(QUICK, fractions=(1.0,), learning_rates=(1e-9, 1e-3))
    wrong = replace(measured, test=replace(measured.test, truth=1 - measured.test.truth))
    chosen = [two.run(one).about["learning_rates"]["model fp32, plain, 1"] for one in (measured, wrong)]
    assert chosen == [[1e-3], [1e-3]]
    # With validation rows, they decide: labels turned round on both sides are learnt as well.
    validated = replace(measured, validation=squares("validation", 16, measured.subjects))
    assert two.run(validated).about == {
        "learnt_from": 40,
        "chosen_on": 16,
        "learning_rates": {"model fp32, plain, 1": [1e-3]},
    }


def test_two_groups_of_a_class_are_too_few_to_choose_a_rate_on(measured):
    result = replace(QUICK, fractions=(0.05,), learning_rates=(1e-4, 1e-3, 1e-2)).run(measured)
    assert any(
        "too few groups to choose a learning rate on; it is the middle one, 0.001" in r
        for r in result.remarks
    )


def test_encoders_of_one_folder_are_trained_once_and_those_without_weights_are_named(subject, tiny_model):
    int8 = Subject("model", _Int8(subject.encoder), "abc")
    onnx = Subject("untrained", pathclip.load(tiny_model, runtime="onnx", precision="int8"), "def")
    subjects, remarks = trainable([int8, subject, onnx])
    assert subjects == [subject]
    assert len(remarks) == 1 and "its folder has no open_clip_model.safetensors" in remarks[0]


class _Int8:
    """The same folder under another precision."""

    precision = "int8"

    def __init__(self, encoder):
        self.folder, self.name, self.runtime = encoder.folder, encoder.name, "onnx"
        self.preprocess = encoder.preprocess


def test_a_run_of_int8_alone_is_tuned_in_fp32_drawn_and_marked_if_the_model_leaks(measured, subject):
    int8 = Subject("model", _Int8(subject.encoder), "abc")
    leaking = replace(measured, subjects=[int8], marks=Marks({"model int8": True}))
    result = replace(QUICK, fractions=(0.1,), epochs=1).run(leaking)
    assert find(result, "balanced_accuracy").context["precision"] == "fp32"
    assert f">{int8.encoder.name}</text>" in result.sections[0].html
    assert all(one.context["marks"] == [LEAK] for one in result.scores)


def test_no_part_of_the_labels_with_every_class_gives_a_line_and_no_figure(measured):
    """A class that most of no group are of is drawn with another's group, or not at all."""
    truth, groups = np.zeros(40, np.int64), np.arange(40) // 4
    truth[0] = 1
    images = replace(measured.train.images, groups=tuple(f"train{number}" for number in groups))
    train = replace(measured.train, truth=truth, groups=groups, images=images)
    result = replace(QUICK, fractions=(0.1,)).run(replace(measured, train=train))
    assert result.scores == ()
    assert result.remarks == (
        "10% of the labels left out: not every class is among them.",
        "Fine-tuning not measured: no part of the labels has an example of every class.",
    )


def test_no_encoder_with_weights_gives_a_line_and_no_figure(measured, tiny_model):
    onnx = Subject("model", pathclip.load(tiny_model, runtime="onnx", precision="int8"), "def")
    result = QUICK.run(replace(measured, subjects=[onnx]))
    assert result.scores == ()
    assert "is not fine-tuned" in result.remarks[0]
    assert result.remarks[-1] == "Fine-tuning not measured: no encoder can be trained."


def test_a_rate_that_ends_in_no_numbers_is_refused(measured):
    with pytest.raises(ConfigError, match=r"learning_rates: at 1e\+30 the weights of .* are no numbers"):
        replace(QUICK, fractions=(1.0,), learning_rates=(1e30,)).run(measured)


def test_no_room_for_the_pixels_is_said(measured):
    huge = Preprocess(size=(2**25, 2**25))
    with pytest.raises(DataError, match=r"no room for .* MB of pixels"):
        pixels_of(measured.test, huge, "plain", 0)
