"""Best decisions of a cascade's agents under what each of them observes: backward induction, alternating maximisation.

What an option is worth under an observation is a conditional mean. Where observations are few it is taken from a table
of all requests with the same observation; where they are numbers a forest of randomised trees estimates it.
Shapes: M requests, K agents, J joint actions, R results, P combinations of the options of earlier agents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from marca_env.scenario.scenario import Scenario

Predictor = Callable[[np.ndarray], np.ndarray]
"""Observations (M,C) → worth of each option (M,A)."""
Rule = Callable[[np.ndarray], np.ndarray]
"""Observations (M,C) → option (M,)."""
FOREST = {"n_estimators": 100, "min_samples_leaf": 10, "max_features": 0.5, "bootstrap": True}
"""Options of extremely randomised trees: on real questions as good as a random forest, at a quarter of the time."""
SWEEPS = 12
"""Most rounds of alternating maximisation; it usually settles after three or four."""


@dataclass(frozen=True)
class Requests:
    """Requests with the worth of every joint action, and what agents observe of them."""

    scenario: Scenario
    states: np.ndarray
    """(M,W)"""
    weights: np.ndarray
    """(M,) shares of the requests; their sum is 1."""
    values: np.ndarray
    """(M,J) worth of each joint action, currency per request."""
    results: np.ndarray | None = None
    """(M,J,R) results of the stages, which later stages observe; ``None``: they are left out."""

    @cached_property
    def options(self) -> tuple[int, ...]:
        """Number of joint options of each agent's own decisions, (K,)."""
        shape, stage = np.array(self.scenario.action_shape), self.scenario.decision_stage
        return tuple(int(np.prod(shape[stage == k])) for k in dict.fromkeys(stage.tolist()))

    @cached_property
    def agent_stages(self) -> tuple[int, ...]:
        """Index of the stage of each agent, (K,)."""
        return tuple(dict.fromkeys(self.scenario.decision_stage.tolist()))

    def n_before(self, agent: int) -> int:
        """Return P, the number of combinations of the options of earlier agents."""
        return int(np.prod(self.options[:agent], dtype=np.int64))

    def observe(self, agent: int, before: np.ndarray, is_own: bool) -> np.ndarray:
        """Return what an agent observes at its turn, (M,C): features, then results of earlier stages.

        Args:
            agent: index of the agent.
            before: (M,) index of the combination of earlier agents' options.
            is_own: only what the agent observes by itself; otherwise every feature that is not hidden.
        """
        stage = self.agent_stages[agent]
        columns = self._own_columns(stage) if is_own else self.scenario.observable_columns
        parts = [self.states[:, columns].astype(np.float64)]
        if self.results is not None:
            earlier = np.flatnonzero(self.scenario.result_stages < stage)
            first_action = before * (self.values.shape[1] // self.n_before(agent))  # later options 0: not settled yet
            parts.append(self.results[np.arange(len(before)), first_action][:, earlier].astype(np.float64))
        return np.concatenate(parts, axis=1)

    def _own_columns(self, stage: int) -> np.ndarray:
        name = self.scenario.stage_names[stage]
        pairs = zip(self.scenario.features, self.scenario.feature_slices, strict=True)
        seen = [range(p.start, p.stop) for f, p in pairs if not f.hidden and (not f.seen_by or name in f.seen_by)]
        return np.array([column for part in seen for column in part], dtype=np.int64)

    def mean(self, actions: np.ndarray) -> float:
        """Return the mean worth of joint actions (M,) of the requests."""
        return float(self.weights @ self.values[np.arange(len(actions)), actions])

    def merged(self) -> Requests:
        """Join the requests that agents cannot tell apart; only without results."""
        if self.results is not None:
            return self
        states = self.states[:, self.scenario.observable_columns]
        first, group = np.unique(states, axis=0, return_index=True, return_inverse=True)[1:]
        weights = np.bincount(group.ravel(), weights=self.weights)
        return Requests(self.scenario, self.states[first], weights, _group_means(self.values, group, self.weights))


def _group_means(values: np.ndarray, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of each group: values (M,A), group (M,), weights (M,) → (groups, A)."""
    group = group.ravel()
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    weight = weights[order, None]
    return np.add.reduceat(weight * values[order], starts, axis=0) / np.add.reduceat(weight, starts, axis=0)


def _row_codes(rows: np.ndarray) -> np.ndarray:
    """Return one 64-bit hash for each row of numbers (M,C), uint64 (M,); equal rows have equal hashes."""
    bits = (np.ascontiguousarray(rows, dtype=np.float64) + 0.0).view(np.uint64)  # + 0.0: −0 becomes 0
    odd = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = (bits ^ (bits >> np.uint64(32))) * odd
    return (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)


class TableEstimator:
    """Conditional means by table: exact where the requests are the whole law."""

    name = "exact tables"

    def fit(self, observations: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[Predictor, np.ndarray]:
        """Return a predictor, and its predictions (M,A) for the requests that it was fitted to."""
        known, group = np.unique(_row_codes(observations), return_inverse=True)
        mean = np.average(targets, axis=0, weights=weights)
        means = np.vstack([_group_means(targets, group, weights), mean])

        def predict(rows: np.ndarray) -> np.ndarray:
            codes = _row_codes(rows)
            place = np.searchsorted(known, codes).clip(max=len(known) - 1)
            return means[np.where(known[place] == codes, place, -1)]  # -1: an observation that never occurred

        return predict, means[group.ravel()]


class ForestEstimator:
    """Conditional means by a forest of randomised trees; trees predict requests that they did not learn from."""

    name = "estimated by forests of randomised trees"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, observations: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[Predictor, np.ndarray]:
        """Return a predictor, and the out-of-bag predictions (M,A) for the requests that it was fitted to."""
        model = ExtraTreesRegressor(**FOREST, oob_score=True, random_state=self.seed)
        model.fit(observations, targets, sample_weight=weights / weights.mean())

        def predict(rows: np.ndarray) -> np.ndarray:
            return model.predict(rows).reshape(len(rows), -1)

        return predict, model.oob_prediction_.reshape(targets.shape)


Estimator = TableEstimator | ForestEstimator


def static_action(fit: Requests) -> int:
    """Return the joint action of the highest mean worth."""
    return int((fit.weights @ fit.values).argmax())


def joint_actions(fit: Requests, judge: Requests, estimator: Estimator) -> np.ndarray:
    """Return the actions (M,) of a controller that sees all that is observable at each turn.

    Results of earlier stages and earlier decisions are known when an agent decides. The rules are found by backward
    induction on ``fit`` and applied to ``judge``.
    """
    worth = fit.values
    rules: list[list[Predictor]] = []
    for agent in reversed(range(len(fit.options))):
        n, options = fit.n_before(agent), fit.options[agent]
        worth = worth.reshape(len(fit.states), n, options)
        after, predictors = np.empty((len(fit.states), n)), []
        for combination in range(n):
            observed = fit.observe(agent, np.full(len(fit.states), combination), is_own=False)
            predictor, predicted = estimator.fit(observed, worth[:, combination], fit.weights)
            after[:, combination] = worth[np.arange(len(worth)), combination, predicted.argmax(axis=1)]
            predictors.append(predictor)
        worth = after
        rules.append(predictors)
    before = np.zeros(len(judge.states), dtype=np.int64)
    for agent, predictors in enumerate(reversed(rules)):
        observed, chosen = judge.observe(agent, before, is_own=False), np.zeros_like(before)
        for present in np.unique(before):
            rows = before == present
            chosen[rows] = predictors[present](observed[rows]).argmax(axis=1)
        before = before * judge.options[agent] + chosen
    return before


def truncation_actions(fit: Requests, judge: Requests, estimator: Estimator) -> np.ndarray:
    """Return the actions (M,) where only the last decision adapts; the others are those of the best static action."""
    actions, best = fit.scenario.joint_actions, static_action(fit)
    same = np.flatnonzero((actions[:, :-1] == actions[best, :-1]).all(axis=1))
    last = len(fit.options) - 1
    before = best // fit.options[last]
    observed = fit.observe(last, np.full(len(fit.states), before), is_own=False)
    predict, _ = estimator.fit(observed, fit.values[:, same], fit.weights)
    return same[predict(judge.observe(last, np.full(len(judge.states), before), is_own=False)).argmax(axis=1)]


def independent_actions(fit: Requests, judge: Requests, estimator: Estimator, seed: int = 0) -> np.ndarray:
    """Return the actions (M,) of agents that each take their best option as if the others chose at random."""
    rng = np.random.default_rng(seed)
    chosen, before = [], np.zeros(len(judge.states), dtype=np.int64)
    for agent, options in enumerate(fit.options):
        n = fit.n_before(agent)
        worth = fit.values.reshape(len(fit.states), n, options, -1).mean(axis=3)
        if isinstance(estimator, TableEstimator):
            rows, combination = np.repeat(np.arange(len(worth)), n), np.tile(np.arange(n), len(worth))
        else:  # one combination for each request keeps the trees out of each other's bags
            rows, combination = np.arange(len(worth)), rng.integers(n, size=len(worth))
        part = _rows(fit, rows)
        observed = part.observe(agent, combination, is_own=False)
        predict, _ = estimator.fit(observed, worth[rows, combination], fit.weights[rows])
        chosen.append(predict(judge.observe(agent, before, is_own=False)).argmax(axis=1))
        before = before * options + chosen[-1]
    return before


def own_information_actions(
    fit: Requests, judge: Requests, estimator: Estimator, *, starts: int, seed: int = 0
) -> np.ndarray:
    """Return the actions (M,) of the best rules found in which each agent acts on its own observation alone.

    Rules are improved one agent at a time until none can gain, from several random starts: the result is a team that no
    agent can improve alone, the best of those found.
    """
    rng = np.random.default_rng(seed)
    best: tuple[float, list[Rule]] | None = None
    for start in range(starts):
        rules = _random_rules(fit, rng) if start else _constant_rules(fit)
        value = fit.mean(_play(fit, rules))
        for _ in range(SWEEPS):
            gains = False
            for agent in rng.permutation(len(rules)):
                trial = _improved(fit, rules, int(agent), estimator)
                worth = fit.mean(_play(fit, trial))
                if worth > value + 1e-9 * abs(value):
                    rules, value, gains = trial, worth, True
            if not gains:
                break
        if best is None or value > best[0]:
            best = value, rules
    assert best is not None
    return _play(judge, best[1])


def _play(requests: Requests, rules: Sequence[Rule], start: tuple[int, np.ndarray] | None = None) -> np.ndarray:
    """Return the joint actions (M,) under the rules, from agent ``start[0]`` on after the options ``start[1]`` (M,)."""
    first, before = (0, np.zeros(len(requests.states), dtype=np.int64)) if start is None else start
    for agent in range(first, len(rules)):
        chosen = rules[agent](requests.observe(agent, before, is_own=True))
        before = before * requests.options[agent] + chosen
    return before


def _improved(fit: Requests, rules: Sequence[Rule], agent: int, estimator: Estimator) -> list[Rule]:
    """Return the rules with the best answer of one agent to those of the others."""
    before, rows = np.zeros(len(fit.states), dtype=np.int64), np.arange(len(fit.states))
    for earlier in range(agent):
        chosen = rules[earlier](fit.observe(earlier, before, is_own=True))
        before = before * fit.options[earlier] + chosen
    ends = [_play(fit, rules, (agent + 1, before * fit.options[agent] + a)) for a in range(fit.options[agent])]
    targets = np.stack([fit.values[rows, end] for end in ends], axis=1)
    predict, _ = estimator.fit(fit.observe(agent, before, is_own=True), targets, fit.weights)
    return [*rules[:agent], lambda observed: predict(observed).argmax(axis=1), *rules[agent + 1 :]]


def _constant_rules(fit: Requests) -> list[Rule]:
    """Return the rules of the best static action."""
    options = np.unravel_index(static_action(fit), fit.options)
    return [lambda observed, k=int(k): np.full(len(observed), k) for k in options]  # type: ignore[misc]


def _random_rules(fit: Requests, rng: np.random.Generator) -> list[Rule]:
    """Return rules that give every observation an option drawn by a random hyperplane code of the observation."""
    rules: list[Rule] = []
    for agent, options in enumerate(fit.options):
        width = fit.observe(agent, np.zeros(len(fit.states), dtype=np.int64), is_own=True).shape[1]
        weights = rng.normal(size=(width, options))
        bias = rng.normal(size=options)
        rules.append(lambda observed, w=weights, b=bias: (observed @ w + b).argmax(axis=1))  # type: ignore[misc]
    return rules


def _rows(requests: Requests, rows: np.ndarray) -> Requests:
    """Return some of the requests, repeated ones included."""
    results = None if requests.results is None else requests.results[rows]
    return Requests(requests.scenario, requests.states[rows], requests.weights[rows], requests.values[rows], results)
