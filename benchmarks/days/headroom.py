"""Headroom of a scenario: how much better than a static action one could do, by true expected values.

:func:`headroom` compares revenues within a budget. :func:`card` compares net revenues at the prices of a task, and
tells apart what agents observe: it is the card of the task. Shapes: M requests, J joint actions, G clusters, R results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from benchmarks.days.artefacts import has_live_cascade, true_pool
from benchmarks.days.independent_values import independent_values
from benchmarks.days.information import (
    Estimator,
    ForestEstimator,
    Requests,
    TableEstimator,
    independent_actions,
    joint_actions,
    own_information_actions,
    static_action,
    truncation_actions,
)
from benchmarks.days.window_cards import WINDOWS, window_rows
from marca_env.models.engine import Engine, artefact_folder
from marca_env.models.population import Population
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import allocate
from marca_env.traffic.dual_bound import dual_bound
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.model_files import is_analytic_model
from marca_env.utils.validation import prices_by_cluster

GAINS = ("truncation", "independent", "own_information", "myopic", "joint", "hindsight")
"""Rows of a card, each a gain over the best static action."""
Truth = Literal["cascade", "environment"]
TRUTHS: tuple[Truth, ...] = ("cascade", "environment")
REQUESTS, SEED = 6000, 101
"""Requests that a live cascade is asked for, and the seed that draws them."""
_TABLE_STARTS, _FOREST_STARTS = 30, 2
"""Random starts of alternating maximisation."""
_MOST_LEVELS = 64
"""Distinct values of a result up to which tables of observations are made."""


@dataclass(frozen=True)
class Card:
    """What random, static and ever better informed decisions earn net of prices, currency per request."""

    scenario: str
    prices: tuple[float, ...]
    """λ of each cluster, currency per core-second."""
    random: float
    static: float
    static_action: Mapping[str, Any]
    """Decision → option of the best static action."""
    values: Mapping[str, float | None]
    """Row of :data:`GAINS` → net revenue per request; ``None`` where the row has no meaning for the task."""
    how: Mapping[str, str]
    """Row → how it was computed."""
    requests: int
    """Requests on which the rows were evaluated."""

    @property
    def joint(self) -> float:
        """Net revenue per request of decisions on all that is observable."""
        value = self.values["joint"]
        assert value is not None
        return value

    @property
    def gains(self) -> dict[str, float | None]:
        """Gains over the best static action, as fractions of its net revenue."""
        scale = abs(self.static)
        return {row: None if v is None else (v - self.static) / scale for row, v in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "scenario": self.scenario,
            "prices": list(self.prices),
            "requests": self.requests,
            "random": self.random,
            "static": self.static,
            "static_action": dict(self.static_action),
            "gains": self.gains,
            "values": dict(self.values),
            "how": dict(self.how),
        }


def card(
    scenario: Scenario | str,
    *,
    prices: Sequence[float] | None = None,
    requests: int = REQUESTS,
    seed: int = SEED,
    costs: str | None = None,
    truth: Truth = "cascade",
) -> Card:
    """Return the card of a task.

    Where an episode is a window of requests, the rows are played in the environment: see
    :mod:`benchmarks.days.window_cards`.
    Rules are found on the requests that learners train on and judged on held-out requests where the scenario has any.

    Args:
        scenario: the task.
        prices: λ of each cluster, (G,); ``None``: the scenario's own, else those that fit its budgets at the peak.
        requests: requests of a live cascade.
        seed: seed that draws them, and of estimates.
        costs: cost log of a live cascade; ``None``: the one beside the scenario's models.
        truth: ``cascade``: what the live cascade serves, where the scenario has one; ``environment``: what the
            environment serves, which is the world that learners are scored in.

    Raises:
        InputError: an unknown truth, prices that do not fit, or no action within the budgets.
    """
    scenario = Scenario.load(scenario)
    if truth not in TRUTHS:
        raise InputError(unknown_option("truth", truth, TRUTHS))
    if scenario.window is not None:
        own = scenario.prices or (0.0,) * len(scenario.clusters)
        priced = prices_by_cluster(own if prices is None else prices, scenario.cluster_names)
        return Card(scenario.name, tuple(priced.tolist()), *window_rows(Engine.load(scenario), priced, seed), WINDOWS)
    fit, judge, source = _card_pools(scenario, requests, seed, costs, truth)
    priced = _prices(scenario, prices, fit)
    return _card(scenario, priced, _requests(fit, priced), _requests(judge, priced), source, seed)


@dataclass(frozen=True)
class _Pool:
    """Requests with everything that a card needs: revenue (M,J), costs (M,J,G), results (M,J,R) or none."""

    scenario: Scenario
    states: np.ndarray
    weights: np.ndarray
    revenue: np.ndarray
    costs: np.ndarray
    results: np.ndarray | None


def _requests(pool: _Pool, prices: np.ndarray) -> Requests:
    """Return the requests of a pool, worth their revenue net of prices."""
    values = pool.revenue.astype(np.float64) - pool.costs.astype(np.float64) @ prices
    return Requests(pool.scenario, pool.states, pool.weights / pool.weights.sum(), values, pool.results)


def _card_pools(
    scenario: Scenario, requests: int, seed: int, costs: str | None, truth: Truth
) -> tuple[_Pool, _Pool, str]:
    """Return the requests to find rules on, those to judge them on, and what they are."""
    is_analytic = is_analytic_model(artefact_folder(scenario) / "revenue_model")
    if truth == "cascade" and has_live_cascade(scenario) and not is_analytic:
        drawn = true_pool(scenario, requests, seed, costs)
        hidden = [k for k, name in enumerate(scenario.state_columns) if k not in _informative(scenario)]
        states = np.array(drawn.states)
        states[:, hidden] = 0
        pool = _Pool(scenario, states, np.ones(len(states)), drawn.outcomes["revenue"], drawn.costs, None)
        return pool, pool, f"{requests:,} requests of the live cascade"
    engine = Engine.load(scenario)
    fit = _population_pool(engine, engine.population)
    if engine.heldout is None:
        what = "records" if engine.records is not None else "law" if is_analytic else "fitted models"
        return fit, fit, f"every request of the population, by its {what}"
    return fit, _population_pool(engine, engine.heldout), "held-out requests, rules found on the others"


def _population_pool(engine: Engine, population: Population) -> _Pool:
    """Return the requests of a population as the environment serves them."""
    states = population.states
    if engine.records is None:
        return _Pool(engine.scenario, states, population.counts, *engine.true_table(states), None)
    joint = engine.scenario.joint_actions
    served = engine.evaluate(np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1)))
    results, costs, revenue = (part.reshape(len(states), len(joint), *part.shape[1:]) for part in served)
    return _Pool(engine.scenario, states, population.counts, revenue, costs, results)


def _prices(scenario: Scenario, prices: Sequence[float] | None, pool: _Pool) -> np.ndarray:
    """Return the prices of the task: those given, its own, or those that fit the budgets at the peak."""
    if prices is not None or scenario.prices:
        return prices_by_cluster(scenario.prices if prices is None else prices, scenario.cluster_names)
    merged = replace(_requests(pool, np.zeros(len(scenario.clusters))), results=None).merged()
    groups = _grouped(pool.states[:, scenario.observable_columns])
    weights = pool.weights / pool.weights.sum()
    budget = scenario.budgets / scenario.peak_qps
    return dual_bound(merged.values, _means(pool.costs.astype(np.float64), groups, weights), merged.weights, budget)[1]


def _card(scenario: Scenario, prices: np.ndarray, fit: Requests, judge: Requests, source: str, seed: int) -> Card:
    """Compute every row."""
    best = static_action(fit)
    static, hindsight = float(judge.weights @ judge.values[:, best]), float(judge.weights @ judge.values.max(axis=1))
    random = float(judge.weights @ judge.values.mean(axis=1))
    same = judge is fit or (judge.states is fit.states)
    fit = fit.merged()
    judge = fit if same else judge.merged()
    estimator = _estimator(fit, seed)
    starts = _TABLE_STARTS if isinstance(estimator, TableEstimator) else _FOREST_STARTS
    own = own_information_actions(fit, judge, estimator, starts=starts, seed=seed)
    values: dict[str, float | None] = {
        "truncation": judge.mean(truncation_actions(fit, judge, estimator)),
        "independent": judge.mean(independent_actions(fit, judge, estimator, seed)),
        "own_information": judge.mean(own),
        "myopic": None,  # an episode is one request
        "joint": judge.mean(joint_actions(fit, judge, estimator)),
        "hindsight": hindsight,
    }
    how = _how(source, estimator, starts)
    named = scenario.named_options(scenario.joint_actions[best][None])[0]
    prices_ = tuple(float(x) for x in prices)
    return Card(scenario.name, prices_, random, static, named, values, how, len(judge.states))


def _estimator(fit: Requests, seed: int) -> Estimator:
    """Return exact tables where observations are few, else forests."""
    results = np.zeros((1, 1, 1)) if fit.results is None else fit.results
    levels = max(len(np.unique(results[:, :, k])) for k in range(results.shape[2]))
    return TableEstimator() if fit.scenario.is_categorical and levels <= _MOST_LEVELS else ForestEstimator(seed)


def _how(source: str, estimator: Estimator, starts: int) -> dict[str, str]:
    """Return how each row was computed, in words."""
    how = estimator.name
    return {
        "requests": source,
        "random": "mean over all joint actions",
        "static": "the joint action of the highest mean",
        "truncation": f"the last decision adapts to what is observable, the others are static; {how}",
        "independent": f"each agent's best option as if the others chose at random; {how}",
        "own_information": "each agent acts on its own observation alone: alternating maximisation from "
        f"{starts} starts, the best team found; {how}",
        "myopic": "no meaning: an episode is one request",
        "joint": f"all that is observable at each turn, by backward induction; {how}",
        "hindsight": "the best joint action of each request",
    }


def _grouped(states: np.ndarray) -> np.ndarray:
    """Return the number of each distinct row's group, (M,)."""
    return np.unique(states, axis=0, return_inverse=True)[1].ravel()


