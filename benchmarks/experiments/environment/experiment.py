"""Steps and request outcomes per second of the environments, beside public ones; cost by stages, actions and batch.

All rates of a comparison are measured in turn, round after round, so that what else the machine does hits them alike;
each is the median of its rounds. An outcome is one request served by the engine, all pairs already known to it, as in
training. A step of a batch of B counts B. The yardsticks are mpe2's simple_spread (three agents) and, where vmas is
installed, VMAS's batched one. Seconds are of one process with the threads that torch and numpy take by themselves.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import marca_env
from marca_env.envs import generated_presets
from marca_env.envs.batched_env import BatchedRecommender
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.engine import Engine, get_engine
from marca_env.models.revenue_model import AnalyticRevenueModel
from marca_env.traffic.allocation import allocate

SEEDS = (0,)
ROUNDS, SECONDS = 5, 0.3
BATCHES = (1, 64, 4096)
STAGES = tuple(range(2, 11))
OPTIONS = (4, 6, 10)
"""Options of each of five decisions: 1,024, 7,776 and 100,000 joint actions."""
AIMS = {"outcomes, B = 4096": 500_000, "PettingZoo Parallel": 5_000, "PettingZoo AEC": 5_000}
Work = Callable[[], int]
"""Does something, and says how many times."""


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Measure everything.

    Returns:
        ``rates`` (what, ``per_second`` as [median, lowest, highest], aim), ``memory`` (bytes by batch), ``stages`` and
        ``actions`` (microseconds of an episode in a batch of 64, and of a choice among all joint actions).
    """
    rounds, seconds = (2, 0.01) if quick else (ROUNDS, SECONDS)
    batches = BATCHES[:2] if quick else BATCHES
    stages, options = (STAGES[:2], OPTIONS[:1]) if quick else (STAGES, OPTIONS)
    rates = measured(contestants(batches, seeds[0]), rounds, seconds)
    return {
        "rounds": rounds,
        "rates": [{**row, "aim": AIMS.get(row["what"])} for row in rates],
        "memory": [memory(batch, seeds[0]) for batch in batches],
        "stages": by_size({f"{n} stages": f"stages-{n}-v0" for n in stages}, rounds, seconds, seeds[0]),
        "actions": by_size({f"{n}⁵ actions": widened(n) for n in options}, rounds, seconds, seeds[0]),
    }


def tables(result: dict[str, Any]) -> Iterable[Any]:
    """Rates, memory, and cost by size."""

    title = f"per second: median of {result['rounds']} interleaved rounds (lowest … highest)"
    table = Table("what", "per second", "aim", title=title)
    for row in result["rates"]:
        middle, low, high = (f"{v:,.0f}" for v in row["per_second"])
        table.add_row(row["what"], f"{middle} ({low} … {high})", f"{row['aim']:,}" if row["aim"] else "")
    yield table
    table = Table(
        "sub-environments", "peak of an episode, bytes", "per sub-environment", title="memory, without models"
    )
    for row in result["memory"]:
        table.add_row(f"{row['batch']:,}", f"{row['peak']:,}", f"{row['peak'] / row['batch']:,.0f}")
    yield table
    for name in ("stages", "actions"):
        headings = ("joint actions", "episode, µs per request", "per decision", "argmax over all, µs per request")
        table = Table(name, *headings, title="cost by size, batch of 64")
        for row in result[name]:
            cells = (f"{row['episode_us']:.1f}", f"{row['decision_us']:.2f}", f"{row['argmax_us']:.1f}")
            table.add_row(row["what"], f"{row['joint_actions']:,}", *cells)
        yield table


