"""Setting the prices of computation through a day: a Gymnasium environment whose action is λ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from marca_env.envs.rendering import views
from marca_env.models.engine import Engine, resolve
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import MinuteOutcome, allocate, arrivals, serve_minute
from marca_env.traffic.clusters import ClusterModel, ClusterState, ControlObservation
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.workload import Traffic, daily_traffic, read_trace
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import known_options

if TYPE_CHECKING:
    from marca_env.traffic.workload import Traffic

POWER = 3.0
"""λ = price_max · action^POWER: small prices, where most of the change is, get most of the range."""
LOAD_LIMIT = 10.0
"""Loads and rates are shown relative to budget and peak and cut off here."""


@dataclass(frozen=True)
class _Period:
    """One control period: means of its minutes, and what it earned."""

    outcomes: list[MinuteOutcome]
    revenue: float
    overload: np.ndarray
    """(G,) mean over-utilisation max(0, Ĉ/C_m − 1), the summand of Eq. 22."""


class BalancingEnv(gymnasium.Env):
    """
    ## Description
    `marca_env/Balancing-v0`: a day of a recommender under traffic. Every control period (a minute, with the default
    scenario) the agent sets the price λ of computation on each cluster; each request then gets the joint action
    a* = argmax Q − Σ λ_g C_g (Eq. 6, arXiv 2512.24325). Too low a price overloads a cluster: elastic degradation
    cuts options in the minutes after, work waits, and what waits too long is dropped with its revenue. Too high a
    price wastes the budget.

    ## Action Space
    `Box(0, 1, (G,), float32)`, one number a per cluster, with λ = price_max · a³ in currency per core-second.
    Numbers outside are clipped. `prices_of(action)` and `action_of(prices)` convert.

    ## Observation Space
    `Box` float32 of 4·G + 3 numbers: per cluster the undegraded load Ĉ over its budget; per cluster the degradation
    level over the deepest; per cluster the backlog over the time-out; per cluster the last action; then
    requests per second over the peak, and sine and cosine of the time of day. Loads and rates are those of the
    period before, degradation and backlog those that hold now.

    ## Rewards
    revenue / reference − penalty · Σ_g max(0, Ĉ_g / budget_g − 1). The reference is the greatest revenue of a
    period at the peak rate, so that the first term lies in about [0, 1]. `info` holds the terms: `revenue`
    (currency), `overload` (G,), `penalty`, and `load`, `prices`, `degradation`, `dropped`, `qps`. The property
    `control` is the `ControlObservation` that a balancer takes.

    ## Starting State
    The traffic's first minute, nothing degraded, no backlog; the observation is that of a system on its budget, with
    free computation. The traffic of a new day is drawn unless it is given.

    ## Episode End
    Truncated when the traffic ends (after a day). Never terminates.

    ## Arguments
    `scenario`: preset, YAML file or Scenario. `traffic`: `Traffic`, requests per second of each minute (T,), or
    the path of a trace; drawn anew at each reset if `None`. `penalty`: reward lost per unit of
    over-utilisation. `price_max`: (G,) or a number, currency per core-second; if `None`, twice the price that
    presses the load down to a twentieth of the way from its least to its most. `minutes`: length of a day.
    `pool_size`: requests drawn from the population that stand for all. `engine`, `pool`: instead of the scenario's
    artefacts. `render_mode`: `ansi`, `rgb_array` or `human`.

    ## Version History
    - v0: initial release
    """

    metadata: dict[str, Any] = {"render_modes": list(views.RENDER_MODES), "render_fps": 4}  # noqa: RUF012

    @known_options
    def __init__(
        self,
        scenario: str | Path | Scenario = "default",
        traffic: Traffic | np.ndarray | Sequence[float] | str | Path | None = None,
        penalty: float = 1.0,
        price_max: float | Sequence[float] | np.ndarray | None = None,
        minutes: int = MINUTES_PER_DAY,
        pool_size: int = 240,
        render_mode: str | None = None,
        engine: Engine | None = None,
        pool: RequestPool | None = None,
    ) -> None:
        if minutes < 1 or not penalty >= 0:
            raise InputError(
                f"minutes is {minutes} and penalty {penalty}; give at least one minute, no negative penalty"
            )
        if pool_size < 1:
            raise InputError(f"pool_size is {pool_size}; draw at least one request")
        self.pool = pool if pool is not None else resolve(scenario, engine).pool(pool_size)
        self.scenario = self.pool.scenario
        self.clusters = ClusterModel(self.scenario)
        self.penalty, self.minutes = float(penalty), minutes
        self.render_mode = render_mode
        self._screen = views.Screen(render_mode, self.metadata["render_fps"])
        self._past: list[ControlObservation] = []
        # lengths of channels that are off do nothing: one joint action stands for all that do the same
        self._distinct = np.unique(InputEncoder(self.scenario).distinct_of, return_index=True)[1]  # (J',)
        self._values = np.ascontiguousarray(self.pool.outcomes["revenue"][:, self._distinct])  # (M,J')
        self._costs = np.ascontiguousarray(self.pool.costs[:, self._distinct])  # (M,J',G)
        n = len(self.scenario.clusters)
        self.price_max = _price_ceiling(self.pool) if price_max is None else _checked_ceiling(price_max, n)
        weights = np.ones(len(self._values)) if self.pool.weights is None else self.pool.weights
        best = float(np.average(self._values.max(axis=1), weights=weights))
        self.reference = best * self.scenario.peak_qps * 60.0 * self.scenario.control_period
        self._given = _given_traffic(traffic, self.scenario, minutes)
        self.action_space = spaces.Box(0.0, 1.0, shape=(n,), dtype=np.float32)
        high = np.concatenate([np.full(n, LOAD_LIMIT), np.ones(3 * n), [LOAD_LIMIT, 1.0, 1.0]]).astype(np.float32)
        low = np.concatenate([np.zeros(4 * n + 1), [-1.0, -1.0]]).astype(np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self._control: ControlObservation | None = None
        self._revenue = 0.0

    @property
    def control(self) -> ControlObservation:
        """The last period in units, as a balancer takes it."""
        if self._control is None:
            raise InputError("nothing has happened yet; call reset() first")
        return self._control

    # -- units ---------------------------------------------------------------------------------------------
    def prices_of(self, action: np.ndarray) -> np.ndarray:
        """λ (G,) of an action (G,) in [0, 1]; currency per core-second."""
        return self.price_max * np.clip(np.asarray(action, dtype=np.float64), 0.0, 1.0) ** POWER

    def action_of(self, prices: np.ndarray) -> np.ndarray:
        """The action (G,) that sets λ (G,); prices above ``price_max`` are cut off there."""
        share = np.clip(np.asarray(prices, dtype=np.float64) / self.price_max, 0.0, 1.0)
        return (share ** (1 / POWER)).astype(np.float32)

    # -- episode -------------------------------------------------------------------------------------------
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a day."""
        super().reset(seed=seed)
        self._traffic: Traffic = self._given if self._given is not None else self._drawn_traffic()
        self._minute, self._revenue, self._past = 0, 0.0, []
        self._state: ClusterState = self.clusters.initial()
        # the telemetry of the minute before the first: a system on its budget
        first, free = self._traffic.minute_of_day(0), np.zeros(len(self.scenario.clusters))
        self._control = self.clusters.observe(
            first, float(self._traffic.qps[0]), self.scenario.budgets, self._state, free
        )
        self._show()
        return self._observation(self._control), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold the prices of ``action`` (G,) for one control period.

        Raises:
            InputError: an action of another shape or not finite, or a day that is over.
        """
        prices = self.prices_of(self._checked_action(action))
        period = self._run(prices)
        last = period.outcomes[-1]
        self._past.append(self.control)
        load = np.mean([o.equivalent for o in period.outcomes], axis=0)
        qps = float(np.mean([o.qps for o in period.outcomes]))
        self._control = self.clusters.observe(self._traffic.minute_of_day(self._minute), qps, load, self._state, prices)
        self._revenue = period.revenue
        self._show()
        penalty = self.penalty * float(period.overload.sum())
        reward = period.revenue / self.reference - penalty
        info = {
            "revenue": period.revenue,
            "penalty": penalty,
            "overload": period.overload,
            "load": load,
            "prices": prices,
            "degradation": last.degradation,
            "dropped": np.mean([o.reading.dropped for o in period.outcomes], axis=0),
            "qps": qps,
        }
        return self._observation(self._control), reward, False, self._minute >= len(self._traffic), info

    def render(self) -> Any:
        """Text (``ansi``) or pixels (``rgb_array``) of the last period, or a window (``human``)."""
        if self.render_mode is None:
            return None
        return self._screen.show(views.cluster_view(self.scenario, self.control, self._revenue, self._past))

    def close(self) -> None:
        """Close the window, if there is one."""
        self._screen.close()

    def _show(self) -> None:
        """In ``human`` mode every step shows itself."""
        if self.render_mode == "human":
            self.render()

    # -- parts ---------------------------------------------------------------------------------------------
    def _run(self, prices: np.ndarray) -> _Period:
        """Serve the minutes of a control period, or what is left of the day."""
        chosen, outcomes = np.zeros(len(self._values), dtype=np.int64), []
        for minute in range(self._minute, min(self._minute + self.scenario.control_period, len(self._traffic))):
            of_day = self._traffic.minute_of_day(minute)
            asked = np.flatnonzero(self.pool.chances(of_day))
            chosen[asked] = self._distinct[allocate(self._values[asked], self._costs[asked], prices)]
            counts = arrivals(self.np_random, self.pool, float(self._traffic.qps[minute]), 60.0, of_day)
            outcome, self._state = serve_minute(self.pool, chosen, counts, self.clusters, self._state, 60.0)
            outcomes.append(outcome)
        self._minute += len(outcomes)
        overload = np.mean([np.maximum(0.0, o.equivalent / self.scenario.budgets - 1.0) for o in outcomes], axis=0)
        return _Period(outcomes, float(sum(o.outcomes["revenue"] for o in outcomes)), overload)

    def _observation(self, control: ControlObservation) -> np.ndarray:
        angle = 2 * np.pi * control.minute / MINUTES_PER_DAY
        parts = [
            np.minimum(control.load / control.budget, LOAD_LIMIT),
            control.degradation / max(1, len(self.scenario.protection.levels)),
            np.minimum(control.backlog / self.scenario.protection.timeout, 1.0),
            self.action_of(control.prices),
            [min(control.qps / self.scenario.peak_qps, LOAD_LIMIT), np.sin(angle), np.cos(angle)],
        ]
        return np.concatenate(parts).astype(np.float32)

    def _checked_action(self, action: np.ndarray) -> np.ndarray:
        if self._control is None or self._minute >= len(self._traffic):
            raise InputError("no day is running; call reset() first")
        taken = np.asarray(action, dtype=np.float64)
        if taken.shape != self.price_max.shape or not np.all(np.isfinite(taken)):
            names = ", ".join(self.scenario.cluster_names)
            raise InputError(f"action is {taken.tolist()}; give one finite number in [0, 1] per cluster: {names}")
        return taken

    def _drawn_traffic(self) -> Traffic:
        return daily_traffic(self.scenario, self.np_random, self.minutes)


def _given_traffic(traffic: Any, scenario: Scenario, minutes: int) -> Traffic | None:
    """The first ``minutes`` of the traffic, or None where it is to be drawn."""

    if traffic is None:
        return None
    if isinstance(traffic, (str, Path)):
        return read_trace(traffic, scenario, minutes)
    if not isinstance(traffic, Traffic):
        traffic = Traffic("given", _numbers("traffic", traffic))
    qps = traffic.qps
    if qps.ndim != 1 or len(qps) == 0 or not np.all(np.isfinite(qps)) or np.any(qps < 0):
        raise InputError(f"traffic of shape {qps.shape}: give finite, non-negative requests per second of each minute")
    return traffic.clipped(minutes)


def _checked_ceiling(price_max: float | Sequence[float] | np.ndarray, n: int) -> np.ndarray:
    given = _numbers("price_max", price_max)
    if given.shape not in ((), (n,)) or not np.all(np.isfinite(given)) or np.any(given <= 0):
        raise InputError(f"price_max is {given.tolist()}; give one positive number, or one per cluster ({n})")
    return np.full(n, 1.0) * given


def _numbers(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {given!r}; give numbers") from None


def _price_ceiling(pool: RequestPool) -> np.ndarray:
    """(G,) twice the price at which the load is a twentieth of the way from its least to its most."""
    values = pool.outcomes["revenue"]
    weights = np.ones(len(values)) if pool.weights is None else np.asarray(pool.weights, dtype=np.float64)
    rows = np.arange(len(values))
    relative = (pool.costs / pool.costs.mean(axis=(0, 1))).sum(axis=-1)  # (M,J)
    least = weights @ pool.costs[rows, relative.argmin(axis=1)]
    most = weights @ pool.costs[rows, values.argmax(axis=1)]
    _, prices = dual_bound(values, pool.costs, weights, least + 0.05 * np.maximum(most - least, 1e-3 * least))
    return 2.0 * np.maximum(prices, 1e-3 * prices.max() + 1e-9)
