"""Table of the libraries: what was tried with each, and the line that does it. Printed after the tests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

RESULTS = {"failed": "FAILS", "passed": "works", "skipped": "not installed"}
"""Worst outcome of a row's tests → last cell."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    library: str
    tried: str
    instead: str = ""
    """What to write where the first form cannot work; empty: it works."""


ROWS = {
    "gym-vector": Row("Gymnasium", "`make_vec(id, num_envs=B)`"),
    "pz-aec-to-parallel": Row("PettingZoo", "`aec_to_parallel(env())`", "`parallel_env()`, the same episodes"),
    "pz-turns": Row(
        "PettingZoo",
        "`turn_based_aec_to_parallel(env())`",
        '`turn_based_aec_to_parallel(env(observations="box"))`',
    ),
    "pz-parallel-to-aec": Row("PettingZoo", "`parallel_to_aec(parallel_env())`"),
    "rllib-check": Row("RLlib", "its checker on `PettingZooEnv(env())` and `ParallelPettingZooEnv(parallel_env())`"),
    "rllib-strict": Row(
        "RLlib",
        'its checker, which samples without masks, with `on_illegal="error"`',
        'the default, `on_illegal="nearest"`',
    ),
    "rllib-dict": Row(
        "RLlib",
        "PPO on `parallel_env()`",
        "`config.env_runners(env_to_module_connector=lambda *_, **__: FlattenObservations(multi_agent=True))`",
    ),
    "rllib-box": Row("RLlib", 'PPO on `parallel_env(observations="box")` and `env(observations="box")`'),
    "rllib-flat": Row("RLlib", "PPO, one policy, on `UniformAgents(parallel_env(), flat=True)`"),
    "rllib-worker": Row(
        "RLlib",
        '`environment(id)` with remote runners, also with `gym_env_vectorize_mode="vector_entry_point"`',
        '`environment("marca_env:marca_env/Recommender-v0")`',
    ),
    "torchrl-gym": Row("TorchRL", "`GymEnv(id)`, all ids"),
    "torchrl-mask": Row("TorchRL", "`TransformedEnv(GymEnv(id).auto_register_info_dict(), ActionMask())`"),
    "torchrl-vector": Row(
        "TorchRL",
        "`GymWrapper(make_vec(id, num_envs=B))`",
        '`GymWrapper(make_vec(id, num_envs=B, autoreset_mode="Disabled"))`',
    ),
    "torchrl-parallel": Row("TorchRL", "`PettingZooWrapper(parallel_env())`, also with `use_mask=True`"),
    "torchrl-box": Row("TorchRL", '`PettingZooWrapper(parallel_env(observations="box"))`'),
    "torchrl-aec": Row("TorchRL", "`PettingZooWrapper(env())`", "`PettingZooWrapper(env(), use_mask=True)`"),
    "torchrl-uniform": Row("TorchRL", "`PettingZooWrapper(UniformAgents(parallel_env()))`, one group"),
    "benchmarl": Row("BenchMARL", "QMIX, the task class of `examples/benchmarl_qmix.py`"),
    "sb3": Row("Stable-Baselines3", "`check_env`, PPO, DQN and SAC on the ids"),
    "sb3-masked": Row("sb3-contrib", 'MaskablePPO on `Recommender-v0` with `on_illegal="error"`'),
    "supersuit-dict": Row(
        "SuperSuit", "`flatten_v0` and the `pad_…` wrappers on `parallel_env()`", '`parallel_env(observations="box")`'
    ),
    "supersuit-box": Row(
        "SuperSuit",
        '`flatten_v0`, `pad_observations_v0`, `pad_action_space_v0`, `black_death_v3` on `observations="box"`',
    ),
    "supersuit-vector": Row("SuperSuit", "`pettingzoo_env_to_vec_env_v1` on padded agents or flat `UniformAgents`"),
    "tianshou": Row(
        "tianshou",
        "`PettingZooEnv(env())`",
        "`PettingZooEnv(parallel_to_aec(UniformAgents(parallel_env())))`",
    ),
    "masks": Row("AgileRL", "its convention: Box observations, `infos[agent]['action_mask']` in every step"),
    "agilerl": Row(
        "AgileRL", '`AsyncPettingZooVecEnv` on `parallel_env(observations="box")`; AgileRL needs PettingZoo below 1.27'
    ),
}
"""Key of ``pytest.mark.library`` → row."""

_outcomes: dict[str, set[str]] = defaultdict(set)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--library-table", type=Path, help="write the table of libraries to this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "library(key): row of the table of libraries that the test belongs to")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    for mark in item.iter_markers("library"):
        (key,) = mark.args
        assert key in ROWS, f"{item.nodeid}: no row {key!r} in tests/conformance/conftest.py"
        if call.excinfo is not None:
            skipped = call.excinfo.errisinstance(pytest.skip.Exception)
            _outcomes[key].add("skipped" if skipped else "failed")
        elif call.when == "call":
            _outcomes[key].add("passed")


def result(key: str) -> str:
    """Return the last cell of a row: that it works, or what to write."""
    outcome = next((name for name in RESULTS if name in _outcomes[key]), None)
    if outcome == "passed" and ROWS[key].instead:
        return f"write {ROWS[key].instead}"
    return "not tried" if outcome is None else RESULTS[outcome]


def table() -> list[str]:
    """Return the lines of the table in Markdown."""
    cells = [("library", "tried", "result"), *((row.library, row.tried, result(key)) for key, row in ROWS.items())]
    widths = [max(len(line[k]) for line in cells) for k in range(3)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not any(_outcomes.values()):
        return
    lines = table()
    terminalreporter.section("other libraries")
    for line in lines:
        terminalreporter.write_line(line)
    path = config.getoption("--library-table")
    if path is not None:
        path.write_text("\n".join(lines) + "\n")
