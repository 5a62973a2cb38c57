"""Base class of the algorithms: sample or read episodes, learn from minibatches of them, export policies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from agents.policy.allocation_policy import COSTS, save_team
from agents.rllib.core.cluster import check_resources
from agents.rllib.core.replay import EpisodeBatch, EpisodeBuffer, EpisodeStream
from agents.rllib.core.runner_pool import RunnerPool, raise_runner_error
from agents.rllib.core.team_config import TeamConfig
from agents.rllib.core.tensor_replay import TensorBuffer
from agents.rllib.core.tensor_rollout import sampling_device
from agents.rllib.envs.recorded_env import describe_environment
from agents.team.reward_statistics import RewardStatistics, RewardUnits
from marca_env.models.engine import load_latency_map
from marca_env.scenario.scenario import Scenario

PROGRESS = ("_rounds", "_evaluations", "_learnt_at", "_longest_skip", "_time_total")
"""Attributes of the algorithm that a checkpoint contains."""


class TeamAlgorithm(Algorithm):
    """Base class of the value-decomposition algorithms."""

    config_class: ClassVar[type[TeamConfig]]
    """Configuration of the algorithm; both classes are defined in :mod:`agents.rllib.core.algorithms`."""

    @classmethod
    def get_default_config(cls) -> TeamConfig:
        """Return a new configuration with the preset's defaults."""
        return cls.config_class()

    @staticmethod
    def _get_env_id_and_creator(env_specifier: Any, config: Any) -> Any:
        """Accept plain callables too; the runner builds the environment itself."""
        if callable(env_specifier) or isinstance(env_specifier, str):
            return env_specifier, lambda context: None
        return Algorithm._get_env_id_and_creator(env_specifier, config)

    def setup(self, config: Any) -> None:
        """Build runners, learners and the buffer.

        Raises:
            InputError: ray has too few CPUs or GPUs for the configuration.
            SamplingError: no environment runner could be built.
        """
        check_resources(config)
        self.env_runner_group: Any = None
        self.eval_env_runner_group: Any = None
        try:
            super().setup(config)
        except Exception as error:
            raise_runner_error(error)
            raise
        self._rounds = self._evaluations = self._learnt_at = self._longest_skip = 0
        self._reward_units: RewardUnits | None = None
        groups = (self.env_runner_group, self.eval_env_runner_group)
        self._runner_pools = {id(group): RunnerPool(group) for group in groups if group is not None}
        self.reward_statistics = RewardStatistics()
        if self.offline_data is not None:
            self.buffer = self.offline_data.buffer
            self.reward_statistics = self.buffer.reward_statistics()
        else:
            self.buffer = _make_buffer(self.config)
        self._stream = EpisodeStream(self.buffer)

    def training_step(self) -> None:
        """Sample (unless a log is the source), then take ``updates_per_iteration`` gradient steps.

        Raises:
            SkippedUpdatesError: ``max_skipped_updates`` updates in a row were skipped before.
        """
        self.check_updates()
        if self.offline_data is None:
            self._collect()
            if len(self.buffer) < min(self.config.learning_starts, self.config.buffer_capacity):
                return
        self._set_reward_units()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            self._learn()
        self._end_updates()

    def _end_updates(self) -> None:
        """Note skipped updates, and send the new weights to the runners."""
        self._longest_skip = int(self.metrics.peek((LEARNER_RESULTS, DEFAULT_MODULE_ID, "skipped_in_a_row")))
        if self.env_runner_group is not None:
            with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                # With a zero timeout this sync would be dropped while the previous one is still pending.
                self.env_runner_group.sync_weights(
                    from_worker_or_learner_group=self.learner_group, inference_only=True, timeout_seconds=None
                )

    def check_updates(self) -> None:
        """Stop a run whose learners skip all updates; the iteration in which this happens is reported as usual.

        Raises:
            SkippedUpdatesError: ``max_skipped_updates`` updates in a row were skipped.
        """
        limit = self.config.max_skipped_updates
        if limit is None or self._longest_skip < limit:
            return
        states = [
            answer.get() if hasattr(answer, "get") else answer
            for answer in self.learner_group.foreach_learner(lambda learner: (learner.skipped, learner.gradient_steps))
        ]
        skipped, steps = max(states, key=lambda state: state[0].longest)
        raise skipped.error(limit, steps)

    def _collect(self) -> None:
        """Collect one round of episodes from every runner into the buffer."""
        self._rounds += 1
        steps = self._env_steps()
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            if self.env_runner_group.num_remote_workers():
                rounds = self._runner_pools[id(self.env_runner_group)].sample_round(
                    self._rounds, steps, self.config.sample_timeout_s
                )
            else:
                runner = self.env_runner
                runner.begin_round(self._rounds, env_steps=steps)
                rounds = [(runner.sample(), runner.get_metrics())]
        if not rounds:
            return
        self.metrics.aggregate([metrics for _, metrics in rounds], key=ENV_RUNNER_RESULTS)
        for batches, _ in rounds:
            for batch in batches:
                self.buffer.add(batch.columns)
                self.reward_statistics.update(batch.columns["reward"], batch.columns["filled"])

    def _env_steps(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Send the weights to runners that ray has restarted, without delaying the other runners."""
        if env_runner_group is None or id(env_runner_group) not in self._runner_pools:
            return []
        pool = self._runner_pools[id(env_runner_group)]
        restored = pool.restore_dead(self.config.env_runner_health_probe_timeout_s)
        if restored:
            env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                to_worker_indices=restored,
                inference_only=True,
                timeout_seconds=None,
            )
            if env_runner_group is self.eval_env_runner_group:
                self._announce_evaluation()
        return restored

    def _before_evaluate(self) -> None:
        self._evaluations += 1
        self._announce_evaluation()

    def _announce_evaluation(self) -> None:
        """Tell the runners that an evaluation begins.

        Every evaluation has separate episodes. On a training runner it is greedy and does not affect training.
        """
        group = self.env_runner_group if self.eval_env_runner_group is None else self.eval_env_runner_group
        number, attempt = self._evaluations, self._runner_pools[id(group)].restored
        group.foreach_env_runner(lambda r: r.begin_round(number, attempt=attempt, evaluates=True))

    def _set_reward_units(self) -> None:
        """Send the running units of rewards to all learners, which thus have the same."""
        units = self.reward_statistics.units(self.config.reward_normalization, self.config.reward_scale)
        if units != self._reward_units:
            self.learner_group.foreach_learner(lambda learner: learner.set_reward_units(units))
            self._reward_units = units

    def _learn(self) -> None:
        """Take the gradient steps of one iteration."""
        size, n = self.config.train_batch_size_per_learner, self._updates()
        # On a log, schedules count the episodes that a learner draws.
        steps = self._env_steps() if self.offline_data is None else (self.iteration + 1) * n * size
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}
        if self.learner_group.is_local:
            data = TrainingData(data_iterators=[self._stream])
            results = self.learner_group.update(
                training_data=data, timesteps=timesteps, minibatch_size=size, num_iters=n
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
            self._learnt_at = steps  # a resumed run may have remote learners
            return
        n_agents = 1
        for k in range(n):
            batches = [EpisodeBatch(self.buffer.sample(size), n_agents) for _ in range(len(self.learner_group))]
            # The learning rate follows its schedule after the last step, as in a local learner's single call.
            now = timesteps if k == n - 1 else {NUM_ENV_STEPS_SAMPLED_LIFETIME: self._learnt_at}
            results = self.learner_group.update(training_data=TrainingData(batches=batches), timesteps=now)
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self._learnt_at = steps

    def _updates(self) -> int:
        """Return the gradient steps of an iteration."""
        return self.config.updates_per_iteration

    def cleanup(self) -> None:
        """Release the resources of the algorithm, including readers of a streamed log."""
        super().cleanup()
        if getattr(self, "offline_data", None) is not None:
            self.offline_data.close()

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state with the replay buffer and the progress of the run."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component("buffer", components, not_components):
            state["buffer"] = self.buffer.state(content=self.offline_data is None)
        if components is None:
            state["progress"] = {name: getattr(self, name) for name in PROGRESS}
            state["reward_statistics"] = self.reward_statistics.state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`get_state` returned."""
        super().set_state(state)
        if "buffer" in state:
            self.buffer.set_state(state["buffer"])
        for name, value in state.get("progress", {}).items():
            setattr(self, name, value)
        if "reward_statistics" in state:
            self.reward_statistics.set_state(state["reward_statistics"])
        self._reward_units = None  # send them again

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore as RLlib does, and send the weights to remote runners again, because RLlib may drop them."""
        super().restore_from_path(path, *args, **kwargs)
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.sync_weights(
                    from_worker_or_learner_group=self.learner_group, inference_only=True, timeout_seconds=None
                )

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """Save as RLlib does, and add the folder ``policy/``, which can be used without ray."""
        saved = super().save_to_path(path, **kwargs)
        if kwargs.get("filesystem") is None and Path(saved).is_dir():
            self.export_policy(Path(saved) / "policy")
        return saved

    def export_policy(self, folder: str | Path) -> Path:
        """Write the team for :class:`agents.policy.allocation_policy.AllocationPolicy` and return the folder."""
        weights = self.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"][
            DEFAULT_MODULE_ID
        ]
        preset = self.config.preset()
        part = "target." if preset.objective.policy_weights == "average" else "online."
        decides = {k.removeprefix(part): v for k, v in weights.items() if k.startswith(part)}
        decides = {k: v for k, v in decides.items() if not k.startswith("central.")}  # decisions do not need Q*
        scenario = self._scenario()
        save_team(
            folder,
            tensors=decides,
            preset=preset,
            spec=self.config.team(),
            reward_scale=float(weights["reward_scale"]),
            reward_shift=float(weights["reward_shift"]),
            scenario=None if scenario is None else scenario.to_dict(),
            environment=describe_environment(self.config),
            has_values=self.config.learns_values,
        )
        if scenario is not None and scenario.home is not None:  # a user's cost model is copied into the policy
            shutil.copytree(scenario.home / COSTS, Path(folder) / COSTS, dirs_exist_ok=True)
            if scenario.latency is not None:  # the team observes the service times
                load_latency_map(scenario).save(Path(folder) / COSTS)
        return Path(folder)

    def _scenario(self) -> Scenario | None:
        if self.offline_data is not None:
            return Scenario.load(self.config.scenario)
        runner = self.env_runner
        if runner is not None:
            scenario = getattr(runner.env, "scenario", None)
        else:
            scenarios = self.env_runner_group.foreach_env_runner(
                lambda r: getattr(r.env, "scenario", None), local_env_runner=False
            )
            scenario = scenarios[0] if scenarios else None
        return scenario


def _make_buffer(config: TeamConfig) -> EpisodeBuffer:
    """Return the replay buffer, on the GPU if episodes are sampled there."""
    if config.sampling == "tensors" and sampling_device(config) == "cuda":
        return TensorBuffer(config.buffer_capacity, config.seed, "cuda")
    return EpisodeBuffer(config.buffer_capacity, seed=config.seed)
