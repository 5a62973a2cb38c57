"""Environment steps per second of the team's runner against RLlib's own multi-agent runner.

Both run the recommender with one feed-forward network of 64 hidden units per agent (VDN's), ε = 0.05, the same number
of sub-environments and one thread, by turns in one process. RLlib steps the PettingZoo environment, through its own
wrapper and with the leanest module that makes the same decisions; ours the batched view of it, and, to tell the runner
from the view, the same PettingZoo environments too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.pettingzoo_env import parallel_env
from marca_env.models.engine import Engine

EPSILON, HIDDEN = 0.05, 64
SIZES, REPEATS = (8, 64, 256, 1000), 5
SEEDS = (0,)
TARGET = 50.0
"""Times RLlib's rate."""


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Measure every size.

    Returns:
        ``rows``: per number of sub-environments the median rates (environment steps per second; ``per_cpu_s`` per
        second of CPU time, which other programs on the machine disturb less), their spread over the repetitions and
        the medians of the paired ratios; ``matmul_gflops``: what the machine did meanwhile.
    """

    from agents.rllib.core.cluster import start_ray

    start_ray(num_cpus=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engine = Engine.load()
        sizes, repeats = (SIZES, REPEATS) if not quick else ((8,), 2)
        rows = [_measure(size, repeats, seeds[0], engine) for size in sizes]
        return {"rows": rows, "matmul_gflops": _matmul_rate(), "threads": 1, "epsilon": EPSILON, "target": TARGET}
    finally:
        torch.set_num_threads(threads)


def tables(result: dict[str, Any]) -> Iterable[Any]:
    """The rows as a table."""

    table = Table(title="Sampling, environment steps per second")
    for column in ("sub-environments", "RLlib", "ours, PettingZoo", "ours, batched", "PettingZoo ×", "batched ×"):
        table.add_column(column, justify="right")
    for row in result["rows"]:
        rates = [f"{row[name]['median']:,.0f}" for name in ("rllib", "looped", "batched")]
        table.add_row(str(row["sub_environments"]), *rates, f"{row['looped_ratio']:.1f}", f"{row['batched_ratio']:.0f}")
    yield table


def _measure(size: int, repeats: int, seed: int, engine: Any) -> dict[str, Any]:
    """Rates of the three runners, one after the other in every repetition."""
    steps = len(engine.scenario.decisions)
    runners = {
        "rllib": _rllib_runner(size, engine, seed),
        "looped": _team_runner(size, _pettingzoo_maker(engine), seed, steps),
        "batched": _team_runner(size, _batched_maker(engine), seed, steps),
    }
    for sample in runners.values():  # warm up: caches, allocators
        sample()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, sample in runners.items():
            rates[name].append(_rate(sample))
    row: dict[str, Any] = {"sub_environments": size, "repeats": repeats}
    for name, found in rates.items():
        wall, cpu = zip(*found, strict=True)
        median = statistics.median(wall)
        row[name] = {"median": median, "least": min(wall), "most": max(wall), "per_cpu_s": statistics.median(cpu)}
    for name in ("looped", "batched"):
        for clock, suffix in ((0, "ratio"), (1, "cpu_ratio")):
            pairs = zip(rates[name], rates["rllib"], strict=True)
            row[f"{name}_{suffix}"] = statistics.median(ours[clock] / theirs[clock] for ours, theirs in pairs)
    return row


def _rate(sample: Callable[[], int]) -> tuple[float, float]:
    """Environment steps per second of the clock, and of this process's CPU time, over at least 0.3 s."""
    began, busy, steps = time.perf_counter(), time.process_time(), 0
    while True:
        steps += sample()
        taken = time.perf_counter() - began
        if taken > 0.3:
            return steps / taken, steps / (time.process_time() - busy)


def _team_runner(size: int, make: Callable[..., Any], seed: int, steps: int) -> Callable[[], int]:
    from agents.rllib import VDNConfig
    from agents.rllib.core.runner import TeamEnvRunner

    config = VDNConfig().environment(make).env_runners(num_envs_per_env_runner=size).debugging(seed=seed)
    config.training(gru=None, hidden=[HIDDEN], epsilon=EPSILON, max_episode_steps=steps).validate()
    runner = TeamEnvRunner(config=config, worker_index=0)

    def sample() -> int:
        steps = sum(batch.env_steps() for batch in runner.sample())
        runner.get_metrics()
        return steps

    return sample


def _rllib_runner(size: int, engine: Any, seed: int) -> Callable[[], int]:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
    from ray.tune.registry import register_env

    make = _pettingzoo_maker(engine)
    register_env("sampling_recommender", lambda _: ParallelPettingZooEnv(make()))
    agents = make().possible_agents
    module = _greedy_module()
    specs = {agent: RLModuleSpec(module_class=module) for agent in agents}
    config = PPOConfig().environment("sampling_recommender").debugging(seed=seed, log_level="ERROR")
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=size)
    config.multi_agent(policies=set(agents), policy_mapping_fn=lambda agent, episode, **_: agent)
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    runner = MultiAgentEnvRunner(config=config, worker_index=0)

    def sample() -> int:
        steps = sum(episode.env_steps() for episode in runner.sample(num_episodes=size))
        runner.get_metrics()
        return steps

    return sample


def _greedy_module() -> type:
    """An MLP per agent, ε-greedy among its legal actions, as RLlib's runner wants it."""
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.rl_module.torch import TorchRLModule

    class Greedy(TorchRLModule):
        def setup(self) -> None:
            inputs = self.observation_space["observation"].shape[0]
            self.net = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, self.action_space.n))

        def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            with torch.inference_mode():
                seen, legal = batch[Columns.OBS]["observation"], batch[Columns.OBS]["action_mask"].bool()
                best = self.net(seen).masked_fill(~legal, -torch.inf).argmax(-1)
                lottery = torch.rand(legal.shape).masked_fill(~legal, -1.0).argmax(-1)
                return {Columns.ACTIONS: torch.where(torch.rand(len(best)) < EPSILON, lottery, best)}

    return Greedy


def _pettingzoo_maker(engine: Any) -> Callable[..., Any]:
    return lambda: parallel_env(engine.scenario, engine=engine)


def _batched_maker(engine: Any) -> Callable[..., Any]:
    def make(num_envs: int) -> Any:
        return BatchedRecommender(num_envs, engine=engine)

    return make


def _matmul_rate() -> float:
    """GFLOP/s of a 1,024³ product in fp32 on one thread, the best of five."""

    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        taken.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(taken) / 1e9
