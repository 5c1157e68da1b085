from __future__ import annotations

import io
import json
import re
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pathclip.evaluate.datasets import LabelledImages
from pathclip.evaluate.profile import Profile
from pathclip.evaluate.reporting import plots, report
from pathclip.evaluate.reporting.confusion_pictures import (
    chosen_pictures,
    confusion_with_pictures,
    wrong_examples,
)
from pathclip.evaluate.reporting.headlines import headline_scores, headlines
from pathclip.evaluate.reporting.provenance import profile_section, provenance_section
from pathclip.evaluate.reporting.summary import summary_section
from pathclip.page import data_url, thumbnail
from pathclip.types import Score

PLOTS = [
    plots.bar_chart(["a & b", "<c>"], {"plain": [0.5, 0.25], "grey": [0.1, float("nan")]}, top=1.0),
    plots.bar_chart(["a"], {"plain": [0.5]}, {"plain": [(0.4, 0.6)]}, ("chance", 0.2)),
    plots.bar_chart([], {}),
    plots.line_chart({"loss <1>": [(0, 2.0), (1, float("nan")), (2, 1.0)]}, "step", "loss"),
    plots.line_chart({"none": []}),
    plots.confusion_svg([[3, 1], [0, 0]], ["<a>", "b & c"]),
    plots.confusion_svg([[3, 1], [0, 0]], ["<a>", "b & c"], {(0, 1): "there"}),
    plots.difference_chart(["<a>", "b"], [(0.1, -0.1, 0.3), (float("nan"),) * 3]),
    plots.difference_chart([], []),
]
CLASSES = ["benign", "tumour", "stroma"]


