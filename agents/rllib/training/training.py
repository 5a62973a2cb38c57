"""Training runs: build or resume an algorithm, iterate until a stopping criterion is met, save checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agents.algorithms.presets import PRESETS, algorithm_name
from agents.policy.checkpoints import remove_leftovers, require_no_checkpoints
from agents.rllib.core.algorithms import CONFIGS
from agents.rllib.core.cluster import check_resources, start_ray_for
from agents.rllib.core.team_algorithm import TeamAlgorithm
from agents.rllib.envs.honest_runner import raise_reported_fault
from agents.rllib.training.algorithm_checkpoints import restore_run, save_checkpoint
from agents.rllib.training.interrupts import deferred_interrupts
from agents.rllib.training.metrics import LEARNT, TEAM_REWARD, flatten, summary
from agents.rllib.training.run_settings import RunSettings, remembered_settings
from agents.rllib.training.stopping import STOPS, check_reported, check_stop, stop_reached
from agents.rllib.training.team_return import team_return
from agents.team.team import TeamSpec
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, WriteError, unknown_option
from marca_env.utils.files import lock_output

Report = Callable[[dict[str, Any]], None]
"""Function that is called after each iteration with its metrics."""
Evaluate = Callable[[Any], Mapping[str, float]]
"""Function ``algorithm → metrics`` whose result is added to the iteration's metrics."""
BATCH, UPDATES = 512, 50
"""Episodes per gradient step and gradient steps per iteration of the small runs."""


