from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pathclip.errors import ConfigError
from pathclip.export.gate import Gate, Line, Prompts, Thresholds, compare, found_at, sign_test
from pathclip.export.samples import read_calibration
from pathclip.launch import compose
from pathclip.model_folder import open_model_folder
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from tests.export import towers


def test_a_figure_for_information_neither_passes_nor_fails():
    assert Gate((Line("speed", 0.5), Line("cosine", 0.99, 0.97, True))).passed


def test_one_failed_line_fails_the_gate_and_is_named():
    gate = Gate((Line("a", 1.0, 0.9, True), Line("b", 0.5, 0.9, False)))
    assert not gate.passed
    assert gate.failures() == "b 0.5000 (limit 0.9)"


def test_an_unknown_threshold_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="image_cosine"):
        Thresholds.from_config({"image_cosin": 0.9})


def test_recall_counts_a_query_with_any_match_among_the_first_k():
    gallery = np.eye(4)
    queries = gallery[[0, 1, 2]] + 0.4 * gallery[[1, 2, 3]]
    same = np.zeros((3, 4), bool)
    same[0, 0] = same[1, 2] = same[2, 0] = True
    assert found_at(queries, gallery, same, k=1).tolist() == [True, False, False]
    assert found_at(queries, gallery, same, k=2).tolist() == [True, True, False]


def test_the_chance_of_losses_is_that_of_a_fair_coin():
    assert sign_test(0, 0) == 1 and sign_test(1, 0) == 0.5 and sign_test(2, 1) == 0.5
    assert sign_test(5, 0) == 1 / 32 and sign_test(9, 1) == pytest.approx(11 / 1024)


@pytest.mark.parametrize(("broken", "passed"), [(4, True), (5, False)])
def test_recall_lost_beyond_the_limit_fails_where_chance_does_not_explain_it(broken, passed, tmp_path):
    """Of 64 queries four without a hit are 0.06, over the limit of 0.03, but 1 in 16 by chance."""
    samples = towers.make_samples(64)
    weights = towers.make_weights(samples)
    text = weights["text"].copy()
    text[:broken] = -text[:broken]
    files = (
        towers.write_fp32(tmp_path / "fp32", weights),
        towers.write_int8(tmp_path / "int8", {**weights, "text": text}),
    )
    line = next(each for each in compare(*files, samples, LIMITS).lines if "R@10" in each.name)
    assert line.value == broken / 64 and line.passed is passed
    assert ("too few to tell" in line.note) is passed


SAMPLES = towers.make_samples()
WEIGHTS = towers.make_weights(SAMPLES)
# Four classes of three templates each: words that no caption uses.
PROMPTS = Prompts(("a", "b", "c", "d"), np.arange(100, 112)[:, None])
LIMITS = Thresholds.from_config(compose("export").gate)


def noise(weights):
    return np.random.default_rng(3).normal(0, weights.std(), weights.shape).astype(np.float32)


def judged(folder, int8, fp32=WEIGHTS, prompts=PROMPTS, samples=SAMPLES):
    """Lines of the gate, with the limits of conf/export.yaml, by name."""
    gate = compare(
        towers.write_fp32(folder / "fp32", fp32),
        towers.write_int8(folder / "int8", int8),
        samples,
        LIMITS,
        prompts,
    )
    return {line.name: line for line in gate.lines}


def failed(lines):
    return {name for name, line in lines.items() if line.passed is False}


def test_a_faithful_int8_passes_every_line(tmp_path):
    lines = judged(tmp_path, WEIGHTS)
    assert not failed(lines)
    assert lines["text→image R@10 lost"].note == "1.000 → 1.000; 0 lost, 0 gained, p 1"
    assert lines["zero-shot agreement"].n == len(SAMPLES)


@pytest.mark.parametrize("broken", [towers.shuffled, noise])
def test_a_broken_image_tower_fails_cosine_recall_and_zero_shot(broken, tmp_path):
    lines = judged(tmp_path, {**WEIGHTS, "image": broken(WEIGHTS["image"])})
    assert failed(lines) == {
        "image cosine, mean",
        "image cosine, 1 % worst",
        "zero-shot agreement",
        "text→image R@10 lost",
    }


