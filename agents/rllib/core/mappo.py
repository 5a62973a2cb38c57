"""MAPPO: proximal policy optimisation of a team, with one value network on the state (Yu et al., 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import LEARNER_UPDATE_TIMER, TIMERS

from agents.algorithms.options import MixerOptions, NetworkOptions, ObjectiveOptions
from agents.algorithms.presets import Preset
from agents.rllib.core.on_policy import PolicyLearner, PolicyRunner, RoundBuffer
from agents.rllib.core.replay import EpisodeStream
from agents.rllib.core.team_algorithm import TeamAlgorithm
from agents.rllib.core.team_config import LEARNING, TeamConfig
from agents.rllib.modules.actor_critic_module import ActorCriticModule
from agents.team.ppo_losses import PPOSettings
from marca_env.utils.errors import InputError, shown


@dataclass(frozen=True)
class MAPPOSettings(PPOSettings):
    """Options of MAPPO beside those of its networks and of every training."""

    num_epochs: int = 5
    """Passes through the episodes of a round."""
    critic_hidden: tuple[int, ...] = (64, 64)
    """Widths of the value network's hidden layers."""


POLICIES = Preset(
    "MAPPO",
    network=NetworkOptions(initializer="torch"),
    mixer=MixerOptions(mixer="none"),
    objective=ObjectiveOptions(agent_loss=1.0, double_q=False),
)
"""The policies' networks; what of a preset's objective concerns values has no effect."""
NETWORK_OPTIONS = ("gru", "hidden", "activation", "leaky_slope", "initializer", "share_parameters", "gamma")
"""Options of a preset that MAPPO has, too."""
LEARNING_OPTIONS = (
    "max_skipped_updates",
    "matmul_precision",
    "reward_normalization",
    "reward_scale",
    "max_episode_steps",
    "team_reward",
)
"""Options of every algorithm's training that MAPPO has, too."""
PPO_OPTIONS: dict[str, Any] = asdict(MAPPOSettings())
"""Options of MAPPO's own, with defaults; the names are RLlib's where it has them."""
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lambda_": (lambda x: 0 <= x <= 1, "in [0, 1]"),
    "clip_param": (lambda x: x > 0, "positive"),
    "entropy_coeff": (lambda x: x >= 0, "not negative"),
    "vf_loss_coeff": (lambda x: x >= 0, "not negative"),
    "vf_clip_param": (lambda x: x > 0, "positive"),
}


class MAPPOConfig(TeamConfig):
    """Policies on the agents' own observations, trained with the advantage of one value network on the state (PPO).

    An iteration plays one round of ``num_envs_per_env_runner`` episodes on each runner and learns from them in
    ``num_epochs`` passes, with ``train_batch_size_per_learner`` episodes in a minibatch. Actions that a mask forbids
    have no probability; steps at which an agent only waits are not learnt from.
    """

    preset_name = "MAPPO"
    learns_values = False

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class)
        for name, value in PPO_OPTIONS.items():
            setattr(self, name, value)
        self.lr = 5e-4
        self.train_batch_size_per_learner = 16
        self.env_runner_cls = PolicyRunner
        self.training(**self.defaults)

    @classmethod
    def base_preset(cls) -> Preset:
        """Return the networks of the policies as a preset."""
        return POLICIES

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the options that :meth:`training` takes in addition to RLlib's."""
        return (*NETWORK_OPTIONS, *LEARNING_OPTIONS, *PPO_OPTIONS)

    def training(self, **options: Any) -> Any:
        """Set options of the algorithm and of its training.

        Args:
            options: ``gru``, ``hidden``, ``activation``, ``leaky_slope``, ``initializer`` and ``share_parameters`` of
                the policies' networks; ``gamma``; the training options of :meth:`TeamConfig.training` that concern
                rewards and skipped updates; RLlib's ``lr``, ``grad_clip``, ``grad_clip_by`` and
                ``train_batch_size_per_learner`` (episodes of a minibatch); and

                lambda_: λ of the generalised advantage estimate.
                clip_param: largest change of the probability ratio that pays.
                entropy_coeff: coefficient of the policies' entropy.
                vf_loss_coeff: coefficient of the value's loss.
                vf_clip_param: largest squared error of the value that counts, in variances of the returns.
                num_epochs: passes through the episodes of a round.
                critic_hidden: widths of the value network's hidden layers.

        Raises:
            InputError: an unknown option; the message names the nearest valid one.
        """
        if isinstance(options.get("critic_hidden"), list):
            options["critic_hidden"] = tuple(options["critic_hidden"])
        return super().training(**options)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the spec of the policies and the value network as an RLModule."""
        model = {
            "team": self.team(),
            "preset": self.preset().to_dict(),
            "critic_hidden": self.critic_hidden,
            "settings": {f.name: getattr(self, f.name) for f in fields(PPOSettings)},
        }
        return RLModuleSpec(module_class=ActorCriticModule, model_config=model)

    def get_default_learner_class(self) -> type[PolicyLearner]:
        """Return the learner class."""
        return PolicyLearner

    def validate(self) -> None:
        """Check all settings and read the shapes of the team.

        Raises:
            InputError: unknown or invalid options, options without effect, or a log.
        """
        for name, (is_valid, text) in _RULES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_valid(value):
                raise InputError(f"MAPPO: {name} is {shown(value)}; it must be {text}")
        if isinstance(self.num_epochs, bool) or not isinstance(self.num_epochs, int) or self.num_epochs < 1:
            raise InputError(f"MAPPO: num_epochs is {shown(self.num_epochs)}; it must be a whole number of at least 1")
        widths = self.critic_hidden
        if not isinstance(widths, tuple) or not all(isinstance(w, int) and w >= 1 for w in widths):
            raise InputError(f"MAPPO: critic_hidden is {shown(widths)}; it must be a list of layer widths")
        valid = self.option_names()
        for name, value in {**POLICIES.options, **LEARNING}.items():
            if name not in valid and getattr(self, name) != value:
                raise InputError(f"MAPPO: {name} has no effect; remove it")
        if self.is_offline:
            raise InputError("MAPPO learns from its own policies, not from a log; choose a preset, such as QMIX")
        super().validate()


class MAPPO(TeamAlgorithm):
    """MAPPO as an RLlib algorithm; see :class:`MAPPOConfig`."""

    config_class = MAPPOConfig

    def setup(self, config: Any) -> None:
        """Build runners, learners and the buffer of a round."""
        super().setup(config)
        self.buffer = RoundBuffer(seed=self.config.seed)
        self._stream = EpisodeStream(self.buffer)

    def training_step(self) -> None:
        """Play a round and learn from it.

        Raises:
            SkippedUpdatesError: ``max_skipped_updates`` updates in a row were skipped before.
        """
        self.check_updates()
        self.buffer.clear()
        self._collect()
        if not len(self.buffer):
            return
        self._set_reward_units()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            columns = self.buffer.columns
            answers = list(self.learner_group.foreach_learner(lambda learner: learner.annotate(columns)))
            first = answers[0]
            self.buffer.annotate(first.get() if hasattr(first, "get") and not isinstance(first, dict) else first)
            self._learn()
        self._end_updates()
        self.buffer.clear()  # checkpoints need no episodes

    def _updates(self) -> int:
        episodes = self.config.num_envs_per_env_runner * max(1, self.config.num_env_runners)
        per_epoch = episodes / (self.config.train_batch_size_per_learner * max(1, self.config.num_learners))
        return max(1, round(self.config.num_epochs * max(1, int(per_epoch))))
