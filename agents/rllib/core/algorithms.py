"""Every algorithm with its configuration: a pair for each preset of :mod:`agents.algorithms.presets`, and MAPPO."""

from __future__ import annotations

from typing import Any

from agents.rllib.core.mappo import MAPPO
from agents.rllib.core.team_algorithm import TeamAlgorithm
from agents.rllib.core.team_config import TeamConfig


class AveragedDQNConfig(TeamConfig):
    """Averaged Ensemble-DQN of Agarwal et al. (2020): K heads with separate losses and one common Bellman target.

    The target of every head is the mean of the K target values. Averaged-DQN of Anschel et al. (2017), from which they
    derive it, averages the latest K target networks instead. Agarwal et al. use K = 200, the Huber loss and heads that
    share all layers but the last. Here K = 20 as in Table 6, the squared error, which estimates the mean revenue, and
    heads that share nothing unless ``gru`` is set.
    """

    preset_name = "AveragedDQN"


class AveragedDQN(TeamAlgorithm):
    """AveragedDQN as an RLlib algorithm; see :class:`AveragedDQNConfig`."""

    config_class = AveragedDQNConfig


class AWRQMixerConfig(TeamConfig):
    """Adaptive weighting, softplus mixing and variance-guided credit; hyper-parameters of the paper's Table 6.

    Ablations: ``training(adaptive_weighting=False)``, ``softplus_mixer=False``, ``variance_credit=False``.
    """

    preset_name = "AWRQMixer"

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class)
        self.lr = 0.01
        self.epsilon = 0.05
        self.train_batch_size_per_learner = 2048
        self.learning_starts = 2048


class AWRQMixer(TeamAlgorithm):
    """AWRQMixer as an RLlib algorithm; see :class:`AWRQMixerConfig`."""

    config_class = AWRQMixerConfig


class AWRQMixerV2Config(TeamConfig):
    """AWRQ-Mixer without its measured faults.

    The mixer adds the values of the agents that decide and a baseline of the state, and takes a residual away where
    several decide at once. Errors count by advantage, targets are λ-returns, and averaged weights decide. Ablations:
    :data:`agents.algorithms.presets.AWRQ_V2_SWITCHES`.
    """

    preset_name = "AWRQMixerV2"


class AWRQMixerV2(TeamAlgorithm):
    """AWRQMixerV2 as an RLlib algorithm; see :class:`AWRQMixerV2Config`."""

    config_class = AWRQMixerV2Config


class IQLConfig(TeamConfig):
    """Independent Q-learning: every agent learns from the team's reward as if it were alone (Tan, 1993).

    Each agent's value estimates the return of the whole team. An exported policy therefore uses their mean as Q̂_tot:
    ``decide`` compares it with the costs in the same currency, and without prices takes each agent's own argmax.
    """

    preset_name = "IQL"


class IQL(TeamAlgorithm):
    """IQL as an RLlib algorithm; see :class:`IQLConfig`."""

    config_class = IQLConfig


class JointDDQNConfig(TeamConfig):
    """JointDQN with double Q-learning (van Hasselt et al., 2016)."""

    preset_name = "JointDDQN"


class JointDDQN(TeamAlgorithm):
    """JointDDQN as an RLlib algorithm; see :class:`JointDDQNConfig`."""

    config_class = JointDDQNConfig


class JointDQNConfig(TeamConfig):
    """A single feed-forward Q network that takes every decision (Mnih et al., 2015)."""

    preset_name = "JointDQN"


class JointDQN(TeamAlgorithm):
    """JointDQN as an RLlib algorithm; see :class:`JointDQNConfig`."""

    config_class = JointDQNConfig


class JointDRQNConfig(TeamConfig):
    """A single recurrent Q network that takes every decision (Hausknecht and Stone, 2015)."""

    preset_name = "JointDRQN"


class JointDRQN(TeamAlgorithm):
    """JointDRQN as an RLlib algorithm; see :class:`JointDRQNConfig`."""

    config_class = JointDRQNConfig


class QMIXConfig(TeamConfig):
    """Monotonic mixing with absolute hypernetwork weights (Rashid et al., 2018)."""

    preset_name = "QMIX"


class QMIX(TeamAlgorithm):
    """QMIX as an RLlib algorithm; see :class:`QMIXConfig`."""

    config_class = QMIXConfig


class REMConfig(TeamConfig):
    """Random ensemble mixture (Agarwal et al., 2020): every update mixes the K heads with new random weights.

    The weights are uniform draws divided by their sum. K, loss and shared layers are those of
    :class:`AveragedDQNConfig`.
    """

    preset_name = "REM"


class REM(TeamAlgorithm):
    """REM as an RLlib algorithm; see :class:`REMConfig`."""

    config_class = REMConfig


class VDNConfig(TeamConfig):
    """Value decomposition by summing (Sunehag et al., 2018)."""

    preset_name = "VDN"


class VDN(TeamAlgorithm):
    """VDN as an RLlib algorithm; see :class:`VDNConfig`."""

    config_class = VDNConfig


class WeightedQMIXConfig(TeamConfig):
    """QMIX whose TD errors are weighted with an unrestricted Q* (Rashid et al., 2020).

    Options: ``td_weighting`` optimistic (OW, the default) or central (CW), and ``td_alpha``.
    """

    preset_name = "WeightedQMIX"


class WeightedQMIX(TeamAlgorithm):
    """WeightedQMIX as an RLlib algorithm; see :class:`WeightedQMIXConfig`."""

    config_class = WeightedQMIXConfig


ALGORITHMS: dict[str, type[TeamAlgorithm]] = {
    algorithm.config_class.preset_name: algorithm
    for algorithm in (
        AveragedDQN,
        AWRQMixer,
        AWRQMixerV2,
        IQL,
        JointDDQN,
        JointDQN,
        JointDRQN,
        MAPPO,
        QMIX,
        REM,
        VDN,
        WeightedQMIX,
    )
}
"""Name (also with Tune) → algorithm class: the presets and MAPPO."""
CONFIGS: dict[str, type[TeamConfig]] = {name: algorithm.config_class for name, algorithm in ALGORITHMS.items()}
"""Name (also with Tune) → configuration class."""
TeamConfig.algorithm_classes.update(ALGORITHMS)
