from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import pathclip
from pathclip.errors import ModelFolderError
from pathclip.runtime.encoder import Encoder
from pathclip.runtime.openvino_encoder import LEAST_OF_STREAM, _Requests
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


def test_streams_for_large_batches_give_the_same_numbers(model):
    from pathclip.model_folder import open_model_folder
    from pathclip.runtime.openvino_encoder import OpenVinoEncoder

    encoder = OpenVinoEncoder(open_model_folder(model), "int8", threads=2, streams_after=0.0)
    images = pixels(4 * LEAST_OF_STREAM + 1)  # no multiple of the streams
    alone = np.concatenate([encoder.encode_images(images[i : i + 1]) for i in range(len(images))])
    for _ in range(2):
        np.testing.assert_allclose(encoder.encode_images(images, batch_size=64), alone, atol=1e-4)


class Request:
    """Notes what a request of OpenVINO is told; its output is its input, doubled."""

    def __init__(self, told: list[tuple[str, int]], fails: bool = False):
        self.told, self.fails = told, fails

    def start_async(self, inputs, share_inputs):
        (self.data,) = inputs.values()
        self.told.append(("start", len(self.data)))

    def wait(self):
        self.told.append(("wait", len(self.data)))
        if self.fails:
            raise RuntimeError("broken")

    def get_tensor(self, name):
        return SimpleNamespace(data=self.data * 2)


def requests(threads: int, streams_after: float = 0.0, broken: tuple[int, ...] = (), refuse: bool = False):
    """The requests of a tower, what they are told, and how many streams were compiled."""
    told: list[tuple[str, int]] = []
    compiled: list[int] = []

    def compile_for(streams: int) -> list[Request]:
        compiled.append(streams)
        if refuse and streams > 1:
            raise MemoryError
        return [Request(told, streams > 1 and number in broken) for number in range(streams)]

    return _Requests("pixels", threads, compile_for, streams_after), told, compiled


@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (2, 2), (3, 3), (8, 8), (11, 1), (12, 6), (16, 8)])
def test_every_stream_gets_as_many_threads_and_a_part_and_all_work_at_once(threads, streams):
    tower, told, compiled = requests(threads)
    least = LEAST_OF_STREAM * streams
    small, large = np.arange(least - 1), np.arange(least + 1)
    assert (tower(small) == small * 2).all() and (tower(large) == large * 2).all()
    assert compiled == [1, streams][: 1 + (streams > 1)]
    parts = [len(part) for part in np.array_split(large, streams)]
    assert [size for what, size in told[2:] if what == "start"] == parts
    assert [what for what, _ in told[2:]] == ["start"] * streams + ["wait"] * streams


def test_streams_are_opened_once_large_batches_have_taken_long_enough():
    tower, _, compiled = requests(2, streams_after=1e-9)
    for samples in (1, 1, 100, 1):
        tower(np.arange(samples))
    assert compiled == [1]
    tower(np.arange(100))
    tower(np.arange(100))
    assert compiled == [1, 2]


def test_what_cannot_open_streams_goes_on_without():
    tower, _, compiled = requests(4, refuse=True)
    for _ in range(3):
        assert (tower(np.arange(50)) == np.arange(50) * 2).all()
    assert compiled == [1, 4]


def test_a_stream_that_fails_is_told_after_all_have_ended_and_the_next_batch_works():
    tower, told, _ = requests(2, broken=(0,))
    with pytest.raises(RuntimeError, match="broken"):
        tower(np.arange(8))
    assert [what for what, _ in told] == ["start", "start", "wait", "wait"]
    assert (tower(np.arange(3)) == np.arange(3) * 2).all()


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
