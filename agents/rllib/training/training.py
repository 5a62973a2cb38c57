"""Training runs: build or resume an algorithm, iterate until told to stop, keep checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agents.algorithms.presets import PRESETS
from agents.policy.checkpoints import remove_leftovers, require_fresh
from agents.rllib.core.cluster import check_resources, start_ray
from agents.rllib.core.runner_pool import SamplingError
from agents.rllib.training.results import LEARNT, STOPS, check_reported, check_stop, flatten, stop_reached, summary
from agents.rllib.training.saving import latest_checkpoint, restore, resumed, save_checkpoint
from agents.team.team import TeamSpec
from marca_env.utils.errors import InputError, unknown_option

__all__ = [
    "latest_checkpoint",
    "offline_train",
    "online_train",
    "restore",
    "save_checkpoint",
    "start_ray",
    "train",
    "train_to_end",
]

Report = Callable[[dict[str, Any]], None]
"""Called after each iteration with its plain results."""
Evaluate = Callable[[Any], Mapping[str, float]]
"""``algorithm → numbers`` that join those of the iteration."""
BATCH, UPDATES = 512, 50
"""Episodes of a gradient step and gradient steps of an iteration, of the small runs."""


def train(
    config: Any,
    *,
    stop: Mapping[str, float],
    out: str | Path | None = None,
    resume: str | Path | None = None,
    checkpoint_freq: int = 0,
    report: Report | None = None,
    record: Report | None = None,
    evaluate: Evaluate | None = None,
    evaluate_freq: int = 0,
    keep: int | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Run an algorithm.

    Args:
        config: a :class:`agents.rllib.TeamConfig` (or any RLlib configuration); ignored for what ``resume`` holds.
        stop: limits, of which the first that is reached ends the run: see :func:`agents.rllib.training.results.check_stop`.
            They count the whole run, what came before ``resume`` included: where they are reached already nothing is
            done, and a raised one goes on.
        out: folder of the checkpoints; the last one is always written, also after Ctrl-C and where all environment
            runners have failed.
        resume: a checkpoint to go on from, or the folder of a run: its newest whole one. The run goes on as if it had
            never stopped, to the last bit with at most one learner and as many runners as before.
        checkpoint_freq: iterations between checkpoints; 0 keeps the last one only.
        report: called after each iteration with the few numbers of :func:`agents.rllib.training.results.summary`.
        record: called after each iteration with every number that it reported, also those of ``report``.
        evaluate: called with the algorithm every ``evaluate_freq`` iterations and after the last; its numbers join
            the iteration's.
        evaluate_freq: iterations between evaluations; 0: after the last iteration only.
        keep: newest checkpoints to keep; ``None``: all. Each holds the replay buffer
            (:class:`agents.rllib.core.replay.EpisodeBuffer` says how large that is).

    Returns:
        The algorithm (to be stopped by the caller) and the last iteration's numbers.

    Raises:
        InputError: an unknown limit or one that is never reached, a checkpoint that is not there or not whole, or one
            of an earlier run in ``out``.
        SamplingError: no environment runner works any more.
    """
    if keep is not None and (not isinstance(keep, int) or keep < 1):
        raise InputError(f"keep is {keep!r}; give a whole number of checkpoints of at least one, or None for all")
    evaluates = evaluate is not None and evaluate_freq > 0
    check_stop(stop, config, evaluates=evaluates)
    algorithm, found, saved = _begun(config, out, resume)  # found: every number of the latest iteration
    numbers = {name: value for name, value in found.items() if name in (*STOPS, *LEARNT)}
    try:
        check_stop(stop, algorithm.config, evaluates=evaluates)
        while not stop_reached(found, stop):
            results, saved = algorithm.train(), False
            numbers = summary(results)
            found = {**flatten(results), **numbers}
            due = evaluate is not None and _is_due(found, evaluate_freq, stop)
            if evaluate is not None and due:
                numbers |= evaluate(algorithm)
                found |= numbers
            if due or not evaluates:  # or a limit on an evaluation's number would be missed in between
                check_reported(stop, found)
            if record is not None:
                record(dict(found))
            if report is not None:
                report(numbers)
            if out is not None and checkpoint_freq and numbers["training_iteration"] % checkpoint_freq == 0:
                save_checkpoint(algorithm, Path(out), found, keep=keep)
                saved = True
    except KeyboardInterrupt:
        numbers["interrupted"] = True
    except Exception as error:
        if isinstance(error, SamplingError) and out is not None and not saved and algorithm.iteration:
            save_checkpoint(algorithm, Path(out), found, keep=keep)
        algorithm.stop()
        raise
    if out is not None and not saved:
        save_checkpoint(algorithm, Path(out), found, keep=keep)
    return algorithm, numbers


