from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pathclip.commands.answers_shown import Answered, Question, print_document, print_table
from pathclip.commands.picture_sources import Row, Source
from pathclip.errors import DataError, ModelFolderError, escaped
from pathclip.runtime.calibration import Answer
from pathclip.types import Label

QUESTION = Question({"red": ["red"], "blue": ["blue"]}, ("{}",))
ENCODER = SimpleNamespace(name="m", folder=SimpleNamespace(hash="h"), precision="int8", runtime="onnx")


def good(name: str = "a.png", label: str = "red") -> Answered:
    labels = (Label(label, 0.75, 0.5), Label("blue", 0.25, 0.25))
    return Answered(Row(name, Path(name)), Answer(labels, (), False))


def bad(name: str = "bad.png") -> Answered:
    return Answered(Row(name, Path(name)), None, f"{name}: no such file")


def until(stop, *answered):
    yield from answered
    raise stop


@pytest.mark.parametrize("stop", [DataError("a bad line"), ModelFolderError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("answered", [[good(), bad(), good("b.png")], [bad()]], ids=["begun", "only bad"])
def test_a_document_of_work_that_ended_early_is_whole_and_says_so(capsys, stop, answered):
    with pytest.raises(type(stop)):
        print_document(until(stop, *answered), ENCODER, Source(lambda: iter(())), QUESTION, None)
    document = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in document["images"]] == [one.row.given for one in answered if one.answer]
    assert document["failed"] == [{"path": "bad.png", "error": "bad.png: no such file"}]
    assert document["error"] == f"{stop or 'stopped'}; pictures that are not listed here have no answer" or (
        document["error"].startswith("stopped;")
    )


def test_a_mistake_before_the_first_picture_prints_no_document(capsys):
    with pytest.raises(DataError):
        print_document(until(DataError("x")), ENCODER, Source(lambda: iter(())), QUESTION, None)
    assert capsys.readouterr().out == ""


def test_a_document_of_work_that_ended_well_has_no_error(capsys):
    status = print_document(iter([good()]), ENCODER, Source(lambda: iter(())), QUESTION, None)
    assert status == 0 and "error" not in json.loads(capsys.readouterr().out)


def test_a_name_cannot_command_the_terminal(capsys):
    print_table([good("a\x1b[2J\nb.png", "red\x9b31m\x07")], QUESTION, 1)
    assert capsys.readouterr().out == "a\\x1b[2J\\x0ab.png\n  0.750  red\\x9b31m\\x07\n"


@pytest.mark.parametrize("name", ["Gewebe, gefärbt.png", "病理.png", "C:\\a b.png"])
def test_a_name_without_control_characters_is_printed_as_it_is(name):
    assert escaped(name) == name
