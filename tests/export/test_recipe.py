from __future__ import annotations

import pytest

from pathclip.config import build
from pathclip.errors import ConfigError
from pathclip.export.quantiser.recipe import Recipe
from pathclip.launch import compose


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("calibration", "maximum"),
        ("quantizer", "torch"),
        ("rounding", "up"),
        ("weight_bits", 4),
        ("percentile", 20.0),
        ("smoothing", 1.0),
        ("operators", ("Softmax",)),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_key(key, value):
    with pytest.raises(ConfigError, match=f"recipe.{key}: "):
        Recipe(**{key: value})


@pytest.mark.parametrize("change", [{"calibration": "entropy"}, {"rounding": "adaround"}])
def test_what_nncf_lacks_is_refused(change):
    with pytest.raises(ConfigError, match="nncf has none"):
        Recipe(quantizer="nncf", **change)


def test_the_default_config_is_the_default_of_the_code():
    assert build(compose("export", []).recipe, "recipe") == Recipe(keep_fp32=["stem"])


@pytest.mark.parametrize("name", ["default", "naive", "nncf", "adaround"])
def test_every_recipe_of_the_configs_builds(name):
    assert isinstance(build(compose("export", [f"recipe={name}"]).recipe, "recipe"), Recipe)


def test_the_description_names_what_was_done():
    words = Recipe(equalisation=True, rounding="adaround", calibration="percentile").describe()
    assert words == "percentile 99.99, 7-bit weights, smoothing 0.7, equalisation, AdaRound, bias correction"
    assert Recipe(quantizer="nncf").describe().endswith("by nncf")
