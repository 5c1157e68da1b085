"""Two reports, picture by picture: what may be compared, and what the comparison says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from pathclip.commands import pipeline
from pathclip.errors import DataError
from pathclip.evaluate.comparison import compare_command
from pathclip.evaluate.comparison.answers import write_answers
from pathclip.evaluate.comparison.compare import compare, mean_recall, shared
from pathclip.evaluate.comparison.compare_report import as_json, measured_text, table, write_comparison
from pathclip.evaluate.comparison.saved_report import open_report
from tests.evaluate.reports import answers, ranks, report

MANY = tuple(range(0, 60, 3))


@pytest.fixture
def against(tmp_path):
    """Compares answers with others, each in a report of its own."""

    def run(first, second, first_report=None, second_report=None):
        folders = [
            report(tmp_path / name, found, name, **(more or {}))
            for name, found, more in (("one", first, first_report), ("other", second, second_report))
        ]
        return compare([open_report(folder) for folder in folders], resamples=2000)

    return run


def test_a_clear_difference_has_a_verdict_and_an_interval_off_zero(against):
    row = against([answers(MANY)], [answers([])]).rows[0]
    assert row.verdict == "B better"
    assert row.values[0].value == pytest.approx(2 / 3) and row.values[1].value == 1.0
    assert row.difference.value == pytest.approx(1 / 3)
    assert 0.2 < row.difference.low < 1 / 3 < row.difference.high
    assert row.p_holm < 0.01 and (row.n, row.groups) == (60, 30)


def test_the_other_way_round_the_other_is_better(against):
    row = against([answers([])], [answers(MANY)]).rows[0]
    assert row.verdict == "A better" and row.difference.high < 0


def test_a_report_differs_from_itself_in_nothing(against):
    row = against([answers(MANY)], [answers(MANY)]).rows[0]
    assert (row.difference.value, row.difference.low, row.difference.high) == (0, 0, 0)
    assert row.p == 1 and row.verdict == "no difference shown"


def test_an_interval_without_width_is_shown_as_the_value_alone(against):
    row = table(against([answers(MANY)], [answers(MANY)]), ("A", "B")).rows[0]
    assert row[5] == "+0.000"
    certain = table(against([answers([])], [answers([])]), ("A", "B")).rows[0]
    assert certain[3] == "1.000"


def test_answers_of_the_first_of_several_seeds_are_said_to_be(against):
    several = [answers(MANY, method="linear_probe", seeds=5)]
    found = against(several, [answers([], method="linear_probe", seeds=5)])
    assert measured_text(found.rows[0]) == "balanced accuracy, linear probe, plain, int8, first seed"
    assert any("linear probe only the answers of the first seed" in line for line in found.remarks)
    one = against([answers(MANY, method="linear_probe", seeds=1)], [answers([], method="linear_probe")])
    assert "first seed" not in measured_text(one.rows[0]) and one.remarks == ()


def test_the_same_figures_say_less_where_the_pictures_come_from_few_groups(against):
    many = against([answers(MANY)], [answers([])]).rows[0]
    few = against([answers(MANY, per_group=10)], [answers([], per_group=10)])
    assert many.p < 0.01 < few.rows[0].p
    four = against([answers(MANY, per_group=15)], [answers([], per_group=15)])
    assert four.rows[0].verdict == "no difference shown"
    assert any("only 4 groups, too few" in line for line in four.remarks)


def test_only_pictures_that_both_measured_count_and_the_others_are_told(against):
    found = against(
        [answers([1], range(0, 50))], [answers([1], range(10, 60))], {"data_hash": "a" * 64}, None
    )
    assert found.rows[0].n == 40
    assert (
        "left out are 10 that only A has, 10 that only B has, and 0 whose class differs" in found.remarks[1]
    )
    assert "measured different data under one name (data aaaaaaaa and dddddddd)" in found.remarks[0]


def test_a_picture_with_another_class_is_left_out():
    one = answers([], range(6))
    other = replace(one, truth=("tumour", *one.truth[1:]))
    mine, theirs, left_out = shared(one, other)
    assert mine.tolist() == theirs.tolist() == [1, 2, 3, 4, 5] and left_out == (0, 0, 1)


def test_a_picture_that_stands_twice_in_the_data_is_matched_twice():
    one = answers([], [0, 0, 1])
    mine, theirs, left_out = shared(one, answers([], [0, 1, 0, 0]))
    assert (mine.tolist(), theirs.tolist(), left_out) == ([0, 1, 2], [0, 2, 1], (0, 1, 0))


def test_a_picture_that_stands_twice_with_different_classes_is_matched_by_its_class():
    one = replace(answers([], [0, 0, 1]), truth=("benign", "tumour", "benign"))
    other = replace(one, truth=("tumour", "benign", "benign"))
    mine, theirs, left_out = shared(one, other)
    assert (mine.tolist(), theirs.tolist(), left_out) == ([0, 1, 2], [1, 0, 2], (0, 0, 0))


def test_ranks_are_not_compared_with_classes(against):
    rank = replace(ranks([1] * 60, method="zero_shot"), items=answers().items)
    with pytest.raises(DataError, match="t: of A and B one keeps ranks and the other classes; not compared"):
        against([rank], [answers()])


def test_order_does_not_matter(against):
    backwards = answers(MANY, range(59, -1, -1))
    assert against([answers(MANY)], [backwards]).rows[0].difference.value == 0


def test_reports_without_a_common_picture_get_a_clear_line(against):
    with pytest.raises(DataError, match="nothing to compare: t: A and B have no picture in common"):
        against([answers([], range(10))], [answers([], range(100, 110))])


def test_reports_without_a_common_task_or_precision_get_a_clear_line(against):
    with pytest.raises(DataError, match=r"nothing to compare: Only in A: t\. Only in B: u\."):
        against([answers()], [answers(task="u")])
    with pytest.raises(DataError, match="t: A has int8, B has fp32: no precision in common"):
        against([answers()], [answers(precision="fp32")])


def test_a_task_that_keeps_no_answers_is_told_and_not_passed_over(tmp_path):
    folders = [report(tmp_path / name, [answers()], name) for name in "ab"]
    for folder in folders:
        content = json.loads((folder / "report.json").read_text())
        content["tasks"]["many_labels"] = {}
        (folder / "report.json").write_text(json.dumps(content))
    found = compare([open_report(folder) for folder in folders], resamples=100)
    assert found.remarks == ("many_labels: it keeps no answers to single pictures, so it is not compared.",)


def test_figures_of_different_classes_are_not_compared(against):
    more = {"templates": ["{}"], "classes": {"benign": ["x"], "tumour": ["y"], "stroma": ["z"]}}
    with pytest.raises(DataError, match="tell different classes apart"):
        against([answers()], [answers()], {"prompts": more})


def test_other_prompts_are_told(against):
    other = {"templates": ["a photo of {}"], "classes": {"benign": ["x"], "tumour": ["y"]}}
    assert "different prompts" in against([answers()], [answers()], {"prompts": other}).remarks[0]


def test_a_leaking_figure_is_shown_with_its_mark_and_not_judged(against, tmp_path):
    found = against([answers(MANY), answers(MANY, variant="randomised_colour")], [answers([])] * 1)
    assert found.rows[0].verdict == "B better"
    leaking = against([answers(MANY)], [answers([])], None, {"marks": ["leak"]})
    row = leaking.rows[0]
    assert row.verdict == "not judged: leak in B" and np.isnan(row.p) and np.isnan(row.p_holm)
    assert row.values[1].value == 1.0
    write_comparison(tmp_path / "out", leaking)
    assert '<span class="mark grave">leak</span>' in (tmp_path / "out" / "compare.html").read_text()
    assert "(leak)" in (tmp_path / "out" / "compare.md").read_text()


def test_p_values_are_corrected_for_all_rows_of_the_table(against):
    variants = ("plain", "randomised_colour")
    found = against(
        [answers(MANY[:7], variant=one) for one in variants], [answers([], variant=one) for one in variants]
    )
    assert len(found.rows) == 2
    assert found.rows[0].p_holm == pytest.approx(2 * found.rows[0].p)


def test_every_two_of_three_reports_are_compared(tmp_path):
    folders = [
        report(tmp_path / name, [answers(wrong)], name)
        for name, wrong in zip("xyz", ([], [], MANY), strict=True)
    ]
    found = compare([open_report(folder) for folder in folders], resamples=500)
    assert [(row.first, row.second) for row in found.rows] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [row.verdict for row in found.rows] == ["no difference shown", "A better", "B better"]


def test_inside_one_report_int8_is_compared_with_fp32_and_trained_with_untrained(tmp_path):
    three = [
        answers([], precision="fp32"),
        answers([1], precision="int8"),
        answers(MANY, role="untrained", precision="fp32"),
    ]
    found = compare([open_report(report(tmp_path / "r", three))], resamples=500)
    assert [(row.first, row.second, row.verdict) for row in found.rows] == [
        ("fp32", "int8", "no difference shown"),
        ("untrained", "trained", "trained better"),
    ]
    with pytest.raises(DataError, match="one encoder only"):
        compare([open_report(report(tmp_path / "single", [answers()]))])


def test_the_same_untrained_model_in_both_reports_is_no_row(tmp_path):
    both = [answers([1]), answers(MANY, role="untrained", precision="fp32")]
    found = compare([open_report(report(tmp_path / name, both, "same")) for name in "ab"], resamples=100)
    assert [row.what.role for row in found.rows] == ["model"]


def test_what_else_tells_answers_of_one_encoder_apart_keeps_them_apart(against):
    shots = [answers([], method="few_shot", shots=k) for k in (1, 4)]
    found = against(shots, [answers(MANY, method="few_shot", shots=4), shots[0]])
    assert {row.what.detail: row.difference.value for row in found.rows} == {
        "shots 1": 0,
        "shots 4": pytest.approx(-1 / 3),
    }


def test_retrieval_is_compared_by_recall_within_each_direction(against):
    one, other = (
        {"direction": direction, "definition": "exact_pair"}
        for direction in ("text_to_image", "image_to_text")
    )
    found = against(
        [ranks([*[1] * 20, *[50] * 20], **one), ranks([1] * 40, **other)],
        [ranks([1] * 40, **one), ranks([1] * 40, **other)],
    )
    assert {row.what.detail: (row.figure, row.difference.value) for row in found.rows} == {
        "direction text to image, definition exact pair": ("recall@10", 0.5),
        "direction image to text, definition exact pair": ("recall@10", 0.0),
    }


def test_ranks_in_different_pools_are_not_compared(against):
    with pytest.raises(DataError, match="a rank depends on all that is searched"):
        against([ranks([1, 2] * 10)], [ranks([1, 2] * 10)], {"data_hash": "e" * 64})


def test_balanced_accuracy_weighs_classes_alike_and_skips_one_without_example():
    assert mean_recall(np.array([[[9.0, 10.0], [0.0, 1.0], [0.0, 0.0]]])) == pytest.approx([0.45])


def test_the_written_files_hold_the_whole_comparison(against, tmp_path):
    found = against([answers(MANY)], [answers([])])
    paths = write_comparison(tmp_path / "out", found)
    assert [path.name for path in paths] == ["compare.html", "compare.json", "compare.md", "compare.tex"]
    content = json.loads(paths[1].read_text(), parse_constant=pytest.fail)
    row = content["rows"][0]
    assert (row["task"], row["verdict"], row["n"]) == ("t", "B better", 60)
    assert content["sides"]["A"]["name"] == "one" and content["sides"]["B"]["report"] == "other"
    page = paths[0].read_text()
    assert "<script" not in page and "<strong>B better</strong>" in page
    for svg in re.findall(r"<svg.*?</svg>", page):
        ElementTree.fromstring(svg)


def test_classes_and_hashes_of_another_form_give_no_traceback(against):
    odd = {"prompts": {"classes": 5}}
    assert against([answers(MANY)], [answers([])], odd).rows[0].verdict == "B better"


def test_names_of_foreign_reports_are_plain_text_in_markdown(against, tmp_path):
    bad = "<b> ![x](http://example.org/x.png) *a*"
    found = against([answers(task=bad)], [answers(MANY, task=bad), answers(task="_other_ <i>")])
    found = replace(found, sides={**found.sides, "A": {**found.sides["A"], "name": bad}})
    text = write_comparison(tmp_path / "out", found)[2].read_text()
    assert text.count(r"\<b\> \!\[x\](http://example.org/x.png) \*a\*") == 2  # the side and the row
    assert r"Only in B: \_other\_ \<i\>." in text
    assert not re.search(r"(?<!\\)[<>\[\]!]", re.sub(r"\[[-+.\d]+, [-+.\d]+\]", "", text))


def _damage(folder):
    file = folder / "report.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 7'))


def _changed(change):
    """Breaks the content of a report.json."""

    def run(folder):
        content = json.loads((folder / "report.json").read_text())
        change(content)
        (folder / "report.json").write_text(json.dumps(content))

    return run


def _answered(**columns):
    return lambda folder: write_answers(folder / "answers.parquet", [replace(answers(), **columns)])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            _changed(lambda content: content.update(models=["m"])),
            r"models\[0\] has not the entries",
        ),
        (_changed(lambda content: content.update(scores=[{"name": 1}])), r"scores\[0\]\.context has not"),
        (_changed(lambda content: content.update(scores=[1])), r"scores\[0\] has not the entries"),
        (_changed(lambda content: content.update(tasks={"t": 1})), r"tasks\.t has not the entries"),
        (_changed(lambda content: content["scores"][0]["context"].update(marks=5)), "marks is no list"),
        (lambda folder: (folder / "report.json").write_text("[" * 100_000), "not valid JSON"),
        (_answered(answer=None), "answers.parquet: task t: neither ranks nor classes with their answers"),
        (_answered(truth=None), "answers.parquet: task t: neither ranks nor classes with their answers"),
        (lambda folder: (folder / "report.json").unlink(), "no report.json there; name a folder"),
        (_damage, "schema_version 7, but this pathclip reads 1; measure again"),
        (lambda folder: (folder / "report.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "report.json").write_text('{"schema_version": 1}'), "it has no 'models'"),
        (lambda folder: (folder / "answers.parquet").unlink(), "answers.parquet: no such file; run"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(break_it, message, tmp_path, capsys):
    good, bad = report(tmp_path / "good", [answers()]), report(tmp_path / "bad", [answers()])
    break_it(bad)
    assert compare_command.main([str(good), str(bad)]) == 1
    told = capsys.readouterr()
    assert told.out == "" and re.search(message, told.err) and len(told.err.splitlines()) == 1


def test_the_command_prints_the_table_or_json_alone_and_writes_where_it_is_told(tmp_path, capsys):
    one, other = report(tmp_path / "a", [answers(MANY)]), report(tmp_path / "b", [answers([])])
    assert compare_command.main([str(one), str(other / "report.json"), "--out", str(tmp_path / "c")]) == 0
    told = capsys.readouterr().out
    assert "B better" in told and told.splitlines()[-1] == f"report: {tmp_path / 'c' / 'compare.html'}"
    assert compare_command.main([str(one), str(other), "--json", "--resamples", "200"]) == 0
    assert json.loads(capsys.readouterr().out)["resamples"] == 200
    assert compare_command.main([str(one), str(other), "--out", str(one / "report.json")]) == 1
    assert "is a file; name a folder" in capsys.readouterr().err


def test_the_same_comparison_gives_the_same_json(against):
    assert as_json(against([answers(MANY)], [answers([4])])) == as_json(
        against([answers(MANY)], [answers([4])])
    )


def test_the_command_line_reaches_it_and_its_help_names_it(tmp_path):
    one, other = report(tmp_path / "a", [answers(MANY)]), report(tmp_path / "b", [answers([])])
    words = [sys.executable, "-m", "pathclip", "evaluate", "compare"]
    done = subprocess.run([*words, str(one), str(other)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "B better" in done.stdout, done.stderr
    asked = subprocess.run([*words, "--help"], capture_output=True, text=True, timeout=120)
    assert asked.returncode == 0 and "REPORT" in asked.stdout
    assert "pathclip evaluate compare" in pipeline.help_text("evaluate")


def test_of_a_single_group_values_stand_without_interval(against, tmp_path):
    found = against([answers(MANY, per_group=60)], [answers([], per_group=60)])
    text = write_comparison(tmp_path / "out", found)[2].read_text()
    assert "0.667" in text and "+0.333" in text and "nan" not in text
