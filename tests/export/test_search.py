from __future__ import annotations

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pathclip.errors import ConfigError
from pathclip.export.graphs.speed import time_in_turn
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.quantiser.tower import Tower
from pathclip.export.search import sensitivity
from pathclip.export.search.objective import Objective
from pathclip.export.search.search import search
from pathclip.export.search.stages import stages
from tests.export import towers

BASE = Recipe(smoothing=0.0, keep_fp32=())
SAMPLES = towers.make_samples(48)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fp32")
    files = towers.write_fp32(folder / "linear", towers.make_weights(SAMPLES))
    return {"image": towers.write_network(folder / "network.onnx"), "text": files["text"]}


@pytest.fixture(scope="module")
def objective(fp32):
    return Objective(fp32, SAMPLES.part(24, 48), 20.0)


@pytest.fixture
def tower(fp32, tmp_path):
    return Tower("image", fp32["image"], SAMPLES.part(0, 24), SAMPLES.part(24, 48), tmp_path)


@pytest.fixture(scope="module")
def quick(fp32, objective, tmp_path_factory):
    """A quick search that may give up nothing, so that layers go back to fp32 as well."""
    work = tmp_path_factory.mktemp("quick")
    tower = Tower("image", fp32["image"], SAMPLES.part(0, 24), SAMPLES.part(24, 48), work)
    return search(tower, objective, BASE, "quick")


def recipes(mode, operators, best=BASE):
    return [recipe for _, vary in stages(mode, operators) for recipe in vary(best)]


def test_nncf_is_not_asked_for_what_it_has_not():
    tower = ["MatMul"] * 36 + ["Conv"]
    asked = recipes("full", tower, dataclasses.replace(BASE, quantizer="nncf"))
    assert {one.calibration for one in asked if one.quantizer == "nncf"} == {"mse", "minmax", "percentile"}
    assert all(one.rounding == "nearest" for one in asked if one.quantizer == "nncf")
    assert any(one.calibration == "entropy" for one in recipes("full", tower))


def test_attention_in_fp32_is_tried_where_the_recipe_has_it_in_integers_and_the_reverse_in_full():
    tower = ["MatMul"] * 36 + ["Conv"]
    whole = dataclasses.replace(BASE, attention=True)
    assert any(not one.attention for one in recipes("quick", tower, whole))
    assert not any(one.attention for one in recipes("quick", tower))
    assert any(one.attention for one in recipes("full", tower))


@pytest.mark.parametrize("operators", [["Conv"] * 50 + ["Gemm"], ["MatMul"] * 36 + ["Conv"]])
@pytest.mark.parametrize("mode", ["quick", "full"])
def test_eight_bits_are_for_who_asks_for_them(mode, operators):
    assert all(one.weight_bits == 7 for one in recipes(mode, operators))
    asked = dataclasses.replace(BASE, weight_bits=8)
    seven, *others = recipes(mode, operators, asked)
    assert seven == BASE and all(one.weight_bits == 8 for one in others)


def test_smoothing_is_for_products_and_equalisation_for_convolutions():
    of = {kind: [name for name, _ in stages("full", kind)] for kind in (("MatMul",) * 9, ("Conv",) * 9)}
    assert "smoothing" in of[("MatMul",) * 9] and "equalisation" not in of[("MatMul",) * 9]
    assert "equalisation" in of[("Conv",) * 9] and "smoothing" not in of[("Conv",) * 9]


def test_a_quick_search_is_a_handful_and_a_full_one_holds_it():
    kind = ["Conv"] * 50
    few, many = recipes("quick", kind), recipes("full", kind)
    assert len(few) <= 8 < len(many) and all(one in many for one in few)


def test_without_a_search_the_recipe_is_taken_as_it_is(tower, objective):
    found = search(tower, objective, BASE)
    assert [trial.recipe for trial in found.trials] == [BASE] and found.number == 0
    assert found.quantised.file.is_file()


def test_the_one_taken_is_the_fastest_within_the_tolerance_and_its_file_is_there(quick):
    assert len(quick.trials) > 3
    best = max(trial.faithful for trial in quick.trials)
    assert quick.trial.faithful == best and quick.number in quick.front()
    assert quick.quantised.file.is_file() and quick.fp32.is_file()


def test_files_of_beaten_candidates_are_gone(quick):
    alive = {number for number, trial in enumerate(quick.trials) if trial.quantised.file.exists()}
    assert alive == set(quick.front()) != set(range(len(quick.trials)))


def test_a_layer_goes_back_to_fp32_by_what_it_costs_and_says_so(quick):
    returned = [trial for trial in quick.trials if trial.stage == "sensitive in fp32"]
    worst = quick.sensitivities[0]
    assert returned and returned[0].quantised.reasons == {
        worst.name: f"sensitivity: costs {worst.cost:.4f} of cosine alone, no. 1"
    }


def test_single_layers_of_an_nncf_graph_are_measured_in_one_of_ours(fp32, objective, tmp_path, monkeypatch):
    """NNCF moves scales from activations into weights, which alone in the fp32 graph would be wrong ones."""
    pytest.importorskip("nncf")
    measured = []

    def spy(graph, int8, *rest):
        measured.append(int8.name)
        return sensitivity.sensitivities(graph, int8, *rest)

    monkeypatch.setattr("pathclip.export.search.search.sensitivities", spy)
    tower = Tower("image", fp32["image"], SAMPLES.part(0, 24), SAMPLES.part(24, 48), tmp_path)
    base = dataclasses.replace(BASE, quantizer="nncf", calibration="minmax", smoothing=0.7)
    found = search(tower, objective, base, "quick", tolerance=1e-9)
    assert measured == ["image_for_sensitivity.onnx"]
    assert found.sensitivities[0].cost < 0.5