def train_to_end(config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """As :func:`train`, for callers that want a whole run or none: an interruption stops the algorithm and is raised.

    Raises:
        KeyboardInterrupt: after Ctrl-C; beside what :func:`train` raises.
    """
    algorithm, numbers = train(config, **options)
    if numbers.get("interrupted"):
        algorithm.stop()
        raise KeyboardInterrupt
    return algorithm, numbers


def _begun(config: Any, out: str | Path | None, resume: str | Path | None) -> tuple[Any, dict[str, Any], bool]:
    """The algorithm, the numbers of its latest iteration, and whether ``out`` holds its state already."""
    if resume is None:
        algorithm = _built(config, out)
        return algorithm, {"training_iteration": int(algorithm.iteration)}, False
    algorithm, found, origin = resumed(resume, out)
    # RLlib's own algorithms would count their time anew
    algorithm._time_total = max(algorithm._time_total, float(found.get("time_total_s", 0.0)))
    found.setdefault("training_iteration", int(algorithm.iteration))
    return algorithm, found, out is not None and origin.parent == Path(out).resolve()


def _built(config: Any, out: str | Path | None) -> Any:
    """A new algorithm."""
    if out is not None:
        require_fresh(out)
        remove_leftovers(out)
    start_ray(None if config.num_env_runners or config.num_learners else 1)
    check_resources(config)
    config.copy(copy_frozen=False).validate()  # while it is built, RLlib drops every option that equals −1
    return config.build_algo()


def _is_due(numbers: Mapping[str, Any], frequency: int, stop: Mapping[str, float]) -> bool:
    """Whether to evaluate after this iteration."""
    return bool(frequency and numbers["training_iteration"] % frequency == 0) or stop_reached(numbers, stop)


def offline_train(
    log: str | Path,
    out: str | Path,
    *,
    algo: str = "AWRQMixer",
    scenario: str = "default",
    iterations: int = 40,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Path:
    """Train on a request log with a network small enough for two cores, and write what serves.

    Args:
        log: request log, Parquet or CSV.
        out: folder of the checkpoint.
        algo: name of the algorithm.
        scenario: preset or YAML file of the log's recommender.
        iterations: of ``updates_per_iteration`` gradient steps each.
        options: of ``config.training`` in place of the small defaults.
        report: called after each iteration.

    Returns:
        The policy's folder, for :meth:`agents.policy.allocation_policy.AllocationPolicy.load`.
    """
    config = _config(algo).offline_data(input_=[str(Path(log).resolve())]).debugging(seed=seed)
    sizes = small_options(algo, iterations * UPDATES * BATCH)
    config.training(**{**sizes, "scenario": scenario, **(options or {})})
    return _policy_of(config, out, iterations, report)


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

    The environment's reward is the revenue model's expectation: far less noise than a log's, so that fewer steps do.

    Args:
        env: id, dotted path or callable: see :func:`agents.rllib.envs.make_env.make_batched`.
        env_config: its arguments, such as ``scenario``.
        num_envs: episodes collected per iteration.

    Returns:
        The policy's folder.
    """
    config = _config(algo).environment(env, env_config=dict(env_config or {})).debugging(seed=seed)
    config.env_runners(num_envs_per_env_runner=num_envs)
    steps = iterations * num_envs * TeamSpec.from_dict(config.team()).max_steps
    sizes = {**small_options(algo, steps), "epsilon": 1.0, "learning_starts": 1, "buffer_capacity": 20 * num_envs}
    config.training(**{**sizes, **(options or {})})
    return _policy_of(config, out, iterations, report)


def small_options(algo: str, schedule: int) -> dict[str, Any]:
    """Sizes that learn in a minute or two on two cores, in place of the paper's; the learning rate decays, because
    the revenue of a single request is mostly noise. ``schedule``: where it ends, in what schedules count."""
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
    from agents.rllib.core.config import CONFIGS

    if algo not in CONFIGS:
        raise InputError(unknown_option("algorithm", algo, CONFIGS))
    return CONFIGS[algo]()


def _policy_of(config: Any, out: str | Path, iterations: int, report: Report | None) -> Path:
    """Train to the end and keep the policy; an interrupted run leaves none that might be taken for a trained one."""
    require_fresh(out)
    algorithm, numbers = train_to_end(config, stop={"training_iteration": iterations}, report=report)
    kept = save_checkpoint(algorithm, Path(out), numbers)
    algorithm.stop()
    return kept / "policy"
