"""The base install: a wheel without extras classifies a picture where there is no torch at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.tiny_model import write_image

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    # A PYTHONPATH would let the checkout in by the back door.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("pathclip-*.whl"))


@pytest.fixture(scope="module")
def base_install(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel and its base dependencies; gives its folder of programs."""
    place = tmp_path_factory.mktemp("base") / "venv"
    venv.create(place, with_pip=True)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = run(*pip, "--constraint", ROOT / "constraints.txt", wheel)
    unreachable = ("Failed to establish a new connection", "NewConnectionError", "Temporary failure in name")
    if done.returncode and any(sign in done.stderr for sign in unreachable):
        pytest.skip("pip cannot reach a package index to install the base dependencies from")
    assert done.returncode == 0, done.stderr
    return programs


def test_the_wheel_holds_configs_and_vocabularies_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "pathclip/conf/train.yaml" in names
    assert "pathclip/cli.py" in names
    for folder in ("conf", "data"):
        expected = {f.relative_to(ROOT).as_posix() for f in (ROOT / folder).rglob("*") if f.is_file()}
        assert {f"pathclip/{name}" for name in expected} <= set(names)
    assert not any(name.startswith(("tests/", "conf/", "data/")) for name in names)


@pytest.mark.slow
def test_the_base_install_classifies_without_torch(base_install, tmp_path, tiny_model):
    absent = ("torch", "hydra", "open_clip", "transformers", "lightning", "onnx")
    code = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(name) for name in {absent!r}))"
    assert run(base_install / "python", "-c", code, cwd=tmp_path).returncode == 0

    picture = write_image(tmp_path / "tile.png", "green")
    done = run(
        base_install / "pathclip",
        *("classify", tiny_model, picture, "--labels", "red,green,blue", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert image["labels"][0]["name"] == "green"


@pytest.mark.slow
def test_the_base_install_indexes_and_searches(base_install, tmp_path, tiny_model):
    for colour in ("red", "green"):
        write_image(tmp_path / "images" / f"{colour}.png", colour)
    pathclip = base_install / "pathclip"
    assert run(pathclip, "index", tiny_model, "images", "--out", "a.index", cwd=tmp_path).returncode == 0
    done = run(pathclip, "search", "a.index", "a red slide", "-k", 1, cwd=tmp_path)
    assert done.stdout.rstrip().endswith("red.png")


@pytest.mark.slow
def test_the_base_install_names_the_extra_that_training_needs(base_install, tmp_path):
    done = run(base_install / "pathclip", "train", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'pathclip[train]'" in done.stderr
    helped = run(base_install / "pathclip", "train", "--help", cwd=tmp_path)
    assert helped.returncode == 0
    assert "multi_positive" in helped.stdout
