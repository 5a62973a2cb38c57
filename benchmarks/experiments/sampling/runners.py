"""The compared runners, ours and RLlib's, and their rates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env
from torch import nn

from agents.rllib import VDNConfig
from agents.rllib.core.runner import TeamEnvRunner
from marca_env.envs.batched_env import batched_env
from marca_env.envs.pettingzoo_env import parallel_env
from marca_env.models.engine import Engine

LEAST_SECONDS = 0.3
"""Shortest time over which a rate is measured."""
Sample = Callable[[], int]
"""Plays some episodes and returns the number of environment steps."""


def measure_rates(size: int, repeats: int, seed: int, engine: Engine, *, epsilon: float, hidden: int) -> dict[str, Any]:
    """Measure the three runners one after the other, ``repeats`` times.

    Args:
        size: number of sub-environments.
        repeats: measurements of each runner.
        seed: of networks and environments.
        engine: what the environments simulate.
        epsilon: ε of the ε-greedy policies.
        hidden: units of the one hidden layer.

    Returns:
        ``rllib``, ``looped`` (ours, PettingZoo environments) and ``batched`` (ours): median, least and most environment
        steps per second, and the median per second of CPU time, which other programs on the machine disturb less; and
        medians of the paired ratios to RLlib's rate, ``…_ratio`` and, in CPU time, ``…_cpu_ratio``.
    """
    steps = len(engine.scenario.decisions)
    policy: dict[str, Any] = {"epsilon": epsilon, "hidden": hidden}
    runners: dict[str, Sample] = {
        "rllib": rllib_runner(size, engine, seed, **policy),
        "looped": team_runner(size, pettingzoo_maker(engine), seed, steps, **policy),
        "batched": team_runner(size, batched_maker(engine), seed, steps, **policy),
    }
    for sample in runners.values():  # warm up caches and allocators
        sample()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, sample in runners.items():
            rates[name].append(_rate(sample))
    numbers: dict[str, Any] = {"sub_environments": size, "repeats": repeats}
    for name, pairs in rates.items():
        wall, cpu = zip(*pairs, strict=True)
        median = statistics.median(wall)
        numbers[name] = {"median": median, "least": min(wall), "most": max(wall), "per_cpu_s": statistics.median(cpu)}
    for name in ("looped", "batched"):
        for clock, suffix in ((0, "ratio"), (1, "cpu_ratio")):
            paired = zip(rates[name], rates["rllib"], strict=True)
            numbers[f"{name}_{suffix}"] = statistics.median(ours[clock] / theirs[clock] for ours, theirs in paired)
    return numbers


def _rate(sample: Sample) -> tuple[float, float]:
    """Return environment steps per second of wall-clock time and per second of this process's CPU time."""
    began, busy, steps = time.perf_counter(), time.process_time(), 0
    while True:
        steps += sample()
        seconds = time.perf_counter() - began
        if seconds > LEAST_SECONDS:
            return steps / seconds, steps / (time.process_time() - busy)


def team_runner(size: int, make: Callable[..., Any], seed: int, steps: int, *, epsilon: float, hidden: int) -> Sample:
    """Return our runner on ``size`` sub-environments that ``make`` builds, with episodes of ``steps`` steps."""
    config = VDNConfig().environment(make).env_runners(num_envs_per_env_runner=size).debugging(seed=seed)
    config.training(gru=None, hidden=[hidden], epsilon=epsilon, max_episode_steps=steps).validate()
    runner = TeamEnvRunner(config=config, worker_index=0)

    def sample() -> int:
        steps = sum(batch.env_steps() for batch in runner.sample())
        runner.get_metrics()
        return steps

    return sample


def rllib_runner(size: int, engine: Engine, seed: int, *, epsilon: float, hidden: int) -> Sample:
    """Return RLlib's multi-agent runner on ``size`` PettingZoo environments."""
    make = pettingzoo_maker(engine)
    register_env("sampling_recommender", lambda _: ParallelPettingZooEnv(make()))
    agents = make().possible_agents
    module = _greedy_module(epsilon, hidden)
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


def _greedy_module(epsilon: float, hidden: int) -> type:
    """Return an RLlib module: an MLP that acts ε-greedily among the legal actions."""

    class Greedy(TorchRLModule):
        def setup(self) -> None:
            inputs = self.observation_space["observation"].shape[0]
            self.net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, self.action_space.n))

        def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            with torch.inference_mode():
                observed, legal = batch[Columns.OBS]["observation"], batch[Columns.OBS]["action_mask"].bool()
                best = self.net(observed).masked_fill(~legal, -torch.inf).argmax(-1)
                drawn = torch.rand(legal.shape).masked_fill(~legal, -1.0).argmax(-1)
                return {Columns.ACTIONS: torch.where(torch.rand(len(best)) < epsilon, drawn, best)}

    return Greedy


def pettingzoo_maker(engine: Engine) -> Callable[..., Any]:
    """Return a function that builds a PettingZoo environment of an engine."""
    return lambda: parallel_env(engine.scenario, engine=engine)


def batched_maker(engine: Engine) -> Callable[..., Any]:
    """Return a function that builds a batched environment of an engine."""

    def make(num_envs: int) -> Any:
        return batched_env(num_envs, engine=engine, on_illegal="error")

    return make


def matmul_gflops() -> float:
    """Return GFLOP/s of a 1,024³ product in fp32, the best of five."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(seconds) / 1e9
