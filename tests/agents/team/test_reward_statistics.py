"""Running statistics equal numpy's over all rewards so far; units of learning follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from agents.team.reward_statistics import NORMALIZATIONS, RewardStatistics, RewardUnits


def episodes(seed: int, n: int = 7, steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return rewards (n, steps) with a large mean, and filled steps of different lengths."""
    rng = np.random.default_rng(seed)
    filled = np.arange(steps) < rng.integers(1, steps + 1, n)[:, None]
    return rng.normal(1e3, 0.5, (n, steps)).astype(np.float32), filled


def test_statistics_match_numpy_over_all_batches() -> None:
    statistics, batches = RewardStatistics(), [episodes(seed) for seed in range(4)]
    for reward, filled in batches:
        statistics.update(reward, filled)
    steps = np.concatenate([r[f] for r, f in batches]).astype(float)
    returns = np.concatenate([(r.astype(float) * f).sum(1) for r, f in batches])
    assert statistics.step.count == len(steps)
    assert statistics.step.mean == pytest.approx(steps.mean(), rel=1e-12)
    assert statistics.step.std == pytest.approx(steps.std(), rel=1e-6)
    assert statistics.episode.std == pytest.approx(returns.std(), rel=1e-9)


def test_rewards_outside_of_the_episode_do_not_count() -> None:
    reward, filled = np.array([[1.0, 3.0, 99.0]]), np.array([[True, True, False]])
    statistics = RewardStatistics()
    statistics.update(reward, filled)
    assert (statistics.step.mean, statistics.step.std, statistics.episode.mean) == (2.0, 1.0, 4.0)


def test_a_log_has_the_statistics_of_its_episodes() -> None:
    rewards = np.random.default_rng(0).exponential(size=50).astype(np.float32)
    whole = np.zeros((50, 6), np.float32)
    whole[:, -1] = rewards
    expected = RewardStatistics()
    expected.update(whole, np.ones(whole.shape, bool))
    actual = RewardStatistics.of_last_rewards(rewards, 6)
    for name in ("step", "episode"):
        assert vars(getattr(actual, name)) == pytest.approx(vars(getattr(expected, name)), rel=1e-9)


def test_units_of_each_normalization() -> None:
    statistics = RewardStatistics()
    statistics.update(np.array([[0.0, 4.0], [0.0, 8.0]]), np.ones((2, 2), bool))
    step, episode = float(np.std([0, 4, 0, 8])), 2.0
    units = {name: statistics.units(name) for name in NORMALIZATIONS}
    assert units["step"] == RewardUnits(pytest.approx(step), 0.0, episode)
    assert units["step_mean"] == RewardUnits(pytest.approx(step), 3.0, episode)
    assert units["return"] == RewardUnits(episode, 0.0, episode)
    assert units["none"] == RewardUnits(1.0, 0.0, episode)
    assert statistics.units("step", 7.0) == RewardUnits(7.0, 0.0, episode)


def test_a_constant_reward_is_not_scaled() -> None:
    statistics = RewardStatistics()
    statistics.update(np.full((3, 2), 5.0), np.ones((3, 2), bool))
    assert statistics.units("step") == RewardUnits()
    assert RewardStatistics().units("step_mean") == RewardUnits()


def test_statistics_continue_exactly_from_their_state() -> None:
    whole, resumed = RewardStatistics(), RewardStatistics()
    first, second = episodes(1), episodes(2)
    whole.update(*first)
    resumed.set_state(whole.state())
    for statistics in (whole, resumed):
        statistics.update(*second)
    assert whole.state() == resumed.state()
