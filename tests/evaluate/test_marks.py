"""What is held against a score, from the figures alone."""

from __future__ import annotations

import math

import pytest

from pathclip.evaluate.marks import Marks, colour_remarks, learnt_colour_remarks, marks_of
from pathclip.evaluate.reporting.report import LEAK, NEARLY_SOLVED_BY_COLOUR, SOLVED_BY_COLOUR
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


@pytest.mark.parametrize(("colours", "expected"), [(0.2, []), (0.21, [SOLVED_BY_COLOUR])])
def test_colours_that_do_not_exceed_chance_solve_nothing_and_others_do_however_low_the_model(
    colours, expected
):
    given = scores(colours)
    given[0] = Score("balanced_accuracy", 0.145, 100, 0.12, 0.18, MODEL)
    put = marks_of(given, {}, False).put(given)
    assert [one.context.get("marks", []) for one in put[:2]] == [expected, expected]


def test_a_model_without_interval_is_judged_by_its_value():
    given = scores(0.95, low=math.nan)
    assert marks_of(given, {}, False).put(given)[0].context["marks"] == [SOLVED_BY_COLOUR]


def learnt(name="balanced_accuracy", value=0.9, low=0.85, **context):
    context = {**MODEL, "method": "nearest_neighbours", **context}
    return Score(name, value, 100, low, 1.0, context)


def marks_on(marks, *given):
    return [one.context.get("marks", []) for one in marks.put(given, learnt=True)]


def test_a_difference_is_marked_if_either_side_was_trained_on_test_pictures():
    sides = {"first": {"role": "model"}, "second": {"role": "untrained"}}
    difference = Score("accuracy_difference", 0.1, 9, 0.0, 0.2, {"variant": "plain", **sides})
    assert Marks({"model fp32": True}).put([difference])[0].context["marks"] == [LEAK]
    assert Marks({"untrained fp32": True}).put([difference])[0].context["marks"] == [LEAK]
    assert "marks" not in Marks({"model fp32": False}).put([difference])[0].context


def test_what_was_fine_tuned_in_fp32_from_a_leaking_int8_model_is_marked():
    assert marks_on(Marks({"model int8": True}), learnt(method="fine_tuning", precision="fp32")) == [[LEAK]]


def test_rows_that_measures_leave_out_are_held_against_the_colours_alone():
    colours = Score("accuracy", 0.9, 9, 0.8, 1.0, {"variant": "plain", "method": "colour_only"})
    shared, near = Marks(split_leaks=True), Marks(split_leaks=True, learnt_leaks=True)
    assert shared.put([colours])[0].context["marks"] == [LEAK]
    assert marks_on(shared, learnt()) == [[]]
    assert marks_on(near, learnt()) == [[LEAK]]


def test_all_figures_of_what_was_learnt_are_marked_by_its_balanced_accuracy():
    marks = Marks(colour_only={"plain": 0.86}, chance=0.5)
    given = [learnt("accuracy", 0.99, 0.98), learnt(), learnt(by="other", value=0.99, low=0.98)]
    assert marks_on(marks, *given) == [[SOLVED_BY_COLOUR], [SOLVED_BY_COLOUR], []]
    nearly = learnt(value=0.9, low=0.88)
    marks = Marks(colour_only={"plain": 0.87}, chance=0.5)
    assert marks_on(marks, nearly) == [[NEARLY_SOLVED_BY_COLOUR]]
    (line,) = learnt_colour_remarks(marks.put([nearly], learnt=True), marks)
    assert line == (
        "Plain: nearly solved by colour. Nearest neighbours, m has 0.900 [0.880, 1.000], colours alone 0.870."
    )


def test_a_probe_on_colours_is_what_the_probes_of_its_measure_are_judged_by():
    colours = learnt(method="linear_probe_on_colour_only", value=0.6, role=None)
    marks = Marks(colour_only={"plain": 0.99}, chance=0.5)
    assert marks_on(marks, learnt(method="linear_probe"), colours) == [[], []]
    published = learnt(method="linear_probe_as_published", low=0.6)
    assert marks_on(marks, published, colours)[0] == [SOLVED_BY_COLOUR]


def test_what_was_learnt_from_a_part_of_the_rows_is_not_judged_by_colours_learnt_from_all():
    marks = Marks(colour_only={"plain": 0.99}, chance=0.5)
    given = learnt(shots=1), learnt(fraction=0.1), learnt(fraction=1.0)
    assert marks_on(marks, *given) == [[], [], [SOLVED_BY_COLOUR]]


def test_marks_are_put_once():
    marks = Marks({"model int8": True}, colour_only={"plain": 0.99})
    assert marks_on(marks, *marks.put([learnt()], learnt=True)) == [[LEAK, SOLVED_BY_COLOUR]]
