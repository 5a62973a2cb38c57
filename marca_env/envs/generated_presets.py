"""The generated scenarios that come with the package, and how they were made: ``python -m marca_env.envs.generated_presets``.

They have exact models (:mod:`marca_env.models.analytic`): nothing about them was measured. Their files are this module's output,
written into the package (or another folder that is given); to change a scenario, give it a new version.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from marca_env.models.analytic import Law, StageLaw
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.population import Population
from marca_env.models.revenue_model import AnalyticRevenueModel
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from marca_env.traffic.workload import bump
from marca_env.utils.units import MINUTES_PER_DAY

FEATURES = (Feature("uv", 6), Feature("w", 6), Feature("supply", 4), Feature("taste", 3))
"""User-value bucket, time window, candidates that there are, and how choosy the user is."""
VALUE, SUPPLY, NEED = {"uv": 2.4, "w": 0.5}, {"supply": 1.6}, {"taste": 1.2}
MODELS = {"small": 0.4, "medium": 1.0, "large": 3.0}
"""Relative price of a candidate."""
PEAK_QPS = 1000.0
_REQUESTS = 20_000
_BURST_MINUTES = 240
SITES = {"asia": (0.45, 8), "europe": (0.35, 1), "america": (0.2, -6)}
"""Data centre → share of a day's requests, and hours that its clock is ahead of the scenario's."""
STAGES = tuple(range(2, 11))


@dataclass(frozen=True)
class Generated:
    """A scenario, its law, and who asks."""

    scenario: Scenario
    law: Law
    population: Population

    def write(self, package: Path) -> None:
        """Write the preset and its models as the package holds them."""
        folder = package / "data" / self.scenario.name
        self.scenario.save(package / "scenario" / "presets" / f"{self.scenario.name}.yaml")
        AnalyticCostModel(self.scenario, self.law).save(folder / "cost_model")
        AnalyticRevenueModel(self.scenario, self.law).save(folder / "revenue_model")
        self.population.save(folder / "population.parquet", self.scenario)


def ranking_model() -> Generated:
    """Three stages that all decide; the last chooses its model. 4 × 4 × 3 = 48 joint actions over three clusters."""
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


def bursty() -> Generated:
    """The stages of ``ranking-model-v0`` under traffic that lies at a third of the peak and bursts up to it."""
    made, rng = ranking_model(), np.random.default_rng(7)
    rate = np.full(_BURST_MINUTES, 0.33)
    for start in np.sort(rng.choice(_BURST_MINUTES, 10, replace=False)):
        height, length = rng.uniform(0.3, 1.0), rng.uniform(3.0, 10.0)
        minutes = np.arange(_BURST_MINUTES)
        rate += height * np.exp(-((minutes - start) % _BURST_MINUTES) / length)
    traffic = tuple(float(f"{x:.3f}") for x in rate / rate.max())
    return Generated(made.scenario.replace(name="bursty-v0", traffic=traffic), made.law, made.population)


def data_centres() -> Generated:
    """The decisions of ``ranking-model-v0`` at three sites of two clusters each, whose days peak at different hours."""
    made, names = ranking_model(), [f"{role}_{site}" for role in ("retrieval", "ranking") for site in SITES]
    retrieval, ranking = tuple(names[: len(SITES)]), tuple(names[len(SITES) :])
    rates = _site_rates()  # (minutes, sites)
    total = rates.sum(axis=1)
    scenario = Scenario(
        name="data-centres-v0",
        stages=tuple(replace(s, cluster=retrieval if s.name == "retrieval" else ranking) for s in made.scenario.stages),
        clusters=tuple(Cluster(name, cores=1.0, budget=1.0) for name in names),
        features=(Feature("uv", 6), Feature("w", 8), Feature("g", 4), Feature("i", len(SITES))),
        peak_qps=PEAK_QPS,
        traffic=tuple(float(f"{x:.3f}") for x in total / total.max()),
        site="i",
    )
    lighter = tuple(replace(stage, base=stage.base / 4) for stage in made.law.stages)  # a night fits a small budget
    law = replace(made.law, stages=lighter, value={"uv": 2.4, "i": 0.8}, supply={"g": 1.6}, need={"g": 0.8})
    windows = rates.reshape(8, -1, len(SITES)).sum(axis=1)
    population = _population(scenario, windows / windows.sum())
    peaks = PEAK_QPS * rates.max(axis=0) / total.max()  # (sites,) requests per second
    peaks = peaks / population.site_shares(scenario)  # for costs that are means over the requests of all sites
    return _budgeted(scenario, law, population, share=0.25, qps=peaks @ scenario.site_clusters)


def _site_rates() -> np.ndarray:
    """Requests of each minute at each site, (1440, sites), in shares of a day: two peaks by the site's own clock."""
    hour = np.arange(MINUTES_PER_DAY)[:, None] / 60.0 + np.array([ahead for _, ahead in SITES.values()])
    day = 0.12 + bump(hour, 20.0, 3.0) + 0.65 * bump(hour, 10.5, 3.0)
    return day / day.sum(axis=0) * np.array([share for share, _ in SITES.values()])