@dataclass(frozen=True)
class Headroom:
    """Gains over the best static action that fits a budget, as shares of its revenue."""

    share: float
    """Budget of each cluster, as a share of the mean cost of its most expensive action."""
    static: float
    """Revenue per request of the best static action that fits, currency."""
    truncation: float
    """Dual bound when only the last decision adapts to the state (DCAF)."""
    independent: float
    """Revenue reached by stages that each know only their own mean effect in the state, without interaction."""
    joint: float
    """Dual bound when the joint action adapts to the observable state."""
    hindsight: float
    """Dual bound when it adapts to the request itself."""


def headroom(pool: RequestPool, shares: list[float]) -> list[Headroom]:
    """Return the headroom at each budget of ``shares``, with the pool's outcomes and costs as the truth.

    The value of an observable state is the mean over its requests, so the joint bound needs many requests per state.
    The state leaves out the time window, and the data centre if all share their clusters: both only shift click logits.

    Raises:
        InputError: a budget below the cheapest action.
    """
    counts = np.ones(len(pool.states)) if pool.weights is None else np.asarray(pool.weights, dtype=np.float64)
    counts = counts / counts.sum()
    revenue, costs = pool.outcomes["revenue"].astype(np.float64), pool.costs.astype(np.float64)
    groups = _observable(pool)
    weights = np.bincount(groups, weights=counts)
    values, state_costs = _means(revenue, groups, counts), _means(costs, groups, counts)
    mean, mean_cost = counts @ revenue, np.tensordot(counts, costs, 1)
    tables = revenue, costs, counts, values, state_costs, weights, mean, mean_cost
    return [_headroom_at(pool.scenario, share, *tables) for share in shares]


