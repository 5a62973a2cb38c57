"""The five allocation policies that a simulated day compares. All see the same models, log and telemetry.

None sees the pool's true outcomes: values are learnt, costs predicted, and what a policy is commissioned on is a sample
of the states in the request log and the traffic of the days before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from agents.policy.allocation_policy import AllocationPolicy
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.policies import FixedPolicy, Policy, PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic, daily_traffic
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import BisectionBalancer, DitheredBalancer, FeedbackBalancer, FeedbackSettings, SystemModel

if TYPE_CHECKING:
    from mpc import FeedbackSettings, MPCBalancer, SystemModel

POLICIES = ("static", "dcaf", "rl-mpca", "marca-feedback", "marca-mpc")
SAMPLE = 900
"""Requests of the log that policies are commissioned on."""
EXPLORED_DAYS = 4
"""Days of the system log that the MPC's model is fitted on."""

GAINS = [(p, i, m) for p in (0.2, 0.4, 0.8) for i in (0.0, 0.02) for m in (0.0, 0.015, 0.03)]
"""Proportional gain, integral gain and margin below the budget that feedback is tuned over."""
MARGINS = (0.0, 0.005, 0.015, 0.03)
"""Margins below the budget that MPC is tuned over."""

ValueFunction = Callable[[np.ndarray], np.ndarray]
"""States (M, F) → believed revenue of every joint action (M, J), currency."""


