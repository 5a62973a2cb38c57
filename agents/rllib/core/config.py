"""Configurations: RLlib's AlgorithmConfig with the options of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.util.debug import log_once

from agents.algorithms.presets import PRESETS, SWITCHES, Preset
from agents.offline.episodes import team_encoder
from agents.rllib.core.seeding import fresh_seed
from agents.rllib.core.settings import check_clipping, check_settings, check_sharing, refuse_unset
from agents.team.team import TeamSpec
from marca_env.utils.errors import InputError, one_line, unknown_option

LEARNING = {
    "epsilon": [[0, 1.0], [50_000, 0.05]],
    "buffer_capacity": 50_000,
    "learning_starts": 256,
    "updates_per_iteration": 10,
    "reward_scale": None,
    "scenario": "default",
    "max_episode_steps": None,
    "streaming": "auto",
    "memory_limit": None,
    "shuffle_buffer": 131_072,
    "split": None,
    "validation_share": 0.1,
    "test_share": 0.1,
    "split_seed": 0,
}
"""Options of every algorithm beside its preset's: see :meth:`TeamConfig.training`."""

RLLIB_OPTIONS = ("gamma", "grad_clip", "grad_clip_by", "lr", "train_batch_size_per_learner")
"""RLlib's own training options that have an effect here."""


class TeamConfig(AlgorithmConfig):
    """Base of the value-decomposition algorithms; a subclass names its preset and overrides defaults.

    Batches, the buffer and ``learning_starts`` count whole episodes; step counts in results are environment steps.
    """

    preset_name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    """What a subclass changes: options of :meth:`training`, ``mixer`` among them."""
    seed: int | None

    def __init__(self, algo_class: Any = None) -> None:
        from agents.rllib.core import algorithm

        super().__init__(algo_class=algo_class or getattr(algorithm, self.preset_name))
        for name, value in {**PRESETS[self.preset_name].options, **LEARNING}.items():
            setattr(self, name, value)
        for switch in self._switch_names():
            setattr(self, switch, None)
        self._team: dict[str, Any] | None = None
        self.lr = 1e-3
        self.train_batch_size_per_learner = 256
        self.num_envs_per_env_runner = 64
        self.num_env_runners = 0
        self.grad_clip = 10.0
        self.torch_skip_nan_gradients = True  # our learner looks at all of them at once
        self.delay_between_env_runner_restarts_s = 0.0
        self._set_offline_defaults()
        self.training(**self.defaults)

    def _set_offline_defaults(self) -> None:
        from agents.rllib.core.offline import LogEpisodes
        from agents.rllib.core.runner import TeamEnvRunner

        self.env_runner_cls = TeamEnvRunner
        self.offline_data_class = LogEpisodes
        self.evaluation_config = {"explore": False}

    @classmethod
    def _switch_names(cls) -> tuple[str, ...]:
        return SWITCHES if cls.preset_name == "AWRQMixer" else ()

    # -- options -------------------------------------------------------------------------------------------
    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Options that :meth:`training` takes beside RLlib's."""
        return (*PRESETS[cls.preset_name].options, *LEARNING, *cls._switch_names())

    def training(self, **options: Any) -> Self:
        """Set options of the algorithm and of its training.

        Args:
            options: those of the preset (see :mod:`agents.algorithms.presets`), RLlib's (``lr``, ``gamma``, ``grad_clip``,
                ``train_batch_size_per_learner`` in episodes, …), and

                epsilon: chance of a random action, a number or ``[[environment step, value], …]``.
                buffer_capacity: episodes kept.
                learning_starts: episodes collected before the first update.
                updates_per_iteration: gradient steps per iteration.
                reward_scale: currency per unit of Q; ``None``: the standard deviation of the first returns seen.
                scenario: of the log, for offline learning.
                max_episode_steps: for environments that do not say.
                streaming: whether a log is read by Ray Data in the course of the training (``True``) or held in memory
                    (``False``); ``"auto"``: streamed if it would take more than ``memory_limit``.
                memory_limit: bytes that a log may take in memory; ``None``: half of what is free.
                shuffle_buffer: rows of a streamed log that are shuffled together.
                split: ``hash`` or ``period``: train on a part of the log only (:class:`agents.offline.splits.Split`, with
                    ``validation_share``, ``test_share`` and ``split_seed``); ``None``: on all of it.

        Raises:
            InputError: an unknown option, naming the nearest valid one.
        """
        own = set(self.option_names()) - {"gamma"}
        for name, value in options.items():
            refuse_unset(name, value)
        for name in [n for n in options if n in own]:
            value = options.pop(name)
            setattr(self, name, tuple(value) if name == "hidden" and isinstance(value, list) else value)
        for name in options:
            if name not in RLLIB_OPTIONS:
                raise InputError(unknown_option("option", name, (*own, *RLLIB_OPTIONS)))
        check_clipping(options.get("grad_clip_by", self.grad_clip_by))
        return super().training(**options)

    def update_from_dict(self, config_dict: dict[str, Any]) -> Self:
        """Set options from a dict, as Tune does; −1 is refused for our own."""
        for name in set(self.option_names()) & set(config_dict):
            refuse_unset(name, config_dict[name])
        return super().update_from_dict(config_dict)

    def preset(self) -> Preset:
        """The preset with the options of this configuration.

        Raises:
            PresetError: options that contradict each other.
        """
        base = PRESETS[self.preset_name]
        changed = {n: getattr(self, n) for n, default in base.options.items() if _differs(getattr(self, n), default)}
        switched = {n: getattr(self, n) for n in self._switch_names() if getattr(self, n) is not None}
        return base.replace(**changed, **switched)

    def team(self) -> dict[str, Any]:
        """Shapes of the team (a TeamSpec as a dict), from the environment, else from the scenario of the log."""
        if self._team is not None:
            return self._team
        joint = self.preset().joint
        if self.env is None:
            return TeamSpec.of(team_encoder(self.scenario, joint=joint)).to_dict()
        from agents.rllib.envs.make_env import make_batched

        env = make_batched(self.env, 1, self.env_config, joint=joint, max_steps=self.max_episode_steps)
        spec = TeamSpec.of(env).to_dict()
        if hasattr(env, "close"):
            env.close()
        return spec

    # -- RLlib ---------------------------------------------------------------------------------------------
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from agents.rllib.modules.team_module import TeamRLModule

        model = {"team": self.team(), "preset": self.preset().to_dict()}
        return RLModuleSpec(module_class=TeamRLModule, model_config=model)

    def get_default_learner_class(self) -> Any:
        from agents.rllib.core.learner import TeamLearner

        return TeamLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return {}

    def validate(self) -> None:
        """Check all settings, and learn the shapes of the team.

        Raises:
            InputError: unknown or contradictory options, or neither an environment nor a log.
        """
        known = vars(type(self)())
        for name in vars(self):
            if name not in known and name not in _LATER:
                valid = [n for n in known if not n.startswith("_")]
                raise InputError(f"{type(self).__name__}: {unknown_option('option', name, valid)}")
        self.preset()
        check_settings(self)
        if self.env is None and not self.is_offline:
            raise InputError("neither an environment nor a log: call environment(...) or offline_data(input_=...)")
        if self.is_offline:
            from agents.rllib.core.offline import check_log_options

            check_log_options(self)
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")  # RLlib's advice to look at the old stack: no use here
        try:
            super().validate()
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{type(self).__name__}: {one_line(error)}") from None
        if not self._is_frozen:
            self._team = self.team()
            check_sharing(self.preset(), self._team)
            if self.seed is None:  # drawn once and kept in checkpoints: a run without a seed can be resumed exactly too
                self.seed = fresh_seed()


