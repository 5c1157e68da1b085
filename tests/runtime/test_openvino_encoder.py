from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pathclip
from pathclip.errors import ModelFolderError
from pathclip.runtime.encoder import Encoder
from tests.runtime.quantised_model import write_quantised_model
from tests.tiny_model import DIM, SIZE, break_file, list_files_again, write_tiny_model

pytest.importorskip("openvino")
TEXTS = ["red", "a blue image of a slide", "histopathology showing green", "white"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_quantised_model(tmp_path_factory.mktemp("quantised") / "model")


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def test_it_has_what_the_protocol_asks(model):
    encoder = pathclip.load(model, runtime="openvino")
    assert isinstance(encoder, Encoder)
    assert (encoder.runtime, encoder.precision, encoder.dim) == ("openvino", "int8", DIM)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("int8", 0.999)])
def test_it_embeds_as_onnxruntime_does(model, precision, least):
    onnx, openvino = (pathclip.load(model, runtime, precision) for runtime in ("onnx", "openvino"))
    assert (onnx.encode_images(pixels(32)) * openvino.encode_images(pixels(32))).sum(axis=1).min() > least
    assert (onnx.encode_texts(TEXTS) * openvino.encode_texts(TEXTS)).sum(axis=1).min() > least


def test_bfloat16_is_computed_only_where_it_is_asked_for(model):
    from pathclip.model_folder import open_model_folder
    from pathclip.runtime.openvino_encoder import OpenVinoEncoder

    encoder = OpenVinoEncoder(open_model_folder(model), "fp32", bf16=True)
    assert encoder.precision == "bf16"
    exact = pathclip.load(model, "onnx", "fp32").encode_images(pixels(4))
    assert (encoder.encode_images(pixels(4)) * exact).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_picture_is_the_same_alone_and_in_a_batch_of_64(model, runtime, precision):
    encoder = pathclip.load(model, runtime, precision)
    together = encoder.encode_images(pixels(64), batch_size=64)
    alone = np.concatenate([encoder.encode_images(pixels(64)[i : i + 1]) for i in range(64)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_streams_for_large_batches_give_the_same_numbers(model, threads, monkeypatch):
    import openvino

    from pathclip.runtime import openvino_encoder

    opened = []
    compile_model = openvino.Core.compile_model

    def spy(core, tower, device, settings):
        opened.append(settings["NUM_STREAMS"])
        return compile_model(core, tower, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    least = openvino_encoder.LEAST_OF_STREAM * threads
    images = pixels(2 * least + 1)  # no multiple of the streams
    encoder = pathclip.load(model, "openvino", "int8", threads=threads)
    alone = np.concatenate([encoder.encode_images(images[i : i + 1]) for i in range(len(images))])
    encoder.encode_images(images[: least - 1])  # too small a batch
    together, dealt_out, again = (encoder.encode_images(images, batch_size=64) for _ in range(3))
    assert opened == [1] + [threads] * (threads > 1)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(dealt_out, alone, atol=1e-4)
    np.testing.assert_allclose(again, alone, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_many_threads_from_the_first_call_on_get_what_one_gets(model, runtime):
    images = pixels(48)
    expected = pathclip.load(model, runtime, "int8").encode_images(images)
    shared = pathclip.load(model, runtime, "int8")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: shared.encode_images(images[i : i + 1]), range(48)))
        texts = list(pool.map(lambda text: shared.encode_texts([text]), TEXTS * 4))
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-6)
    np.testing.assert_allclose(np.concatenate(texts), np.tile(shared.encode_texts(TEXTS), (4, 1)), atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_encoder_made_before_a_fork_works_in_the_child_with_threads_of_its_own(model, runtime):
    code = f"""
import multiprocessing, numpy, os, pathclip
encoder = pathclip.load({str(model)!r}, {runtime!r}, "int8", threads=2)
pixels = numpy.random.default_rng(1).integers(0, 256, (16, {SIZE}, {SIZE}, 3), numpy.uint8)
before, texts = encoder.encode_images(pixels), encoder.encode_texts(["red"])
def in_the_child(_):
    found = encoder.encode_images(pixels), encoder.encode_texts(["red"])
    assert len(os.listdir("/proc/self/task")) > 1, "the child works without threads of its own"
    return found
with multiprocessing.get_context("fork").Pool(2) as pool:
    for images, text in pool.map_async(in_the_child, range(4)).get(60):
        numpy.testing.assert_allclose(images, before, atol=1e-6)
        numpy.testing.assert_allclose(text, texts, atol=1e-6)
numpy.testing.assert_allclose(encoder.encode_images(pixels), before, atol=1e-6)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_tower_is_refused_when_it_is_loaded(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    break_file(copy / "onnx/image_int8.onnx")
    with pytest.raises(ModelFolderError, match=r"image_int8\.onnx.*SHA-256"):
        pathclip.load(copy, "openvino").encode_images(pixels(1))


def test_an_onnx_file_that_is_none_is_named_in_one_line(tmp_path):
    folder = write_tiny_model(tmp_path / "m")
    (folder / "onnx/image_int8.onnx").write_bytes(b"not onnx")
    list_files_again(folder)
    with pytest.raises(ModelFolderError, match=r"image_int8\.onnx: OpenVINO cannot load it: [^\n]*\Z"):
        pathclip.load(folder, "openvino").encode_images(pixels(1))


def test_a_tower_with_weights_in_another_file_is_refused(tmp_path):
    import onnx
    from onnx.external_data_helper import set_external_data

    folder = write_tiny_model(tmp_path / "m")
    file = folder / "onnx/image_int8.onnx"
    tower = onnx.load(file)
    set_external_data(tower.graph.initializer[0], location="weights.data")
    file.write_bytes(tower.SerializeToString())
    list_files_again(folder)
    with pytest.raises(ModelFolderError, match=r"image_int8\.onnx: its weights lie in another file"):
        pathclip.load(folder, "openvino").encode_images(pixels(1))


def test_a_card_that_contradicts_the_tower_is_refused(tmp_path):
    folder = write_tiny_model(tmp_path / "m", embed_dim=DIM + 1)
    with pytest.raises(ModelFolderError, match=rf"gives \[1, {DIM}\], the card says \[1, {DIM + 1}\]"):
        pathclip.load(folder, "openvino").encode_images(pixels(1))


def test_a_folder_without_the_precision_says_how_to_export(tmp_path):
    with pytest.raises(ModelFolderError, match=r"no image tower in fp32.*pathclip export"):
        pathclip.load(write_tiny_model(tmp_path / "m"), "openvino", "fp32")


def test_where_it_is_not_installed_the_message_says_what_to_install(tiny_model, monkeypatch):
    monkeypatch.setattr("pathclip.runtime.openvino_encoder.find_spec", lambda name: None)
    with pytest.raises(ModelFolderError, match=r"pip install 'pathclip\[openvino\]'"):
        pathclip.load(tiny_model, "openvino")
    assert pathclip.load(tiny_model).runtime == "onnx"
