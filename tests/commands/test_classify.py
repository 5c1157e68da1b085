"""`pathclip classify` with many pictures: where they come from and where their answers go."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

import pathclip
from pathclip.model_folder import open_model_folder
from pathclip.runtime.classify import classify
from tests import tiny_calibration
from tests.tiny_model import break_file, write_image, write_tiny_model

LABELS = ["--labels", "red,blue,green"]


@pytest.fixture
def images(tmp_path):
    for colour in ("red", "green", "blue"):
        write_image(tmp_path / "images" / f"{colour}.png", colour)
    (tmp_path / "images/bad.png").write_bytes(b"no picture")
    return tmp_path / "images"


def test_a_table_comes_back_with_an_answer_or_an_error_in_every_row(call, tmp_path, tiny_model, images):
    table = tmp_path / "tiles.csv"
    table.write_text("case,file\n1,images/red.png\n2,images/bad.png\n3,gone.png\n4,images/red.png\n5\n")
    out = tmp_path / "answers.csv"
    status, said, errors = call(
        "classify", tiny_model, table, "--column", "file", *LABELS, "--out", out, "--batch-size", 2
    )
    assert (status, said) == (1, f"{out}: 5 pictures; 3 could not be read\n")
    assert len(errors) == 3
    rows = list(csv.DictReader(out.open(newline="")))
    assert [row["case"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["file"] for row in rows[:4]] == [
        *("images/red.png", "images/bad.png", "gone.png"),
        "images/red.png",
    ]
    assert [row["answer"] for row in rows] == ["red", "", "", "red", ""]
    assert rows[2]["error"] == f"{tmp_path / 'gone.png'}: no such file"
    assert rows[4]["error"] == f"{table}, line 6: 1 cells, but the first line has 2"
    assert sum(float(rows[0][f"p({label})"]) for label in ("red", "blue", "green")) == pytest.approx(1)


@pytest.mark.parametrize("between", ["\n", "\0"])
def test_names_on_stdin_are_classified_in_order(call, tiny_model, images, monkeypatch, between):
    names = between.join(str(images / f"{colour}.png") for colour in ("green", "red", "green"))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(names.encode())))
    _, out, _ = call("classify", tiny_model, "-", *LABELS, "--json", "--top", 1)
    found = [image["labels"][0]["name"] for image in json.loads(out)["images"]]
    assert found == ["green", "red", "green"]


def test_answers_of_every_kind_of_file_say_the_same(call, tmp_path, tiny_model, images):
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        call("classify", tiny_model, images, *LABELS, "--out", tmp_path / f"a.{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    rows = list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    names = [line["path"] for line in lines]
    assert names == [row["path"] for row in table] == [row["path"] for row in rows]
    for line, row, text in zip(lines, table, rows, strict=True):
        assert (line.get("error") or "") == (row["error"] or "") == text["error"]
        for label in line.get("labels", []):
            assert row[f"p({label['name']})"] == label["probability"]
            assert float(text[f"p({label['name']})"]) == pytest.approx(label["probability"], rel=1e-5)


def test_the_document_is_the_same_however_few_pictures_a_batch_has(call, tiny_model, images):
    documents = [
        json.loads(call("classify", tiny_model, images, *LABELS, "--json", "--batch-size", size)[1])
        for size in (1, 2, 16)
    ]
    for document in documents[1:]:
        for one, other in zip(documents[0]["images"], document["images"], strict=True):
            assert one["path"] == other["path"]
            # By name: two classes are equally far from the third colour, and a last bit decides their order.
            first, second = (
                {label["name"]: label["probability"] for label in image["labels"]} for image in (one, other)
            )
            assert first == pytest.approx(second, abs=1e-5)
        assert document["failed"] == documents[0]["failed"]
    assert len(documents[0]["images"]) == 3


def test_a_document_of_no_readable_picture_is_whole(call, tiny_model, images):
    status, out, _ = call("classify", tiny_model, images / "bad.png", *LABELS, "--json")
    document = json.loads(out)
    assert (status, document["images"], len(document["failed"])) == (1, [], 1)


def test_typed_labels_are_remembered_so_that_a_second_call_needs_no_text_tower(
    call, tmp_path, images, monkeypatch
):
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    model = write_tiny_model(tmp_path / "m")
    asked = ("classify", model, images / "red.png", *LABELS)
    first = call(*asked)
    break_file(model / "onnx/text_int8.onnx")
    assert call(*asked) == first
    status, _, err = call("classify", model, images / "red.png", "--labels", "red,white")
    assert status == 1 and "text_int8" in err[0]


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (["--out", "{tmp}/a.txt"], "must end in"),
        (["--out", "{tmp}/a.csv", "--json"], "either --json or --out"),
        (["--column", "file"], "--column is for a table"),
        (["--runtime", "magic"], "magic"),
        (["--out", "{tmp}/file/a.csv"], "cannot be written"),
    ],
    ids=["suffix", "two outputs", "column", "runtime", "place"],
)
def test_a_mistake_is_one_line_and_writes_nothing(call, tmp_path, tiny_model, images, extra, fault):
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    extra = [part.replace("{tmp}", str(tmp_path)) for part in extra]
    status, out, err = call("classify", tiny_model, images / "red.png", *LABELS, *extra)
    assert (status, out, len(err)) == (1, "", 1)
    assert fault in err[0]
    assert sorted(tmp_path.iterdir()) == before


def test_ctrl_c_leaves_no_half_file(tmp_path, tiny_model, images):
    """Names come by a pipe that stays open, so that the command is in the midst of its work."""
    out = tmp_path / "answers" / "a.csv"
    command = [sys.executable, "-m", "pathclip", "classify", tiny_model, "-", *LABELS, "--out", out]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(f"{images / 'red.png'}\n".encode() * 200)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not any(out.parent.glob(".a.csv.*")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_terminal_shows_progress_with_the_time_left(tmp_path, tiny_model, images):
    master, slave = os.openpty()
    command = [sys.executable, "-m", "pathclip", "classify", tiny_model, images, *LABELS]
    done = subprocess.Popen([*command, "--out", tmp_path / "a.csv"], stderr=slave, stdout=subprocess.DEVNULL)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # the other side is closed
        pass
    assert done.wait(60) == 1
    assert b"classifying" in shown and b"4/4" in shown


def test_three_lines_of_python_give_what_the_command_prints(call, tiny_model, images):
    model = pathclip.load(tiny_model)
    (answer,) = classify(model, [images / "red.png"], ["red", "blue", "green"])
    document = json.loads(call("classify", tiny_model, images / "red.png", *LABELS, "--json")[1])
    assert [(label.name, label.probability) for label in answer] == [
        (label["name"], label["probability"]) for label in document["images"][0]["labels"]
    ]


def test_a_small_call_with_onnxruntime_imports_neither_openvino_nor_pyarrow(tmp_path, tiny_model, images):
    arguments = ["classify", str(tiny_model), str(images / "red.png"), *LABELS, "--runtime", "onnx"]
    code = (
        "import sys\nfrom pathclip.cli import main\n"
        f"assert main({arguments!r} + ['--out', {str(tmp_path / 'a.csv')!r}]) == 0\n"
        "print(*sorted({'openvino', 'pyarrow', 'torch', 'rich', 'simplejpeg', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_stored_labels_load_neither_the_tokenizer_nor_the_cache(tmp_path, images):
    from pathclip.model_folder import PROMPT_EMBEDDINGS
    from pathclip.runtime.prompt_store import save_prompt_embeddings
    from tests.tiny_model import list_files_again

    model = write_tiny_model(tmp_path / "m")
    prompts = [f"{before}{name}" for name in ("red", "blue") for before in ("a photomicrograph of ", "")]
    embeddings = pathclip.load(model).encode_texts(prompts)
    save_prompt_embeddings(model / PROMPT_EMBEDDINGS, {"int8": dict(zip(prompts, embeddings, strict=True))})
    list_files_again(model)
    arguments = ["classify", str(model), str(images / "red.png"), "--labels", "red,blue"]
    code = (
        "import sys\nfrom pathclip.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "print('tokenizers' in sys.modules)"
    )
    environment = {**os.environ, "PATHCLIP_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_whoever_types_names_sees_the_answer_to_each(tiny_model, images):
    master, slave = os.openpty()
    command = [sys.executable, "-m", "pathclip", "classify", tiny_model, "-", *LABELS, "--top", "1"]
    process = subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.close(slave)
    reader = threading.Timer(60, process.kill)  # where no answer comes
    reader.start()
    for colour in ("red", "blue"):
        os.write(master, f"{images / colour}.png\n".encode())
        assert process.stdout.readline().decode().strip() == f"{images / colour}.png"
        assert process.stdout.readline().decode().split()[-1] == colour
    os.write(master, b"\x04")
    assert process.wait(30) == 0
    reader.cancel()
    os.close(master)


def test_a_line_that_can_be_no_name_ends_the_document_but_loses_no_answer(
    call, tiny_model, images, monkeypatch
):
    content = f"{images / 'red.png'}\n{images / 'blue.png'}\n".encode() + b"x" * 200_000
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    status, out, err = call("classify", tiny_model, "-", *LABELS, "--json", "--batch-size", 1)
    document = json.loads(out)
    assert (status, len(err)) == (1, 1)
    assert [image["labels"][0]["name"] for image in document["images"]] == ["red", "blue"]
    assert document["error"].startswith("stdin: a line of more than 64 KiB")


def test_a_cell_that_can_be_no_name_is_one_bad_picture(call, tmp_path, tiny_model, images):
    table = tmp_path / "t.csv"
    table.write_text(f"path\na\0b.png\n{'x' * 300}\n{images / 'red.png'}\n")
    status, out, err = call("classify", tiny_model, table, *LABELS, "--json")
    document = json.loads(out)
    assert (status, len(document["images"]), len(document["failed"])) == (1, 1, 2)
    assert len(err) == 2 and not any("\0" in line for line in err)


def test_the_model_runs_on_as_many_pictures_as_asked_for(call, tmp_path, tiny_model, images, monkeypatch):
    import onnxruntime

    sizes = []
    run = onnxruntime.InferenceSession.run

    def counted(session, outputs, given):
        sizes.extend(len(pixels) for name, pixels in given.items() if name == "pixels")
        return run(session, outputs, given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)
    table = tmp_path / "t.csv"
    table.write_text("path\n" + f"{images / 'red.png'}\n" * 64)
    assert call("classify", tiny_model, table, *LABELS, "--json", "--batch-size", 64)[0] == 0
    assert sizes == [64]


@pytest.mark.parametrize(("given", "runtime"), [("auto", "onnx"), ("openvino", "openvino")])
def test_a_calibrated_question_is_asked_in_onnxruntime_unless_told_otherwise(
    call, tmp_path, images, monkeypatch, given, runtime
):
    """OpenVINO is recorded as the faster here, so that 'auto' would take it for as many pictures."""
    pytest.importorskip("openvino")
    from pathclip.runtime import choice
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.cpu import cpu

    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    if not choice.worth_asking(cpu()):
        pytest.skip("OpenVINO is never taken on such a processor")
    model = write_tiny_model(tmp_path / "m")
    tiny_calibration.write(model, {"colours": {"int8": tiny_calibration.entry(model)}})
    table = tmp_path / "t.csv"
    table.write_text("path\n" + f"{images / 'red.png'}\n" * 100)
    key = choice.key_of(open_model_folder(model), "int8", available_cores())
    choice.keep(key, {"onnx": choice.Measured(1.0, 1.0), "openvino": choice.Measured(0.1, 1000.0)})

    def used(*question):
        return json.loads(call("classify", model, table, *question, "--runtime", given, "--json")[1])["model"]

    assert used("--task", "colours")["runtime"] == runtime
    assert used(*LABELS)["runtime"] == "openvino"
