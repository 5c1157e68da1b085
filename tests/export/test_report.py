from __future__ import annotations

import dataclasses
import json
import math
import re
from types import SimpleNamespace

import pytest

from pathclip.export.gate.gate import TRAINED_ON, Gate
from pathclip.export.gate.layers import LayerError
from pathclip.export.gate.verdict import Line
from pathclip.export.quantiser.quantize import Quantised
from pathclip.export.quantiser.recipe import Recipe
from pathclip.export.reporting.plots import layer_plot, pareto_plot
from pathclip.export.reporting.report import Exported, sentences, write_report
from pathclip.export.reporting.report_sets import PROMPTS_CHOSE, Sets
from pathclip.export.search.objective import Fidelity
from pathclip.export.search.search import Chosen, Trial
from pathclip.export.search.sensitivity import Sensitivity
from pathclip.shards.writer import Sample, write_shards
from tests.export.conftest import picture

REASON = "sensitivity: costs 0.0123 of cosine alone, no. 1"


def trial(loss, speed, calibration="mse", reasons=None):
    reasons = reasons or {}
    fidelity = Fidelity(1 - loss, 1 - loss, loss, loss, 0.9)
    made = Quantised(None, 50, tuple(reasons), reasons)
    return Trial("ranges", Recipe(calibration=calibration), made, fidelity, speed, 4_000_000)


def exported(tmp_path, speed=1.9, passed=True, name="lite", sets=None, captions=None):
    write_shards(tmp_path / "train", [Sample("a", picture(0), "a tumour", {"group": "g"})])
    trials = (trial(0.01, 1.2), trial(0.002, speed, reasons={"conv_7": REASON}), trial(0.02, 0.9, "minmax"))
    chosen = Chosen(trials, 1, None, (Sensitivity("conv_7", "Conv", 0.0123),), {"by nncf": "too old"}, 12.0)
    layers = (
        LayerError("conv_1", "Conv", 41.2, False, "", 44.0),
        LayerError("conv_7", "Conv", math.inf, True, REASON, math.nan),
        LayerError("head", "Gemm", 28.5, False, "", 40.0),
    )
    lines = (
        Line("image cosine, mean", 0.995 if passed else 0.5, 0.97, passed, 128, "", 0.99, 0.997),
        Line("balanced accuracy lost", None, note="no labelled pictures given"),
        Line("size, int8 / fp32", 0.256, 0.5, True, note="105.4 MB → 27.0 MB"),
        Line("image speed, int8 / fp32", speed, n=16),
    )
    details = {"recipes": {"image": {"recipe": "mse"}}, **({"captions": captions} if captions else {})}
    gate = Gate(lines, details)
    folder = SimpleNamespace(path=tmp_path, hash="ab" * 32, card={"name": name})
    sets = Sets((str(tmp_path / "train"),), 128, 127, 126, **(sets or {}))
    return Exported(folder, tmp_path / "out", gate, {"image": chosen}, {"image": layers}, sets, 0.002, 7)


@pytest.fixture
def page(tmp_path):
    return write_report(tmp_path / "report", exported(tmp_path)).read_text()


def test_the_page_needs_nothing_else(page):
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!#)", page)
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_every_line_of_the_gate_stands_there_with_interval_limit_and_verdict(page):
    row = next(line for line in page.split("<tr>") if "image cosine, mean" in line)
    for part in ("0.9950", "0.9900 to 0.9970", "0.97", "128", "passed"):
        assert part in row
    assert "not measured" in page and "no labelled pictures given" in page


def test_a_layer_in_fp32_is_named_with_the_figure_that_put_it_there(page):
    drawing = layer_plot(exported_layers := (LayerError("conv_7", "Conv", 30.0, True, REASON, math.nan),))
    assert ">conv_7</text>" in drawing and REASON in drawing and len(exported_layers) == 1
    assert f"<td>{REASON}</td>" in page


def test_every_candidate_is_a_dot_and_the_one_taken_is_marked():
    trials = [trial(0.01, 1.2), trial(0.002, 1.9), trial(0.02, 0.9)]
    drawing = pareto_plot(trials, [1], 1)
    assert drawing.count("<circle") == 3 and drawing.count('class="chosen"') == 1
    assert drawing.count('class="beaten"') == 2 and ">2 taken</text>" in drawing and ">fp32</text>" in drawing
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawing)]
    assert heights[1] < heights[0] < heights[2]  # the nearer to fp32, the higher


