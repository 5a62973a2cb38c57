"""The algorithms: sample or read episodes, learn from minibatches of them, export what serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from agents.rllib.replay import EpisodeBatch, EpisodeBuffer, EpisodeStream
from marca_env.errors import InputError

EMPTY_ROUNDS = 5
"""Rounds without a sample after which training gives up."""


class TeamAlgorithm(Algorithm):
    """Base of the value-decomposition algorithms."""

    preset_name: str

    @classmethod
    def get_default_config(cls) -> Any:
        from agents.rllib.config import CONFIGS

        return CONFIGS[cls.preset_name]()

    @staticmethod
    def _get_env_id_and_creator(env_specifier: Any, config: Any) -> Any:
        """Also takes plain callables; our runner builds the environment by itself."""
        if callable(env_specifier) or isinstance(env_specifier, str):
            return env_specifier, lambda context: None
        return Algorithm._get_env_id_and_creator(env_specifier, config)

    def setup(self, config: Any) -> None:
        _check_resources(config)
        super().setup(config)
        self._empty_rounds, self._scaled = 0, False
        if self.offline_data is not None:
            self.buffer = self.offline_data.buffer
        else:
            self.buffer = EpisodeBuffer(self.config.buffer_capacity, seed=self.config.seed)
        self._stream = EpisodeStream(self.buffer)

    def training_step(self) -> None:
        """Sample (unless a log is the source), then take ``updates_per_iteration`` gradient steps."""
        if self.offline_data is None:
            self._collect()
            if len(self.buffer) < min(self.config.learning_starts, self.config.buffer_capacity):
                return
        if not self._scaled:
            self._set_reward_scale()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            self._learn()
        if self.offline_data is None or self.config.evaluation_interval:
            with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                # A zero timeout would drop this sync while the last one is unfetched.
                self.env_runner_group.sync_weights(
                    from_worker_or_learner_group=self.learner_group, inference_only=True, timeout_seconds=None
                )

    def _collect(self) -> None:
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rounds, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                concat=False,
                sample_timeout_s=self.config.sample_timeout_s,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
        self._empty_rounds = 0 if rounds else self._empty_rounds + 1
        if self._empty_rounds >= EMPTY_ROUNDS:
            raise RuntimeError(
                f"no environment runner returned a sample {EMPTY_ROUNDS} times in a row; "
                "look for their errors in the log, and check that the environment can be built there"
            )
        if not rounds:
            return
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        for batches in rounds:
            for batch in batches:
                self.buffer.add(batch.columns)

    def _set_reward_scale(self) -> None:
        """Tell the learners once; a restored learner keeps the scale that its values were learnt with."""
        scale = self.config.reward_scale or self.buffer.return_scale() or 1.0
        self.learner_group.foreach_learner(lambda learner: learner.set_reward_scale(scale))
        self._scaled = True

    def _learn(self) -> None:
        size, n = self.config.train_batch_size_per_learner, self.config.updates_per_iteration
        if self.offline_data is None:
            steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        else:  # nothing is sampled: schedules count the episodes drawn from the log
            steps = (self.iteration + 1) * n * size
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}
        if self.learner_group.is_local:
            data = TrainingData(data_iterators=[self._stream])
            results = self.learner_group.update(
                training_data=data, timesteps=timesteps, minibatch_size=size, num_iters=n
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
            return
        n_agents = 1
        for _ in range(n):
            batches = [EpisodeBatch(self.buffer.sample(size), n_agents) for _ in range(len(self.learner_group))]
            results = self.learner_group.update(training_data=TrainingData(batches=batches), timesteps=timesteps)
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def cleanup(self) -> None:
        super().cleanup()
        if getattr(self, "offline_data", None) is not None:
            self.offline_data.close()

    # -- checkpoints ---------------------------------------------------------------------------------------
    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component("buffer", components, not_components):
            state["buffer"] = self.buffer.state(content=self.offline_data is None)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if "buffer" in state:
            self.buffer.set_state(state["buffer"])

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """As RLlib's, with the folder ``policy/`` beside it, which serves without ray."""
        saved = super().save_to_path(path, **kwargs)
        if kwargs.get("filesystem") is None and Path(saved).is_dir():
            self.export_policy(Path(saved) / "policy")
        return saved

    def export_policy(self, folder: str | Path) -> Path:
        """Write the team for :class:`agents.policy.AllocationPolicy`; returns the folder."""
        from agents.policy import save_team

        weights = self.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"][
            DEFAULT_MODULE_ID
        ]
        online = {k.removeprefix("online."): v for k, v in weights.items() if k.startswith("online.")}
        save_team(
            folder,
            tensors=online,
            preset=self.config.preset(),
            spec=self.config.team(),
            reward_scale=float(weights["reward_scale"]),
            scenario=self._scenario(),
        )
        return Path(folder)

    def _scenario(self) -> dict[str, Any] | None:
        if self.offline_data is not None:
            from marca_env.scenario import Scenario

            return Scenario.load(self.config.scenario).to_dict()
        runner = self.env_runner
        if runner is not None:
            scenario = getattr(runner.env, "scenario", None)
        else:
            found = self.env_runner_group.foreach_env_runner(
                lambda r: getattr(r.env, "scenario", None), local_env_runner=False
            )
            scenario = found[0] if found else None
        return None if scenario is None else scenario.to_dict()


def _check_resources(config: Any) -> None:
    """Refuse what RLlib would wait for without a word: more actors than ray can ever hold."""
    import ray

    wanted = config.num_env_runners * config.num_cpus_per_env_runner
    if isinstance(config.num_cpus_per_learner, (int, float)):
        wanted += config.num_learners * config.num_cpus_per_learner
    held = ray.cluster_resources().get("CPU", 0) if ray.is_initialized() else wanted
    if wanted > held:
        raise InputError(
            f"{config.num_env_runners} environment runners and {config.num_learners} learners need {wanted:g} CPUs "
            f"but ray has {held:g}; lower num_env_runners or num_learners, or start ray with more"
        )


class AWRQMixer(TeamAlgorithm):
    preset_name = "AWRQMixer"


class QMIX(TeamAlgorithm):
    preset_name = "QMIX"


class VDN(TeamAlgorithm):
    preset_name = "VDN"


class JointDRQN(TeamAlgorithm):
    preset_name = "JointDRQN"