@checked_arguments
def train(
    config: Any,
    *,
    stop: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    checkpoint_freq: int | None = None,
    report: Report | None = None,
    record: Report | None = None,
    evaluate: Evaluate | None = None,
    evaluate_freq: int | None = None,
    keep: int | None = None,
    placement: Mapping[str, Any] | None = None,
    begin: Callable[[Any], None] | None = None,
    trust: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Run an algorithm until a stopping criterion is met.

    ``stop``, ``checkpoint_freq``, ``evaluate_freq`` and ``keep`` are saved with the run. A resumed run uses the saved
    value of each that is not given; a given one replaces it.

    Args:
        config: a :class:`agents.rllib.TeamConfig` or any RLlib configuration; ignored if ``resume`` is set.
        stop: metric → limit; the run ends when the first limit is reached: see
            :func:`agents.rllib.training.stopping.check_stop`. Limits count the whole run, including the part before
            ``resume``. If a limit is already reached, nothing is done; with a raised limit the run continues.
        out: folder of the checkpoints; the last checkpoint is always written, also after Ctrl-C, when the data of an
            environment are wrong, when all environment runners have failed, and when too many updates were skipped.
        resume: a checkpoint to continue from, or the folder of a run (its newest intact checkpoint). The run continues
            as if it had not been interrupted, exactly so with at most one learner and as many runners as before.
        checkpoint_freq: iterations between checkpoints; 0: only the last one.
        report: called after each iteration with the main metrics of :func:`agents.rllib.training.metrics.summary`.
        record: called after each iteration with all metrics that are numbers, including those of ``report``.
        evaluate: called with the algorithm every ``evaluate_freq`` iterations and after the last; its metrics are
            added to the iteration's.
        evaluate_freq: iterations between evaluations; 0: only after the last iteration.
        keep: number of newest checkpoints to keep; ``None``: all. Each contains the replay buffer
            (:class:`agents.rllib.core.replay.EpisodeBuffer` states its size).
        placement: with ``resume``, other numbers of processes or GPUs than the checkpoint's: see
            :func:`agents.rllib.training.placement.place`.
        begin: called with the algorithm before the first iteration.
        trust: with ``resume``, load a checkpoint that this user did not write. Loading executes the code in its
            pickles, so trust its author.

    Returns:
        The algorithm, which the caller has to stop, and the main metrics of the last iteration.

    Raises:
        InputError: an unknown or unreachable stopping criterion, a missing or damaged checkpoint, one that may be
            somebody else's, a checkpoint of an earlier run in ``out``, or another process that writes to ``out``.
        SamplingError: no environment runner works any more.
        SkippedUpdatesError: too many updates in a row had a loss or a gradient that is not finite.
    """
    settings = RunSettings() if resume is None else remembered_settings(resume)
    settings = settings.replace(stop=stop, checkpoint_freq=checkpoint_freq, evaluate_freq=evaluate_freq, keep=keep)
    stop, keep = settings.stop, settings.keep
    if keep is not None and (not isinstance(keep, int) or keep < 1):
        raise InputError(f"keep is {keep!r}; use a whole number of checkpoints of at least one, or None for all")
    evaluates = evaluate is not None and settings.evaluate_freq > 0
    check_stop(stop, None if resume is not None else config, evaluates=evaluates)
    if placement and resume is None:
        raise InputError("placement changes a resumed run; set these options in the configuration of a new one")
    with nullcontext() if out is None else lock_output(out):
        algorithm, metrics, saved = _start_or_resume(config, out, resume, placement, trust)
        run = _Run(algorithm, settings, None if out is None else Path(out), metrics, saved, report, record, evaluate)
        try:
            check_stop(stop, algorithm.config, evaluates=evaluates)
            if out is not None and not stop_reached(metrics, stop):
                settings.write(out)
            run.complete(begin)
        except BaseException:
            algorithm.stop()
            raise
        return algorithm, run.main_metrics


class _Run:
    """A run in progress: its latest metrics, and whether a checkpoint contains its state."""

    def __init__(
        self,
        algorithm: Any,
        settings: RunSettings,
        out: Path | None,
        metrics: dict[str, Any],
        saved: bool,
        report: Report | None,
        record: Report | None,
        evaluate: Evaluate | None,
    ) -> None:
        self.algorithm, self.settings, self.out = algorithm, settings, out
        self.metrics, self.saved = metrics, saved
        self.report, self.record, self.evaluate = report, record, evaluate
        self.team = team_return(algorithm)
        self.main_metrics = {name: value for name, value in metrics.items() if name in (*STOPS, *LEARNT)}

    def complete(self, begin: Callable[[Any], None] | None) -> None:
        """Iterate until a stopping criterion is met or Ctrl-C, and save; after wrong data, save what came before."""
        try:
            if begin is not None:
                begin(self.algorithm)
            self.iterate()
        except KeyboardInterrupt:
            self.main_metrics["interrupted"] = True
        except WriteError:
            raise  # another checkpoint cannot be written either
        except InputError:
            if self.algorithm.iteration:  # the state of the last iteration is sound
                self.save()
            raise
        self.save()

    def iterate(self) -> None:
        """Iterate until a stopping criterion is met."""
        with deferred_interrupts() as raise_interrupt:
            while not stop_reached(self.metrics, self.settings.stop):
                raise_interrupt()
                self._iterate_once()

    def _iterate_once(self) -> None:
        results, self.saved = self.algorithm.train(), False
        self.main_metrics = summary(results, self.team)
        steps = self.metrics.get("env_steps")
        self.metrics = {**flatten(results), **_numbers(self.main_metrics)}
        raise_reported_fault(has_sampled=self.metrics.get("env_steps") != steps)
        stop, frequency = self.settings.stop, self.settings.evaluate_freq
        due = self.evaluate is not None and _evaluation_due(self.metrics, frequency, stop)
        if self.evaluate is not None and due:
            self.main_metrics |= self.evaluate(self.algorithm)
            self.metrics |= _numbers(self.main_metrics)
        if due or self.evaluate is None or not frequency:  # between evaluations, their metrics are missing
            check_reported(stop, self.metrics)
        if self.record is not None:
            self.record(dict(self.metrics))
        if self.report is not None:
            self.report(self.main_metrics)
        if isinstance(self.algorithm, TeamAlgorithm):
            self.algorithm.check_updates()
        every = self.settings.checkpoint_freq
        if every and self.metrics["training_iteration"] % every == 0:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless one contains this state already."""
        if self.out is not None and not self.saved:
            keep = self.settings.keep
            save_checkpoint(self.algorithm, self.out, self.metrics, keep=keep, settings=self.settings)
            self.saved = True


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != TEAM_REWARD}