_LATER = ("class", "algo_class", "_is_frozen", "simple_optimizer", "worker_index")


def _differs(value: Any, default: Any) -> bool:
    return (tuple(value) if isinstance(value, list) else value) != default


class VDNConfig(TeamConfig):
    """Value decomposition by summing."""

    preset_name = "VDN"


class QMIXConfig(TeamConfig):
    """Monotonic mixing with absolute hypernetwork weights."""

    preset_name = "QMIX"


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


class WeightedQMIXConfig(TeamConfig):
    """QMIX whose errors are weighted by an unrestricted Q* (Rashid et al., 2020): ``td_weighting`` optimistic (OW,
    the default) or central (CW), ``td_alpha``."""

    preset_name = "WeightedQMIX"


class IQLConfig(TeamConfig):
    """Independent Q-learning: every agent learns from the team's reward as if it were alone (Tan, 1993).

    Each agent's value estimates the return of the whole team, so that an exported policy takes their mean for Q̂_tot:
    ``decide`` weighs it against the costs in the same currency, and without prices takes each agent's own argmax.
    """

    preset_name = "IQL"


class JointDQNConfig(TeamConfig):
    """A single feed-forward Q network that takes every decision (Mnih et al., 2015)."""

    preset_name = "JointDQN"


class JointDDQNConfig(TeamConfig):
    """JointDQN with double Q-learning (van Hasselt et al., 2016)."""

    preset_name = "JointDDQN"


class JointDRQNConfig(TeamConfig):
    """A single recurrent Q network that takes every decision (Hausknecht and Stone, 2015)."""

    preset_name = "JointDRQN"


class AveragedDQNConfig(TeamConfig):
    """Averaged Ensemble-DQN of Agarwal et al. (2020): K heads, each with a loss of its own, and the mean of the K
    target values as the Bellman target of all.

    Averaged-DQN of Anschel et al. (2017), from which they derive it, averages the latest K target networks instead.
    Agarwal et al. take K = 200, the Huber loss and heads that share all layers but the last; here K = 20 as in Table 6,
    the squared error, which estimates the mean revenue, and heads that share nothing unless ``gru`` is set.
    """

    preset_name = "AveragedDQN"


class REMConfig(TeamConfig):
    """Random ensemble mixture (Agarwal et al., 2020): every update mixes the K heads with new convex weights, uniform
    draws divided by their sum. K, loss and shared layers as for :class:`AveragedDQNConfig`."""

    preset_name = "REM"


CONFIGS: dict[str, type[TeamConfig]] = {
    c.preset_name: c for c in sorted(TeamConfig.__subclasses__(), key=lambda c: c.preset_name.lower())
}
"""Tune name → configuration."""