def test_a_candidate_as_good_as_fp32_can_be_drawn():
    assert "nan" not in pareto_plot([trial(0.0, 1.0)], [0], 0)


@pytest.mark.parametrize(("speed", "alone"), [(0.97, True), (1.02, True), (1.04, False), (1.9, False)])
def test_that_the_gain_is_size_alone_is_said_where_it_is_so(speed, alone, tmp_path):
    said = " ".join(sentences(exported(tmp_path, speed)))
    assert ("no faster than fp32 on this CPU" in said and "the gain is size alone" in said) is alone
    assert "26% of the bytes" in said


def test_what_was_not_proven_or_not_measured_is_counted_beside_the_verdict(tmp_path):
    whole = exported(tmp_path)
    assert sentences(whole)[0] == "The gate passed; 1 of its lines is not measured."
    lines = (
        Line("a", 1.0, 0.9, True, proven=False),
        Line("b", 1.0, 0.9, True, proven=False),
        Line("c", None),
    )
    for some, said in (
        (lines, "The gate passed; 2 of its lines are not proven and 1 of its lines is not measured."),
        (lines[:0], "The gate passed."),
        ((*lines[2:], Line("d", 0.1, 0.9, False)), "The gate failed: 1 of its limits do not hold; 1 of its"),
    ):
        found = sentences(dataclasses.replace(whole, gate=Gate(some)))[0]
        assert found.startswith(said)


def test_the_sets_are_told_with_what_they_have_in_common(tmp_path):
    plain = write_report(tmp_path / "plain", exported(tmp_path)).read_text()
    assert "no group in two of them" in plain and TRAINED_ON not in plain and PROMPTS_CHOSE not in plain
    told = {
        "source": "training shards",
        "note": "val: gone",
        "trained_on": True,
        "shared_groups": 3,
        "prompts_chose": True,
    }
    page = write_report(tmp_path / "told", exported(tmp_path, sets=told)).read_text()
    assert "3 groups in two of them" in page and "no group in two" not in page
    assert f"training shards; {TRAINED_ON}; val: gone" in page and PROMPTS_CHOSE in page


@pytest.mark.parametrize(
    ("judged", "fitted", "said"),
    [
        (42, 0, "none was calibrated on"),
        (30, 12, "on the 30 of 42 different captions that were not calibrated on"),
        (42, 40, "42 different captions, of which 40 were calibrated on"),
    ],
)
def test_the_report_says_which_captions_the_text_tower_is_judged_on(judged, fitted, said, tmp_path):
    captions = {"distinct": 42, "fitted": fitted, "judged": judged}
    assert said in write_report(tmp_path / "r", exported(tmp_path, captions=captions)).read_text()


def test_a_failed_gate_is_the_first_thing_said(tmp_path):
    page = write_report(tmp_path / "report", exported(tmp_path, passed=False)).read_text()
    head = page[: page.index("<main>")]
    assert "The gate failed: 1 of its limits" in head and "image cosine, mean 0.5000 (limit 0.97)" in head


def test_the_json_holds_every_figure_and_is_strict(tmp_path):
    write_report(tmp_path / "report", exported(tmp_path))

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "report" / "report.json").read_text(), parse_constant=refuse)
    assert found["gate"]["passed"] is True and found["towers"]["image"]["front"] == [1]
    assert found["towers"]["image"]["sensitivities"] == [
        {"name": "conv_7", "op_type": "Conv", "cost": 0.0123}
    ]
    assert [one["name"] for one in found["towers"]["image"]["layer_errors"]] == ["conv_1", "conv_7", "head"]
    assert found["data"]["calibration"] == 128 and found["data"]["selection"] == 127
    assert len(found["data"]["shards"][0]["data_hash"]) == 64 and found["data"]["seed"] == 7
    assert found["machine"]["cores"] >= 1 and "onnxruntime" in found["versions"]


def test_no_path_of_this_machine_stands_in_the_report(tmp_path):
    write_report(tmp_path / "report", exported(tmp_path))
    for file in (tmp_path / "report").iterdir():
        assert str(tmp_path) not in file.read_text()


def test_a_name_is_text_and_not_markup(tmp_path):
    page = write_report(tmp_path / "report", exported(tmp_path, name="<b>lite</b>")).read_text()
    assert "<b>lite" not in page and "&lt;b&gt;lite" in page


def test_what_could_not_be_made_is_told(page):
    assert "by nncf. too old" in page
