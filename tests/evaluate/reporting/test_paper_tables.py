"""Tables for papers say the same as the report, in text that Markdown and LaTeX take as it is meant."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from pathclip.evaluate.reporting.paper_tables import (
    Table,
    caption,
    latex,
    latex_text,
    markdown,
    markdown_text,
    write_tables,
)
from pathclip.types import Score
from tests.evaluate.reporting.test_report import figures

ODD = Table("a_b: 50%", "Odd & 50 %_{x}", ("score", "n"), (("a|b <i> *", "3"), (r"\input{x} ~ ^ $", "4")), 1)


def test_every_row_has_as_many_cells_as_the_head_and_figures_stand_right():
    lines = markdown(ODD).splitlines()
    assert lines[1] == "|---|---:|"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]} == {3}
    assert r"a\|b \<i\> \*" in lines[2]
    assert lines[-1] == r"Odd & 50 %\_{x}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![x](y) [c](z)", r"\!\[x\](y) \[c\](z)"),
        ("_a_ *b* `c` ~~d~~", r"\_a\_ \*b\* \`c\` \~\~d\~\~"),
        ("&lt; and & and R&D", r"\&lt; and & and R&D"),
        ("two\n# lines", "two # lines"),
        ("# a", r"\# a"),
        ("1. a", r"1\. a"),
        ("- a", r"\- a"),
        ("-0.5 and 1.5", "-0.5 and 1.5"),
    ],
)
def test_markdown_takes_no_character_for_a_command(text, expected):
    assert markdown_text(text) == expected


def test_title_and_remarks_are_plain_text_in_markdown(tmp_path):
    bad = "<script>alert(1)</script> ![x](y)"
    write_tables(tmp_path, f"Evaluation of {bad}", figures("t"), {"t": [bad]})
    text, plain = (tmp_path / "report.md").read_text(), r"\<script\>alert(1)\</script\> \!\[x\](y)"
    assert f"# Evaluation of {plain}" in text and f"- {plain}" in text
    assert "<script" not in text.replace(r"\<script", "")


def test_latex_takes_no_character_for_a_command():
    text = latex(ODD)
    assert r"\caption{Odd \& 50 \%\_\{x\}}" in text and r"\label{tab:a-b-50}" in text
    assert r"\textbackslash{}input\{x\} \textasciitilde{} \textasciicircum{} \$ & 4 \\" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert "\\input" not in body
    assert latex_text("0.9 – 1.0 → “a” −1 ≥ 2") == r"0.9 -- 1.0 $\rightarrow$ ``a'' $-$1 $\geq$ 2"


def test_the_caption_says_what_the_interval_is_over():
    about = {"groups": 30, "grouped": True, "resamples": 500, "data_hash": "c" * 64, "marks": ["leak"]}
    text = caption([Score("accuracy", 0.5, 90, 0.4, 0.6, about)])
    assert text.startswith(
        "n = 90; 95 % percentile bootstrap intervals over 30 groups, 500 resamples; data cccc"
    )
    assert "Leak: whoever answered had learnt from pictures that it is tested on" in text
    assert "single images, whose groups are not known" in caption(
        [Score("accuracy", 0.5, 90, 0.4, 0.6, {**about, "grouped": False})]
    )


def test_both_files_hold_every_headline_figure_with_its_marks(tmp_path):
    scores = figures("task_1", ["leak"])
    write_tables(tmp_path, "Evaluation of m", scores, {"task_1": ["A remark."]})
    text, tex = (tmp_path / "report.md").read_text(), (tmp_path / "report.tex").read_text()
    text = re.sub(r"\\([\[\]])", r"\1", text)
    for value in ("0.900 [0.800, 1.000] (leak)", "0.600 [0.500, 0.700]", "0.850", "-0.010 [-0.020, 0.000]"):
        assert value in text and value in tex
    assert "- A remark." in text and "not for diagnosis" in text
    assert "accuracy" not in re.sub("balanced accuracy", "", text)
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 2 and r"task\_1" in tex
    assert "�" not in text and tex.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_itself_takes_the_file(tmp_path):
    write_tables(tmp_path, "t", figures("a_b%"), {})
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{report.tex}\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-500:]
