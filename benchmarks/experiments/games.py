"""Two-step game and 3×3 matrix game: which algorithms find the best joint action.

The two-step game (Rashid et al., 2018) pays 7 to a team that adds its agents' values and 8 to one that mixes them.
No monotone mixer can represent the matrix game (8, −12, −12 / −12, 0, 0 / −12, 0, 0): QMIX settles for 0, Weighted QMIX
(Rashid et al., 2020) gives the best cell its full weight and finds 8. All actions are random while learning (ε = 1),
as in the papers; what is reported is the return of one greedy episode after the last update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2, 3, 4)

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
"""Of every run: sizes that fit a game of a few states."""

AWRQ = {"heads": 5, "dropout": 0.0, "agent_loss": 0.05}
"""AWRQMixer's agents learn from the mixer's error and from their own, in which VGCA rewards each step with the return
under the behaviour policy. Under random play that is 2.5 for the risky branch and 7 for the safe one; at the default
coefficient of 1 it outweighs the mixer's error: the team returns 7. Dropout makes 7 and 8 hard to tell apart for a
network of 32 units."""


@dataclass(frozen=True)
class Case:
    """An algorithm in a game, and whether it should find the best joint action."""

    game: str
    """Class in :mod:`benchmarks.games`."""
    name: str
    """As it is printed."""
    algo: str
    expected: float
    """Greedy return that theory promises."""
    options: dict[str, Any] = field(default_factory=dict)
    iterations: int = 20


CASES = (
    Case("TwoStepGame", "VDN", "VDN", 7.0),
    Case("TwoStepGame", "QMIX", "QMIX", 8.0),
    Case("TwoStepGame", "WeightedQMIX (OW)", "WeightedQMIX", 8.0),
    Case("TwoStepGame", "WeightedQMIX (CW)", "WeightedQMIX", 8.0, {"td_weighting": "central", "td_alpha": 0.75}),
    Case("TwoStepGame", "AWRQMixer", "AWRQMixer", 8.0, AWRQ, iterations=35),
    Case("MatrixGame", "QMIX", "QMIX", 0.0, iterations=30),
    Case("MatrixGame", "WeightedQMIX (OW)", "WeightedQMIX", 8.0, {"td_alpha": 0.1}, iterations=30),
    Case(
        "MatrixGame",
        "WeightedQMIX (CW)",
        "WeightedQMIX",
        8.0,
        {"td_weighting": "central", "td_alpha": 0.1},
        iterations=30,
    ),
)


def play(case: Case, seed: int, *, iterations: int | None = None) -> float:
    """Train from scratch; the return of a greedy episode."""
    from agents.rllib import CONFIGS
    from benchmarks.training import whole_training

    config = CONFIGS[case.algo]().environment(f"benchmarks.games.{case.game}").debugging(seed=seed)
    config.training(**{**OPTIONS, **case.options})
    algorithm, _ = whole_training(config, stop={"training_iteration": iterations or case.iterations})
    found = float(algorithm.env_runner.sample(explore=False)[0].columns["reward"].sum(1).mean())
    algorithm.stop()
    return found


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Every case with every seed; ``quick``: two iterations of each, which is too few to learn anything.

    Returns:
        ``options`` of every run, and ``rows``: game, algorithm, its own options, updates, seed, expected and found
        return.
    """
    rows = []
    for case in CASES:
        iterations = 2 if quick else case.iterations
        for seed in seeds:
            row = {"game": case.game, "algorithm": case.name, "options": case.options, "seed": seed}
            row["updates"] = iterations * OPTIONS["updates_per_iteration"]
            rows.append(row | {"expected": case.expected, "return": play(case, seed, iterations=iterations)})
    return {"options": OPTIONS, "rows": rows}


def tables(result: dict[str, Any]) -> Iterable[Any]:
    """One table: a row per algorithm and game, a column per seed."""
    from rich.table import Table

    table = Table("game", "algorithm", "updates", "expected", "greedy return by seed")
    by_case: dict[tuple[Any, ...], list[str]] = {}
    for row in result["rows"]:
        key = (row["game"], row["algorithm"], str(row["updates"]), f"{row['expected']:g}")
        by_case.setdefault(key, []).append(f"{row['return']:g}")
    for key, found in by_case.items():
        table.add_row(*key, " ".join(found))
    return [table]
