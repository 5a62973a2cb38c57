"""Two-step game and 3×3 matrix game: algorithms that find the best joint action, and those that do not.

The two-step game (Rashid et al., 2018) pays 7 to a team that adds its agents' values and 8 to one that mixes them.
No monotone mixer can represent the matrix game (8, −12, −12 / −12, 0, 0 / −12, 0, 0): QMIX settles for 0, Weighted QMIX
(Rashid et al., 2020) gives the best cell its full weight and finds 8, AWRQMixerV2 takes a residual away from all other
cells and finds it too. All actions are random while learning (ε = 1), as in the papers. The reported number is the
return of one greedy episode after the last update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.suite.api import Case, Row

SEEDS = (0, 1, 2, 3, 4)
QUICK_ITERATIONS = 2
OPTIONS: dict[str, Any] = {
    "epsilon": 1.0,
    "lr": 5e-3,
    "gru": None,
    "hidden": (32,),
    "target_update": 20,
    "updates_per_iteration": 20,
    "train_batch_size_per_learner": 64,
    "learning_starts": 64,
}
"""Options of every run: sizes that fit a game of a few states."""

AWRQ = {"heads": 5, "dropout": 0.0, "agent_loss": 0.05}
"""Options of AWRQMixer: a small weight of the agents' own losses, and no dropout.

Its agents learn from the mixer's error and from their own errors, in which VGCA (variance-guided credit assignment)
rewards each step with the return under the behaviour policy. Under random play this return is 2.5 for the risky branch
and 7 for the safe one. At the default weight of 1 it outweighs the mixer's error, and the team returns 7. With dropout
a network of 32 units can hardly tell 7 from 8.
"""

CENTRAL = {"td_weighting": "central"}
V2: dict[str, Any] = {"tau": None}
"""Its target network follows in steps, as that of all others does."""
TWO_STEP: dict[str, tuple[str, float, dict[str, Any], int]] = {
    "VDN": ("VDN", 7.0, {}, 20),
    "QMIX": ("QMIX", 8.0, {}, 20),
    "WeightedQMIX (OW)": ("WeightedQMIX", 8.0, {}, 20),
    "WeightedQMIX (CW)": ("WeightedQMIX", 8.0, {**CENTRAL, "td_alpha": 0.75}, 20),
    "AWRQMixer": ("AWRQMixer", 8.0, AWRQ, 35),
    "AWRQMixerV2": ("AWRQMixerV2", 8.0, V2, 20),
}
MATRIX: dict[str, tuple[str, float, dict[str, Any], int]] = {
    "VDN": ("VDN", 0.0, {}, 30),
    "QMIX": ("QMIX", 0.0, {}, 30),
    "WeightedQMIX (OW)": ("WeightedQMIX", 8.0, {"td_alpha": 0.1}, 30),
    "WeightedQMIX (CW)": ("WeightedQMIX", 8.0, {**CENTRAL, "td_alpha": 0.1}, 30),
    "AWRQMixer": ("AWRQMixer", 0.0, AWRQ, 30),
    "AWRQMixerV2": ("AWRQMixerV2", 8.0, V2, 30),
}
GAMES = {"TwoStepGame": TWO_STEP, "MatrixGame": MATRIX}
"""Game → name → algorithm, greedy return by theory, options, iterations."""


def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]:
    """Return every algorithm in every game; a quick run has too few iterations to learn anything."""
    return [
        Case(
            name,
            seed,
            scenario=f"benchmarks.experiments.games.matrix_games.{game}",
            task=game,
            budget={"iterations": QUICK_ITERATIONS if quick else iterations},
            config={"algo": algo, "expected": expected, "options": {**OPTIONS, **options}},
        )
        for game, algorithms in GAMES.items()
        for name, (algo, expected, options, iterations) in algorithms.items()
        for seed in seeds
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train from scratch, and return the ``return`` of a greedy episode."""
    from agents.rllib import CONFIGS, train_to_end

    config = CONFIGS[case.config["algo"]]().environment(case.scenario).debugging(seed=case.seed)
    config.training(**case.config["options"])
    algorithm, _ = train_to_end(config, stop={"training_iteration": case.budget["iterations"]})
    greedy_return = float(algorithm.env_runner.sample(explore=False)[0].columns["reward"].sum(1).mean())
    algorithm.stop()
    return {"return": greedy_return}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return a line for each algorithm in a game, with the return of every seed."""
    table = Table("game", "algorithm", "updates", "expected", "greedy return by seed")
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        case = row.case
        updates = case.budget["iterations"] * case.config["options"]["updates_per_iteration"]
        line = (case.task, case.method, str(updates), f"{case.config['expected']:g}")
        lines.setdefault(line, []).append(f"{row.numbers['return']:g}")
    for cells, returns in lines.items():
        table.add_row(*cells, " ".join(returns))
    yield table
