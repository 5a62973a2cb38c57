"""Configurations: defaults are the preset's, unknown and contradictory options are refused."""

from __future__ import annotations

import pytest

from agents.presets import PRESETS
from agents.rllib import CONFIGS, AWRQMixerConfig, QMIXConfig, VDNConfig
from marca_env.errors import InputError

GAME = "benchmarks.games.TwoStepGame"


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_defaults_are_the_presets(name: str) -> None:
    assert CONFIGS[name]().preset() == PRESETS[name]


def test_table_6() -> None:
    config = AWRQMixerConfig()
    assert (config.lr, config.gamma, config.train_batch_size_per_learner, config.epsilon) == (0.01, 0.9, 2048, 0.05)


def test_options_reach_the_preset() -> None:
    config = AWRQMixerConfig().training(gamma=0.5, heads=3, hidden=[8, 4], variance_credit=False)
    options = config.preset().options
    assert (options["gamma"], options["heads"], options["hidden"], options["credit"]) == (0.5, 3, (8, 4), "none")


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'heads'"):
        QMIXConfig().training(head=3)
    with pytest.raises(InputError, match="did you mean 'updates_per_iteration'"):
        QMIXConfig().environment(GAME).update_from_dict({"update_per_iteration": 3}).validate()
    with pytest.raises(InputError, match="neither an environment nor a log"):
        QMIXConfig().validate()
    with pytest.raises(InputError, match="no effect"):
        VDNConfig().environment(GAME).training(mixer_width=8).validate()
    with pytest.raises(InputError, match="buffer_capacity is 0"):
        VDNConfig().environment(GAME).training(buffer_capacity=0).validate()


def test_shapes_come_from_the_environment() -> None:
    config = QMIXConfig().environment(GAME)
    config.validate()
    assert config.team()["agents"] == ("agent_0", "agent_1")
