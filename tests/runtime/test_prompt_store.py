from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

import pathclip
from pathclip.errors import ModelFolderError
from pathclip.model_folder import PROMPT_EMBEDDINGS, ModelFolder, open_model_folder
from pathclip.runtime.classify import class_embeddings, classify
from pathclip.runtime.prompt_cache import MOST_PROMPTS, PromptCache
from pathclip.runtime.prompt_store import prompt_embeddings, save_prompt_embeddings, stored_embeddings
from tests.tiny_model import DIM, break_file, list_files_again, write_image, write_tiny_model

TEMPLATES = ["a photomicrograph of {}", "{}"]
LABELS = ["red", "blue"]
PROMPTS = [template.replace("{}", label) for label in LABELS for template in TEMPLATES]


def vectors(n: int, dim: int = DIM) -> np.ndarray:
    drawn = np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def storing(tmp_path) -> Path:
    """A folder that holds the embeddings of `PROMPTS`, and whose text tower was destroyed afterwards."""
    folder = write_tiny_model(tmp_path / "storing")
    embeddings = pathclip.load(folder).encode_texts(PROMPTS)
    file = folder / PROMPT_EMBEDDINGS
    save_prompt_embeddings(file, {"int8": dict(zip(PROMPTS, embeddings, strict=True))})
    list_files_again(folder)
    break_file(folder / "onnx/text_int8.onnx")
    return folder


@pytest.fixture
def counting(tiny_model, monkeypatch):
    """An encoder, and the texts that its text tower was given."""
    encoder = pathclip.load(tiny_model)
    given: list[str] = []
    encode = encoder.encode_texts

    def counted(texts):
        given.extend(texts)
        return encode(texts)

    monkeypatch.setattr(encoder, "encode_texts", counted)
    return encoder, given


def store(tmp_path, content: dict) -> ModelFolder:
    save_prompt_embeddings(tmp_path / PROMPT_EMBEDDINGS, content)
    return listed(tmp_path)


def listed(folder: Path) -> ModelFolder:
    from pathclip import atomic

    return ModelFolder(folder, {"files": {PROMPT_EMBEDDINGS: atomic.sha256_file(folder / PROMPT_EMBEDDINGS)}})


def test_stored_prompts_come_back_by_precision_and_by_every_letter(tmp_path):
    eight, full = vectors(3), vectors(2)
    odd = ["a\nb", "Gewebe, gefärbt", "a"]
    folder = store(
        tmp_path,
        {
            "int8": dict(zip(odd, eight, strict=True)),
            "fp32": dict(zip(["a", "b"], full, strict=True)),
            "bf16": {},
        },
    )
    found = stored_embeddings(folder, "int8", DIM)
    assert list(found) == odd
    np.testing.assert_array_equal(np.stack(list(found.values())), eight)
    np.testing.assert_array_equal(stored_embeddings(folder, "fp32", DIM)["a"], full[0])
    assert stored_embeddings(folder, "bf16", DIM) == stored_embeddings(folder, "other", DIM) == {}


def test_equal_prompts_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        content = {"int8": dict(zip("xyz", vectors(3), strict=True)), "fp32": {"x": vectors(1)[0]}}
        save_prompt_embeddings(tmp_path / name, dict(reversed(content.items())) if name == "b" else content)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_with_stored_labels_the_text_tower_is_never_opened(storing, tmp_path):
    encoder = pathclip.load(storing)
    picture = write_image(tmp_path / "a.png", "blue")
    ((best, _),) = classify(encoder, [picture], LABELS, TEMPLATES)
    assert best.name == "blue"
    with pytest.raises(ModelFolderError, match="text_int8"):
        classify(encoder, [picture], ["red", "green"], TEMPLATES)


def test_stored_labels_give_the_numbers_of_the_text_tower(storing, tiny_model):
    np.testing.assert_array_equal(
        class_embeddings(pathclip.load(storing), LABELS, TEMPLATES),
        class_embeddings(pathclip.load(tiny_model), LABELS, TEMPLATES),
    )


def test_stored_embeddings_do_not_change_what_a_model_is_called(storing, tiny_model):
    folder = open_model_folder(storing, verify=False)
    without = {name: digest for name, digest in folder.card["files"].items() if name != PROMPT_EMBEDDINGS}
    assert folder.hash == ModelFolder(folder.path, {**folder.card, "files": without}).hash


def test_a_changed_store_is_refused(storing):
    break_file(storing / PROMPT_EMBEDDINGS)
    with pytest.raises(ModelFolderError, match=f"{PROMPT_EMBEDDINGS}: its content differs from the SHA-256"):
        class_embeddings(pathclip.load(storing), LABELS, TEMPLATES)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not a store"),
        (b"{}" * 40, "not a store"),
        ({"int8": {"a": vectors(1, 5)[0]}}, r"\[1, 5\], not float32 \[1, 8\]"),
        ({"int8": {"a": 2 * vectors(1)[0]}}, "not of length 1"),
        ({"int8": {"a": vectors(1)[0] * np.nan}}, "not of length 1"),
    ],
    ids=["empty", "noise", "another dimension", "another length", "NaN"],
)
def test_a_store_that_is_none_is_one_line_though_the_card_lists_it(tmp_path, content, fault):
    if isinstance(content, bytes):
        (tmp_path / PROMPT_EMBEDDINGS).write_bytes(content)
        folder = listed(tmp_path)
    else:
        folder = store(tmp_path, content)
    with pytest.raises(ModelFolderError, match=fault) as raised:
        stored_embeddings(folder, "int8", DIM)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("texts", ["ab", [1, 2], {"a": 1, "b": 2}, [["a"], ["b"]]], ids=str)