def least_share(pool: RequestPool) -> float:
    """Return the smallest budget, as a share of the most expensive action's cost, that one action fits everywhere."""
    weights = np.ones(len(pool.states)) if pool.weights is None else pool.weights
    return _least(np.average(pool.costs, axis=0, weights=weights))


def _least(mean_cost: np.ndarray) -> float:
    return float((mean_cost / mean_cost.max(axis=0)).max(axis=1).min())


def _headroom_at(
    scenario: Scenario,
    share: float,
    revenue: np.ndarray,
    costs: np.ndarray,
    counts: np.ndarray,
    values: np.ndarray,
    state_costs: np.ndarray,
    weights: np.ndarray,
    mean: np.ndarray,
    mean_cost: np.ndarray,
) -> Headroom:
    budget = share * mean_cost.max(axis=0)
    fits = (mean_cost <= budget).all(axis=1)
    if not fits.any():
        cheapest = _least(mean_cost)
        raise InputError(f"a budget of {share:.1%} is below the cheapest action ({cheapest:.1%}); use a higher one")
    best = int(np.where(fits, mean, -np.inf).argmax())
    actions = scenario.joint_actions
    same_but_last = np.flatnonzero((actions[:, :-1] == actions[best, :-1]).all(axis=1))
    bounds = [
        dual_bound(values[:, same_but_last], state_costs[:, same_but_last], weights, budget)[0],
        _independent(scenario, values, state_costs, weights, budget),
        dual_bound(values, state_costs, weights, budget)[0],
        dual_bound(revenue, costs, counts, budget)[0],
    ]
    return Headroom(share, float(mean[best]), *[float(b / mean[best] - 1) for b in bounds])


def _observable(pool: RequestPool) -> np.ndarray:
    """Return the observable state of each request as the number of a group, (M,)."""
    return _grouped(pool.states[:, _informative(pool.scenario)])


def _informative(scenario: Scenario) -> list[int]:
    """Return the observable columns of a state that say something about a request of the live cascade."""
    names = enumerate(scenario.state_columns)
    visible = set(scenario.observable_columns.tolist())
    return [k for k, name in names if k in visible and (name == scenario.site or name not in ("w", "i"))]


def _means(values: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each group, with the weights ``counts`` (M,)."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    weight = counts[order].reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(weight * values[order], starts, axis=0) / np.add.reduceat(weight, starts, axis=0)


def _independent(
    scenario: Scenario, values: np.ndarray, costs: np.ndarray, weights: np.ndarray, budget: np.ndarray
) -> float:
    """Return the true revenue of an allocation by :func:`independent_values` at the prices that are best for them."""
    independent = independent_values(scenario, values)
    prices = dual_bound(independent, costs, weights, budget)[1]
    actions = allocate(independent, costs, prices)
    return float(weights @ values[np.arange(len(values)), actions])
