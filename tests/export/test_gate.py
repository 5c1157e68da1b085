from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pathclip.errors import ConfigError
from pathclip.evaluate.stats import Interval
from pathclip.export.calibration.samples import LabelledSamples, read_calibration
from pathclip.export.gate.answers import accuracy_line, agreement_line, found_at
from pathclip.export.gate.gate import TRAINED_ON, Gate, Prompts, Thresholds, compare
from pathclip.export.gate.graph_lines import as_written_line
from pathclip.export.gate.verdict import BY_CHANCE, NOT_PROVEN, Line, at_least, at_most, loss, unseen, widened
from pathclip.export.graphs.speed import EQUALLY_FAST
from pathclip.launch import compose
from pathclip.model_folder import open_model_folder
from pathclip.runtime.cpu import cpu
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


@pytest.mark.parametrize(
    ("value", "low", "high", "passed", "proven"),
    [
        (0.03, 0.01, 0.03, True, True),  # at the limit, interval and all
        (0.03, 0.01, 0.031, True, False),  # the interval reaches past it
        (0.031, 0.001, 0.06, False, None),  # over it, and told from chance
        (0.031, 0.0, 0.06, True, False),  # over it, and zero is in the interval
        (-0.02, -0.04, -0.01, True, True),  # a gain
        (0.0, float("nan"), float("nan"), True, None),  # one group alone: no interval
        (0.5, float("nan"), float("nan"), False, None),  # without one nothing excuses a loss
    ],
)
def test_a_loss_is_judged_by_its_value_and_excused_only_by_an_interval_with_zero(
    value, low, high, passed, proven
):
    line = loss("lost", Interval(value, low, high), 0.03, 128)
    assert (line.passed, line.proven) == (passed, proven)


def test_what_passes_without_proof_says_so_in_its_note_and_in_the_file():
    lines = (
        loss("by chance", Interval(0.2, 0.0, 0.4), 0.03, 8),
        loss("wide", Interval(0.01, -0.1, 0.1), 0.03, 8, "n"),
        loss("narrow", Interval(0.01, 0.0, 0.02), 0.03, 8, "n"),
    )
    assert [line.note for line in lines] == [BY_CHANCE, f"n; {NOT_PROVEN}", "n"]
    written = Gate(lines).as_json()
    assert written["passed"] and written["not_proven"] == ["by chance", "wide"]


def test_a_figure_that_must_reach_its_limit_is_not_excused_by_its_interval():
    assert at_least("a", 0.89, 0.9, interval=Interval(0.89, 0.8, 0.95)).passed is False
    assert at_least("a", 0.9, 0.9, interval=Interval(0.9, 0.9, 0.95)).proven is True
    assert at_least("a", 0.9, 0.9, interval=Interval(0.9, 0.89, 0.95)).proven is False
    assert at_least("a", 0.9, 0.9).proven is None


def test_answers_all_alike_prove_no_more_than_the_rule_of_three():
    assert (unseen(100), unseen(2), unseen(0)) == (0.03, 1.0, 1.0)
    assert widened(Interval(0.0, 0.0, 0.0), 0.03, -1.0, 1.0) == Interval(0.0, -0.03, 0.03)
    assert widened(Interval(1.0, 1.0, 1.0), 0.5, 0.0, 1.0) == Interval(1.0, 0.5, 1.0)
    assert widened(Interval(0.1, 0.0, 0.2), 0.03, -1.0, 1.0) == Interval(0.1, 0.0, 0.2)


def test_the_last_bits_of_a_float_decide_nothing():
    assert 0.1 + 0.2 > 0.3 and at_most("a", 0.1 + 0.2, 0.3).passed
    assert at_least("a", 0.3, 0.1 + 0.2, interval=Interval(0.3, 0.3, 0.3)).proven
    line = loss("lost", Interval(0.1 + 0.2, 0.1, 0.1 + 0.2), 0.3, 9)
    assert line.passed and line.proven
    assert not at_most("a", 0.3001, 0.3).passed


