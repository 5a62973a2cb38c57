"""``marca_env/Balancing-v0``: a Gymnasium environment whose action is λ, the price of computation.

C is the computation of a request in core-seconds; Ĉ is the undegraded load of a cluster in core-seconds per second:
the load that it would have without elastic degradation. G clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from marca_env.envs.rendering.screen import RENDER_MODES, Screen
from marca_env.envs.rendering.views import cluster_view
from marca_env.models.engine import Engine, get_engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import AllocationTable, MinuteOutcome
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.simulated_system import SimulatedSystem
from marca_env.traffic.utilisation import overutilisation
from marca_env.traffic.workload import Traffic, daily_traffic, read_trace
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, shown
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE
from marca_env.utils.validation import as_number, as_real_array, as_seed, as_whole_number, reject_unknown_options

MAX_MINUTES, MAX_POOL = 100 * 366 * MINUTES_PER_DAY, 100_000

POWER = 3.0
"""λ = price_max · action^POWER. Most of the action's range goes to small prices, where the load changes most."""
LOAD_LIMIT = 10.0
"""Observed loads over budget and rates over peak are clipped here."""


class BalancingEnv(gymnasium.Env):
    """A day of a recommender under traffic: the agent sets the price λ of computation on each cluster.

    ## Description
    The id is `marca_env/Balancing-v0`. One step is one control period (one minute with the default scenario). Each
    request of the period gets the joint action a* = argmax Q − Σ_g λ_g C_g (Eq. 6, arXiv 2512.24325), where Q is its
    expected revenue and C_g its computation on cluster g. A price that is too low overloads the cluster: elastic
    degradation cuts options in the following minutes, work waits, and work that waits too long is dropped with its
    revenue. A price that is too high leaves budget unused.

    ## Action Space
    `Box(0, 1, (G,), float32)`: one number a per cluster, with λ = price_max · a³ in currency per core-second. Numbers
    outside [0, 1] are clipped. The methods `prices_of(action)` and `action_of(prices)` convert between the two.

    ## Observation Space
    `Box` float32 of 4·G + 3 numbers. Loads and rates are those of the last period; degradation and backlog are those
    in force now.

    | index | content | range |
    |---|---|---|
    | 0 … G−1 | undegraded load Ĉ over the budget of each cluster | 0 … 10 |
    | G … 2G−1 | degradation level over the deepest level of each cluster | 0 … 1 |
    | 2G … 3G−1 | backlog over the time-out of each cluster | 0 … 1 |
    | 3G … 4G−1 | last action for each cluster | 0 … 1 |
    | 4G | requests per second over the scenario's peak | 0 … 10 |
    | 4G+1, 4G+2 | sine and cosine of the time of day | −1 … 1 |

    ## Rewards
    reward = revenue / reference − penalty · Σ_g max(0, Ĉ_g / budget_g − 1). The reference is the greatest possible
    revenue of a period at the peak rate, so that the first term lies in about [0, 1]. `info` holds the terms:

    | key | content |
    |---|---|
    | `revenue` | currency, of the period |
    | `overload` | (G,) mean of max(0, Ĉ/budget − 1) |
    | `penalty` | second term of the reward |
    | `load` | (G,) mean Ĉ, core-seconds per second |
    | `prices` | (G,) λ in force, currency per core-second |
    | `degradation` | (G,) levels in force in the period's last minute |
    | `dropped` | (G,) mean share of the work that was dropped |
    | `latency_p50`, `latency_p99`, `late` | with a latency limit: quantiles in seconds and share, of the last minute |
    | `qps` | mean requests per second |

    The property `control` is the `ControlObservation` that a balancer takes.

    ## Starting State
    The first minute of the traffic, without degradation or backlog. The first observation is that of a system whose
    load equals its budget, with λ = 0. The traffic of a new day is drawn at each reset unless `traffic` is given.

    ## Episode End
    Truncated when the traffic ends (after a day by default). Never terminates.

    ## Arguments
    | name | default | content |
    |---|---|---|
    | `scenario` | `"default"` | preset name, YAML file or `Scenario` |
    | `traffic` | `None` | `Traffic`, requests per second of each minute (T,), or the path of a trace; `None` draws a day at each reset |
    | `penalty` | 1.0 | reward lost per unit of over-utilisation |
    | `price_max` | `None` | number or (G,), currency per core-second; `None`: twice the price that brings the load down to a twentieth of the way from its minimum to its maximum |
    | `minutes` | 1440 | length of a day |
    | `pool_size` | 240 | requests drawn from the population to stand for all |
    | `render_mode` | `None` | `ansi`, `rgb_array` or `human` |
    | `engine` | `None` | engine to use instead of the scenario's fitted models |
    | `pool` | `None` | request pool to use instead of one drawn from the engine |

    ## Version History
    - v0: initial release
    """  # noqa: E501

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # noqa: RUF012

    @reject_unknown_options
    @checked_arguments
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
        minutes = as_whole_number("minutes", minutes, 1, MAX_MINUTES)
        penalty = as_number("penalty", penalty, 0)
        pool_size = as_whole_number("pool_size", pool_size, 1, MAX_POOL)
        self.pool = pool if pool is not None else get_engine(scenario, engine).pool(pool_size)
        self.scenario = self.pool.scenario
        self.penalty, self.minutes = float(penalty), minutes
        self.render_mode = render_mode
        self._screen = Screen(render_mode, self.metadata["render_fps"])
        self._past_periods: list[ControlObservation] = []
        self._table = AllocationTable.of_pool(self.pool)
        n = len(self.scenario.clusters)
        self.price_max = _price_ceiling(self.pool) if price_max is None else _checked_ceiling(price_max, n)
        weights = np.ones(len(self.pool.states)) if self.pool.weights is None else self.pool.weights
        best = float(np.average(self._table.values.max(axis=1), weights=weights))
        self.reference = best * self.scenario.peak_qps * SECONDS_PER_MINUTE * self.scenario.control_period
        self._fixed_traffic = _checked_traffic(traffic, self.scenario, minutes)
        self.action_space = spaces.Box(0.0, 1.0, shape=(n,), dtype=np.float32)
        high = np.concatenate([np.full(n, LOAD_LIMIT), np.ones(3 * n), [LOAD_LIMIT, 1.0, 1.0]]).astype(np.float32)
        low = np.concatenate([np.zeros(4 * n + 1), [-1.0, -1.0]]).astype(np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self._system: SimulatedSystem | None = None
        self._control: ControlObservation | None = None
        self._revenue = 0.0

    @property
    def control(self) -> ControlObservation:
        """Observation of the last period in physical units, as a balancer takes it."""
        if self._control is None:
            raise InputError("no day has started; call reset() first")
        return self._control

    # -- units ---------------------------------------------------------------------------------------------
    def prices_of(self, action: np.ndarray) -> np.ndarray:
        """Return λ (G,) in currency per core-second for an action (G,) in [0, 1]."""
        return self.price_max * np.clip(self._per_cluster("action", action), 0.0, 1.0) ** POWER

    def action_of(self, prices: np.ndarray) -> np.ndarray:
        """Return the action (G,) that sets λ (G,); prices above ``price_max`` are clipped to it."""
        share = np.clip(self._per_cluster("prices", prices) / self.price_max, 0.0, 1.0)
        return (share ** (1 / POWER)).astype(np.float32)

    def _per_cluster(self, name: str, values: Any) -> np.ndarray:
        """Return numbers (G,) or (…, G) as float64, or raise an InputError."""
        remedy = f"pass one finite number per cluster: {', '.join(self.scenario.cluster_names)}"
        numbers = as_real_array(name, values, remedy)
        if numbers.ndim == 0 or numbers.shape[-1:] != self.price_max.shape or not np.all(np.isfinite(numbers)):
            raise InputError(f"{name} is {shown(values)}; {remedy}")
        return numbers

    # -- episode -------------------------------------------------------------------------------------------
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a day and return the first observation and an empty info."""
        super().reset(seed=as_seed(seed))
        traffic = self._fixed_traffic
        if traffic is None:
            traffic = daily_traffic(self.scenario, self.np_random, self.minutes)
        self._system = SimulatedSystem(self.pool, traffic, self.np_random, table=self._table)
        self._control = self._system.start(prices=np.zeros(len(self.scenario.clusters)))  # computation is free
        self._revenue, self._past_periods = 0.0, []
        self._render_if_human()
        return self._observation(self._control), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold the prices of ``action`` (G,) for one control period.

        Raises:
            InputError: the action has another shape or is not finite, or no day is running.
        """
        prices, system = self.prices_of(self._checked_action(action)), self._running_system()
        self._past_periods.append(self.control)
        outcomes, self._control = system.hold(prices, self.scenario.control_period)
        self._revenue = float(sum(outcome.outcomes["revenue"] for outcome in outcomes))
        overload = overutilisation(np.array([o.equivalent / self.scenario.budgets for o in outcomes]))  # (G,)
        penalty = self.penalty * float(overload.sum())
        reward = self._revenue / self.reference - penalty
        terminated, truncated = False, system.is_over
        self._render_if_human()
        info = {"revenue": self._revenue, "penalty": penalty, "overload": overload, **self._telemetry(outcomes)}
        return self._observation(self.control), reward, terminated, truncated, info

    def render(self) -> Any:
        """Return text (``ansi``) or pixels (``rgb_array``) of the last period, or show a window (``human``)."""
        if self.render_mode is None:
            return None
        return self._screen.show(cluster_view(self.scenario, self.control, self._revenue, self._past_periods))

    def close(self) -> None:
        """Close the window if one is open."""
        self._screen.close()

    def _render_if_human(self) -> None:
        """Render the step in ``human`` mode."""
        if self.render_mode == "human":
            self.render()

    # -- parts ---------------------------------------------------------------------------------------------
    def _running_system(self) -> SimulatedSystem:
        """Return the system of the day, or raise an InputError if no day is running."""
        if self._system is None or self._system.is_over:
            raise InputError("no day is running; call reset() first")
        return self._system

    def _telemetry(self, outcomes: list[MinuteOutcome]) -> dict[str, Any]:
        """Return what the info tells of the clusters in the last period."""
        latency = outcomes[-1].latency
        timed: dict[str, Any] = {}
        if latency is not None:
            timed = {"latency_p50": latency.p50, "latency_p99": latency.p99, "late": latency.late}
        return {
            **timed,
            "load": self.control.load,
            "prices": self.control.prices,
            "degradation": outcomes[-1].degradation,
            "dropped": np.mean([outcome.reading.dropped for outcome in outcomes], axis=0),
            "qps": self.control.qps,
        }

    def _observation(self, control: ControlObservation) -> np.ndarray:
        """Scale a control observation to the observation space."""
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
        """Return the action as float64 (G,), or raise an InputError."""
        self._running_system()
        values = self._per_cluster("action", action)
        if values.shape != self.price_max.shape:
            names = ", ".join(self.scenario.cluster_names)
            raise InputError(f"action is {shown(action)}; pass one finite number in [0, 1] per cluster: {names}")
        return values


def _checked_traffic(traffic: Any, scenario: Scenario, minutes: int) -> Traffic | None:
    """Return the first ``minutes`` of the given traffic, or ``None`` if it is to be drawn at each reset."""
    if traffic is None:
        return None
    if isinstance(traffic, (str, Path)):
        return read_trace(traffic, scenario, minutes)
    if not isinstance(traffic, Traffic):
        traffic = Traffic("given", _numbers("traffic", traffic))
    qps = traffic.qps
    if qps.ndim != 1 or len(qps) == 0 or not np.all(np.isfinite(qps)) or np.any(qps < 0):
        raise InputError(
            f"traffic has shape {qps.shape}; pass finite, non-negative requests per second, one number per minute"
        )
    return traffic.clipped(minutes)


def _checked_ceiling(price_max: float | Sequence[float] | np.ndarray, n: int) -> np.ndarray:
    """Return ``price_max`` as (n,) positive numbers, or raise an InputError."""
    ceiling = _numbers("price_max", price_max)
    if ceiling.shape not in ((), (n,)) or not np.all(np.isfinite(ceiling)) or np.any(ceiling <= 0):
        raise InputError(f"price_max is {ceiling.tolist()}; pass one positive number, or one per cluster ({n})")
    return np.full(n, 1.0) * ceiling


def _numbers(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as float64, or raise an InputError that names the option."""
    return as_real_array(name, values, "pass numbers")


def _price_ceiling(pool: RequestPool) -> np.ndarray:
    """Return (G,) twice the price at which the load is a twentieth of the way from its minimum to its maximum."""
    values = pool.outcomes["revenue"]
    weights = np.ones(len(values)) if pool.weights is None else np.asarray(pool.weights, dtype=np.float64)
    rows = np.arange(len(values))
    relative = (pool.costs / pool.costs.mean(axis=(0, 1))).sum(axis=-1)  # (M,J)
    least = weights @ pool.costs[rows, relative.argmin(axis=1)]
    most = weights @ pool.costs[rows, values.argmax(axis=1)]
    _, prices = dual_bound(values, pool.costs, weights, least + 0.05 * np.maximum(most - least, 1e-3 * least))
    return 2.0 * np.maximum(prices, 1e-3 * prices.max() + 1e-9)
