"""Configurations have the preset's defaults and refuse unknown and contradictory options."""

from __future__ import annotations

import pytest

from agents.algorithms.presets import PRESETS
from agents.rllib import ALGORITHMS, CONFIGS, AWRQMixerConfig, QMIXConfig, VDNConfig
from marca_env.utils.errors import InputError

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_defaults_are_those_of_the_preset(name: str) -> None:
    assert CONFIGS[name]().preset() == PRESETS[name]


def test_awrq_mixer_has_the_values_of_table_6() -> None:
    config = AWRQMixerConfig()
    assert (config.lr, config.gamma, config.train_batch_size_per_learner, config.epsilon) == (0.01, 0.9, 2048, 0.05)


def test_options_reach_the_preset() -> None:
    config = AWRQMixerConfig().training(gamma=0.5, heads=3, hidden=[8, 4], variance_credit=False)
    options = config.preset().options
    assert (options["gamma"], options["heads"], options["hidden"], options["credit"]) == (0.5, 3, (8, 4), "none")


def test_invalid_options_are_refused() -> None:
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
    with pytest.raises(InputError, match="did you mean 'global_norm'"):
        VDNConfig().environment(GAME).training(grad_clip_by="globalnorm").validate()
    with pytest.raises(InputError, match="momentum has no effect"):
        VDNConfig().environment(GAME).training(momentum=0.9).validate()


@pytest.mark.parametrize("name", ["weight_decay", "target_update", "td_alpha", "updates_per_iteration", "lr"])
def test_minus_one_is_refused_when_it_is_set(name: str) -> None:
    """RLlib treats −1 as unset and would silently use the default."""
    with pytest.raises(InputError, match=f"{name} is -1"):
        QMIXConfig().training(**{name: -1})


def test_minus_one_from_a_search_space_is_refused() -> None:
    with pytest.raises(InputError, match="huber_delta is -1"):
        QMIXConfig().environment(GAME).update_from_dict({"loss": "huber", "huber_delta": -1.0})


def test_every_preset_has_an_algorithm_and_a_configuration() -> None:
    assert set(CONFIGS) == set(ALGORITHMS) == {*PRESETS, "MAPPO"}
    for name, config in CONFIGS.items():
        assert ALGORITHMS[name].__name__ == name
        assert ALGORITHMS[name].get_default_config().preset() == config.base_preset()
        assert config().algo_class is ALGORITHMS[name]


def test_shapes_come_from_the_environment() -> None:
    config = QMIXConfig().environment(GAME)
    config.validate()
    assert config.team()["agents"] == ("agent_0", "agent_1")
