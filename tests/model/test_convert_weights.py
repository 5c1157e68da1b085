"""Files of weights are read as tensors by name, and what could run is refused."""

from __future__ import annotations

import argparse

import pytest
import torch
from safetensors.torch import save_file

from pathclip.errors import ModelFolderError
from pathclip.model.convert.weights import is_checkpoint_of_training, read_weights

WEIGHTS = {"a.weight": torch.arange(4.0), "b": torch.ones(2, 2).half()}


def written(path, content):
    torch.save(content, path)
    return path


def same(found):
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[k], v) for k, v in WEIGHTS.items())


def test_every_form_gives_the_same_tensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    trained = {"epoch": 3, "name": "run", "state_dict": {f"module.{k}": v for k, v in WEIGHTS.items()}}
    for file in (
        tmp_path / "w.safetensors",
        written(tmp_path / "w.bin", WEIGHTS),
        written(tmp_path / "trained.pt", {**trained, "optimizer": {"state": {0: torch.ones(1)}}}),
        written(tmp_path / "wrapped.pt", {"state_dict": WEIGHTS}),
    ):
        assert same(read_weights([file])), file


def test_weights_in_several_files_are_joined(tmp_path):
    files = [written(tmp_path / f"{number}.bin", {k: v}) for number, (k, v) in enumerate(WEIGHTS.items())]
    assert same(read_weights(files))


def test_a_checkpoint_of_a_training_is_known_by_its_epoch(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert is_checkpoint_of_training(written(tmp_path / "a.pt", {"epoch": 1, "state_dict": WEIGHTS}))
    assert not is_checkpoint_of_training(written(tmp_path / "b.pt", WEIGHTS))
    assert not is_checkpoint_of_training(tmp_path / "w.safetensors")


def test_a_pickle_with_more_than_weights_is_refused_in_one_line(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    for content in (Evil(), {"a": Evil()}, {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1)}):
        with pytest.raises(ModelFolderError, match="holds more than weights") as caught:
            read_weights([written(tmp_path / "evil.pt", content)])
        assert "evil.pt" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.ones(1)], "holds a list and no weights by name"),
        ({"a": torch.ones(1), "lr": 0.1}, "'lr' is a float and no tensor"),
        ({"state_dict": {}}, "no weights in it"),
        ({}, "no weights in it"),
    ],
)
def test_what_is_no_weights_by_name_is_refused(tmp_path, content, match):
    with pytest.raises(ModelFolderError, match=match):
        read_weights([written(tmp_path / "w.bin", content)])


@pytest.mark.parametrize("name", ["w.bin", "w.safetensors"])
def test_a_file_that_was_cut_off_is_one_line(tmp_path, name):
    file = tmp_path / name
    save_file(WEIGHTS, file) if name.endswith("safetensors") else torch.save(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ModelFolderError, match="cut off") as caught:
        read_weights([file])
    assert name in str(caught.value) and "\n" not in str(caught.value)
