from __future__ import annotations

import numpy as np
import pytest

from pathclip.errors import ConfigError
from pathclip.export.quantiser.ranges import Histogram, value_range


def histogram(*batches):
    found = Histogram.empty()
    for batch in batches:
        found.add(np.asarray(batch, np.float32))
    return found


def normal(seed=0, n=100_000):
    return np.random.default_rng(seed).normal(0, 1, n)


def test_min_and_max_are_exact_and_hold_zero():
    assert value_range(histogram([1.5, 3.25], [2.0, 7.75]), "minmax") == (0.0, 7.75)


def test_a_histogram_that_grew_counts_as_one_made_at_once():
    small, large = normal(0), 37 * normal(1)
    grown = histogram(small, large)
    assert grown.counts.sum() == 200_000
    expected = np.quantile(np.concatenate([small, large]), [0.0005, 0.9995])
    np.testing.assert_allclose(value_range(grown, "percentile", 99.9), expected, rtol=0.02)


def test_percentile_cuts_an_outlier_that_min_max_keeps():
    values = np.append(normal(), 1000.0)
    assert value_range(histogram(values), "minmax")[1] == 1000.0
    assert value_range(histogram(values), "percentile", 99.9)[1] < 5


def test_least_squared_error_beats_min_max_on_heavy_tails():
    values = np.random.default_rng(0).laplace(0, 1, 100_000)

    def error(low, high):
        step = (high - low) / 255
        rounded = np.clip(np.round((values - low) / step), 0, 255) * step + low
        return ((rounded - values) ** 2).mean()

    found = histogram(values)
    assert error(*value_range(found, "mse")) < 0.9 * error(*value_range(found, "minmax"))


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="none of minmax"):
        value_range(histogram([1.0]), "maximum")


def test_entropy_clips_a_rare_outlier_and_keeps_what_is_common():
    values = np.append(np.abs(normal()), np.full(3, 60.0))
    low, high = value_range(histogram(values), "entropy")
    assert low == 0.0 and 3.0 < high < 20.0
    assert value_range(histogram(np.random.default_rng(0).uniform(0, 5, 100_000)), "entropy")[1] > 4.5


def test_entropy_chooses_alike_for_a_distribution_and_its_mirror_image():
    values = np.random.default_rng(1).gamma(1.0, 1.0, 100_000)
    low, high = value_range(histogram(values), "entropy"), value_range(histogram(-values), "entropy")
    assert low[1] == pytest.approx(-high[0], rel=0.1)


def test_entropy_does_not_let_the_zeros_of_relu_decide():
    values = np.abs(normal())
    zeros = np.zeros(1_000_000)
    plain = value_range(histogram(values), "entropy")[1]
    assert value_range(histogram(np.concatenate([values, zeros])), "entropy")[1] == pytest.approx(
        plain, rel=0.15
    )