@pytest.mark.parametrize("svg", PLOTS)
def test_every_plot_is_well_formed_xml_without_stray_numbers(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "nan" not in svg and "inf" not in svg


def test_a_bar_is_as_long_as_its_value():
    root = ElementTree.fromstring(plots.bar_chart(["a", "b"], {"x": [0.5, 0.25]}, top=1.0))
    widths = [float(rect.get("width")) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)


def test_a_confusion_cell_shows_count_and_share():
    svg = plots.confusion_svg([[3, 1], [0, 4]], ["a", "b"])
    assert "a → b: 1 of 4" in svg and 'fill-opacity="0.750"' in svg


def test_a_label_too_long_for_the_plot_keeps_both_ends():
    svg = plots.bar_chart(["start" + "x" * 200 + "end"], {"a": [0.5]})
    assert "start" in svg and "end</text>" in svg and "x" * 50 not in svg


def test_ticks_are_round_and_inside():
    assert plots.ticks(0.13, 0.97) == [0.2, 0.4, 0.6, 0.8]
    assert plots.ticks(5, 5) == [5]


class Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href") and not re.match(r"(#|data:image/jpeg;base64,)", value or ""):
                self.found.append(value)
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)


def test_a_report_needs_nothing_from_outside_and_escapes_names(tmp_path):
    image = Image.fromarray(np.zeros((300, 200, 3), np.uint8))
    sections = [
        report.Section("<script>alert(1)</script>", PLOTS[0], "a < b"),
        report.Section("pictures", report.picture_grid([(image, "<b>caption</b>")], marks=[True])),
    ]
    path = report.write_report(tmp_path / "deep" / "report.html", "A & B", sections, "lead <x>")
    page = path.read_text()
    parser = Outside()
    parser.feed(page)
    assert parser.found == []
    assert "<title>A &amp; B</title>" in page and "&lt;b&gt;caption&lt;/b&gt;" in page
    assert "not for diagnosis" in page


def test_thumbnails_are_small_jpegs_without_metadata():
    image = Image.fromarray(np.zeros((3000, 2000, 3), np.uint8))
    url = data_url(thumbnail(image, 100))
    assert url.startswith("data:image/jpeg;base64,") and len(url) < 4000
    image.info["comment"] = b"a patient's name"
    assert b"patient" not in thumbnail(image, 120)


def test_the_table_puts_variants_of_one_figure_beside_each_other():
    shared = {"task": "t", "method": "zero_shot", "by": "m"}
    scores = [
        Score("balanced_accuracy", 0.9, 10, 0.8, 1.0, {**shared, "variant": "plain"}),
        Score("balanced_accuracy", 0.5, 10, 0.4, 0.6, {**shared, "variant": "randomised_colour"}),
    ]
    table = report.score_table(scores)
    assert table.count("<tr>") == 2
    assert table.index("0.900 [0.800, 1.000]") < table.index("0.500 [0.400, 0.600]")


def test_a_figure_without_interval_shows_none():
    assert report.value_text(Score("accuracy", 0.2, 5, 0.2, 0.2)) == "0.200"
    assert report.value_text(Score("text_to_image_median_rank", 3, 5, 2, 4)) == "3.0 [2.0, 4.0]"
    assert report.value_text(Score("accuracy", float("nan"), 5, 0, 1)) == "n/a"


def test_json_has_no_nan(tmp_path):
    path = report.write_scores(tmp_path / "r.json", [Score("a", float("nan"), 1, 0, float("inf"))], tasks={})
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["scores"][0]["value"] is None and content["scores"][0]["high"] is None


def test_scores_that_would_share_a_cell_get_rows_that_say_what_tells_them_apart():
    shared = {"task": "t", "method": "few_shot", "by": "m", "variant": "plain"}
    scores = [Score("accuracy", k / 10, 10, 0, 1, {**shared, "shots": k}) for k in (1, 4)]
    table = report.score_table(scores)
    assert "few shot, m, shots 1" in table and "few shot, m, shots 4" in table
    assert "0.100" in table and "0.400" in table
    alike = report.score_table([scores[0], scores[0]])
    assert "no. 1" in alike and "no. 2" in alike


def test_a_long_table_folds_and_keeps_its_headline_in_sight():
    about = {"task": "t", "method": "zero_shot", "by": "m", "role": "model", "variant": "plain"}
    scores = [Score(f"figure_{n}", 0.5, 10, 0.4, 0.6, about) for n in range(30)]
    scores.append(Score("balanced_accuracy", 0.9, 10, 0.8, 1.0, about))
    seen, folded = report.score_table(scores).split("<details>")
    assert "balanced accuracy" in seen and "figure" not in re.sub("<[^>]*>", "", seen)
    assert folded.count("<td>m</td>") == 30 and "30 more figures" in folded
    assert "<details>" not in report.score_table(scores[:5])


MARKED = Score("balanced_accuracy", 0.9, 10, 0.8, 1.0, {"marks": ["leak", "solved by colour"]})


def test_what_is_held_against_a_figure_stands_beside_it_and_is_explained():
    assert report.value_with_marks(MARKED) == "0.900 [0.800, 1.000] (leak, solved by colour)"
    table = report.score_table([MARKED])
    assert '<span class="mark grave">leak</span> <span class="mark">solved by colour</span>' in table
    explained = report.marks_explained([MARKED])
    assert "learnt from pictures that it is tested on" in explained and "nothing but colours" in explained
    assert report.marks_explained([Score("accuracy", 0.9, 10, 0.8, 1.0)]) == ""


def figures(task="t", marks=()):
    """What a zero-shot task gives: two precisions, two variants, baselines, a difference."""
    found = []
    for shift, variant in ((0.0, "plain"), (-0.3, "randomised_colour")):
        for precision in ("int8", "fp32"):
            about = {"task": task, "variant": variant, "method": "zero_shot", "role": "model"}
            about |= {"precision": precision, "runtime": "onnx", "by": f"m ({precision}, onnx)"}
            about |= {"marks": list(marks) if not shift else [], "data_hash": "ab" * 32, "groups": 9}
            about |= {"grouped": True, "resamples": 100}
            for name in ("accuracy", "balanced_accuracy"):
                found.append(Score(name, 0.9 + shift, 10, 0.8 + shift, 1.0 + shift, about))
        for method, value in (("colour_only", 0.85), ("chance", 0.5)):
            about = {"task": task, "variant": variant, "method": method}
            found.append(Score("balanced_accuracy", value, 10, value, value, about))
        first, second = ({"role": "model", "precision": one} for one in ("int8", "fp32"))
        about = {"task": task, "variant": variant, "method": "paired_difference", "by": "int8 minus fp32"}
        about |= {"first": first, "second": second}
        found.append(Score("balanced_accuracy_difference", -0.01 + shift, 10, -0.02, 0.0, about))
    return found


def test_the_headline_of_a_task_stands_beside_its_twin_and_baselines():
    (line,) = headlines(figures())
    assert (line.score.value, line.score.context["precision"]) == (0.9, "int8")
    assert line.twin.value == pytest.approx(0.6) and line.twin.context["precision"] == "int8"
    assert (line.colour_only.value, line.chance.value) == (0.85, 0.5)
    assert line.difference.value == -0.01
    assert {one.name for one in headline_scores(figures())} == {
        "balanced_accuracy",
        "balanced_accuracy_difference",
    }


def test_a_retrieval_stands_for_itself_by_recall_at_its_largest_k_under_its_first_definition():
    about = {"task": "t", "method": "retrieval", "role": "model", "variant": "plain"}
    scores = [
        Score(f"text_to_image_recall@{k}", k / 100, 10, 0, 1, {**about, "definition": definition})
        for definition in ("exact_pair", "same_text_or_group")
        for k in (1, 5, 10)
    ]
    (line,) = headlines(scores)
    assert (line.score.name, line.score.context["definition"]) == ("text_to_image_recall@10", "exact_pair")
    assert line.twin is None and headlines([]) == []
    assert [one.context["definition"] for one in headline_scores(scores)] == ["exact_pair"]


def test_the_summary_has_one_line_per_task_with_its_marks():
    section = summary_section([*figures("a", ["leak"]), *figures("b")])
    rows = re.search("<tbody>(.*)</tbody>", section.html)[1].split("<tr>")[1:]
    assert len(rows) == 2
    assert ">leak<" in rows[0] and ">leak<" not in rows[1]
    for text in ("0.900 [0.800, 1.000]", "0.600 [0.500, 0.700]", "0.850", "0.500", "-0.010 [-0.020, 0.000]"):
        assert text in rows[1]
    assert "learnt from pictures" in section.html
    assert summary_section([]) is None


def test_where_figures_come_from_names_models_data_code_and_machine():
    models = [
        {"role": "model", "precision": "int8", "name": "<m>", "runtime": "onnx", "model_hash": "f" * 64}
    ]
    settings = {"code_version": "0.1.0+xyz", "seed": 3, "resamples": 10}
    html = provenance_section(models, figures(), settings).html
    for text in ("&lt;m&gt; by onnx, weights ffffffff", "abababab", "0.1.0+xyz", "3, 10", "UTC", "numpy "):
        assert text in html


def test_the_profile_tells_the_share_of_the_encoders():
    profile = Profile()
    with profile.part("metrics"), profile.part("encoder", "model <int8>"):
        time.sleep(0.05)
    section = profile_section(profile)
    rows = re.findall("<tr><td>(.*?)</td>", section.html)
    assert rows == ["metrics", "encoder, model &lt;int8&gt;", "the rest"]
    share = int(re.search(r"(\d+)% of them in the encoders", section.caption)[1])
    assert 50 < share <= 100


def squares(colours):
    """Labelled pictures of one colour each, read from memory."""
    contents = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    n = len(contents)
    names = tuple(f"{number}.png" for number in range(n))
    return LabelledImages(
        names, ("x",) * n, ("",) * n, "test", lambda numbers: (contents[i] for i in numbers)
    )


TRUTH = np.array([0, 0, 0, 1, 1, 2])
SHARES = np.array(
    [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.3, 0.7, 0], [0.8, 0.2, 0], [0.55, 0.45, 0], [0.1, 0.2, 0.7]]
)


