"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import pathclip


def modules_with_examples():
    return sorted(
        info.name
        for info in pkgutil.walk_packages(pathclip.__path__, "pathclip.")
        if not info.ispkg and ">>>" in _source(info)
    )


def _source(info):
    return Path(info.module_finder.path, f"{info.name.rpartition('.')[2]}.py").read_text()


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_in_docstrings_are_true(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert not found.failed, f"see the report of doctest above: python -m doctest on {name}"


def test_the_metrics_have_examples():
    assert {"pathclip.evaluate.image_text.retrieval", "pathclip.evaluate.classification.zeroshot"} <= {
        *modules_with_examples()
    }
