from __future__ import annotations

import hashlib
import os
import shutil

import pytest

import pathclip
from pathclip.cli import main
from pathclip.errors import DataError
from pathclip.index.build import build_index
from pathclip.index.exact import open_index
from pathclip.runtime.encoder import OnnxEncoder
from tests.tiny_model import write_image


def build(model, images, errors=None, out=None):
    on_error = None if errors is None else lambda *error: errors.append(error)
    return build_index(pathclip.load(model), images, out, on_error, batch_size=2)


def test_a_file_given_as_text_is_asked_about(tmp_path, tiny_model, capsys):
    picture = write_image(tmp_path / "red.png", "red")
    assert main(["search", str(tmp_path / "any.index"), str(picture)]) == 1
    assert f"search by it with --image {picture}" in capsys.readouterr().err


def test_text_finds_the_picture_that_shows_it(tmp_path, tiny_model):
    for colour in ("blue", "green", "red"):
        write_image(tmp_path / "sub" / f"{colour}.png", colour)
    index = build(tiny_model, tmp_path)
    best = index.search(pathclip.load(tiny_model).encode_texts(["green"]), 1)[0]
    assert (best.id, best.path) == ("sub/green.png", str(tmp_path / "sub/green.png"))


def test_entries_name_path_and_content(tmp_path, tiny_model):
    file = write_image(tmp_path / "red.png", "red")
    (entry,) = build(tiny_model, tmp_path).entries
    assert (entry.path, entry.sha256) == ("red.png", hashlib.sha256(file.read_bytes()).hexdigest())


def test_broken_files_are_reported_and_the_rest_indexed(tmp_path, tiny_model):
    write_image(tmp_path / "red.png", "red")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    errors: list = []
    assert [entry.id for entry in build(tiny_model, tmp_path, errors).entries] == ["red.png"]
    assert [path.name for path, _ in errors] == ["bad.jpg"]


def test_nothing_readable_is_an_error(tmp_path, tiny_model):
    with pytest.raises(DataError, match="no pictures in it"):
        build(tiny_model, tmp_path, [])
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture in it could be read"):
        build(tiny_model, tmp_path, [])


def test_without_a_place_for_errors_the_first_broken_file_is_raised(tmp_path, tiny_model):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.jpg: not a picture"):
        build(tiny_model, tmp_path)


def test_the_index_is_written_and_names_the_model(tmp_path, tiny_model):
    write_image(tmp_path / "images/red.png", "red")
    build(tiny_model, tmp_path / "images", out=tmp_path / "a.index")
    read = open_index(tmp_path / "a.index")
    assert read.model == {"name": "tiny", "path": str(tiny_model), "precision": "int8", "runtime": "onnx"}
    read.require_model(pathclip.load(tiny_model).folder.hash)


def test_a_name_that_is_not_utf8_is_reported_and_the_rest_indexed(tmp_path, tiny_model):
    write_image(tmp_path / "images/red.png", "red")
    write_image(tmp_path / "images/blue.png", "blue").rename(
        tmp_path / "images" / os.fsdecode(b"bl\xfce.png")
    )
    errors: list = []
    build(tiny_model, tmp_path / "images", errors, tmp_path / "a.index")
    assert [entry.id for entry in open_index(tmp_path / "a.index").entries] == ["red.png"]
    assert [os.fsencode(path.name) for path, _ in errors] == [b"bl\xfce.png"]


@pytest.mark.parametrize("which", ["images", "model"])
def test_a_folder_whose_name_is_not_utf8_is_refused_before_anything_is_embedded(
    tmp_path, tiny_model, monkeypatch, which
):
    odd = tmp_path / os.fsdecode(b"f\xe4rbung")
    write_image((odd if which == "images" else tmp_path / "plain") / "red.png", "red")
    model = shutil.copytree(tiny_model, odd / "model") if which == "model" else tiny_model
    monkeypatch.setattr(OnnxEncoder, "encode_images", None)
    with pytest.raises(DataError, match=r"f\\udce4rbung.*: this name is not UTF-8"):
        build(model, odd if which == "images" else tmp_path / "plain", [], tmp_path / "a.index")
