"""Generator of the scenarios with exact models: ``python -m marca_env.envs.generated_presets [FOLDER]``.

Costs and revenues of these scenarios follow the formulas of :mod:`marca_env.models.analytic`; nothing was measured. The
files are written into the package, or into another folder. To change a scenario, give it a new version.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from marca_env import STAGES
from marca_env.envs.handover_preset import make_handover
from marca_env.models.analytic import Law, StageLaw
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.population import Population
from marca_env.models.revenue_model import AnalyticRevenueModel
from marca_env.scenario.request_window import RequestWindow
from marca_env.scenario.scenario import Cluster, Decision, Feature, Protection, Scenario, Stage
from marca_env.traffic.workload import bump
from marca_env.utils.units import MINUTES_PER_DAY

FEATURES = (Feature("uv", 6), Feature("w", 6), Feature("supply", 4), Feature("taste", 3))
"""User-value bucket, time window, number of existing candidates, and how choosy the user is."""
VALUE, SUPPLY, NEED = {"uv": 2.4, "w": 0.5}, {"supply": 1.6}, {"taste": 1.2}
"""Log ratios of the law by feature."""
MODELS = {"small": 0.4, "medium": 1.0, "large": 3.0}
"""Ranking model → relative price of a candidate."""
PEAK_QPS = 1000.0
_REQUESTS = 20_000
"""Requests of a population."""
_BURST_MINUTES = 240
"""Length of the bursty pattern of traffic."""
SITES = {"asia": (0.45, 8), "europe": (0.35, 1), "america": (0.2, -6)}
"""Data centre → share of a day's requests, and hours by which its clock is ahead of the scenario's."""
RUSH_HOURS = (0.4, 0.4, 0.5, 1.0, 1.0, 0.6, 0.4, 0.4, 0.7, 1.0, 0.9, 0.5)
"""Traffic of a window with two rush hours, relative to the peak rate."""
WINDOW_FEATURES = (Feature("uv", 6), Feature("taste", 3))
"""Features of the requests of the window tasks, beside the site."""
FLEET_SITES = 8


@dataclass(frozen=True)
class GeneratedScenario:
    """A scenario, its law, and its requests."""

    scenario: Scenario
    law: Law
    population: Population

    def write(self, package: Path) -> None:
        """Write the preset and its models to the places where the package holds them."""
        folder = package / "data" / self.scenario.name
        self.scenario.save(package / "scenario" / "presets" / f"{self.scenario.name}.yaml")
        AnalyticCostModel(self.scenario, self.law).save(folder / "cost_model")
        AnalyticRevenueModel(self.scenario, self.law).save(folder / "revenue_model")
        self.population.save(folder / "population.parquet", self.scenario)


def make_ranking_model() -> GeneratedScenario:
    """Make a chain of three stages that all decide; 4 × 4 × 3 = 48 joint actions over three clusters."""
    stages = (
        Stage("retrieval", "retrieval", (Decision("depth", "queue", (100, 300, 900, 2700)),)),
        Stage("pre_ranking", "pre_ranking", (Decision("truncation", "queue", (20, 60, 180, 540)),)),
        Stage("ranking", "ranking", (Decision("ranker", "model", ("small", "medium", "large")),)),
    )
    law = Law(
        stages=(
            StageLaw(loss=0.7, scale=600.0, base=2e-4, price=6e-7),
            StageLaw(loss=0.3, scale=500.0, base=1e-4, price=1.2e-6),
            StageLaw(loss=0.8, scale=120.0, base=2e-4, price=8e-6),
        ),
        models=MODELS,
        value=VALUE,
        supply=SUPPLY,
        need=NEED,
    )
    return _generated("ranking-model-v0", stages, law, share=0.25)


def make_bursty() -> GeneratedScenario:
    """Put the stages of ``ranking-model-v0`` under traffic of a third of the peak rate with bursts up to the peak."""
    base, rng = make_ranking_model(), np.random.default_rng(7)
    rate = np.full(_BURST_MINUTES, 0.33)
    for start in np.sort(rng.choice(_BURST_MINUTES, 10, replace=False)):
        height, length = rng.uniform(0.3, 1.0), rng.uniform(3.0, 10.0)
        minutes = np.arange(_BURST_MINUTES)
        rate += height * np.exp(-((minutes - start) % _BURST_MINUTES) / length)
    traffic = tuple(float(f"{x:.3f}") for x in rate / rate.max())
    return GeneratedScenario(base.scenario.replace(name="bursty-v0", traffic=traffic), base.law, base.population)


def make_congestion() -> GeneratedScenario:
    """Make windows of twelve requests with two rush hours; 4 × 4 × 4 = 64 joint actions over two clusters.

    Work waits up to two minutes before it is dropped, so that a rush hour outlasts its requests.
    """
    stages = (
        Stage("retrieval", "light", (Decision("depth", "queue", (100, 300, 900, 2700)),)),
        Stage("pre_ranking", "light", (Decision("truncation", "queue", (20, 60, 180, 540)),)),
        Stage("ranking", "heavy", (Decision("ranker", "model", ("tiny", "small", "medium", "large")),)),
    )
    law = Law(
        stages=make_ranking_model().law.stages,
        models={"tiny": 0.15, **MODELS},
        value={"uv": 3.0},
        need=NEED,
    )
    return _in_windows(_generated("congestion-v0", stages, law, share=0.2, features=WINDOW_FEATURES))


def make_fleet() -> GeneratedScenario:
    """Make eight sites that rank on one shared cluster, each with one decision of six options: 6⁸ joint actions."""
    queue = Decision("queue", "queue", (20, 60, 150, 350, 800, 1800))
    stages = (Stage("ranking", ("pool",) * FLEET_SITES, (queue,)),)
    law = Law(
        stages=(StageLaw(loss=0.9, scale=350.0, base=2e-4, price=8e-6),),
        value={"uv": 3.0, "i": 0.8},
        need=NEED,
    )
    features = (*WINDOW_FEATURES, Feature("i", FLEET_SITES))
    made = _in_windows(_generated("fleet-v0", stages, law, share=0.2, features=features, site="i"))
    return replace(made, scenario=made.scenario.replace(agent_kind="site"))


def _in_windows(made: GeneratedScenario) -> GeneratedScenario:
    """Return a scenario whose episode is a window with two rush hours, in slices of one minute.

    Its task has no prices: what computation costs is the load that it leaves to the next requests.
    """
    window = RequestWindow(requests=len(RUSH_HOURS), seconds=60.0, traffic=RUSH_HOURS)
    prices = (0.0,) * len(made.scenario.clusters)
    scenario = made.scenario.replace(window=window, prices=prices, protection=Protection(timeout=120.0))
    return replace(made, scenario=scenario)


def make_data_centres() -> GeneratedScenario:
    """Put the decisions of ``ranking-model-v0`` at three sites of two clusters each that peak at different hours."""
    base, names = make_ranking_model(), [f"{role}_{site}" for role in ("retrieval", "ranking") for site in SITES]
    retrieval, ranking = tuple(names[: len(SITES)]), tuple(names[len(SITES) :])
    rates = _site_rates()  # (minutes, sites)
    total = rates.sum(axis=1)
    scenario = Scenario(
        name="data-centres-v0",
        stages=tuple(replace(s, cluster=retrieval if s.name == "retrieval" else ranking) for s in base.scenario.stages),
        clusters=tuple(Cluster(name, cores=1.0, budget=1.0) for name in names),
        features=(Feature("uv", 6), Feature("w", 8), Feature("g", 4), Feature("i", len(SITES))),
        peak_qps=PEAK_QPS,
        traffic=tuple(float(f"{x:.3f}") for x in total / total.max()),
        site="i",
    )
    lighter = tuple(
        replace(stage, base=stage.base / 4) for stage in base.law.stages
    )  # so that the night fits a small budget
    law = replace(base.law, stages=lighter, value={"uv": 2.4, "i": 0.8}, supply={"g": 1.6}, need={"g": 0.8})
    windows = rates.reshape(8, -1, len(SITES)).sum(axis=1)
    population = _population(scenario, windows / windows.sum())
    peaks = PEAK_QPS * rates.max(axis=0) / total.max()  # (sites,) requests per second
    peaks = peaks / population.site_shares(scenario)  # because costs are means over the requests of all sites
    return _budgeted(scenario, law, population, share=0.25, qps=peaks @ scenario.site_clusters)


def _site_rates() -> np.ndarray:
    """Return the share of a day's requests by minute and site, (1440, sites): two peaks by each site's own clock."""
    hour = np.arange(MINUTES_PER_DAY)[:, None] / 60.0 + np.array([ahead for _, ahead in SITES.values()])
    day = 0.12 + bump(hour, 20.0, 3.0) + 0.65 * bump(hour, 10.5, 3.0)
    return day / day.sum(axis=0) * np.array([share for share, _ in SITES.values()])


def make_stages(n: int) -> GeneratedScenario:
    """Make a chain of ``n`` stages that decide: n − 1 queues, then the model; 3ⁿ joint actions over two clusters."""
    longest = [round(float(x)) for x in np.geomspace(2000.0, 100.0, n - 1)] if n > 2 else [1000]
    processed = [longest[0], *longest]  # stage 1 retrieves; each later stage gets the queue of the one before
    stages, laws = [], []
    for k in range(n):
        cluster = "light" if k < n / 2 else "heavy"
        decision = Decision("ranker", "model", ("small", "medium", "large"))
        if k < n - 1:
            options = (longest[k] // 9, longest[k] // 3, longest[k])
            decision = Decision(f"keep_{k + 1}", "queue", options)
        stages.append(Stage(f"stage_{k + 1}", cluster, (decision,)))
        price = 2e-3 / n / processed[k]
        laws.append(StageLaw(loss=round(1.6 / (n + 1), 4), scale=processed[k] / 3.0, base=5e-5, price=price))
    law = Law(stages=tuple(laws), models=MODELS, value=VALUE, supply=SUPPLY, need=NEED)
    return _generated(f"stages-{n}-v0", tuple(stages), law, share=0.35)


def _generated(
    name: str,
    stages: tuple[Stage, ...],
    law: Law,
    *,
    share: float,
    features: tuple[Feature, ...] = FEATURES,
    site: str | None = None,
) -> GeneratedScenario:
    """Complete a scenario with clusters, budgets and a population."""
    names = tuple(dict.fromkeys(c for s in stages for c in s.clusters))
    unlimited = tuple(Cluster(c, cores=1.0, budget=1.0) for c in names)
    scenario = Scenario(name=name, stages=stages, clusters=unlimited, features=features, peak_qps=PEAK_QPS, site=site)
    return _budgeted(scenario, law, _population(scenario), share=share, qps=np.full(len(names), PEAK_QPS))


def _budgeted(
    scenario: Scenario, law: Law, population: Population, *, share: float, qps: np.ndarray
) -> GeneratedScenario:
    """Set budgets to ``share`` of the cost of the most expensive action at each cluster's peak rate, ``qps`` (G,)."""
    most_expensive = np.tile(np.array(scenario.action_shape) - 1, (len(population.states), 1))
    cost = np.average(
        AnalyticCostModel(scenario, law).predict(population.states, most_expensive), axis=0, weights=population.counts
    )
    budgets = [float(f"{share * q * c:.3g}") for q, c in zip(qps, cost, strict=True)]
    clusters = tuple(
        Cluster(c.name, cores=round(1.4 * b, 6), budget=b) for c, b in zip(scenario.clusters, budgets, strict=True)
    )
    return GeneratedScenario(scenario.replace(clusters=clusters), law, population)