def matrix(**more):
    return confusion_with_pictures(
        "Task 1: a/b", squares([(i * 40, 0, 0) for i in range(6)]), TRUTH, SHARES, CLASSES, **more
    )


def test_a_cell_of_the_matrix_leads_to_its_pictures_and_an_empty_one_nowhere():
    html = matrix()
    led = set(re.findall(r'<a href="#(cells-[^"]+)" aria-label', html))
    assert led == {f"cells-task-1-a-b-{row}-{column}" for row, column in ((0, 0), (0, 1), (1, 0), (2, 2))}
    assert led == set(re.findall(r'class="cell-pictures" id="([^"]+)"', html))
    group = html.split('id="cells-task-1-a-b-1-0"')[1].split('class="cell-pictures"')[0]
    assert "tumour, taken for benign: 2 of 2" in group and group.count("<img") == 2
    assert "benign 0.80<br>tumour 0.20" in group
    assert 'href="#cells-task-1-a-b"' in group and '<div class="matrix" id="cells-task-1-a-b"' in html
    ElementTree.fromstring(re.search("<svg.*</svg>", html)[0])


def test_pictures_of_a_cell_show_only_when_it_is_chosen_and_without_a_script(tmp_path):
    page = report.write_report(tmp_path / "r.html", "t", [report.Section("m", matrix())]).read_text()
    assert ".cell-pictures{display:none" in page and ".cell-pictures:target{display:block}" in page
    parser = Outside()
    parser.feed(page)
    assert parser.found == []


def test_wrong_cells_come_first_and_each_cell_once_before_any_twice():
    assert list(chosen_pictures(TRUTH, SHARES, 2)) == [3, 2, 1, 5, 4, 0]


def test_pictures_are_bounded_by_cell_by_number_and_by_bytes():
    assert matrix(most_per_cell=1).count("<img") == 4
    assert matrix(most_pictures=2).count("<img") == 2
    one = len(re.search(r'src="([^"]+)"', matrix())[1])
    assert matrix(most_bytes=2 * one + 10).count("<img") == 2
    assert matrix(most_bytes=10).count("<img") == 0 and "<a href" not in matrix(most_bytes=10)


def test_wrong_examples_say_what_the_model_thought_surest_first():
    html, wrong = wrong_examples(squares(["red"] * 6), TRUTH, SHARES, CLASSES, most=2)
    assert wrong == 3 and html.count("<img") == 2
    assert html.index("is tumour, model says:<br>benign 0.80<br>tumour 0.20<br>stroma 0.00") < html.index(
        "is benign, model says:<br>tumour 0.70<br>benign 0.30<br>stroma 0.00"
    )
    assert wrong_examples(squares(["red"] * 6), SHARES.argmax(axis=1), SHARES, CLASSES) == ("", 0)
