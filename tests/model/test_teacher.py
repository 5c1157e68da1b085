import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pathclip
from pathclip.errors import ConfigError
from pathclip.model.teacher import Teacher
from pathclip.model.torch_encoder import TorchEncoder
from pathclip.model_folder import open_model_folder
from pathclip.runtime.preprocess import Preprocess
from tests.model.each_kind import towers_of
from tests.tiny_model import ONNX_FILES, write_tiny_model

STUDENT = Preprocess(size=(48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
FP32 = ("onnx/image_fp32.onnx", "onnx/text_fp32.onnx")
CAPTIONS = ["benign naevus", "colon adenocarcinoma"]


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    torch.manual_seed(0)
    return towers_of("open_clip", bert).save(tmp_path_factory.mktemp("teacher") / "model")


def pictures():
    """Two smooth pictures of the student's size, as resizing by two ways differs on noise."""
    across, down = np.meshgrid(np.linspace(0, 1, 48), np.linspace(0, 1, 48))
    first = np.stack([across, down, across * down], axis=-1)
    return (np.stack([first, 1 - first]) * 255).round().astype(np.uint8)


def test_a_teacher_sees_the_pictures_as_in_use(folder):
    teacher, encoder = Teacher(folder, STUDENT), TorchEncoder(open_model_folder(folder))
    tokens = torch.from_numpy(teacher.tokenizer(CAPTIONS))
    image, text, scale = teacher(torch.from_numpy(STUDENT.normalise(pictures())), tokens, CAPTIONS)
    in_use = encoder.encode_images([Image.fromarray(pixels) for pixels in pictures()])
    np.testing.assert_allclose(image.numpy(), in_use, atol=0.003)
    np.testing.assert_allclose(text.numpy(), encoder.encode_texts(CAPTIONS), atol=1e-5)
    assert scale == pytest.approx(encoder.logit_scale, rel=1e-5) and teacher.dim == image.shape[1] == 32


def test_a_wrong_normalisation_would_show(folder):
    encoder = TorchEncoder(open_model_folder(folder))
    pixels = torch.from_numpy(STUDENT.normalise(pictures()))
    teacher = Teacher(folder, Preprocess(size=(48, 48)))
    image, _, _ = teacher(pixels, torch.from_numpy(teacher.tokenizer(CAPTIONS)), CAPTIONS)
    in_use = encoder.encode_images([Image.fromarray(pixels) for pixels in pictures()])
    assert np.abs(image.numpy() - in_use).max() > 0.03


def test_a_teacher_has_no_gradients_and_is_no_part_of_a_module(folder):
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = Teacher(folder, STUDENT)

    student = Student()
    assert not list(student.parameters()) and not student.state_dict()
    tokens = torch.from_numpy(student.teacher.tokenizer(CAPTIONS))
    pixels = torch.zeros(2, 3, 48, 48, requires_grad=True)
    image, text, _ = student.teacher(pixels, tokens, CAPTIONS)
    assert not image.requires_grad and not text.requires_grad
    weight = torch.ones(32, requires_grad=True)
    (image * weight).sum().backward()  # what a loss makes of them can be differentiated
    assert weight.grad is not None


def test_a_folder_that_cannot_teach_is_one_line(tmp_path, tiny_model):
    with pytest.raises(ConfigError, match=r"teacher: .*no such folder"):
        Teacher(tmp_path / "nowhere", STUDENT)
    card = (tiny_model / "pathclip.json").read_text()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "pathclip.json").write_text(card)
    with pytest.raises(ConfigError, match=r"teacher: .*broken"):
        Teacher(broken, STUDENT)


@pytest.mark.parametrize("files", [ONNX_FILES, (*ONNX_FILES, *FP32)], ids=["int8 alone", "int8 and fp32"])
def test_a_folder_without_torch_weights_teaches_through_onnxruntime(tmp_path, files):
    path = write_tiny_model(tmp_path / "tiny", files)
    teacher = Teacher(path, STUDENT)
    encoder = pathclip.load(path, runtime="onnx", precision="fp32" if FP32[0] in files else "int8")
    texts = ["red", "a white slide"]
    pixels = torch.from_numpy(STUDENT.normalise(pictures()))
    image, text, scale = teacher(pixels, torch.from_numpy(teacher.tokenizer(texts)), texts)
    in_use = encoder.encode_images([Image.fromarray(one) for one in pictures()])
    np.testing.assert_allclose(image.numpy(), in_use, atol=0.01)
    np.testing.assert_allclose(text.numpy(), encoder.encode_texts(texts), atol=1e-6)
    assert scale == encoder.logit_scale and teacher.dim == image.shape[1] and teacher.size == (16, 16)


def test_pictures_of_the_teachers_own_size_are_not_resized(folder):
    own = Preprocess(size=(48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
    teacher, encoder = Teacher(folder, own), TorchEncoder(open_model_folder(folder))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *teacher.size, 3), dtype=np.uint8)
    image = teacher.images(torch.from_numpy(own.normalise(pixels)))  # noise: resizing would show
    np.testing.assert_allclose(image.numpy(), encoder.encode_images(pixels), atol=1e-5)


def test_a_text_is_embedded_once_and_alike_in_any_company(folder):
    texts = ["benign naevus", "colon adenocarcinoma", "signet ring cells"]
    pixels = torch.zeros(3, 3, 48, 48)
    first, second = Teacher(folder, STUDENT), Teacher(folder, STUDENT)
    tokens = torch.from_numpy(first.tokenizer(texts))
    _, together, _ = first(pixels, tokens, texts)
    _, apart, _ = second(pixels[:2], tokens[1:], texts[1:])
    assert together[1:].equal(apart)
    _, again, _ = first(pixels, torch.zeros_like(tokens), texts)  # nobody looks at the tokens any more
    assert again.equal(together)
