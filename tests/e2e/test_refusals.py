"""A folder that is damaged or hostile is refused in one line, by every verb that takes one."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from pathclip.cli import main
from pathclip.model_folder import CARD, PROMPT_EMBEDDINGS
from pathclip.runtime.prompt_store import save_prompt_embeddings
from tests import tiny_shards
from tests.tiny_model import break_file, list_files_again, write_image

INT8 = "onnx/image_int8.onnx"
TEXT_INT8 = "onnx/text_int8.onnx"
CONFIG = "open_clip_config.json"
PICKLE = pickle.dumps({"weights": [1.0] * 100})
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with torch weights, as a training writes it."""
    from pathclip.model.build import from_open_clip
    from tests.model.each_kind import TINY

    towers = from_open_clip("ViT-B-32", image_size=32, context_length=16, overrides=TINY)
    return towers.save(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """Pictures and shards for the verbs to work on."""
    folder = tmp_path_factory.mktemp("surroundings")
    write_image(folder / "images/red.png", "red")
    write_image(folder / "images/blue.png", "blue")
    tiny_shards.write(folder / "shards", n=60)
    return folder


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    """With the prompts of an earlier run at hand, the text tower would not be looked at."""
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def onnx_folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model-int8")


@pytest.fixture
def torch_folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


def change_card(folder: Path, **entries) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **entries}))


def list_also(folder: Path, name: str, digest: object = "0" * 64) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "files": {**card["files"], name: digest}}))


def replace(folder: Path, name: str, content: bytes) -> None:
    """As a malicious author would: with a card that fits."""
    (folder / name).write_bytes(content)
    list_files_again(folder)


def external_data() -> bytes:
    from onnx import TensorProto, helper

    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3, 8])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret.bin")
    return _tower(weight, helper)


def huge_tensor() -> bytes:
    from onnx import TensorProto, helper

    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1 << 40, 8])
    weight.raw_data = b"\0" * 96
    return _tower(weight, helper)