@dataclass
class Commissioning:
    """What is known before the day: fitted models, a sample of logged states, and the past traffic."""

    scenario: Scenario
    engine: Engine
    traffic: Traffic
    seed: int = 0
    sample: int = SAMPLE
    """Requests of the log that are looked at."""
    days: int = EXPLORED_DAYS
    """Days of the system log."""
    tuning: int = MINUTES_PER_DAY
    """Minutes of the past day that gains and margins are tuned on."""

    @cached_property
    def states(self) -> np.ndarray:
        """Logged states, (sample, F)."""
        return self.engine.sample_states(np.random.default_rng([self.seed, 5]), self.sample)

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        return self.engine.table(self.states)

    @property
    def revenue(self) -> np.ndarray:
        """Revenue that the ensemble of the request log predicts in :attr:`states`, (sample, J) currency."""
        return self._tables[0]

    @property
    def costs(self) -> np.ndarray:
        """Predicted cost of every joint action in :attr:`states`, (sample, J, G) core-seconds."""
        return self._tables[1]

    @cached_property
    def static_action(self) -> int:
        """The joint action that earns most on the average, by the log, of those that fit the budget at the peak."""
        used = self._mean_costs() * self.scenario.peak_qps  # (J, G)
        fits = (used <= self.scenario.budgets).all(axis=1)
        if not fits.any():
            short = (used / self.scenario.budgets).max(axis=1).min()
            raise InputError(
                f"scenario {self.scenario.name!r}: at {self.scenario.peak_qps:g} requests per second even the cheapest "
                f"joint action needs {short:.2f} times the budget; raise the budgets or lower peak_qps"
            )
        return int(np.where(fits, self.revenue.mean(axis=0), -np.inf).argmax())

    def _mean_costs(self) -> np.ndarray:
        """Mean cost (J, G) of the requests; where sites share them out differently through the day, that of the time
        window that costs each cluster most."""
        windows, n_windows = self.windows()
        if self.scenario.site is None or windows is None:
            return self.costs.mean(axis=0)
        return np.max([self.costs[windows == w].mean(axis=0) for w in range(n_windows) if (windows == w).any()], axis=0)

    @cached_property
    def truncation_actions(self) -> np.ndarray:
        """Joint actions that differ from the static one in the last decision only: DCAF's choices."""
        actions = self.scenario.joint_actions
        return np.flatnonzero((actions[:, :-1] == actions[self.static_action, :-1]).all(axis=1))

    @property
    def release_margin(self) -> float:
        """See :func:`release_margin`."""
        return release_margin(self.scenario)

    def windows(self) -> tuple[np.ndarray | None, int]:
        """Time window of each of :attr:`states` and the number of windows."""
        if "w" not in self.scenario.feature_names:
            return None, 1
        column = self.scenario.feature_names.index("w")
        return self.states[:, column], self.scenario.features[column].size

    def pool(self, values: np.ndarray) -> RequestPool:
        """A pool of the logged states in which beliefs are true: where system logs are simulated."""
        return RequestPool(self.scenario, self.states, {"revenue": values}, self.costs)

    def system_log(self, values: np.ndarray) -> pd.DataFrame:
        """Days of telemetry under disturbed prices: generated traffic, and the days before where the trace has some."""

        scale = tuple(self.usual_prices(values).tolist())
        pool = self.pool(values)
        days = []
        for day, traffic in enumerate(self.past_days):
            base = FeedbackBalancer(FeedbackSettings(scale=scale))
            explore = DitheredBalancer(base, seed=1000 * self.seed + day, spread=0.6)
            counts = draw_arrivals(pool, traffic, 1000 * self.seed + day)
            log = replay(PricedPolicy("explore", values, self.costs, explore), pool, traffic, counts)
            days.append(log.assign(day=day, minute=[traffic.minute_of_day(k) for k in range(len(traffic))]))
        return pd.concat(days, ignore_index=True)

    @cached_property
    def past_days(self) -> list[Traffic]:
        """Days to commission on: the last ones before the trace, where there are such, and generated ones."""
        rng = np.random.default_rng([self.seed, 6])
        days = [daily_traffic(self.scenario, rng) for _ in range(self.days)]
        for k, qps in enumerate(self.traffic.history_days()[-self.days // 2 :]):
            limit = 1.5 * self.scenario.peak_qps
            days[k] = Traffic("past", np.minimum(qps, limit))
        return days

    def usual_prices(self, values: np.ndarray) -> np.ndarray:
        """Prices (G,) that fit the budgets at the mean traffic of a past day, for policies that believe ``values``."""
        budget = np.maximum(self.scenario.budgets / self.past_days[0].qps.mean(), 1.01 * self.costs.mean(axis=0)[0])
        weights = np.full(len(values), 1.0 / len(values))
        prices = dual_bound(values, self.costs, weights, budget, tolerance=1e-3)[1]
        return np.maximum(prices, 1e-3 * prices.max() + 1e-9)


def release_margin(scenario: Scenario) -> float:
    """Share of the budget that balancers leave free while a cluster is degraded: a little more than protection asks."""
    return 1.02 - scenario.protection.release


def build_policy(
    name: str, known: Commissioning, states: np.ndarray, marca: ValueFunction | None, single: ValueFunction | None
) -> Policy:
    """A policy that will serve requests in ``states`` (M, F).

    Args:
        name: one of :data:`POLICIES`.
        known: what it is commissioned on.
        states: of the requests to serve.
        marca: values of the multi-agent checkpoint, for the ``marca`` policies.
        single: values of the single-agent checkpoint, for ``rl-mpca``.

    Raises:
        InputError: an unknown name, or a budget that no action fits.
    """

    if name not in POLICIES:
        raise InputError(unknown_option("policy", name, POLICIES))
    if name == "static":
        return FixedPolicy(name, known.static_action)
    revenue, costs = known.engine.table(states)
    if name == "dcaf":
        windows, n_windows = known.windows()
        keep = known.truncation_actions
        balancer = BisectionBalancer(
            known.revenue[:, keep],
            known.costs[:, keep],
            windows=windows,
            n_windows=n_windows,
            release_margin=known.release_margin,
        )
        return PricedPolicy(name, revenue, costs, balancer, keep)
    function = single if name == "rl-mpca" else marca
    assert function is not None, f"{name} needs a value function"
    if name == "marca-mpc":
        model = system_model(known, function(known.states))
        return PricedPolicy(name, function(states), costs, mpc_balancer(known, model, known.traffic.history_days()))
    feedback = FeedbackBalancer(feedback_settings(known, function(known.states)))
    return PricedPolicy(name, function(states), costs, feedback)


def feedback_settings(known: Commissioning, values: np.ndarray) -> FeedbackSettings:
    """PID with the gains of :data:`GAINS` that earned most on a past day, by the policy's own beliefs.

    Args:
        known: what the policy is commissioned on.
        values: (sample, J) what it believes of ``known.states``.
    """

    day, pool = known.past_days[0].clipped(known.tuning), known.pool(values)
    scale = tuple(known.usual_prices(values).tolist())
    tried = []
    counts = draw_arrivals(pool, day, 1000 * known.seed)
    for proportional, integral, margin in GAINS:
        settings = FeedbackSettings(
            proportional=proportional,
            integral=integral,
            derivative=0.0,
            margin=margin,
            release_margin=known.release_margin,
            scale=scale,
        )
        log = replay(PricedPolicy("trial", values, known.costs, FeedbackBalancer(settings)), pool, day, counts)
        tried.append((float(log["revenue"].sum()), settings))
    return max(tried, key=lambda pair: pair[0])[1]


def system_model(known: Commissioning, values: np.ndarray) -> SystemModel:
    """Fitted on the policy's own system log; ``values`` as for :func:`feedback_settings`."""

    return SystemModel.fit(known.system_log(values), clusters=known.scenario.cluster_names, seed=known.seed)


def mpc_balancer(known: Commissioning, model: SystemModel, days: np.ndarray, **settings: Any) -> MPCBalancer:
    """MPC around a model, with a forecaster fitted on the traffic of past ``days`` (N, 1440), if there are any.

    ``settings``: fields of :class:`mpc.MPCSettings`.
    """
    from mpc import MPCBalancer, TrafficForecaster

    forecaster = TrafficForecaster.fit(days) if len(days) else TrafficForecaster()
    return MPCBalancer(model, forecaster=forecaster, release_margin=known.release_margin, **settings)


def mpc_margin(known: Commissioning, values: np.ndarray, model: SystemModel) -> float:
    """The margin of :data:`MARGINS` with which MPC earned most on the past day that :func:`feedback_settings` tunes on;
    ``values`` as there."""
    day, pool = known.past_days[0].clipped(known.tuning), known.pool(values)
    counts = draw_arrivals(pool, day, 1000 * known.seed)
    others = np.array([past.qps for past in known.past_days[1:]])

    def earned(margin: float) -> float:
        policy = PricedPolicy("trial", values, known.costs, mpc_balancer(known, model, others, margin=margin))
        return float(replay(policy, pool, day, counts)["revenue"].sum())

    return max(MARGINS, key=earned)


def two_passes(
    best: Callable[[list[tuple[float, ...]]], tuple[float, ...]], grid: Sequence[tuple[float, ...]] = GAINS
) -> tuple[float, ...]:
    """One of a grid's candidates, all with a margin at the end, found by fewer trials than the grid has candidates.

    Args:
        best: which of some candidates is best.
        grid: such as :data:`GAINS`. First those with its middle margin are compared, then all margins with the gains
            that won.
    """
    margins = sorted({margin for *_, margin in grid})
    middle = margins[len(margins) // 2]
    *gains, _ = best([candidate for candidate in grid if candidate[-1] == middle])
    return best([(*gains, margin) for margin in margins])


def values_of(checkpoint: str) -> ValueFunction:
    """The value function of a trained policy folder."""

    return AllocationPolicy.load(checkpoint).values


def need(names: Sequence[str]) -> tuple[bool, bool]:
    """Whether any of ``names`` needs the multi-agent, and whether any needs the single-agent checkpoint."""
    return any(n.startswith("marca") for n in names), "rl-mpca" in names
