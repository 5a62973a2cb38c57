"""Updates and decisions per second of AWRQ-Mixer at the paper's size, as shares of the machine's matrix-product rate.

An update is the learner's own: forward passes of the online and the target network, loss, backward pass, clipping,
Adam, target network (2,048 episodes, 20 heads, GRU 256, heads [512, 256], fp32, the default scenario). A decision
is ``AllocationPolicy.decide`` over 1,000 joint actions. The rate to compare with is that of a large fp32 matrix
product, timed just before and after each measurement; floating-point operations are those of every matrix product in
the measured code, as torch counts them, and the Q networks' own are also worked out by hand.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.team.team import Team, TeamSpec
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine, shipped_folder
from marca_env.scenario.scenario import Scenario

PARTS = ("sampling",)
SEEDS = (0,)
REPEATS, BATCH, REQUESTS = 7, 2048, 4096
CEILING = 2048
"""Rows and columns of the matrices whose product is the measure."""
PRICES = 0.05
"""λ of every cluster, currency per core-second."""
TARGET = 0.6


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Measure updates, decisions for large batches and decisions one by one.

    Returns:
        ``update`` and ``decide`` (rows): operations, seconds, rate and ``share`` of the matrix-product rate (wall time,
        and CPU time, which other programs disturb less), each ``[median, lowest, highest]``; ``single``: milliseconds
        of one decision, p50 and p99.
    """

    repeats = 2 if quick else REPEATS
    update = _updates(32 if quick else BATCH, repeats, seeds[0])
    decide, single = _decisions(8 if quick else REQUESTS, repeats, seeds[0], 5 if quick else 300)
    return {
        "threads": torch.get_num_threads(),
        "target_share": TARGET,
        "update": update,
        "decide": decide,
        "single": single,
    }


def tables(result: dict[str, Any]) -> Iterable[Any]:
    """Rates and shares."""

    title = f"AWRQ-Mixer at the paper's size, fp32, {result['threads']} threads (median, lowest … highest)"
    table = Table("", "per second", "GFLOP", "GFLOP/s", "matrix products", "share", "share, CPU time", title=title)
    for row in [result["update"], *result["decide"]]:
        if row["flops"] == 0:  # answers that are remembered
            table.add_row(row["what"], _span(row["per_second"], "{:.3g}"), "0", *4 * ("–",))
            continue
        rates = [_span(row[key], "{:.3g}") for key in ("per_second", "gflops", "ceiling_gflops")]
        shares = [_span(row[key], "{:.0%}") for key in ("share", "cpu_share")]
        table.add_row(row["what"], rates[0], f"{row['flops'] / 1e9:.4g}", *rates[1:], *shares)
    yield table
    table = Table("one request", "p50, ms", "p99, ms", title="decide, one request at a time")
    for row in result["single"]:
        table.add_row(row["what"], f"{row['p50_ms']:.3g}", f"{row['p99_ms']:.3g}")
    yield table


def _span(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(v) for v in values)
    return f"{middle} ({low} … {high})"


