"""Base class of the configurations: RLlib's ``AlgorithmConfig`` with the options of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.util.debug import log_once

from agents.algorithms.presets import PRESETS, SWITCHES, Preset
from agents.offline.episodes import team_encoder
from agents.rllib.core.checks import check_clipping, check_settings, check_sharing, refuse_unset
from agents.rllib.core.learner import TeamLearner
from agents.rllib.core.offline_log import OfflineLog, check_log_options
from agents.rllib.core.runner import TeamEnvRunner
from agents.rllib.core.seeding import fresh_seed
from agents.rllib.envs.make_env import make_batched
from agents.rllib.modules.team_module import TeamRLModule
from agents.team.team import TeamSpec
from marca_env.utils.errors import InputError, one_line, unknown_option

LEARNING: dict[str, Any] = {
    "epsilon": [[0, 1.0], [50_000, 0.05]],
    "buffer_capacity": 50_000,
    "learning_starts": 256,
    "updates_per_iteration": 10,
    "max_skipped_updates": 20,
    "matmul_precision": "auto",
    "amp": None,
    "compile": "auto",
    "reward_normalization": "step",
    "reward_scale": None,
    "scenario": "default",
    "max_episode_steps": None,
    "team_reward": None,
    "sampling": "arrays",
    "streaming": "auto",
    "memory_limit": None,
    "shuffle_buffer": 131_072,
    "split": None,
    "validation_share": 0.1,
    "test_share": 0.1,
    "split_seed": 0,
}
"""Training options of every algorithm in addition to its preset's, with defaults: see :meth:`TeamConfig.training`."""

RLLIB_OPTIONS = ("gamma", "grad_clip", "grad_clip_by", "lr", "train_batch_size_per_learner")
"""RLlib's own training options that have an effect here."""


