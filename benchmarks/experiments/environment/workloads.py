"""Work whose rates are compared: outcomes of the engine, and steps of our environments and of public ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import marca_env
from benchmarks.experiments.environment.rates import Work
from marca_env.envs.batched_env import batched_env
from marca_env.models.engine import Engine


def compared_workloads(batches: Sequence[int], seed: int) -> dict[str, Work]:
    """Return all workloads of the comparison by name; the public ones only where they are installed."""
    engine = marca_env.Engine.load("default")
    work = {f"outcomes, B = {b}": outcomes(engine, b, seed) for b in batches}
    work |= {f"batched steps, B = {b}": batched_steps(engine, b, seed) for b in batches}
    work["PettingZoo Parallel"] = parallel_steps(marca_env.parallel_env(engine=engine, on_illegal="error"), seed)
    work["PettingZoo AEC"] = aec_steps(marca_env.env(engine=engine, on_illegal="error"), seed)
    try:
        from mpe2 import simple_spread_v3
    except ImportError:
        return work
    work["mpe2 simple_spread, Parallel"] = unmasked_steps(simple_spread_v3.parallel_env(), seed)
    return work | vmas_steps(batches, seed)


def outcomes(engine: Engine, batch: int, seed: int) -> Work:
    """Return work that computes the outcomes of whole requests, from arrays."""
    rng = np.random.default_rng(seed)
    states = engine.sample_states(rng, batch)
    actions = rng.integers(0, engine.scenario.action_shape, (batch, len(engine.scenario.decisions)))

    def run_once() -> int:
        engine.outcome(states, actions, rng)
        return batch

    return run_once


def batched_steps(engine: Engine, batch: int, seed: int, episodes: int = 8) -> Work:
    """Return work that plays episodes of a batch under random legal actions.

    The same few episodes are played again and again, so that all their pairs are in the prediction cache.
    """
    env, played = batched_env(batch, engine=engine, on_illegal="error"), [0]
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, n, (episodes, batch)) for n in engine.scenario.action_shape]
    waits = {agent: np.full(batch, n - 1) for agent, n in env.action_sizes.items()}

    def run_once() -> int:
        count = episodes if played[0] == 0 else 1  # the first call plays all of them
        for _ in range(count):
            episode = played[0] % episodes
            env.reset(seed=seed if episode == 0 else None)
            for turn in range(env.max_steps):
                env.step({**waits, str(env.agent_on_turn): drawn[turn][episode]})
            played[0] += 1
        return batch * env.max_steps * count

    return run_once


def parallel_steps(env: Any, seed: int, episodes: int = 32) -> Work:
    """Return work that steps the Parallel environment under random legal actions of all agents."""
    rng = np.random.default_rng(seed)
    dice = rng.random((episodes, env.max_steps))

    def run_once() -> int:
        for k in range(episodes):
            observations, _ = env.reset(seed=seed if k == 0 else None)
            for turn in range(env.max_steps):
                actions = {agent: _legal_action(own, dice[k, turn]) for agent, own in observations.items()}
                observations, *_ = env.step(actions)
        return episodes * env.max_steps

    return run_once


def aec_steps(env: Any, seed: int, episodes: int = 32) -> Work:
    """Return work that makes decisions in the AEC environment; steps that remove agents are not counted."""
    rng = np.random.default_rng(seed)
    dice = rng.random((episodes, 64))

    def run_once() -> int:
        decisions = 0
        for k in range(episodes):
            env.reset(seed=seed if k == 0 else None)
            for turn, _ in enumerate(env.agent_iter()):
                observation, _, terminated, _, _ = env.last()
                env.step(None if terminated else _legal_action(observation, dice[k, turn]))
                decisions += not terminated
        return decisions

    return run_once


def _legal_action(observation: dict[str, Any], dice: float) -> int:
    (legal,) = observation["action_mask"].nonzero()
    return int(legal[int(dice * len(legal))])


def unmasked_steps(env: Any, seed: int, episodes: int = 4) -> Work:
    """Return work that steps another Parallel environment, whose actions are all legal."""
    rng = np.random.default_rng(seed)

    def run_once() -> int:
        steps = 0
        for k in range(episodes):
            env.reset(seed=seed if k == 0 else None)
            while env.agents:
                env.step({agent: int(rng.integers(env.action_space(agent).n)) for agent in env.agents})
                steps += 1
        return steps

    return run_once


def vmas_steps(batches: Sequence[int], seed: int, steps: int = 25) -> dict[str, Work]:
    """Return work that steps VMAS's simple_spread, by batch; empty where vmas is not installed."""
    try:
        import vmas
    except ImportError:
        return {}

    def work(batch: int) -> Work:
        env = vmas.make_env("simple_spread", num_envs=batch, seed=seed, continuous_actions=False, device="cpu")
        draw = torch.Generator().manual_seed(seed)

        def run_once() -> int:
            env.reset()
            for _ in range(steps):
                env.step([torch.randint(0, env.get_agent_action_size(a), (batch,), generator=draw) for a in env.agents])
            return batch * steps

        return run_once

    return {f"VMAS simple_spread, B = {b}": work(b) for b in batches}