def _tower(weight, helper) -> bytes:
    from onnx import TensorProto

    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
    ]
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 16, 16])
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "tower", [given], [output], initializer=[weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def link_elsewhere(folder: Path) -> None:
    """Links as such are fine: the cache of the Hugging Face hub is made of them."""
    (folder.parent / "secret.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(folder.parent / "secret.json")


def listed(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        if ".." not in name and not name.startswith("/"):
            (folder / name).write_bytes(PICKLE)
        list_also(folder, name)

    return spoil


def lose_a_file(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / max(card["files"])).unlink()


def cut(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return spoil


def promises_more() -> bytes:
    """A tensor of a terabyte in a file of a few bytes."""
    entry = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
    header = json.dumps({"logit_scale": entry}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 64


def other_weights() -> bytes:
    from safetensors.numpy import save

    return save({"visual.weight": np.zeros((2, 2), np.float32)})


def store_prompts(folder: Path, vector: np.ndarray) -> None:
    save_prompt_embeddings(folder / PROMPT_EMBEDDINGS, {"int8": {"red": vector, "blue": -vector}})
    list_files_again(folder)


def absurd_width(folder: Path) -> None:
    described = json.loads((folder / CONFIG).read_text())
    described["model_cfg"]["vision_cfg"]["width"] = 1 << 40
    replace(folder, CONFIG, json.dumps(described).encode())


def from_the_hub(folder: Path) -> None:
    described = json.loads((folder / CONFIG).read_text())
    described["model_cfg"]["vision_cfg"]["timm_model_name"] = "hf-hub:somebody/something"
    replace(folder, CONFIG, json.dumps(described).encode())


def bomb(folder: Path) -> None:
    """100 MB of card."""
    with (folder / CARD).open("ab") as file:
        file.write(b" " * 100_000_000)


# How a folder is spoilt → what the message must name. Every verb refuses these.
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated card": (cut(CARD), CARD),
    "a missing card": (lambda f: (f / CARD).unlink(), CARD),
    "a missing file": (lose_a_file, "listed in pathclip.json but missing"),
    "a listed .pkl": (listed("weights.pkl"), "weights.pkl"),
    "a listed .pt": (listed("weights.pt"), "weights.pt"),
    "a listed .bin": (listed("pytorch_model.bin"), "pytorch_model.bin"),
    "a name that leads out": (listed("../secret.json"), "../secret.json"),
    "an absolute name": (listed("/etc/hostname.json"), "/etc/hostname.json"),
    "another schema": (lambda f: change_card(f, schema_version=99), "schema_version 99"),
    "an absurd embed_dim": (lambda f: change_card(f, embed_dim=10**12), "embed_dim"),
    "an absurd context_length": (lambda f: change_card(f, context_length=10**9), "context_length"),
    "an absurd size of pictures": (lambda f: change_card(f, preprocess={"size": 10**9}), "size"),
    "a card that is nested deeply": (lambda f: (f / CARD).write_text("[" * 200_000), CARD),
    "a card of 100 MB": (bomb, CARD),
}
# These those that read texts: files are compared with the card when they are loaded, …
OF_TEXTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the tokenizer": (lambda f: break_file(f / "tokenizer.json"), "tokenizer.json"),
    "another hash in the card": (lambda f: list_also(f, "tokenizer.json", "f" * 64), "tokenizer.json"),
    "a hash that is none": (lambda f: list_also(f, "tokenizer.json", 7), "tokenizer.json"),
    "a truncated tokenizer": (cut("tokenizer.json"), "tokenizer.json"),
    "a link to another file": (link_elsewhere, "tokenizer.json"),
}
# … these those that read ONNX, …
OF_ONNX: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the int8 tower": (lambda f: break_file(f / INT8), "image_int8.onnx"),
    "a truncated int8 tower": (cut(INT8), "image_int8.onnx"),
    "a pickle named .onnx": (lambda f: replace(f, INT8, PICKLE), "image_int8.onnx"),
    "weights in another file": (lambda f: replace(f, INT8, external_data()), "external data"),
    "a tensor of terabytes": (lambda f: replace(f, INT8, huge_tensor()), "image_int8.onnx"),
    "a tower of other width": (lambda f: change_card(f, embed_dim=9), "gives ["),
}
# … and these those that read torch weights.
OF_TORCH: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the weights": (lambda f: break_file(f / WEIGHTS), WEIGHTS),
    "truncated weights": (cut(WEIGHTS), WEIGHTS),
    "a pickle named .safetensors": (lambda f: replace(f, WEIGHTS, PICKLE), WEIGHTS),
    "a header of terabytes": (lambda f: replace(f, WEIGHTS, struct.pack("<Q", 1 << 60) + b"{}"), WEIGHTS),
    "a header that promises more": (lambda f: replace(f, WEIGHTS, promises_more()), WEIGHTS),
    "weights of another model": (lambda f: replace(f, WEIGHTS, other_weights()), WEIGHTS),
    "a config that is no config": (lambda f: replace(f, CONFIG, b"[1, 2]"), CONFIG),
    "a config of an absurd width": (absurd_width, CONFIG),
    "a config that asks for the hub": (from_the_hub, CONFIG),
    "a config nested deeply": (lambda f: replace(f, CONFIG, b"[" * 200_000), CONFIG),
}
# … and these the one that asks with prompts whose embeddings are stored.
OF_PROMPTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the prompts": (lambda f: break_file(f / PROMPT_EMBEDDINGS), PROMPT_EMBEDDINGS),
    "truncated prompts": (cut(PROMPT_EMBEDDINGS), PROMPT_EMBEDDINGS),
    "a pickle named .safetensors": (lambda f: replace(f, PROMPT_EMBEDDINGS, PICKLE), PROMPT_EMBEDDINGS),
    "a header of terabytes": (
        lambda f: replace(f, PROMPT_EMBEDDINGS, struct.pack("<Q", 1 << 60) + b"{}"),
        PROMPT_EMBEDDINGS,
    ),
    "vectors of another length": (
        lambda f: store_prompts(f, np.ones(9, np.float32) / 3),
        PROMPT_EMBEDDINGS,
    ),
    "vectors that are no numbers": (
        lambda f: store_prompts(f, np.full(8, np.nan, np.float32)),
        PROMPT_EMBEDDINGS,
    ),
}
ONNX_VERBS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "classify": lambda f, s, out: [f, s / "images/red.png", "--labels", "red,blue"],
    "index": lambda f, s, out: [f, s / "images", "--out", out / "made"],
    "bench": lambda f, s, out: [f, "--seconds", "0.01"],
}
TORCH_VERBS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "evaluate": lambda f, s, out: [
        *(f"model={f}", "task=shards", f"tasks.shards.dataset.folder={s / 'shards'}"),
        *(f"out={out / 'made'}", "measure=[]"),
    ],
    "export": lambda f, s, out: [
        *(f"model={f}", f"out={out / 'made'}", f"calibration.shards={s / 'shards'}"),
        *("calibration.samples=8", "calibration.selection=8", "calibration.held_out=8", "search=false"),
    ],
    "train": lambda f, s, out: [
        *("model=tiny", "loss=distill", f"teacher={f}", f"data.train={s / 'shards'}", f"out={out / 'made'}"),
        *("trainer=cpu", "trainer.max_epochs=1", "data.workers=0", "data.batch_size=8"),
    ],
}
VERBS = {**ONNX_VERBS, **TORCH_VERBS}
# What Hydra keeps of every run, also of one that failed.
RECORD = {".hydra", "launch.log"}