def test_few_equal_answers_pass_unproven_and_many_are_proof():
    for n, proven in ((29, False), (30, True)):
        line = agreement_line(np.zeros(n, int), np.zeros(n, int), [""] * n, 0.9)
        assert line.passed and line.proven is proven


@pytest.mark.parametrize(("broken", "passed"), [(3, True), (4, False)])
def test_recall_lost_beyond_the_limit_fails_where_chance_does_not_explain_it(broken, passed, tmp_path):
    """Of 64 queries three without a hit are 0.047, over the limit of 0.03; but none in 1 of 20 resamples."""
    samples = towers.make_samples(64)
    weights = towers.make_weights(samples)
    text = weights["text"].copy()
    text[:broken] = -text[:broken]
    files = (
        towers.write_fp32(tmp_path / "fp32", weights),
        towers.write_int8(tmp_path / "int8", {**weights, "text": text}),
    )
    line = next(each for each in compare(*files, samples, LIMITS).lines if "text→image" in each.name)
    assert line.value == broken / 64 and line.passed is passed
    assert (BY_CHANCE in line.note) is passed


def test_queries_with_one_caption_are_one_group(tmp_path):
    """Four pictures of one caption lose their hits together: one loss in sixteen, which may be chance."""
    captions = tuple(f"caption {i // 4}" for i in range(len(SAMPLES)))
    samples = dataclasses.replace(SAMPLES, tokens=SAMPLES.tokens // 4, texts=captions)
    weights = towers.make_weights(samples)
    text = weights["text"].copy()
    text[0] = -text[0]
    files = (
        towers.write_fp32(tmp_path / "fp32", weights),
        towers.write_int8(tmp_path / "int8", {**weights, "text": text}),
    )
    line = next(each for each in compare(*files, samples, LIMITS).lines if "text→image" in each.name)
    assert (line.value, line.low, line.high, line.passed) == (4 / 64, 0.0, 12 / 64, True)


def test_balanced_accuracy_is_compared_class_by_class_with_its_interval():
    """Of 90 pictures of class 0 none is lost, of 10 of class 1 five: half a class, a quarter in balance."""
    labels = np.repeat([0, 1], [90, 10])
    after = labels.copy()
    after[-5:] = 0
    line = accuracy_line(labels, after, labels, [""] * 100, 0.01, "a set")
    assert line.value == pytest.approx(0.25) and line.passed is False and line.n == 100
    assert 0.05 < line.low < 0.25 < line.high < 0.45
    assert line.note == "1.000 → 0.750 on a set"


def test_equal_answers_prove_little_of_a_class_with_few_groups():
    """Class 0 has 300 groups and may lose 0.01, class 1 has 6 and may lose half: 0.255 in balance."""
    labels = np.repeat([0, 1], [300, 6])
    line = accuracy_line(labels, labels, labels, [""] * 306, 0.1, "a set")
    assert (line.low, line.high) == (pytest.approx(-0.255), pytest.approx(0.255)) and line.proven is False
    doubled = accuracy_line(labels, labels, labels, [f"g{i // 2}" for i in range(306)], 0.1, "a set")
    assert doubled.high == pytest.approx((0.02 + 1.0) / 2)


def test_balanced_accuracy_lost_in_one_group_alone_is_not_told_from_chance():
    labels = np.tile([0, 1], 50)
    after = labels.copy()
    after[:10] = 0
    groups = [f"g{i // 10}" for i in range(100)]
    line = accuracy_line(labels, after, labels, groups, 0.01, "a set")
    assert line.value == pytest.approx(0.05) and line.passed and line.proven is False


@pytest.mark.parametrize("direction", ["text→image", "image→text"])
def test_pairs_of_one_group_are_lost_together(direction, tmp_path):
    """Four pairs of one group lose their hits: one loss in sixteen, which may be chance."""
    samples = dataclasses.replace(SAMPLES, groups=tuple(f"g{i // 4}" for i in range(len(SAMPLES))))
    text = WEIGHTS["text"].copy()
    text[:4] = -text[:4]
    files = (
        towers.write_fp32(tmp_path / "fp32", WEIGHTS),
        towers.write_int8(tmp_path / "int8", {**WEIGHTS, "text": text}),
    )
    line = next(each for each in compare(*files, samples, LIMITS).lines if direction in each.name)
    assert (line.value, line.low, line.high, line.passed) == (4 / 64, 0.0, 12 / 64, True)


def test_the_text_tower_is_judged_on_captions_that_it_was_not_calibrated_on(tmp_path):
    """All new captions are broken; four calibrated ones for each of them would hide it."""
    text = WEIGHTS["text"].copy()
    text[48:64] = -text[48:64]
    files = (
        towers.write_fp32(tmp_path / "fp32", WEIGHTS),
        towers.write_int8(tmp_path / "int8", {**WEIGHTS, "text": text}),
    )
    lines = compare(*files, SAMPLES, LIMITS, fitted=[SAMPLES.part(0, 48)]).lines
    line = next(one for one in lines if one.name == "text cosine, mean")
    assert line.n == 16 and line.value < -0.99
    assert line.note == "without the 48 of 64 captions that were calibrated on"


def test_the_worst_counts_groups_of_pictures_and_different_texts(tmp_path):
    samples = dataclasses.replace(
        SAMPLES, tokens=SAMPLES.tokens // 4, groups=tuple(f"g{i // 2}" for i in range(len(SAMPLES)))
    )
    lines = judged(tmp_path, WEIGHTS, samples=samples)
    assert lines["image cosine, 1 % worst"].note == "of 64 samples of 32 groups; 299 would bound it"
    assert lines["text cosine, 1 % worst"].note == "of 16 texts; 299 would bound it"


def test_lines_of_pairs_that_the_model_was_trained_on_say_so(tmp_path):
    files = (towers.write_fp32(tmp_path / "a", WEIGHTS), towers.write_int8(tmp_path / "b", WEIGHTS))
    for trained_on in (True, False):
        lines = compare(*files, SAMPLES, LIMITS, PROMPTS, trained_on=trained_on).lines
        said = {line.name for line in lines if TRAINED_ON in line.note}
        names = {
            *(f"{tower} cosine, {what}" for tower in ("image", "text") for what in ("mean", "1 % worst")),
            *("zero-shot agreement", "text→image R@10 lost", "image→text R@10 lost"),
        }
        assert said == (names if trained_on else set())


SAMPLES = towers.make_samples()
WEIGHTS = towers.make_weights(SAMPLES)
# Four classes of three templates each: words that no caption uses.
PROMPTS = Prompts(("a", "b", "c", "d"), np.arange(100, 112)[:, None])
LIMITS = Thresholds.from_config(compose("export").gate)


def noise(weights):
    return np.random.default_rng(3).normal(0, weights.std(), weights.shape).astype(np.float32)


def judged(folder, int8, fp32=WEIGHTS, prompts=PROMPTS, samples=SAMPLES, labelled=None):
    """Lines of the gate, with the limits of conf/export.yaml, by name."""
    gate = compare(
        towers.write_fp32(folder / "fp32", fp32),
        towers.write_int8(folder / "int8", int8),
        samples,
        LIMITS,
        prompts,
        labelled=labelled,
    )
    return {line.name: line for line in gate.lines}


def failed(lines):
    return {name for name, line in lines.items() if line.passed is False}


def test_a_faithful_int8_passes_every_line(tmp_path):
    lines = judged(tmp_path, WEIGHTS)
    assert not failed(lines)
    for direction in ("text→image", "image→text"):
        assert lines[f"{direction} R@10 lost"].note.startswith("1.000 → 1.000; 0 lost, 0 gained")
    assert lines["zero-shot agreement"].n == len(SAMPLES)
    cosine = lines["image cosine, mean"]
    assert 0.97 < cosine.low < cosine.value < cosine.high <= 1.0001 and cosine.proven


@pytest.mark.parametrize("broken", [towers.shuffled, noise])
def test_a_broken_image_tower_fails_cosine_recall_and_zero_shot(broken, tmp_path):
    lines = judged(tmp_path, {**WEIGHTS, "image": broken(WEIGHTS["image"])})
    assert failed(lines) == {
        "image cosine, mean",
        "image cosine, 1 % worst",
        "zero-shot agreement",
        "text→image R@10 lost",
        "image→text R@10 lost",
    }


@pytest.mark.parametrize("broken", [towers.shuffled, noise])
def test_a_broken_text_tower_fails_cosine_recall_and_zero_shot(broken, tmp_path):
    lines = judged(tmp_path, {**WEIGHTS, "text": broken(WEIGHTS["text"])})
    assert failed(lines) == {
        "text cosine, mean",
        "text cosine, 1 % worst",
        "zero-shot agreement",
        "text→image R@10 lost",
        "image→text R@10 lost",
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


LABELLED = LabelledSamples(
    SAMPLES.pixels[:40],
    np.arange(40) % 4,
    ("",) * 40,
    ("a", "b", "c", "d"),
    np.arange(100, 112)[:, None],
    np.arange(12) // 3,
    towers.PREPROCESS,
    "a labelled set",
)


def labelled_by(weights):
    """The labelled pictures with the answers of these towers as their labels."""
    rows = towers.PREPROCESS.normalise(LABELLED.pixels).reshape(40, -1) @ weights["image"]
    words = weights["text"][100:112] / np.linalg.norm(weights["text"][100:112], axis=1, keepdims=True)
    classes = words.reshape(4, 3, -1).mean(axis=1)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    return dataclasses.replace(LABELLED, labels=(rows @ classes.T).argmax(axis=1))


def test_labelled_pictures_give_balanced_accuracy_and_stand_in_for_class_prompts(tmp_path):
    lines = judged(tmp_path, WEIGHTS, prompts=None, labelled=labelled_by(WEIGHTS))
    accuracy, agreement = lines["balanced accuracy lost"], lines["zero-shot agreement"]
    assert accuracy.n == agreement.n == 40 and not failed(lines)
    assert accuracy.note.startswith("1.000 → 1.000 on a labelled set") and accuracy.proven is False


def test_a_loss_of_balanced_accuracy_fails_the_gate(tmp_path):
    broken = {**WEIGHTS, "image": noise(WEIGHTS["image"])}
    lines = judged(tmp_path, broken, labelled=labelled_by(WEIGHTS))
    assert "balanced accuracy lost" in failed(lines)
    assert lines["balanced accuracy lost"].low > 0.1


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """An fp32 network, its int8 forms of 7 and 8 bits, and one with a layer kept in fp32; by name."""
    folder = tmp_path_factory.mktemp("networks")
    fp32 = towers.write_network(folder / "fp32.onnx")
    return {
        "fp32": fp32,
        "7 bits": towers.quantise_network(fp32, folder / "seven.onnx", 7),
        "8 bits": towers.quantise_network(fp32, folder / "eight.onnx", 8),
        "kept": towers.quantise_network(fp32, folder / "kept.onnx", 7, ("grouped",)),
    }


def network_lines(networks, name, folder):
    """Lines of the gate for an int8 network beside a faithful text tower."""
    text = towers.write_int8(folder / "int8", WEIGHTS)["text"]
    exact = towers.write_fp32(folder / "fp32", WEIGHTS)["text"]
    files = ({"image": networks["fp32"], "text": exact}, {"image": networks[name], "text": text})
    return {line.name: line for line in compare(*files, SAMPLES, LIMITS).lines}


SATURATES = "image layers that saturate without VNNI"
REFERENCE = "image outputs off the integer reference"
WRITTEN = "image cosine to the graph as written"


def test_seven_bits_pass_the_integer_reference_and_are_safe_on_every_cpu(networks, tmp_path):
    lines = network_lines(networks, "7 bits", tmp_path)
    assert (lines[SATURATES].value, lines[SATURATES].passed, lines[SATURATES].n) == (0, True, 6)
    assert (lines[REFERENCE].value, lines[REFERENCE].passed) == (0, True) and lines[REFERENCE].n > 1000
    written = lines[WRITTEN]
    assert written.passed and written.value > 0.999 and written.note.startswith("least ")
    assert lines["text layers that saturate without VNNI"].value is None


def test_eight_bits_fail_the_gate_on_every_machine_and_the_note_says_what_would_happen(networks, tmp_path):
    line = network_lines(networks, "8 bits", tmp_path)[SATURATES]
    assert (line.value, line.passed) == (6, False)
    assert "CPUs without VNNI cut that off silently" in line.note and "stem" in line.note


def test_a_layer_that_the_runtime_quantises_behind_our_back_fails_the_gate(networks, tmp_path):
    line = network_lines(networks, "kept", tmp_path)[SATURATES]
    assert (line.value, line.passed) == (1, False)
    assert "grouped" in line.note and "the file keeps in fp32" in line.note


def at_angles(*degrees):
    """Vectors of the plane in which 0° is fp32; all samples alike."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("run", "written", "passed", "note"),
    [
        (9.0, 10.0, True, "least 0.9998"),  # the same within the limit
        (-10.0, 10.0, True, "two roundings of one network: as run it is no farther from fp32 (0.9848"),
        (-10.1, 10.0, True, "two roundings"),  # 0.0003 farther
        (-20.0, 10.0, False, "as run it is farther from fp32 (0.9397 against 0.9848)"),
    ],
)
def test_a_graph_as_run_may_part_from_the_graph_as_written_if_it_is_as_near_to_fp32(
    run, written, passed, note
):
    line = as_written_line("a", at_angles(run), at_angles(written), at_angles(0.0), 0.999)
    assert line.passed is passed and note in line.note and line.note.startswith("least ")


def test_a_graph_that_the_runtime_rewrites_for_the_worse_fails(tmp_path):
    """Weights of an input that is always 0 are large: they ruin the one scale that onnxruntime takes."""
    fp32 = onnx.load(towers.write_network(tmp_path / "plain.onnx"))
    for weight in fp32.graph.initializer:
        values = numpy_helper.to_array(weight).copy()
        if weight.name == "depthwise.b":
            values[[0, 4]] = -100
        elif weight.name == "grouped.w":
            values[:, 0] = 300
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(fp32, tmp_path / "fp32.onnx")
    kept = towers.quantise_network(tmp_path / "fp32.onnx", tmp_path / "kept.onnx", 7, ("grouped",))
    line = network_lines({"fp32": tmp_path / "fp32.onnx", "kept": kept}, "kept", tmp_path)[WRITTEN]
    assert line.passed is False and "as run it is farther from fp32" in line.note


def test_the_speed_is_for_information_and_names_the_processor(networks, tmp_path):
    line = network_lines(networks, "7 bits", tmp_path)["image speed, int8 / fp32"]
    assert line.passed is None and cpu().name in line.note
    assert ("the gain is size alone" in line.note) is (line.value < 1 + EQUALLY_FAST)


def test_without_classes_the_gate_says_that_zero_shot_was_not_measured(tmp_path):
    line = judged(tmp_path, WEIGHTS, prompts=None)["zero-shot agreement"]
    assert (line.value, line.passed) == (None, None)
    assert line.note == "no class prompts given: prompts.classes=[…]"
