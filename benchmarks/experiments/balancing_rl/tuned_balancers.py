"""Feedback and MPC whose settings are tuned by return on one day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from benchmarks.days.calibration import gain_grid, release_margin, two_passes
from benchmarks.days.telemetry import system_log, usual_prices
from benchmarks.experiments.balancing_rl.judged_days import VALIDATION_SEED, judge_day
from benchmarks.experiments.balancing_rl.priced_day import PricedDay
from mpc import Balancer, FeedbackBalancer, FeedbackSettings, MPCBalancer, SystemModel

BALANCERS = {"feedback": ("proportional", "integral", "margin"), "MPC": ("margin",)}
"""Balancer → its tuned settings."""
MARGINS = (0.0, 0.015, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
GAINS = gain_grid(MARGINS, proportional=(0.05, 0.1, 0.2, 0.4, 0.8))
"""Candidates of the tuning, with wider margins than in :mod:`benchmarks.days.calibration`: the reward charges for
overload, and learners may keep as far from the budget as they like."""


def tuning_grid(name: str, quick: bool) -> dict[str, object]:
    """Return the tuning of a balancer: the seed of the ``day``, the ``settings``, and their candidates, ``grid``."""
    grid = [list(gains) for gains in GAINS] if name == "feedback" else [[margin] for margin in MARGINS]
    return {"day": VALIDATION_SEED, "settings": list(BALANCERS[name]), "grid": grid[: 2 if quick else None]}


def balancer_builder(name: str, day: PricedDay, days: int, epochs: int) -> Callable[..., Balancer]:
    """Return a function from the tuned settings to a balancer; all share one log and one system model.

    Args:
        name: one of :data:`BALANCERS`.
        day: the environment.
        days: length of the log.
        epochs: of the fit of the system model.
    """
    pool, price_max = day.base.pool, day.base.price_max
    log, release = system_log(pool, days=days), release_margin(pool.scenario)
    if name == "MPC":
        model = SystemModel.fit(log, clusters=pool.scenario.cluster_names, epochs=epochs)
        return partial(MPCBalancer, model, price_max=tuple(price_max.tolist()), release_margin=release)
    scale = tuple(usual_prices(pool, float(log["qps"].mean())).tolist())
    settings = partial(FeedbackSettings, scale=scale, release_margin=release)
    return lambda **tuned: FeedbackBalancer(settings(**tuned), price_max=price_max)


def tune(
    build: Callable[..., Balancer],
    environment: PricedDay,
    day: int,
    settings: Sequence[str],
    grid: Sequence[Sequence[float]],
) -> tuple[dict[str, float], float]:
    """Return the settings with the highest return on a day, and that return.

    The search is that of :func:`benchmarks.days.calibration.two_passes`.

    Args:
        build: settings → balancer.
        environment: simulates the day.
        day: seed of the day.
        settings: names of the tuned settings.
        grid: candidates, each with a value for every name.
    """

    def settings_by_name(candidate: tuple[float, ...]) -> dict[str, float]:
        return dict(zip(settings, candidate, strict=True))

    @cache
    def return_of(candidate: tuple[float, ...]) -> float:
        return judge_day(environment, day, build(**settings_by_name(candidate)))["return"]

    best = two_passes(lambda some: max(some, key=return_of), [tuple(candidate) for candidate in grid])
    return settings_by_name(best), return_of(best)
