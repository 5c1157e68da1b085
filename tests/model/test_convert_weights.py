"""Files of weights are read as tensors by name, and what could run is refused."""

from __future__ import annotations

import argparse
import zipfile

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from pathclip.errors import ModelFolderError
from pathclip.model.convert.weights import load_into_open_clip, read_weights

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


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        (
            {"a": torch.zeros(1).expand(1 << 40, 64)},
            "'a' is no plain tensor with all its numbers",
        ),
        ({"a": torch.zeros(8, device="meta")}, "'a' is no plain tensor"),
        ({"a": torch.eye(3).to_sparse()}, "'a' is no plain tensor"),
        (dict.fromkeys(map(str, range(40)), torch.zeros(4000)), "its tensors are larger than the file"),
    ],
)
def test_tensors_that_the_file_does_not_hold_are_refused(tensors, match, tmp_path):
    with pytest.raises(ModelFolderError, match=match):
        read_weights([written(tmp_path / "w.bin", tensors)])


def test_an_archive_that_grows_when_it_is_read_is_refused(tmp_path):
    written(tmp_path / "w.bin", {"a": torch.zeros(1 << 18)})
    packed = zipfile.ZipFile(tmp_path / "c.bin", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "w.bin") as old, packed as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelFolderError, match="its entries are larger than the file"):
        read_weights([tmp_path / "c.bin"])


def test_a_damaged_pickle_is_not_called_a_program(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.bin").read_bytes()
    for damaged in (content[:40], content[:-8], content.replace(b"ctorch._utils", b"\x99torch._utils", 1)):
        (tmp_path / "w.bin").write_bytes(damaged)
        with pytest.raises(ModelFolderError, match=r"damaged or cut off .*; fetch it again") as caught:
            read_weights([tmp_path / "w.bin"])
        assert "\n" not in str(caught.value)


def test_position_embeddings_of_another_size_are_refused_and_both_sizes_named():
    sizes = {"layers": 1, "width": 16, "head_width": 16, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 10, "width": 16, "heads": 1, "layers": 1}
    small, large = (CLIP(8, {**sizes, "image_size": size}, text) for size in (16, 32))
    with pytest.raises(RuntimeError, match=r"positional_embedding is \[5, 16\] in the .* \[17, 16\] in the"):
        load_into_open_clip(large, small.state_dict())


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
