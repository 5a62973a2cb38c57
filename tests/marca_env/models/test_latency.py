"""Log-normal durations against samples and closed forms."""

import numpy as np
import pytest

from marca_env.models.latency import Duration, mixture_quantiles


@pytest.fixture
def durations() -> Duration:
    """Return three log-normal durations, the last of them certain."""
    return Duration.from_quantiles(np.array([0.01, 0.2, 0.05]), np.array([0.03, 0.25, 0.05]))


def test_quantiles_come_back(durations: Duration) -> None:
    """Moments keep both quantiles that they were made from."""
    np.testing.assert_allclose(durations.quantile(0.5), [0.01, 0.2, 0.05])
    np.testing.assert_allclose(durations.quantile(0.99), [0.03, 0.25, 0.05])


def test_moments_and_tail_are_those_of_samples(durations: Duration) -> None:
    """Mean, variance, tail and cut-off mean agree with a large sample."""
    first = durations.take(slice(0, 2))
    median = first.quantile(0.5)
    sigma = np.log(first.quantile(0.99) / median) / 2.3263478740408408
    sample = median * np.exp(sigma * np.random.default_rng(0).standard_normal((400_000, 2)))
    np.testing.assert_allclose(first.mean, sample.mean(axis=0), rtol=5e-3)
    np.testing.assert_allclose(first.variance, sample.var(axis=0), rtol=3e-2)
    for limit in (0.008, 0.015, 0.21):
        np.testing.assert_allclose(first.share_above(limit), (sample > limit).mean(axis=0), atol=3e-3)
        np.testing.assert_allclose(first.mean_up_to(limit), np.minimum(sample, limit).mean(axis=0), rtol=5e-3)


def test_certain_durations_are_late_or_not(durations: Duration) -> None:
    """Without variance the probability is 0 or 1, and the cut-off mean the smaller of both."""
    certain = durations.take(slice(2, 3))
    assert certain.share_above(0.049) == 1.0
    assert certain.share_above(0.051) == 0.0
    assert certain.mean_up_to(0.04) == 0.04
    assert certain.mean_up_to(0.06) == 0.05


def test_a_sum_without_a_part_is_the_other_part(durations: Duration) -> None:
    """Subtraction undoes addition, and never gives a negative time."""
    total = durations + Duration(np.full(3, 0.1), np.full(3, 1e-3))
    rest = total.without(Duration(np.full(3, 0.1), np.full(3, 1e-3)))
    np.testing.assert_allclose(rest.mean, durations.mean)
    np.testing.assert_allclose(rest.variance, durations.variance, atol=1e-12)
    nothing = durations.without(total)
    np.testing.assert_array_equal(nothing.mean, 0.0)
    np.testing.assert_array_equal(nothing.variance, 0.0)
    np.testing.assert_array_equal(nothing.quantile(0.99), 0.0)


def test_mixture_quantiles_are_those_of_a_sample(durations: Duration) -> None:
    """Weights count, and kinds without weight do not."""
    weights = np.array([3.0, 0.0, 1.0])
    p50, p90 = mixture_quantiles(durations, weights, (0.5, 0.9))
    rng = np.random.default_rng(1)
    sigma = np.log(3.0) / 2.3263478740408408
    sample = np.where(rng.random(400_000) < 0.75, 0.01 * np.exp(sigma * rng.standard_normal(400_000)), 0.05)
    np.testing.assert_allclose(p50, np.quantile(sample, 0.5), rtol=1e-2)
    assert p90 == pytest.approx(0.05, rel=1e-6)