def test_sensitivity_is_not_measured_where_little_is_lost(tower, objective):
    assert search(tower, objective, BASE, "quick", tolerance=0.5).sensitivities == ()


def test_a_variant_without_any_hold_on_the_tower_is_no_trial(tower, objective):
    """To keep a layer in fp32 that is not there is to keep none."""
    base = dataclasses.replace(BASE, keep_fp32=("no such layer",))
    found = search(tower, objective, base, "quick", tolerance=0.5)
    assert "nothing in fp32" not in [trial.stage for trial in found.trials] and len(found.trials) > 3


def test_when_time_is_over_the_base_recipe_stands(tower, objective):
    found = search(tower, objective, BASE, "full", seconds=0.0)
    assert [trial.stage for trial in found.trials] == ["base"]


def test_who_asks_for_eight_bits_gets_seven_where_eight_can_saturate(tower, objective):
    asked = dataclasses.replace(BASE, weight_bits=8)
    plain = search(tower, objective, asked)
    assert plain.trial.unsafe > 0 and "layers unsafe without VNNI" in plain.trial.describe()
    found = search(tower, objective, asked, "quick", tolerance=0.5)
    assert found.recipe.weight_bits == 7 and found.trial.safe and found.quantised.file.is_file()
    assert [trial.unsafe > 0 for trial in found.trials] == [True] + [False] * (len(found.trials) - 1)


class Faster(Tower):
    """A tower of which a variant says the same as its base, with one constant less to look up."""

    def quantise(self, recipe, file, keep=None):
        made = Tower.quantise(self, dataclasses.replace(recipe, calibration="minmax"), file, keep)
        model = onnx.load(file)
        if recipe.calibration == "mse":  # the base: as if it did some work for nothing
            model.graph.output[0].name = "late"
            weight = numpy_helper.from_array(np.eye(towers.DIM, dtype=np.float32), "same")
            model.graph.initializer.append(weight)
            names = ["embedding", *(f"again{n}" for n in range(600)), "late"]
            model.graph.node.extend(
                helper.make_node("MatMul", [a, "same"], [b], b) for a, b in itertools.pairwise(names)
            )
        onnx.save(model, file)
        return made


def test_a_faster_trial_as_faithful_as_the_best_takes_its_place(fp32, objective, tmp_path):
    """The slower one's file is gone, and what is done next must not ask for it."""
    tower = Faster("image", fp32["image"], SAMPLES.part(0, 24), SAMPLES.part(24, 48), tmp_path)
    found = search(tower, objective, BASE, "quick")
    first, second = found.trials[:2]
    assert first.faithful == second.faithful and first.speed < second.speed
    assert found.sensitivities and not first.quantised.file.exists()


def test_a_ranking_cut_off_by_time_says_how_many_layers_it_is_of(tower, objective, monkeypatch):
    clock = SimpleNamespace(monotonic=iter([0.0, 0.0, math.inf]).__next__)
    monkeypatch.setattr(sensitivity, "time", clock)
    found = search(tower, objective, BASE, "quick", seconds=1e6)
    assert len(found.sensitivities) == 2 and found.layers == 6
    returned = [trial for trial in found.trials if trial.stage == "sensitive in fp32"]
    assert next(iter(returned[0].quantised.reasons.values())).endswith("no. 1 of 2 measured of 6")


def test_smoothing_without_any_hold_on_the_tower_is_not_told(tower, objective, fp32, tmp_path):
    base = dataclasses.replace(BASE, smoothing=0.7, equalisation=True)
    assert search(tower, objective, base).recipe == base
    words = Tower("text", fp32["text"], SAMPLES.part(0, 24), SAMPLES.part(24, 48), tmp_path)
    assert search(words, objective, base).recipe == BASE


class WithoutMinMax(Tower):
    """A tower of a kind that one way to calibrate cannot do."""

    def quantise(self, recipe, file, keep=None):
        if recipe.calibration == "minmax":
            raise ConfigError("not today")
        return Tower.quantise(self, recipe, file, keep)


@pytest.fixture
def without_minmax(fp32, tmp_path):
    return WithoutMinMax("image", fp32["image"], SAMPLES.part(0, 24), SAMPLES.part(24, 48), tmp_path)


def test_a_base_recipe_that_cannot_be_made_is_told(without_minmax, objective):
    with pytest.raises(ConfigError, match="not today"):
        search(without_minmax, objective, dataclasses.replace(BASE, calibration="minmax"), "quick")


def test_a_variant_that_cannot_be_made_is_noted_and_left_out(without_minmax, objective):
    found = search(without_minmax, objective, BASE, "quick", tolerance=0.5)
    assert list(found.failed.values()) == ["not today"] and "minmax" in next(iter(found.failed))
    assert all(trial.recipe.calibration != "minmax" for trial in found.trials) and len(found.trials) > 1


def test_a_graph_that_does_a_tenth_of_the_work_is_several_times_as_fast(tmp_path):
    def write(products):
        weight = numpy_helper.from_array(np.eye(768, dtype=np.float32), "w")
        names = ["x", *(f"y{n}" for n in range(products))]
        nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
        ends = [
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, [16, 768])] for n in (names[0], names[-1])
        ]
        graph = helper.make_graph(nodes, "g", *ends, initializer=[weight])
        file = tmp_path / f"{products}.onnx"
        opset = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), file)
        return file

    feed = {"x": np.ones((16, 768), np.float32)}
    assert time_in_turn(write(40), write(4), feed).ratio > 3
