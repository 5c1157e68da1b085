from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

import pathclip
from pathclip.errors import ConfigError, DataError, ModelFolderError
from pathclip.model_folder import open_model_folder
from pathclip.runtime.encoder import Encoder, OnnxEncoder
from pathclip.runtime.tower import has_external_data
from tests.tiny_model import COLOURS, DIM, break_file, list_files_again, write_tiny_model


def pictures(n: int = 5) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)) for i in range(n)]


@pytest.fixture
def encoder(tiny_model):
    return OnnxEncoder(open_model_folder(tiny_model))


@pytest.fixture
def copy(tmp_path, tiny_model):
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_it_has_what_the_protocol_asks(encoder):
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.logit_scale) == ("tiny", DIM, 10.0)
    assert (encoder.runtime, encoder.precision) == ("onnx", "int8")


def test_vectors_have_unit_length(encoder):
    for vectors in (encoder.encode_images(pictures()), encoder.encode_texts(["red", "a blue image"])):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_picture_is_the_same_alone_and_in_a_batch(encoder):
    together = encoder.encode_images(pictures(), batch_size=3)
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_arrays_and_pictures_give_the_same(encoder):
    images = [picture.resize((24, 24)) for picture in pictures()]
    arrays = np.stack([np.asarray(image) for image in images])
    np.testing.assert_array_equal(encoder.encode_images(arrays), encoder.encode_images(images))


def test_colour_words_lie_at_their_colours(encoder):
    images = [Image.new("RGB", (9, 9), rgb) for rgb in COLOURS.values()]
    similarity = encoder.encode_texts(list(COLOURS)) @ encoder.encode_images(images).T
    assert similarity.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_nothing_gives_nothing(encoder):
    assert encoder.encode_images([]).shape == (0, DIM)
    assert encoder.encode_texts([]).shape == (0, DIM)


def test_towers_are_loaded_only_when_used(copy):
    for broken in ("onnx/text_int8.onnx", "tokenizer.json"):
        break_file(copy / broken)
    encoder = pathclip.load(copy)
    assert encoder.encode_images(pictures(1)).shape == (1, DIM)
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json.*SHA-256"):
        encoder.encode_texts(["red"])


@pytest.mark.parametrize("changed", ["onnx/image_int8.onnx", "onnx/text_int8.onnx"])
def test_a_changed_tower_is_refused_when_it_is_loaded(copy, changed):
    break_file(copy / changed)
    encoder = pathclip.load(copy)
    with pytest.raises(ModelFolderError, match=r"_int8\.onnx.*SHA-256"):
        encoder.encode_images(pictures(1)) if "image" in changed else encoder.encode_texts(["red"])


def test_int8_falls_back_to_an_fp32_text_tower(tmp_path):
    folder = write_tiny_model(tmp_path / "m", ["onnx/image_int8.onnx", "onnx/text_fp32.onnx"])
    assert pathclip.load(folder, precision="int8").encode_texts(["red"]).shape == (1, DIM)


def test_auto_takes_int8_where_there_is_int8_and_fp32_where_not(tmp_path):
    both = ["onnx/image_int8.onnx", "onnx/image_fp32.onnx", "onnx/text_fp32.onnx"]
    assert pathclip.load(write_tiny_model(tmp_path / "both", both)).precision == "int8"
    assert pathclip.load(write_tiny_model(tmp_path / "fp32", both[1:])).precision == "fp32"


def test_a_missing_precision_says_what_is_there_and_how_to_make_it(tiny_model):
    with pytest.raises(
        ModelFolderError, match=r"no image tower in fp32; it has image_int8\.onnx, .*pathclip export"
    ):
        pathclip.load(tiny_model, precision="fp32")


def test_a_folder_without_onnx_says_how_to_export(tmp_path):
    folder = write_tiny_model(tmp_path / "m", [])
    with pytest.raises(ModelFolderError, match=r"no ONNX.*pathclip export"):
        pathclip.load(folder, runtime="onnx")


@pytest.mark.parametrize("wrong", [{"runtime": "tensorrt"}, {"precision": "int4"}])
def test_an_unknown_runtime_or_precision_is_refused(tiny_model, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong.values()))):
        pathclip.load(tiny_model, **wrong)


def test_a_card_that_contradicts_the_tower_is_refused(tmp_path):
    folder = write_tiny_model(tmp_path / "m", embed_dim=DIM + 1)
    with pytest.raises(ModelFolderError, match=rf"gives \[1, {DIM}\], the card says \[1, {DIM + 1}\]"):
        pathclip.load(folder).encode_images(pictures(1))


@pytest.mark.parametrize("key", ["embed_dim", "context_length", "pad_id"])
@pytest.mark.parametrize("value", [None, "14", True, -1, 10**12])
def test_a_malformed_size_in_the_card_is_named(tmp_path, key, value):
    folder = write_tiny_model(tmp_path / "m", **{key: value})
    with pytest.raises(ModelFolderError, match=rf"{key} must be a whole number in .*, not {value!r}"):
        pathclip.load(folder)


