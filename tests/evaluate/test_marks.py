"""What is held against a score, from the figures alone."""

from __future__ import annotations

import pytest

from pathclip.evaluate.marks import colour_remarks, marks_of
from pathclip.evaluate.reporting.report import NEARLY_SOLVED_BY_COLOUR, SOLVED_BY_COLOUR
from pathclip.types import Score

MODEL = {"role": "model", "method": "zero_shot", "precision": "int8", "variant": "plain", "by": "m"}


def scores(colours, value=0.95, low=0.93, chance=0.2):
    context = {"variant": "plain"}
    return [
        Score("balanced_accuracy", value, 100, low, 0.97, MODEL),
        Score("accuracy", value, 100, 0.0, 1.0, MODEL),
        Score("balanced_accuracy", colours, 100, 0.0, 1.0, {**context, "method": "colour_only"}),
        Score("balanced_accuracy", chance, 100, chance, chance, {**context, "method": "chance"}),
    ]


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (0.93, [SOLVED_BY_COLOUR]),  # the lower end itself
        (0.929, [NEARLY_SOLVED_BY_COLOUR]),
        (0.876, [NEARLY_SOLVED_BY_COLOUR]),  # 0.2 + 0.9 x 0.75 is 0.875
        (0.874, []),
    ],
)
def test_colours_solve_a_task_within_the_interval_and_nearly_from_nine_tenths_of_the_way(colours, expected):
    given = scores(colours)
    marks = marks_of(given, {}, False)
    put = marks.put(given)
    assert [one.context.get("marks", []) for one in put] == [expected, expected, [], []]
    lines = colour_remarks(put, marks)
    assert len(lines) == len(expected)
    assert all(line.startswith(f"Plain: {expected[0]}. m has 0.950") for line in lines)


def test_a_model_at_chance_is_not_said_to_be_nearly_reached_by_colours_below_it():
    given = scores(0.15, value=0.22, low=0.18)
    assert not any(one.context.get("marks") for one in marks_of(given, {}, False).put(given))
