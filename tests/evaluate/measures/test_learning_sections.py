"""Charts of something learnt, where there is nothing to draw."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from pathclip.evaluate.measures.learning_sections import lines_with_intervals


def test_lines_without_points_are_left_out_and_of_none_there_is_no_chart():
    assert lines_with_intervals({"m": []}, "shots", {"zero-shot": 0.5}) == ""
    drawing = lines_with_intervals({"none": [], "m": [(1.0, 0.5, 0.4, 0.6), (4.0, 0.7, 0.6, 0.8)]}, "shots")
    assert ">m</text>" in drawing and ">none</text>" not in drawing


def test_a_point_without_interval_is_drawn_all_the_same():
    drawing = lines_with_intervals({"m": [(1.0, 0.5, math.nan, math.nan), (4.0, 0.7, 0.6, 0.8)]}, "shots")
    ElementTree.fromstring(drawing)
    assert "nan" not in drawing and 'class="line s0"' in drawing
