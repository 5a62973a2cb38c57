"""Training runs: build or resume an algorithm, iterate until told to stop, keep checkpoints."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agents.checkpoints import checkpoint_name, checkpoints_in, require_fresh
from agents.team import TeamSpec
from marca_env.errors import InputError, unknown_option

Report = Callable[[dict[str, Any]], None]
"""Called after each iteration with its plain results."""
Evaluate = Callable[[Any], Mapping[str, float]]
"""``algorithm → numbers`` that join those of the iteration."""
BATCH, UPDATES = 512, 50
"""Episodes of a gradient step and gradient steps of an iteration, of the small runs."""
STOPS = ("training_iteration", "env_steps", "gradient_steps", "episode_return_mean", "time_total_s")
SAMPLED = ("env_steps", "episode_return_mean")
"""Limits on what only a run in an environment reports."""


def start_ray(num_cpus: int | None = None) -> None:
    """Start a minimal local ray unless one runs: RLlib asks for it even where nothing is remote."""
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or ray warns about GPUs that nobody asked for
    ray.init(
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=True,
        logging_level=logging.ERROR,
        object_store_memory=200 * 1024**2 if num_cpus == 1 else None,
    )


def summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers of an iteration that people look at; those that do not apply are left out."""
    sampled, learnt = results.get("env_runners", {}), results.get("learners", {}).get("default_policy", {})
    found = {
        "training_iteration": results.get("training_iteration"),
        "time_total_s": results.get("time_total_s"),
        "env_steps": sampled.get("num_env_steps_sampled_lifetime"),
        "episode_return_mean": sampled.get("episode_return_mean"),
        "loss": learnt.get("total_loss"),
        "mixer_loss": learnt.get("mixer_loss"),
        "agent_loss": learnt.get("agent_loss"),
        "q_tot": learnt.get("q_tot"),
        "td_error": learnt.get("td_error"),
        "grad_norm": learnt.get("grad_norm"),
        "gradient_steps": learnt.get("gradient_steps"),
    }
    return {k: (v if isinstance(v, int) else float(v)) for k, v in found.items() if v is not None}


def stop_reached(numbers: Mapping[str, Any], stop: Mapping[str, float]) -> bool:
    """Whether any of the limits is reached; a limit on a number that the run does not report is never reached."""
    return any(numbers.get(name, float("-inf")) >= limit for name, limit in stop.items())


def train(
    config: Any,
    *,
    stop: Mapping[str, float],
    out: str | Path | None = None,
    resume: str | Path | None = None,
    checkpoint_freq: int = 0,
    report: Report | None = None,
    evaluate: Evaluate | None = None,
    evaluate_freq: int = 0,
) -> tuple[Any, dict[str, Any]]:
    """Run an algorithm.

    Args:
        config: a :class:`agents.rllib.TeamConfig` (or any RLlib configuration); ignored for what ``resume`` holds.
        stop: limits, of which the first that is reached ends the run: see :data:`STOPS`.
        out: folder of the checkpoints; the last one is always written, also after Ctrl-C.
        resume: a checkpoint to go on from.
        checkpoint_freq: iterations between checkpoints; 0 keeps the last one only.
        report: called after each iteration.
        evaluate: called with the algorithm every ``evaluate_freq`` iterations and after the last; its numbers join
            the iteration's.
        evaluate_freq: iterations between evaluations; 0: after the last iteration only.

    Returns:
        The algorithm (to be stopped by the caller) and the last iteration's numbers.

    Raises:
        InputError: an unknown limit or one that is never reached, a checkpoint that is not there, or one of an earlier
            run in ``out``.
    """
    _check_stop(stop, config)
    if resume is not None:
        algorithm = restore(resume)
    else:
        if out is not None:
            require_fresh(out)
        start_ray(None if config.num_env_runners or config.num_learners else 1)
        config.copy(copy_frozen=False).validate()  # while it is built, RLlib drops every option that equals −1
        algorithm = config.build_algo()
    numbers: dict[str, Any] = {"training_iteration": int(algorithm.iteration)}
    try:
        while not stop_reached(numbers, stop):
            numbers = summary(algorithm.train())
            if evaluate is not None and _is_due(numbers, evaluate_freq, stop):
                numbers |= evaluate(algorithm)
            if report is not None:
                report(numbers)
            if out is not None and checkpoint_freq and numbers["training_iteration"] % checkpoint_freq == 0:
                save_checkpoint(algorithm, Path(out), numbers["training_iteration"])
    except KeyboardInterrupt:
        numbers["interrupted"] = True
    if out is not None:
        save_checkpoint(algorithm, Path(out), int(algorithm.iteration))
    return algorithm, numbers