# -- measuring ---------------------------------------------------------------------------------------------
def measured(work: dict[str, Work], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Rates of each, ``rounds`` times in turn for ``seconds`` each, after one run that nobody counts."""
    for do in work.values():
        do()
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            found[name].append(rate(do, seconds))
    return [
        {"what": name, "per_second": [statistics.median(values), min(values), max(values)]}
        for name, values in found.items()
    ]


def rate(do: Work, seconds: float) -> float:
    """How many a second."""
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or done == 0:
        done += do()
    return done / passed


def contestants(batches: Sequence[int], seed: int) -> dict[str, Work]:
    """What is compared, by name."""

    engine = marca_env.Engine.load("default")
    work = {f"outcomes, B = {b}": outcomes(engine, b, seed) for b in batches}
    work |= {f"batched steps, B = {b}": batched_steps(engine, b, seed) for b in batches}
    work["PettingZoo Parallel"] = parallel_steps(marca_env.parallel_env(engine=engine, on_illegal="error"), seed)
    work["PettingZoo AEC"] = aec_steps(marca_env.env(engine=engine), seed)
    try:
        from mpe2 import simple_spread_v3
    except ImportError:
        return work
    work["mpe2 simple_spread, Parallel"] = free_steps(simple_spread_v3.parallel_env(), seed)
    return work | vmas_steps(batches, seed)


# -- workloads ---------------------------------------------------------------------------------------------
def outcomes(engine: Any, batch: int, seed: int) -> Work:
    """Whole requests, from arrays."""
    rng = np.random.default_rng(seed)
    states = engine.sample_states(rng, batch)
    actions = rng.integers(0, engine.scenario.action_shape, (batch, len(engine.scenario.decisions)))

    def do() -> int:
        engine.outcome(states, actions, rng)
        return batch

    return do


def batched_steps(engine: Any, batch: int, seed: int, episodes: int = 8) -> Work:
    """Episodes of a batch under random legal actions; the same few again and again, so that all pairs are known."""

    env, played = BatchedRecommender(batch, engine=engine), [0]
    rng = np.random.default_rng(seed)
    chosen = [rng.integers(0, n, (episodes, batch)) for n in engine.scenario.action_shape]
    waits = {agent: np.full(batch, n - 1) for agent, n in env.action_sizes.items()}

    def do() -> int:
        count = episodes if played[0] == 0 else 1  # the first time all
        for _ in range(count):
            which = played[0] % episodes
            env.reset(seed=seed if which == 0 else None)
            for turn in range(env.max_steps):
                env.step({**waits, str(env.agent_on_turn): chosen[turn][which]})
            played[0] += 1
        return batch * env.max_steps * count

    return do


def parallel_steps(env: Any, seed: int, episodes: int = 32) -> Work:
    """Steps of the Parallel view under random legal actions, all agents in each."""
    rng = np.random.default_rng(seed)

    def legal(seen: dict[str, Any], dice: float) -> int:
        (options,) = seen["action_mask"].nonzero()
        return int(options[int(dice * len(options))])

    dice = rng.random((episodes, env.max_steps))

    def do() -> int:
        for k in range(episodes):
            seen, _ = env.reset(seed=seed if k == 0 else None)
            for turn in range(env.max_steps):
                seen, *_ = env.step({agent: legal(own, dice[k, turn]) for agent, own in seen.items()})
        return episodes * env.max_steps

    return do


def aec_steps(env: Any, seed: int, episodes: int = 32) -> Work:
    """Decisions of the AEC view under random legal actions; the steps that take agents off are not counted."""
    rng = np.random.default_rng(seed)
    dice = rng.random((episodes, 64))

    def do() -> int:
        made = 0
        for k in range(episodes):
            env.reset(seed=seed if k == 0 else None)
            for turn, _ in enumerate(env.agent_iter()):
                seen, _, over, _, _ = env.last()
                (options,) = seen["action_mask"].nonzero()
                env.step(None if over else int(options[int(dice[k, turn] * len(options))]))
                made += not over
        return made

    return do


def free_steps(env: Any, seed: int, episodes: int = 4) -> Work:
    """Steps of another Parallel environment, whose actions are all legal."""
    rng = np.random.default_rng(seed)

    def do() -> int:
        steps = 0
        for k in range(episodes):
            env.reset(seed=seed if k == 0 else None)
            while env.agents:
                env.step({agent: int(rng.integers(env.action_space(agent).n)) for agent in env.agents})
                steps += 1
        return steps

    return do


def vmas_steps(batches: Sequence[int], seed: int, steps: int = 25) -> dict[str, Work]:
    """VMAS's simple_spread, where it is installed."""
    try:
        import torch
        import vmas
    except ImportError:
        return {}

    def work(batch: int) -> Work:
        env = vmas.make_env("simple_spread", num_envs=batch, seed=seed, continuous_actions=False, device="cpu")
        draw = torch.Generator().manual_seed(seed)

        def do() -> int:
            env.reset()
            for _ in range(steps):
                env.step([torch.randint(0, env.get_agent_action_size(a), (batch,), generator=draw) for a in env.agents])
            return batch * steps

        return do

    return {f"VMAS simple_spread, B = {b}": work(b) for b in batches}


# -- sizes -------------------------------------------------------------------------------------------------
def memory(batch: int, seed: int) -> dict[str, int]:
    """Peak bytes that an episode of a batch takes, the environment itself included, models and their memory not."""

    engine = get_engine("ranking-model-v0")
    batched_steps(engine, batch, seed)()
    tracemalloc.start()
    try:
        batched_steps(engine, batch, seed, episodes=1)()
        return {"batch": batch, "peak": tracemalloc.get_traced_memory()[1]}
    finally:
        tracemalloc.stop()


def by_size(cases: dict[str, Any], rounds: int, seconds: float, seed: int, batch: int = 64) -> list[dict[str, Any]]:
    """Microseconds of an episode, and of an argmax over all joint actions, of each case (an engine or a preset)."""

    engines = {name: case if isinstance(case, Engine) else Engine.load(case) for name, case in cases.items()}
    work: dict[str, Work] = {}
    for name, engine in engines.items():
        work[name, "episode"] = batched_steps(engine, batch, seed)  # type: ignore[index]
        work[name, "argmax"] = choices(engine, 2)  # type: ignore[index]
    rates = {row["what"]: row["per_second"][0] for row in measured(work, rounds, seconds)}
    rows = []
    for name, engine in engines.items():
        decisions = len(engine.scenario.decisions)
        per_decision = 1e6 / rates[name, "episode"]
        rows.append(
            {
                "what": name,
                "joint_actions": engine.scenario.n_joint_actions,
                "decisions": decisions,
                "episode_us": per_decision * decisions,
                "decision_us": per_decision,
                "argmax_us": 1e6 / rates[name, "argmax"],
            }
        )
    return rows


def choices(engine: Any, requests: int) -> Work:
    """a* = argmax Q − Σ λ_g C_g over every joint action, the models asked through an engine of its own: in a large
    scenario, whose pairs share places, it would push out those of the episodes."""

    engine = Engine(engine.scenario, engine.cost_model, engine.revenue_model, engine.population)
    states, prices = engine.population.states[:requests], np.ones(len(engine.scenario.clusters))

    def do() -> int:
        values, costs = engine.table(states)
        allocate(values, costs, prices)
        return requests

    return do


def widened(options: int) -> Any:
    """The engine of the five-stage chain with more options: ``options``⁵ joint actions, the law unchanged."""

    made = generated_presets.with_stages(5)
    models = {f"model_{k}": float(price) for k, price in enumerate(np.geomspace(0.4, 3.0, options))}
    stages = []
    for stage in made.scenario.stages:
        (decision,) = stage.decisions
        chosen: tuple[Any, ...] = tuple(models)
        if decision.kind == "queue":
            longest = max(decision.options)
            chosen = tuple(np.linspace(longest // 9, longest, options).astype(int).tolist())
        stages.append(replace(stage, decisions=(replace(decision, options=chosen),)))
    scenario = made.scenario.replace(stages=tuple(stages), name=f"chain-{options}")
    law = replace(made.law, models=models)
    return Engine(scenario, AnalyticCostModel(scenario, law), AnalyticRevenueModel(scenario, law), made.population)
