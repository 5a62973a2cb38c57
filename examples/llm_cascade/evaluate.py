"""Compare ways of choosing models on the held-out questions of a scenario of language models.

    python examples/llm_cascade/evaluate.py
    python examples/llm_cascade/evaluate.py --scenario results/llm --checkpoint results/mine

Everything is chosen on the training questions: the best single model, and the best rule (a first model, and a second
one where the judge's reading is below a threshold). A trained policy decides in turn: it sees the judge's reading.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from agents import AllocationPolicy
from marca_env import Engine, Scenario
from marca_env.models.population import Population

LEVELS = 21
"""Thresholds that are tried for each pair of models, quantiles of the judge's readings."""


class Judged:
    """Questions with the worth, the dollars and the judge's reading of every pair of models. Q questions, J pairs."""

    def __init__(self, engine: Engine, population: Population) -> None:
        self.scenario, self.states = engine.scenario, population.states
        self.worth, costs = engine.true_table(population.states)  # (Q,J), (Q,J,1)
        self.dollars = costs[:, :, 0]
        self.n_first, self.n_second = self.scenario.action_shape
        rows = np.repeat(self.states, self.n_first, axis=0)
        firsts = np.tile(np.arange(self.n_first), len(self.states))
        actions = np.stack([firsts, np.zeros_like(firsts)], axis=1)
        column = self.scenario.result_columns.index("signal_router_confidence")
        self.confidence = engine.results(rows, actions, 1)[:, column].reshape(len(self.states), self.n_first)

    @property
    def net(self) -> np.ndarray:
        """Worth less dollars, (Q,J)."""
        return self.worth - self.dollars

    def rule(self, first: int, second: int, threshold: float) -> np.ndarray:
        """Return the pairs (Q,) of a rule: the second option where the reading is below the threshold."""
        return first * self.n_second + np.where(self.confidence[:, first] < threshold, second, 0)

    def mean(self, pairs: np.ndarray) -> tuple[float, float, float]:
        """Return mean worth, dollars and net worth of pairs (Q,)."""
        rows = np.arange(len(pairs))
        worth, dollars = float(self.worth[rows, pairs].mean()), float(self.dollars[rows, pairs].mean())
        return worth, dollars, worth - dollars


def best_rule(train: Judged) -> tuple[int, int, float]:
    """Return the first model, the second option and the threshold of the highest net worth."""
    net, rows = train.net, np.arange(len(train.states))
    best, chosen = -np.inf, (0, 0, 0.0)
    for first in range(train.n_first):
        for threshold in np.quantile(train.confidence[:, first], np.linspace(0, 1, LEVELS)):
            for second in range(train.n_second):
                value = float(net[rows, train.rule(first, second, threshold)].mean())
                if value > best:
                    best, chosen = value, (first, second, float(threshold))
    return chosen


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="llm-cascade-v0", metavar="NAME")
    parser.add_argument("--checkpoint", metavar="DIR", help="policy folder of a trained learner")
    args = parser.parse_args()
    engine = Engine.load(Scenario.load(args.scenario))
    train, test = Judged(engine, engine.population), Judged(engine, engine.on_heldout().population)
    names = engine.scenario.decisions[0].options
    single = int(train.net[:, :: train.n_second].mean(axis=0).argmax())
    rule = best_rule(train)
    ways: dict[str, Callable[[], np.ndarray]] = {
        f"best single model ({names[single]})": lambda: np.full(len(test.states), single * test.n_second),
        f"best rule ({names[rule[0]]}, then {('off', *names)[rule[1]]} below {rule[2]:.2f})": lambda: test.rule(*rule),
    }
    if args.checkpoint:
        policy = AllocationPolicy.load(args.checkpoint)
        decided = policy.decide_in_turn(test.states, np.array(engine.scenario.prices), engine.results)
        ways["trained policy"] = lambda: engine.scenario.joint_index(decided)
    ways["oracle: best pair for each question"] = lambda: test.net.argmax(axis=1)
    print(f"{len(test.states)} held-out questions; dollars per 1,000 questions")
    print(f"{'':70s} {'worth':>8s} {'spent':>8s} {'net':>8s}")
    random = (test.worth.mean(), test.dollars.mean(), test.net.mean())
    for name, (worth, dollars, net) in {"random pair": random, **{n: test.mean(w()) for n, w in ways.items()}}.items():
        print(f"{name:70s} {1000 * worth:8.3f} {1000 * dollars:8.3f} {1000 * net:8.3f}")


if __name__ == "__main__":
    main()