@pytest.mark.parametrize("broken", [towers.shuffled, noise])
def test_a_broken_text_tower_fails_cosine_recall_and_zero_shot(broken, tmp_path):
    lines = judged(tmp_path, {**WEIGHTS, "text": broken(WEIGHTS["text"])})
    assert failed(lines) == {
        "text cosine, mean",
        "text cosine, 1 % worst",
        "zero-shot agreement",
        "text→image R@10 lost",
    }


def test_a_few_broken_captions_fail_the_worst_but_not_the_mean(tmp_path):
    text = WEIGHTS["text"].copy()
    text[0] = -text[0]
    lines = judged(tmp_path, {**WEIGHTS, "text": text}, samples=towers.make_samples(96))
    assert "text cosine, 1 % worst" in failed(lines)
    assert "text cosine, mean" not in failed(lines)


def test_towers_that_did_not_shrink_fail_the_size(tmp_path):
    fp32 = towers.write_fp32(tmp_path / "fp32", WEIGHTS)
    lines = compare(fp32, fp32, SAMPLES, LIMITS, PROMPTS).lines
    assert failed({line.name: line for line in lines}) == {"size, int8 / fp32"}


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_real_int8_tower_with_shuffled_weights_fails(tower, exported_transformer, shards, tmp_path):
    folder = open_model_folder(exported_transformer.out)
    files = {
        precision: {one: folder.file(f"onnx/{one}_{precision}.onnx") for one in ("image", "text")}
        for precision in ("fp32", "int8")
    }
    model = onnx.load(files["int8"][tower])
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.INT8 and len(weight.dims) > 1:
            values = towers.shuffled(numpy_helper.to_array(weight))
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    files["int8"][tower] = tmp_path / "shuffled.onnx"
    onnx.save(model, files["int8"][tower])

    card = folder.card
    tokenizer = Tokenizer(folder.file("tokenizer.json"), card["context_length"], card.get("pad_id") or 0)
    _, held_out = read_calibration([shards], 48, 32, Preprocess.from_card(card["preprocess"]), tokenizer)
    gate = compare(files["fp32"], files["int8"], held_out, LIMITS)
    assert {f"{tower} cosine, mean", f"{tower} cosine, 1 % worst"} <= {
        line.name for line in gate.lines if line.passed is False
    }


def test_a_class_whose_templates_disagree_counts_as_much_as_any_other(tmp_path):
    """The picture lies at 10°; class a at 0°, its templates at ±60° in fp32 alone; class b at 50°."""

    def at(*degrees):
        angles = np.radians(degrees)
        return np.pad(np.stack([np.cos(angles), np.sin(angles)], axis=1), ((0, 0), (0, towers.DIM - 2)))

    fp32, int8 = WEIGHTS["text"].copy(), WEIGHTS["text"].copy()
    fp32[100:104], int8[100:104] = at(60, -60, 50, 50), at(0, 0, 50, 50)
    rows = towers.PREPROCESS.normalise(SAMPLES.pixels).reshape(len(SAMPLES), -1)
    image = np.linalg.lstsq(rows, np.repeat(at(10), len(SAMPLES), axis=0), rcond=None)[0].astype(np.float32)
    lines = judged(
        tmp_path,
        {"image": image, "text": int8},
        fp32={"image": image, "text": fp32},
        prompts=Prompts(("a", "b"), np.arange(100, 104)[:, None]),
    )
    assert lines["zero-shot agreement"].value == 1.0


def test_without_classes_the_gate_says_that_zero_shot_was_not_measured(tmp_path):
    line = judged(tmp_path, WEIGHTS, prompts=None)["zero-shot agreement"]
    assert dataclasses.astuple(line) == (
        "zero-shot agreement",
        None,
        None,
        None,
        0,
        "no class prompts given: prompts.classes=[…]",
    )
