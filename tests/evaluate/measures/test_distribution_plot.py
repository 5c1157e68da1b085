from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from pathclip.evaluate.measures.distribution_plot import distribution_svg

VALUES = [0.2, 0.5, 0.5, 0.6, 0.9]


def lines(svg, pen):
    """Places of the marks drawn with this pen, without the one of the legend."""
    return [float(x) for x in re.findall(rf'class="line {pen}" d="M([\d.]+) [\d.]+v(?!12")', svg)]


def test_the_bars_count_the_values():
    svg = distribution_svg({"plain": VALUES}, {})
    found = [int(one) for one in re.findall(r"<title>[^<]*: (\d+) of 5</title>", svg)]
    assert sum(found) == 5 and max(found) == 2
    ET.fromstring(svg)


def test_marks_lie_where_their_values_are_and_keep_their_colour_over_rows():
    svg = distribution_svg(
        {"a": VALUES, "b": VALUES}, {"a": {"ensemble": 0.2, "single": 0.9}, "b": {"single": 0.55}}
    )
    (ensemble,), (above, below) = lines(svg, "s4"), lines(svg, "s1")
    assert below == pytest.approx((ensemble + above) / 2, abs=0.2)
    assert svg.count(">ensemble</text>") == svg.count(">single</text>") == 1


def test_equal_marks_do_not_hide_one_another():
    svg = distribution_svg({"a": VALUES}, {"a": {"ensemble": 0.5, "single": 0.5}})
    spans = [
        (float(start), float(start) + float(tall))
        for start, tall in re.findall(r'class="line s\d" d="M[\d.]+ ([\d.]+)v([\d.]+)"', svg)[2:]
    ]
    (_, end), (start, _) = spans
    assert end <= start + 0.01


def test_text_is_escaped_and_colours_come_from_the_style_sheet():
    svg = distribution_svg({"<b>": VALUES}, {"<b>": {"<i>": 0.5}}, "<u>")
    assert "<b>" not in svg and "<i>" not in svg and "<u>" not in svg
    assert not re.search(r"fill=|stroke=|style=", svg)


def test_values_that_are_all_equal_or_missing_can_be_drawn():
    ET.fromstring(
        distribution_svg({"a": [0.5, 0.5], "b": [float("nan")], "c": []}, {"a": {"m": float("nan")}})
    )
