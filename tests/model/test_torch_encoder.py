from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, sys
import numpy, torch
import pathclip
from pathclip.config import build
from pathclip.launch import compose

build(compose("train", ["model=tiny", "data.train=x"]).model).save(sys.argv[1])
encoder = pathclip.load(sys.argv[1], "torch", threads=2)
pixels = numpy.random.default_rng(1).integers(0, 256, (16, *encoder.preprocess.size, 3), numpy.uint8)
before = encoder.encode_images(pixels)

def in_the_child(threads):
    torch.set_num_threads(threads)
    try:
        return encoder.encode_images(pixels)
    except pathclip.errors.ModelFolderError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    refused, alone = pool.map_async(in_the_child, [2, 1]).get(60)
assert "threads do not outlive a fork" in refused and "\\n" not in refused, refused
numpy.testing.assert_allclose(alone, before, atol=1e-5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_child_is_told_why_it_cannot_encode_and_with_one_thread_it_can(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
