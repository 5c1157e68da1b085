import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pathclip.errors import ConfigError
from pathclip.model.teacher import Teacher
from pathclip.model.torch_encoder import TorchEncoder
from pathclip.model_folder import open_model_folder
from pathclip.runtime.preprocess import Preprocess
from tests.model.each_kind import towers_of

STUDENT = Preprocess(size=(48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
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
    image, text, scale = teacher(torch.from_numpy(STUDENT.normalise(pictures())), tokens)
    in_use = encoder.encode_images([Image.fromarray(pixels) for pixels in pictures()])
    np.testing.assert_allclose(image.numpy(), in_use, atol=0.003)
    np.testing.assert_allclose(text.numpy(), encoder.encode_texts(CAPTIONS), atol=1e-5)
    assert scale == pytest.approx(encoder.logit_scale, rel=1e-5) and teacher.dim == image.shape[1] == 32


def test_a_wrong_normalisation_would_show(folder):
    encoder = TorchEncoder(open_model_folder(folder))
    pixels = torch.from_numpy(STUDENT.normalise(pictures()))
    teacher = Teacher(folder, Preprocess(size=(48, 48)))
    image, _, _ = teacher(pixels, torch.from_numpy(teacher.tokenizer(CAPTIONS)))
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
    image, text, _ = student.teacher(pixels, tokens)
    assert not image.requires_grad and not text.requires_grad
    weight = torch.ones(32, requires_grad=True)
    (image * weight).sum().backward()  # what a loss makes of them can be differentiated
    assert weight.grad is not None


def test_a_folder_that_cannot_teach_is_one_line(tmp_path, tiny_model):
    with pytest.raises(ConfigError, match=r"teacher: .*no such folder"):
        Teacher(tmp_path / "nowhere", STUDENT)
    with pytest.raises(ConfigError, match=r"teacher: .*name the folder that training wrote"):
        Teacher(tiny_model, STUDENT)
