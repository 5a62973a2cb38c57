"""What two iterations of training on an environment say; ``python -m tests.helpers.foreign_runs`` prints the table."""

from __future__ import annotations

import importlib.util
import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from agents.rllib import algorithm_config, start_ray, train
from agents.rllib.training.any_algorithm import set_environment
from agents.rllib.training.flat_options import apply_options, validate_config
from marca_env.utils.errors import InputError
from tests.helpers.foreign_kinds import KINDS, WORKS, Kind

_NET = {"model_config": {"fcnet_hiddens": [8]}, "num_env_runners": 0}
_NO_WAIT = {"min_time_s_per_iteration": 0, "min_sample_timesteps_per_iteration": 0}
SMALL: dict[str, dict[str, Any]] = {
    "QMIX": {
        "hidden": [8],
        "gru": 8,
        "learning_starts": 4,
        "train_batch_size_per_learner": 4,
        "updates_per_iteration": 1,
        "buffer_capacity": 16,
        "num_envs_per_env_runner": 4,
    },
    "PPO": {**_NET, "train_batch_size_per_learner": 16, "minibatch_size": 8, "num_epochs": 1},
    "DQN": {
        **_NET,
        **_NO_WAIT,
        "train_batch_size_per_learner": 8,
        "num_steps_sampled_before_learning_starts": 8,
    },
    "APPO": {**_NET, **_NO_WAIT, "train_batch_size_per_learner": 16},
    "IMPALA": {**_NET, **_NO_WAIT, "train_batch_size_per_learner": 16},
}
"""Options with which a run takes a second."""


def say(algo: str, env: Any, env_config: Mapping[str, Any] | None = None, **options: Any) -> str:
    """Train ``algo`` for two iterations; return ``works``, the message of an InputError, or ``CRASH`` and the error."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        config = set_environment(algorithm_config(algo).debugging(seed=0), env, env_config)
        validate_config(apply_options(config, {**SMALL[algo], **options}))
        algorithm, numbers = train(config, stop={"training_iteration": 2})
        algorithm.stop()
    except InputError as error:
        return str(error)
    except Exception as error:
        if "-v" in sys.argv:
            traceback.print_exc()
        return f"CRASH {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    returns = numbers.get("episode_return_mean")
    return "works" if returns is None or returns == returns else "CRASH: the return is not a number"


def start(cpus: int = 1) -> None:
    """Start ray."""
    start_ray(cpus)


def say_of(algo: str, kind: Kind) -> str:
    """Return what training on a kind of environment says."""
    options = {n: v for n, v in kind.options.items() if algo == "QMIX" or n != "max_episode_steps"}
    return say(algo, kind.path, kind.env_config, **options)


def check_kind(algo: str, kind: Kind) -> None:
    """Check that a kind trains, or is refused in one line that names its place."""
    if kind.needs is not None and importlib.util.find_spec(kind.needs) is None:
        pytest.skip(f"needs {kind.needs}")
    said, expected = say_of(algo, kind), kind.expected(algo)
    assert expected in said
    if expected != WORKS:
        assert "\n" not in said
        assert len(said) <= 300
        place = kind.env.rpartition(".")[2]
        assert place in said or "agent" in said or "option" in said


def print_table() -> None:
    """Print what QMIX and PPO say of every kind, as a table in Markdown."""
    start()
    print("| environment | QMIX | PPO |\n|---|---|---|")
    for kind in KINDS:
        said = {algo: say_of(algo, kind).replace("|", "\\|") for algo in ("QMIX", "PPO")}
        same = said["PPO"] == said["QMIX"] != "works"
        print(f"| {kind.what} | {said['QMIX']} | {'the same' if same else said['PPO']} |", flush=True)


if __name__ == "__main__":
    print_table()