def each(verbs: Iterable[str], spoilt: Iterable[str], quick: int = 0) -> list:
    """Every verb without torch with every way to spoil a folder; of the others the next in turn for each way.

    Those start a process that imports torch: the first few are `quick`, the rest is left to slow runs.
    """
    light = [verb for verb in verbs if verb in ONNX_VERBS]
    heavy = [verb for verb in verbs if verb in TORCH_VERBS]
    cases = [pytest.param(verb, how) for verb in light for how in spoilt]
    for number, how in enumerate(spoilt):
        in_turn = heavy if number < quick else heavy[number % len(heavy) :][:1] if heavy else []
        marks = () if number < quick else pytest.mark.slow
        cases += [pytest.param(verb, how, marks=marks) for verb in in_turn]
    return cases


def run(verb: str, arguments: list[str]) -> int:
    """The exit status. What imports torch gets a process of its own, as in use."""
    if verb in ONNX_VERBS:
        return main([verb, *arguments])
    return subprocess.run([sys.executable, "-m", f"pathclip.{verb}", *arguments], check=False).returncode


def refusal(capfd, monkeypatch, verb: str, folder: Path, surroundings: Path, out: Path) -> str:
    """Runs the verb and returns the one line that it ends with."""
    out.mkdir()
    monkeypatch.chdir(out)
    arguments = list(map(str, VERBS[verb](folder, surroundings, out)))
    before = sorted(folder.rglob("*"))
    capfd.readouterr()
    status = run(verb, arguments)
    said = capfd.readouterr()
    assert status == 1, (verb, said)
    # What is measured is announced before a tower is loaded.
    lines = [line for line in said.err.splitlines() if line != "task shards"]
    assert len(lines) == 1 and lines[0].startswith(f"pathclip {verb}: "), said.err
    assert len(lines[0]) < 1000, "a line is to be read"
    assert not said.out, said.out
    written = [file for file in out.rglob("*") if file.is_file() and not RECORD & set(file.parts)]
    assert not written and sorted(folder.rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize(("verb", "how"), each(VERBS, SPOILT, quick=1))
def test_every_verb_refuses_a_spoilt_folder_in_one_line(
    verb, how, request, surroundings, tmp_path, capfd, monkeypatch
):
    if (verb, how) == ("evaluate", "a missing card"):
        pytest.skip("what is left is a folder of open_clip, which evaluate reads")
    folder = request.getfixturevalue("onnx_folder" if verb in ONNX_VERBS else "torch_folder")
    spoil, named = SPOILT[how]
    spoil(folder)
    assert named in refusal(capfd, monkeypatch, verb, folder, surroundings, tmp_path / "out")


@pytest.mark.parametrize(("verb", "how"), each(["classify", *TORCH_VERBS], OF_TEXTS))
def test_a_spoilt_tokenizer_is_refused_in_one_line(
    verb, how, request, surroundings, tmp_path, capfd, monkeypatch
):
    folder = request.getfixturevalue("onnx_folder" if verb in ONNX_VERBS else "torch_folder")
    spoil, named = OF_TEXTS[how]
    spoil(folder)
    assert named in refusal(capfd, monkeypatch, verb, folder, surroundings, tmp_path / "out")


@pytest.mark.parametrize(("verb", "how"), each(["classify", "index", "evaluate"], OF_ONNX))
def test_a_spoilt_onnx_tower_is_refused_in_one_line(
    verb, how, onnx_folder, surroundings, tmp_path, capfd, monkeypatch
):
    spoil, named = OF_ONNX[how]
    spoil(onnx_folder)
    assert named in refusal(capfd, monkeypatch, verb, onnx_folder, surroundings, tmp_path / "out")


@pytest.mark.parametrize("how", OF_PROMPTS)
def test_spoilt_stored_prompts_are_refused_in_one_line(
    how, onnx_folder, surroundings, tmp_path, capfd, monkeypatch
):
    store_prompts(onnx_folder, np.eye(8, dtype=np.float32)[0])
    spoil, named = OF_PROMPTS[how]
    spoil(onnx_folder)
    assert named in refusal(capfd, monkeypatch, "classify", onnx_folder, surroundings, tmp_path / "out")


@pytest.mark.parametrize(("verb", "how"), each(TORCH_VERBS, OF_TORCH))
def test_spoilt_torch_weights_are_refused_in_one_line(
    verb, how, torch_folder, surroundings, tmp_path, capfd, monkeypatch
):
    spoil, named = OF_TORCH[how]
    spoil(torch_folder)
    assert named in refusal(capfd, monkeypatch, verb, torch_folder, surroundings, tmp_path / "out")