# -- measuring ---------------------------------------------------------------------------------------------
def share_of_ceiling(what: str, step: Callable[[], Any], count: int, repeats: int) -> dict[str, Any]:
    """Time ``step``, which does ``count`` things, between large matrix products, ``repeats`` times."""

    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    ceiling = _Ceiling()
    rows = []
    for _ in range(repeats):
        before = ceiling()
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        after = ceiling()
        best, best_cpu = ((x + y) / 2 for x, y in zip(before, after, strict=True))
        rows.append((count / wall, flops / wall / 1e9, best / 1e9, flops / wall / best, flops / cpu / best_cpu))
    names = ("per_second", "gflops", "ceiling_gflops", "share", "cpu_share")
    spans = {n: [statistics.median(v), min(v), max(v)] for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    return {"what": what, "flops": flops, "repeats": repeats, **spans}


class _Ceiling:
    """Operations per second, and per CPU second, of a large fp32 matrix product: the best of three."""

    def __init__(self) -> None:
        self.a, self.b = torch.randn(CEILING, CEILING), torch.randn(CEILING, CEILING)
        self.out = torch.empty(CEILING, CEILING)

    def __call__(self) -> tuple[float, float]:
        wall, cpu = [], []
        for _ in range(3):
            start, used = time.perf_counter(), time.process_time()
            torch.mm(self.a, self.b, out=self.out)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        return 2 * CEILING**3 / min(wall), 2 * CEILING**3 / min(cpu)


# -- the learner -------------------------------------------------------------------------------------------
def _updates(batch: int, repeats: int, seed: int) -> dict[str, Any]:
    from ray.rllib.core.learner.training_data import TrainingData

    from agents.rllib import AWRQMixerConfig
    from agents.rllib.core.cluster import start_ray

    start_ray(num_cpus=1)
    config = AWRQMixerConfig().environment("marca_env/parallel-v0").debugging(seed=seed)
    config.training(train_batch_size_per_learner=batch, target_update=1).env_runners(num_envs_per_env_runner=batch)
    algorithm = config.build_algo()
    try:
        algorithm.learner_group.foreach_learner(lambda learner: learner.set_reward_scale(1.0))
        (episodes,) = algorithm.env_runner.sample(num_episodes=batch, random_actions=True)
        row = share_of_ceiling(
            "updates", lambda: algorithm.learner_group.update(training_data=TrainingData(batch=episodes)), 1, repeats
        )
        row["network_flops"] = network_flops(config, batch)
        return {**row, "batch": batch}
    finally:
        algorithm.stop()


def network_flops(config: Any, batch: int) -> int:
    """Operations of the Q networks in an update on the default scenario, by hand.

    The heads see each decision once in the online network (three products of a layer: forward, and backward for
    weights and for inputs) and, in the target network, every decision that another one bootstraps from: all but the
    episode's first. The GRU's recurrent product is left out at an agent's first turn, where all rows share the zero
    state.
    """

    spec, network = TeamSpec.from_dict(config.team()), config.preset().network
    turns = {"retrieval": 4, "pre_ranking": 1}
    total = 0
    for agent, observed, actions in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        sizes = [network.gru, *network.hidden, actions]
        head = 2 * network.heads * sum(a * b for a, b in itertools.pairwise(sizes))
        own = turns[agent]
        ahead = own - (agent == spec.agents[0])
        seen, carried = 6 * network.gru * observed, 6 * network.gru**2
        total += batch * (head * (3 * own + ahead) + own * 3 * seen + (own - 1) * 4 * carried)
    return total


# -- the policy --------------------------------------------------------------------------------------------
def _decisions(requests: int, repeats: int, seed: int, singles: int) -> tuple[list[dict[str, Any]], list[dict]]:
    scenario = Scenario.load("default")
    rng = np.random.default_rng(seed)
    policy = _policy(scenario, seed)
    n_states = int(np.prod(scenario.feature_sizes))
    distinct = np.stack(np.unravel_index(rng.permutation(n_states)[:requests], tuple(scenario.feature_sizes)), 1)
    traffic = _traffic(scenario, requests, rng)
    prices = np.full(len(scenario.clusters), PRICES)

    def cold(states: np.ndarray) -> Callable[[], None]:
        def decide() -> None:
            policy.forget()
            policy.decide(states, prices)

        return decide

    rows = [
        share_of_ceiling(f"decide, {len(distinct)} distinct states", cold(distinct), len(distinct), repeats),
        share_of_ceiling(f"decide, {requests} requests of traffic", cold(traffic), requests, repeats),
    ]
    policy.decide(traffic, prices)
    seen = share_of_ceiling(
        f"decide, {requests} requests, states seen", lambda: policy.decide(traffic, prices), requests, repeats
    )
    rows.append(seen)
    single = []
    for what, forget in (("state not seen before", True), ("state seen before", False)):
        times = []
        policy.decide(traffic, prices)
        for k in range(singles):
            if forget:
                policy.forget()
            start = time.perf_counter()
            policy.decide(traffic[k % requests][None], prices)
            times.append(1e3 * (time.perf_counter() - start))
        single.append(
            {"what": what, "p50_ms": float(np.percentile(times, 50)), "p99_ms": float(np.percentile(times, 99))}
        )
    return rows, single


def _policy(scenario: Any, seed: int) -> Any:
    """An untrained team of the paper's size: the time of a decision does not depend on the weights."""

    torch.manual_seed(seed)
    team = Team(TeamSpec.of(team_encoder(scenario)), preset("AWRQMixer"))
    return AllocationPolicy(team, scenario, CostModel.load(shipped_folder(scenario.name) / "cost_model"))


def _traffic(scenario: Any, requests: int, rng: np.random.Generator) -> np.ndarray:
    """States of requests as they come: drawn from the population of the scenario."""

    population = Engine.load(scenario).population
    return population.states[
        rng.choice(len(population.states), requests, p=population.counts / population.counts.sum())
    ]
