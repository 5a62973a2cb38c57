"""Small runs for the tests of resuming, as functions and as a program that resumes them in another process.

python tests/helpers/restart_runs.py resume FOLDER ITERATIONS   every case in FOLDER; fingerprints as JSON on stdout
python tests/helpers/restart_runs.py forever FOLDER             one case, a checkpoint per iteration, until killed
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.rllib import CONFIGS, train
from agents.rllib.core.cluster import start_ray

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
SMALL = {"gru": 8, "hidden": (8,), "updates_per_iteration": 3, "train_batch_size_per_learner": 16}
CASES = ("dropout", "REM", "evaluated, no seed", "log")


def make_config(case: str, log: Path | None = None, scenario: Path | None = None) -> Any:
    """Configure a run with dropout or head mixtures, target updates between checkpoints, and schedules."""
    heads = {**SMALL, "heads": 3, "dropout": 0.2, "target_update": 7}
    if case == "log":
        options = {**heads, "scenario": str(scenario), "lr": [[0, 1e-2], [500, 1e-3]]}
        return CONFIGS["AWRQMixer"]().offline_data(input_=[str(log)]).training(**options).debugging(seed=5)
    options = {**heads, "lr": [[0, 1e-2], [100, 1e-2], [400, 1e-3]]}
    config = CONFIGS["AWRQMixer"]().environment(GAME)
    if case == "REM":  # one controller and random head mixtures, in an environment that is stepped in a loop
        options = {**SMALL, "heads": 3, "gru": None, "lr": 1e-2, "target_update": 7}
        config = CONFIGS["REM"]().environment("tests.helpers.rllib_envs.Turns")
    online = {"learning_starts": 20, "buffer_capacity": 50, "epsilon": [[0, 1.0], [300, 0.1]]}
    config.env_runners(num_envs_per_env_runner=8)
    if case == "evaluated, no seed":
        config.evaluation(evaluation_interval=5, evaluation_duration=8, evaluation_config={"explore": True})
        return config.training(**options, **online)
    return config.training(**options, **online).debugging(seed=5)


def fingerprint(algorithm: Any) -> dict[str, str]:
    """Return part of the training state → its hash."""
    learner = algorithm.learner_group.get_state()["learner"]
    weights = learner["rl_module"]["default_policy"]
    parts = {
        "weights": {k: v for k, v in weights.items() if not k.startswith("target.")},
        "targets": {k: v for k, v in weights.items() if k.startswith("target.")},
        "optimizer": learner["optimizer"],
        "gradient steps": learner["gradient_steps"],
        "buffer": algorithm.buffer.state(),
        "seed and rounds": [algorithm.config.seed, algorithm._rounds],
    }
    assert len(parts["targets"]) > 3
    return {name: hashlib.sha256(repr(_plain(part)).encode()).hexdigest() for name, part in parts.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
    return value


def run(config: Any, iterations: int, **options: Any) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Train and return the final fingerprint, and per iteration all metrics that are not times."""
    metrics: dict[str, dict[str, float]] = {}

    def note(numbers: dict[str, Any]) -> None:
        values = {k: float(v) for k, v in numbers.items() if not any(word in k for word in TIMES)}
        metrics[str(int(numbers["training_iteration"]))] = values

    algorithm, _ = train(config, stop={"training_iteration": iterations}, record=note, **options)
    state = fingerprint(algorithm)
    algorithm.stop()
    return state, metrics


TIMES = ("time", "throughput", "perf/", "since_restore")


def _resume_all(folder: Path, iterations: int) -> None:
    results = {d.name: run(None, iterations, resume=d, out=d) for d in sorted(folder.iterdir()) if d.is_dir()}
    print("RESULT" + json.dumps(results))


def _forever(folder: Path) -> None:
    def shout(numbers: dict[str, Any]) -> None:
        print(int(numbers["training_iteration"]), flush=True)

    config = None if folder.is_dir() and any(folder.glob("checkpoint_*")) else make_config("dropout")
    resume = None if config is not None else folder
    train(
        config, stop={"training_iteration": 10**6}, resume=resume, out=folder, checkpoint_freq=1, keep=3, report=shout
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # environments of the tests, by their dotted paths
    torch.set_num_threads(1)
    start_ray(num_cpus=1)
    if sys.argv[1] == "resume":
        _resume_all(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        _forever(Path(sys.argv[2]))
