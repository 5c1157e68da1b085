from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pathclip.evaluate import plots, report
from pathclip.page import data_url, thumbnail
from pathclip.types import Score

PLOTS = [
    plots.bar_chart(["a & b", "<c>"], {"plain": [0.5, 0.25], "grey": [0.1, float("nan")]}, top=1.0),
    plots.bar_chart(["a"], {"plain": [0.5]}, {"plain": [(0.4, 0.6)]}, ("chance", 0.2)),
    plots.bar_chart([], {}),
    plots.line_chart({"loss <1>": [(0, 2.0), (1, float("nan")), (2, 1.0)]}, "step", "loss"),
    plots.line_chart({"none": []}),
    plots.confusion_svg([[3, 1], [0, 0]], ["<a>", "b & c"]),
]


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