class TeamConfig(AlgorithmConfig):
    """Base class of the configurations; a subclass names its preset and may override defaults.

    Batches, the buffer and ``learning_starts`` count whole episodes. Step counts in results are environment steps.
    """

    preset_name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Options of :meth:`training` whose defaults a subclass changes; ``mixer`` is allowed too."""
    algorithm_classes: ClassVar[dict[str, type]] = {}
    """Preset → algorithm class; filled by :mod:`agents.rllib.core.algorithms`."""
    needs_ray: ClassVar[bool] = False
    """Whether ray has to run even if everything is in this process."""
    learns_values: ClassVar[bool] = True
    """Whether the agents' networks return values of actions, which can be weighed against a price."""
    seed: int | None

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or self.algorithm_classes[self.preset_name])
        for name, value in {**self.base_preset().options, **LEARNING}.items():
            setattr(self, name, value)
        for switch in self._switch_names():
            setattr(self, switch, None)
        self._team: dict[str, Any] | None = None
        self.lr = 1e-3
        self.train_batch_size_per_learner = 256
        self.num_envs_per_env_runner = 64
        self.num_env_runners = 0
        self.grad_clip = 10.0
        self.torch_skip_nan_gradients = True  # our learner checks all gradients together
        self.delay_between_env_runner_restarts_s = 0.0
        self.env_runner_cls = TeamEnvRunner
        self.offline_data_class = OfflineLog
        self.evaluation_config = {"explore": False}
        self.training(**self.defaults)

    @classmethod
    def _switch_names(cls) -> tuple[str, ...]:
        return tuple(SWITCHES.get(cls.preset_name, ()))

    @classmethod
    def base_preset(cls) -> Preset:
        """Return the preset whose options the configuration has by default."""
        return PRESETS[cls.preset_name]

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the options that :meth:`training` takes in addition to RLlib's."""
        return (*cls.base_preset().options, *LEARNING, *cls._switch_names())

    def training(self, **options: Any) -> Self:
        """Set options of the algorithm and of its training.

        Args:
            options: options of the preset (see :mod:`agents.algorithms.presets`), RLlib's (``lr``, ``gamma``,
                ``grad_clip``, ``train_batch_size_per_learner`` in episodes, …), and

                epsilon: probability of a random action, a number or ``[[environment step, value], …]``.
                buffer_capacity: maximum number of episodes in the replay buffer.
                learning_starts: episodes collected before the first update.
                updates_per_iteration: gradient steps per iteration.
                max_skipped_updates: updates with a loss or a gradient that is not finite are skipped; the run stops
                    after so many in a row. ``None``: never.
                matmul_precision: precision of float32 matrix products: ``highest``, ``high`` (TF32), ``medium``
                    (bfloat16), or ``auto``: ``high`` on CUDA, ``highest`` elsewhere.
                amp: ``bf16``: networks and mixers multiply in bfloat16, so that gradients are less exact, most of all
                    once the loss is small; ``None``: they do not.
                compile: ``loss``: ``torch.compile`` of the loss, which takes a minute at the start; ``graph``: one CUDA
                    graph of the whole update; ``both``; ``off``; ``auto``: ``graph`` on CUDA. What cannot be compiled
                    or captured runs without it, and one line says so.
                reward_normalization: unit of learning, one of
                    :data:`agents.team.reward_statistics.NORMALIZATIONS`; a running statistic of all rewards so far.
                    Values and errors are reported in currency whatever the unit.
                reward_scale: fixed currency per unit of Q, in place of ``reward_normalization``.
                scenario: scenario of the log, for offline learning.
                max_episode_steps: longest episode, for environments that do not state it.
                team_reward: ``mean`` or ``sum`` of the rewards of all agents, for environments with a reward for each;
                    an agent that has left counts as 0. ``None``: as a public task is reported (the sum in level-based
                    foraging), else the mean. Returns are those of the team.
                sampling: ``arrays``, or ``tensors``: environment, exploration and networks run as tensors on the device
                    of the learner, or on the CPU with remote runners. For requests whose features are categories,
                    without windows, latency limit and noise (:func:`marca_env.tensor_env`).
                streaming: whether Ray Data reads a log during training (``True``) or the log is held in memory
                    (``False``); ``"auto"``: streamed if it would take more than ``memory_limit``.
                memory_limit: bytes that a log may take in memory; ``None``: half of the free memory.
                shuffle_buffer: rows of a streamed log that are shuffled together.
                split: ``hash`` or ``period``: train only on a part of the log (:class:`agents.offline.splits.Split`,
                    with ``validation_share``, ``test_share`` and ``split_seed``); ``None``: train on all of it.

        Raises:
            InputError: an unknown option; the message names the nearest valid one.
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
        """Set options from a dict, as Tune does; −1 is refused for the options of these algorithms."""
        for name in set(self.option_names()) & set(config_dict):
            refuse_unset(name, config_dict[name])
        return super().update_from_dict(config_dict)

    def preset(self) -> Preset:
        """Return the preset with the options of this configuration.

        Raises:
            PresetError: invalid or contradictory options.
        """
        base = self.base_preset()
        changed = {n: getattr(self, n) for n, default in base.options.items() if _differs(getattr(self, n), default)}
        switched = {n: getattr(self, n) for n in self._switch_names() if getattr(self, n) is not None}
        return base.replace(**changed, **switched)

    def team(self) -> dict[str, Any]:
        """Return the shapes of the team (a TeamSpec as a dict), from the environment or the scenario of the log."""
        if self._team is not None:
            return self._team
        joint = self.preset().joint
        if self.env is None:
            return TeamSpec.from_source(team_encoder(self.scenario, joint=joint)).to_dict()
        env = make_batched(
            self.env,
            1,
            self.env_config,
            joint=joint,
            max_steps=self.max_episode_steps,
            team_reward=self.team_reward,
        )
        spec = TeamSpec.from_source(env).to_dict()
        if hasattr(env, "close"):
            env.close()
        return spec

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the spec of the team as an RLModule."""
        model = {"team": self.team(), "preset": self.preset().to_dict()}
        return RLModuleSpec(module_class=TeamRLModule, model_config=model)

    def get_default_learner_class(self) -> type[TeamLearner]:
        """Return the learner class."""
        return TeamLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return {}

    def validate(self) -> None:
        """Check all settings and read the shapes of the team.

        Raises:
            InputError: unknown or contradictory options, or neither an environment nor a log.
        """
        defaults = vars(type(self)())
        for name in vars(self):
            if name not in defaults and name not in _SET_BY_RLLIB:
                valid = [n for n in defaults if not n.startswith("_")]
                raise InputError(f"{type(self).__name__}: {unknown_option('option', name, valid)}")
        self.preset()
        check_settings(self)
        if self.env is None and not self.is_offline:
            raise InputError("neither an environment nor a log: call environment(...) or offline_data(input_=...)")
        if self.is_offline:
            check_log_options(self)
        # Mark RLlib's advice to look at the old API stack as logged already.
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")
        try:
            super().validate()
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{type(self).__name__}: {one_line(error)}") from None
        if not self._is_frozen:
            self._team = self.team()
            check_sharing(self.preset(), self._team)
            if self.seed is None:  # drawn once and saved in checkpoints, so that such a run can be resumed exactly too
                self.seed = fresh_seed()


_SET_BY_RLLIB = ("class", "algo_class", "_is_frozen", "simple_optimizer", "worker_index")


def _differs(value: Any, default: Any) -> bool:
    return (tuple(value) if isinstance(value, list) else value) != default