def _population(scenario: Scenario, site_traffic: np.ndarray | None = None) -> Population:
    """Draw a population of all states with a fixed seed.

    The features are independent, and the sites have about equal shares. Only time window and site are not if
    ``site_traffic`` (windows, sites) gives the share of requests of each pair.
    """
    rng = np.random.default_rng(2024)
    shares = [rng.dirichlet(np.full(f.size, 5.0)) for f in scenario.features]
    if scenario.site is not None and site_traffic is None:
        shares[scenario.feature_names.index(scenario.site)] = np.full(scenario.n_sites, 1.0 / scenario.n_sites)
    states = np.indices([f.size for f in scenario.features]).reshape(len(shares), -1).T
    dependent = () if site_traffic is None else ("w", scenario.site)
    independent = [k for k, name in enumerate(scenario.feature_names) if name not in dependent]
    probability = np.prod([shares[k][states[:, k]] for k in independent], axis=0)
    if site_traffic is not None:
        window, site = states[:, scenario.feature_names.index("w")], scenario.site_of(states)
        probability = probability * site_traffic[window, site]
    counts = rng.multinomial(_REQUESTS, probability)
    return Population(states[counts > 0], counts[counts > 0].astype(np.float64))


GENERATED: dict[str, Callable[[], GeneratedScenario]] = {
    "bursty-v0": make_bursty,
    "congestion-v0": make_congestion,
    "data-centres-v0": make_data_centres,
    "fleet-v0": make_fleet,
    "ranking-model-v0": make_ranking_model,
    **{f"stages-{n}-v0": (lambda n=n: make_stages(n)) for n in STAGES},  # type: ignore[misc]
}
"""Name of a preset → function that makes it."""


def main(package: Path) -> None:
    """Write the files of all generated scenarios."""
    for make in GENERATED.values():
        make().write(package)
    make_handover().write(package)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