def test_metadata_of_another_shape_are_refused(tmp_path, texts):
    from safetensors.numpy import save

    metadata = {"prompts": json.dumps({"texts": {"int8": texts}})}
    (tmp_path / PROMPT_EMBEDDINGS).write_bytes(save({"int8": vectors(2)}, metadata))
    with pytest.raises(ModelFolderError, match="not texts"):
        stored_embeddings(listed(tmp_path), "int8", DIM)


def test_a_prompt_is_computed_once_and_found_by_the_next_process(counting, tiny_model, tmp_path):
    encoder, given = counting
    cache = PromptCache(tmp_path / "cache")
    first = prompt_embeddings(encoder, ["red", "blue", "red"], cache)
    assert given == ["red", "blue"]
    again = prompt_embeddings(encoder, ["blue", "green", "red"], PromptCache(tmp_path / "cache"))
    assert given == ["red", "blue", "green"]
    np.testing.assert_array_equal(again[[2, 0]], first[:2])
    np.testing.assert_array_equal(again, pathclip.load(tiny_model).encode_texts(["blue", "green", "red"]))


@pytest.mark.parametrize("other", ["model", "precision", "runtime"])
def test_another_model_precision_or_runtime_shares_nothing(counting, tmp_path, other):
    encoder, given = counting
    cache = PromptCache(tmp_path / "cache")
    prompt_embeddings(encoder, ["red"], cache)
    if other == "model":
        encoder.folder = ModelFolder(encoder.folder.path, {**encoder.folder.card, "context_length": 13})
    else:
        setattr(encoder, other, "another")
    prompt_embeddings(encoder, ["red"], cache)
    assert given == ["red", "red"]


def test_another_version_of_the_runtimes_library_shares_nothing(counting, tmp_path, monkeypatch):
    encoder, given = counting
    cache = PromptCache(tmp_path / "cache")
    prompt_embeddings(encoder, ["red"], cache)
    (tmp_path / "onnxruntime-0.0.1.dist-info").mkdir()
    (tmp_path / "onnxruntime-0.0.1.dist-info/METADATA").write_text("Name: onnxruntime\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    prompt_embeddings(encoder, ["red"], cache)
    assert given == ["red", "red"]


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "a low bit of a number":
        content[-4] ^= 1
        file.write_bytes(content)
    elif how == "a letter of a prompt":
        file.write_bytes(bytes(content).replace(b"red", b"rad"))
    elif how == "another's":
        file.write_bytes(bytes(content).replace(b"onnx", b"onny"))
    else:
        file.write_bytes(b"")


@pytest.mark.parametrize(
    "how", ["cut", "a low bit of a number", "a letter of a prompt", "another's", "emptied"]
)
def test_a_damaged_cache_is_ignored_and_made_anew(counting, tmp_path, how):
    encoder, given = counting
    cache = PromptCache(tmp_path)
    expected = prompt_embeddings(encoder, ["red"], cache)
    (file,) = tmp_path.glob("*.safetensors")
    damage(file, how)
    np.testing.assert_array_equal(prompt_embeddings(encoder, ["red"], cache), expected)
    assert given == ["red", "red"]
    prompt_embeddings(encoder, ["red"], cache)
    assert given == ["red", "red"]


def test_a_cache_that_cannot_be_written_to_fails_nothing(counting, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    encoder, given = counting
    prompt_embeddings(encoder, ["red"], PromptCache(tmp_path / "cache"))
    assert given == ["red"]


def test_a_cache_keeps_the_newest_prompts_only(tiny_model, tmp_path):
    encoder = pathclip.load(tiny_model)
    cache = PromptCache(tmp_path)
    many = [f"{i}" for i in range(MOST_PROMPTS)]
    cache.keep(encoder, dict(zip(many, vectors(MOST_PROMPTS), strict=True)))
    cache.keep(encoder, {"new": vectors(1)[0]})
    assert list(cache.find(encoder, ["0", "1", "new"])) == ["1", "new"]


def test_a_cache_deletes_the_oldest_models_beyond_its_limit(tiny_model, tmp_path):
    encoder = pathclip.load(tiny_model)
    for number, runtime in enumerate(["a", "b", "c"]):
        encoder.runtime = runtime
        PromptCache(tmp_path, limit=1200).keep(encoder, {"red": vectors(1)[0]})
        for file in tmp_path.glob("*.safetensors"):
            assert file.stat().st_size < 600
        assert len(list(tmp_path.glob("*.safetensors"))) == min(number + 1, 2)
    assert "red" in PromptCache(tmp_path).find(encoder, ["red"])


def test_a_cache_lies_below_the_place_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path))
    assert PromptCache.of_user().folder == tmp_path / "prompts"
    monkeypatch.setenv("PATHCLIP_CACHE", "")
    assert PromptCache.of_user() is None


def _use_at_once(model: str, cache: str, number: int) -> None:
    encoder = pathclip.load(model, threads=1)
    for step in range(12):
        texts = [f"red {(number + step) % 5}", "blue", f"{number} {step}"]
        found = prompt_embeddings(encoder, texts, PromptCache(cache))
        np.testing.assert_array_equal(found, encoder.encode_texts(texts))


def test_processes_that_write_at_once_leave_a_whole_file(tiny_model, tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_use_at_once, args=(str(tiny_model), str(tmp_path), number))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    encoder = pathclip.load(tiny_model)
    assert "blue" in PromptCache(tmp_path).find(encoder, ["blue"])
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