def with_stages(n: int) -> Generated:
    """A chain of ``n`` stages that decide: n − 1 queues and, in the last, the model; 3ⁿ joint actions, two clusters."""
    longest = [round(float(x)) for x in np.geomspace(2000.0, 100.0, n - 1)] if n > 2 else [1000]
    processed = [longest[0], *longest]  # stage 1 retrieves; every later one gets what the one before hands on
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


def _generated(name: str, stages: tuple[Stage, ...], law: Law, *, share: float) -> Generated:
    names = tuple(dict.fromkeys(c for s in stages for c in s.clusters))
    free = tuple(Cluster(c, cores=1.0, budget=1.0) for c in names)
    scenario = Scenario(name=name, stages=stages, clusters=free, features=FEATURES, peak_qps=PEAK_QPS)
    return _budgeted(scenario, law, _population(scenario), share=share, qps=np.full(len(names), PEAK_QPS))


def _budgeted(scenario: Scenario, law: Law, population: Population, *, share: float, qps: np.ndarray) -> Generated:
    """Budgets are ``share`` of what the dearest action would need at the peak of each cluster, ``qps`` (G,)."""
    dearest = np.tile(np.array(scenario.action_shape) - 1, (len(population.states), 1))
    cost = np.average(
        AnalyticCostModel(scenario, law).predict(population.states, dearest), axis=0, weights=population.counts
    )
    budgets = [float(f"{share * q * c:.3g}") for q, c in zip(qps, cost, strict=True)]
    clusters = tuple(
        Cluster(c.name, cores=round(1.4 * b, 6), budget=b) for c, b in zip(scenario.clusters, budgets, strict=True)
    )
    return Generated(scenario.replace(clusters=clusters), law, population)


def _population(scenario: Scenario, site_traffic: np.ndarray | None = None) -> Population:
    """Every state, the features independent of each other, drawn with a fixed seed; but time window and site, if
    ``site_traffic`` (windows, sites) says how requests share out over both."""
    rng = np.random.default_rng(2024)
    shares = [rng.dirichlet(np.full(f.size, 5.0)) for f in scenario.features]
    states = np.indices([f.size for f in scenario.features]).reshape(len(shares), -1).T
    tied = () if site_traffic is None else ("w", scenario.site)
    free = [k for k, name in enumerate(scenario.feature_names) if name not in tied]
    chance = np.prod([shares[k][states[:, k]] for k in free], axis=0)
    if site_traffic is not None:
        window, site = states[:, scenario.feature_names.index("w")], scenario.site_of(states)
        chance = chance * site_traffic[window, site]
    counts = rng.multinomial(_REQUESTS, chance)
    return Population(states[counts > 0], counts[counts > 0].astype(np.float64))


GENERATED: dict[str, Callable[[], Generated]] = {
    "bursty-v0": bursty,
    "data-centres-v0": data_centres,
    "ranking-model-v0": ranking_model,
    **{f"stages-{n}-v0": (lambda n=n: with_stages(n)) for n in STAGES},  # type: ignore[misc]
}
"""Name of a preset → how it is made."""


def main(package: Path) -> None:
    """Write all of them."""
    for make in GENERATED.values():
        make().write(package)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