def train_to_end(config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Run :func:`train` to its end; an interruption stops the algorithm and is raised again.

    Raises:
        KeyboardInterrupt: after Ctrl-C; other errors are those of :func:`train`.
    """
    algorithm, metrics = train(config, **options)
    if metrics.get("interrupted"):
        algorithm.stop()
        raise KeyboardInterrupt
    return algorithm, metrics


def _start_or_resume(
    config: Any,
    out: str | Path | None,
    resume: str | Path | None,
    placement: Mapping[str, Any] | None,
    trust: bool,
) -> tuple[Any, dict[str, Any], bool]:
    """Return the algorithm, the metrics of its latest iteration, and whether ``out`` contains its state already."""
    if resume is None:
        algorithm = _build(config, out)
        return algorithm, {"training_iteration": int(algorithm.iteration)}, False
    algorithm, metrics, checkpoint = restore_run(resume, out, placement, trust=trust)
    # RLlib's own algorithms would restart their time at zero
    algorithm._time_total = max(algorithm._time_total, float(metrics.get("time_total_s", 0.0)))
    metrics.setdefault("training_iteration", int(algorithm.iteration))
    return algorithm, metrics, out is not None and checkpoint.parent == Path(out).resolve()


def _build(config: Any, out: str | Path | None) -> Any:
    """Build a new algorithm."""
    if out is not None:
        require_no_checkpoints(out)
        remove_leftovers(out)
    start_ray_for(config)
    check_resources(config)
    config.copy(copy_frozen=False).validate()  # RLlib would drop every option that equals −1 while building
    return config.build_algo()


def _evaluation_due(metrics: Mapping[str, Any], frequency: int, stop: Mapping[str, float]) -> bool:
    """Return whether to evaluate after this iteration."""
    return bool(frequency and metrics["training_iteration"] % frequency == 0) or stop_reached(metrics, stop)


@checked_arguments
def offline_train(
    log: str | Path,
    out: str | Path,
    *,
    algo: str = "AWRQMixer",
    scenario: str | Path = "default",
    iterations: int = 40,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Path:
    """Train on a request log with a network small enough for two cores, and save the policy.

    Args:
        log: request log, Parquet or CSV.
        out: folder of the checkpoint.
        algo: name of the algorithm.
        scenario: preset or YAML file of the log's recommender.
        iterations: number of iterations with ``updates_per_iteration`` gradient steps each.
        seed: seed of the training.
        options: options of ``config.training`` that replace the small defaults.
        report: called after each iteration with its main metrics.

    Returns:
        The policy's folder, for :meth:`agents.policy.allocation_policy.AllocationPolicy.load`.
    """
    algo = algorithm_name(algo)
    config = _config(algo).offline_data(input_=[str(Path(log).resolve())]).debugging(seed=seed)
    sizes = small_options(algo, iterations * UPDATES * BATCH)
    config.training(**{**sizes, "scenario": str(scenario), **(options or {})})
    return _train_policy(config, out, iterations, report)


@checked_arguments
def online_train(
    out: str | Path,
    *,
    algo: str = "AWRQMixer",
    env: Any = "marca_env/parallel-v0",
    env_config: Mapping[str, Any] | None = None,
    iterations: int = 20,
    num_envs: int = 2000,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Path:
    """Train in the environment with uniformly random actions, as :func:`offline_train` does on a log.

    The environment's reward is the expectation of the revenue model. It has far less noise than the revenue in a log,
    so that fewer steps are needed.

    Args:
        out: folder of the checkpoint.
        algo: name of the algorithm.
        env: id, dotted path or callable: see :func:`agents.rllib.envs.make_env.make_batched`.
        env_config: arguments of the environment, such as ``scenario``.
        iterations: number of iterations with ``updates_per_iteration`` gradient steps each.
        num_envs: episodes collected per iteration.
        seed: seed of the training.
        options: options of ``config.training`` that replace the small defaults.
        report: called after each iteration with its main metrics.

    Returns:
        The policy's folder.
    """
    algo = algorithm_name(algo)
    config = _config(algo).environment(env, env_config=dict(env_config or {})).debugging(seed=seed)
    config.env_runners(num_envs_per_env_runner=num_envs)
    steps = iterations * num_envs * TeamSpec.from_dict(config.team()).max_steps
    sizes = {**small_options(algo, steps), "epsilon": 1.0, "learning_starts": 1, "buffer_capacity": 20 * num_envs}
    config.training(**{**sizes, **(options or {})})
    return _train_policy(config, out, iterations, report)


def small_options(algo: str, schedule: int) -> dict[str, Any]:
    """Return options with which an algorithm learns in a minute or two on two cores, in place of the paper's.

    The learning rate decays, because the revenue of a single request is mostly noise.

    Args:
        algo: name of the preset.
        schedule: end of the learning rate's schedule, in the unit of RLlib's schedules.
    """
    network = PRESETS[algo].network
    sizes: dict[str, Any] = {
        "gru": 64 if network.gru else None,
        "hidden": (64,),
        "lr": [[0, 3e-3], [int(0.6 * schedule), 1e-3], [schedule, 5e-5]],
        "train_batch_size_per_learner": BATCH,
        "updates_per_iteration": UPDATES,
    }
    if network.heads > 1:
        sizes["heads"] = 5
    if algo == "AWRQMixer":
        sizes |= {"dropout": 0.0, "weighting_level": "batch"}
    return sizes


def _config(algo: str) -> Any:
    if algo not in PRESETS:
        raise InputError(unknown_option("algorithm", algo, PRESETS))
    return CONFIGS[algo]()


def _train_policy(config: Any, out: str | Path, iterations: int, report: Report | None) -> Path:
    """Train to the end and return the saved policy; an interrupted run saves no policy."""
    require_no_checkpoints(out)
    algorithm, metrics = train_to_end(config, stop={"training_iteration": iterations}, report=report)
    checkpoint = save_checkpoint(algorithm, Path(out), metrics)
    algorithm.stop()
    return checkpoint / "policy"