@pytest.mark.parametrize("value", [None, "14", True, -1, float("inf"), float("nan")])
def test_a_malformed_logit_scale_in_the_card_is_named(tmp_path, value):
    folder = write_tiny_model(tmp_path / "m", logit_scale=value)
    with pytest.raises(ModelFolderError, match=f"the card's logit_scale must be a number, not {value!r}"):
        pathclip.load(folder)


def test_an_onnx_file_that_is_none_is_named(tmp_path):
    folder = write_tiny_model(tmp_path / "m")
    (folder / "onnx/image_int8.onnx").write_bytes(b"not onnx")
    list_files_again(folder)
    with pytest.raises(ModelFolderError, match=r"image_int8\.onnx: onnxruntime cannot load it"):
        pathclip.load(folder).encode_images(pictures(1))


@pytest.mark.parametrize("place", ["initialiser", "constant"])
def test_a_tower_with_weights_in_another_file_is_refused(tmp_path, place):
    import onnx
    from onnx import helper
    from onnx.external_data_helper import set_external_data

    folder = write_tiny_model(tmp_path / "m")
    file = folder / "onnx/image_int8.onnx"
    model = onnx.load(file)
    (weight,) = model.graph.initializer
    values = weight.raw_data
    set_external_data(weight, location="weights.data")
    weight.ClearField("raw_data")
    if place == "constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["weight"], value=weight))
        del model.graph.initializer[:]
    file.write_bytes(model.SerializeToString())
    list_files_again(folder)
    (folder / "onnx/weights.data").write_bytes(values)
    with pytest.raises(ModelFolderError, match=r"image_int8\.onnx: its weights lie in another file"):
        pathclip.load(folder).encode_images(pictures(1))


@pytest.mark.parametrize("length", ["08", "8800", "888000", "8880808000"])
def test_external_data_is_seen_however_protobuf_writes_the_length(length):
    assert has_external_data(b"w" * 30 + bytes.fromhex(length) + b"location" + b"w" * 30)


def test_a_name_with_location_in_it_is_no_external_data(tmp_path):
    content = (write_tiny_model(tmp_path / "m") / "onnx/image_int8.onnx").read_bytes()
    assert not has_external_data(content)
    assert not has_external_data(content.replace(b"pooled", b"allocation"))
    assert not has_external_data(content + b"\x0alocation.0" + b"location")


def test_a_picture_too_thin_for_the_model_is_named_by_its_number(encoder):
    with pytest.raises(DataError, match="picture 2: 60000 x 1 pixels is too thin"):
        encoder.encode_images([Image.new("RGB", (9, 9)), Image.new("RGB", (60_000, 1))])


@pytest.fixture
def int8_with_weights(tmp_path):
    """What `pathclip export keep_torch=true` writes, with other towers in it."""
    from pathclip.config import build
    from pathclip.launch import compose

    towers = build(compose("train", ["model=tiny", "data.train=x"]).model)
    folder = towers.save(tmp_path / "kept")
    shutil.copytree(write_tiny_model(tmp_path / "m") / "onnx", folder / "onnx")
    list_files_again(folder)
    return folder


def test_fp32_runs_on_torch_where_onnx_has_int8_only(int8_with_weights):
    encoder = pathclip.load(int8_with_weights, precision="fp32")
    assert (encoder.runtime, encoder.precision) == ("torch", "fp32")
    for precision in ("auto", "int8"):
        encoder = pathclip.load(int8_with_weights, precision=precision)
        assert (encoder.runtime, encoder.precision) == ("onnx", "int8")
    with pytest.raises(ModelFolderError, match="no image tower in fp32"):
        pathclip.load(int8_with_weights, runtime="onnx", precision="fp32")


def test_without_torch_fp32_says_what_to_install_and_how_to_export(int8_with_weights, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = r"without ONNX in fp32 this folder needs torch: pip install .*keep_fp32=true"
    with pytest.raises(ModelFolderError, match=message):
        pathclip.load(int8_with_weights, precision="fp32")


def test_torch_runs_the_same_folder_in_fp32_only_and_refuses_changed_weights(tmp_path):
    from pathclip.config import build
    from pathclip.launch import compose

    towers = build(compose("train", ["model=tiny", "data.train=x"]).model)
    folder = towers.save(tmp_path / "m")
    encoder = pathclip.load(folder)
    assert isinstance(encoder, Encoder)
    assert (encoder.runtime, encoder.precision) == ("torch", "fp32")
    assert encoder.encode_images(pictures(1)).shape == (1, encoder.dim)
    with pytest.raises(ModelFolderError, match="torch runs fp32 only"):
        pathclip.load(folder, precision="int8")
    break_file(folder / "open_clip_model.safetensors")
    with pytest.raises(ModelFolderError, match=r"safetensors.*SHA-256"):
        pathclip.load(folder)
