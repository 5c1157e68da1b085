from __future__ import annotations

import numpy as np
import pytest

from pathclip.errors import ConfigError
from pathclip.export.gate import Gate, Line, Thresholds, recall_at


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
    assert recall_at(queries, gallery, same, k=1) == pytest.approx(1 / 3)
    assert recall_at(queries, gallery, same, k=2) == pytest.approx(2 / 3)