def _is_due(numbers: Mapping[str, Any], frequency: int, stop: Mapping[str, float]) -> bool:
    """Whether to evaluate after this iteration."""
    return bool(frequency and numbers["training_iteration"] % frequency == 0) or stop_reached(numbers, stop)


def _check_stop(stop: Mapping[str, Any], config: Any) -> None:
    for name, limit in stop.items():
        if name not in STOPS:
            raise InputError(unknown_option("stopping criterion", name, STOPS))
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit != limit:
            raise InputError(f"stopping criterion {name} is {limit!r}; give a number")
    if not stop:
        raise InputError(f"no stopping criterion; give at least one of {', '.join(STOPS)}")
    if config is not None and config.is_offline and set(stop) <= set(SAMPLED):
        raise InputError(
            f"{' and '.join(stop)} cannot stop a run on a log, which samples nothing; "
            "give training_iteration, gradient_steps or time_total_s"
        )


def save_checkpoint(algorithm: Any, out: Path, iteration: int) -> Path:
    """Write ``out/checkpoint_<iteration>``, whole or not at all; returns it."""
    final = out.resolve() / checkpoint_name(iteration)
    part = final.with_name(f".part-{os.getpid()}-{final.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    algorithm.save_to_path(str(part))
    if final.exists():
        shutil.rmtree(final)
    part.rename(final)
    return final


def latest_checkpoint(path: str | Path) -> Path:
    """The checkpoint at ``path``, or the newest in that folder.

    Raises:
        InputError: there is none.
    """
    path = Path(path).resolve()
    if (path / "rllib_checkpoint.json").is_file() or (path / "algorithm_state.pkl").is_file():
        return path
    found = checkpoints_in(path)
    if not found:
        raise InputError(f"{path}: no checkpoint here; give a folder named checkpoint_… or one that holds some")
    return found[-1]


def restore(path: str | Path) -> Any:
    """The algorithm of a checkpoint: networks, targets, optimizer, counters, replay buffer and random state.

    Raises:
        InputError: no checkpoint, or one that is cut short.
    """
    from ray.rllib.algorithms.algorithm import Algorithm

    found = latest_checkpoint(path)
    start_ray()
    try:
        return Algorithm.from_checkpoint(str(found))
    except (EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{found}: cannot be restored ({error}); it is cut short, use an earlier one") from error


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
        The policy's folder, for :meth:`agents.policy.AllocationPolicy.load`.
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
        env: id, dotted path or callable: see :func:`agents.rllib.vector.make_batched`.
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
    sizes: dict[str, Any] = {
        "gru": 64,
        "hidden": (64,),
        "lr": [[0, 3e-3], [int(0.6 * schedule), 1e-3], [schedule, 5e-5]],
        "train_batch_size_per_learner": BATCH,
        "updates_per_iteration": UPDATES,
    }
    if algo == "AWRQMixer":
        sizes |= {"heads": 5, "dropout": 0.0, "weighting_level": "batch"}
    return sizes


def _config(algo: str) -> Any:
    from agents.rllib.config import CONFIGS

    if algo not in CONFIGS:
        raise InputError(unknown_option("algorithm", algo, CONFIGS))
    return CONFIGS[algo]()


def _policy_of(config: Any, out: str | Path, iterations: int, report: Report | None) -> Path:
    """Train to the end and keep the policy; an interrupted run leaves none that might be taken for a trained one."""
    require_fresh(out)
    algorithm, numbers = train(config, stop={"training_iteration": iterations}, report=report)
    if numbers.get("interrupted"):
        algorithm.stop()
        raise KeyboardInterrupt
    kept = save_checkpoint(algorithm, Path(out), int(algorithm.iteration))
    algorithm.stop()
    return kept / "policy"
