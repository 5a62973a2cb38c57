"""Cards of tasks whose episode is a window of requests, or of a fleet of sites.

Every row is the mean return of a policy that was played in the environment itself, the same windows for all policies.
Values are currency per request: the return of a window over its number of slices; of a fleet, the sum over its sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.days.fleet_planning import FleetPlanner
from benchmarks.days.independent_values import independent_values
from benchmarks.days.window_planning import GRID, WindowPlanner
from marca_env.envs.batched_env import BatchedRecommender, batched_env
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.models.engine import Engine

WINDOWS, SCREENED, KNOWN = 2000, 200, 60
"""Windows on which policies are played, on which static actions are compared first, and of the hindsight."""
Policy = Callable[[Any], np.ndarray]
"""Environment at the start of a request → joint actions (B,D), of a fleet (B,N,D)."""


def window_rows(
    engine: Engine, prices: np.ndarray, seed: int
) -> tuple[float, float, Mapping[str, Any], dict[str, float | None], dict[str, str]]:
    """Return random, static, the static action by decision, the rows and how they were computed, of a window task.

    Args:
        engine: engine of a scenario with a window; its agents may be sites.
        prices: (G,) λ of the reward, currency per core-second.
        seed: seed of the windows.

    Raises:
        InputError: a window of which no card is made.
    """
    return (_fleet_rows if engine.scenario.agent_kind == "site" else _request_rows)(engine, prices, seed)


def play(engine: Engine, prices: np.ndarray, policy: Policy, windows: int, seed: int) -> np.ndarray:
    """Return the return of each window over its number of requests, (windows,)."""
    env = batched_env(windows, engine=engine, prices=prices, reward="lagrangian", on_illegal="error")
    step, total = env.reset(seed), np.zeros(windows)
    while not step.terminated[0]:
        actions = policy(env)
        for d in range(env.encoder.n_turns):
            step = env.step(_decisions(env, actions[..., d]))
            total += step.reward
    assert env.window is not None
    return total / env.window.requests


def _decisions(env: BatchedRecommender | BatchedFleet, options: np.ndarray) -> dict[str, np.ndarray]:
    """Return the actions of all agents for options (B,) of the current decision, of a fleet (B,N)."""
    if isinstance(env, BatchedFleet):
        return {agent: options[:, k] for k, agent in enumerate(env.agents)}
    waits = {agent: np.full(len(options), n - 1) for agent, n in env.action_sizes.items()}
    return {**waits, str(env.agent_on_turn): options}


def _request_rows(engine: Engine, prices: np.ndarray, seed: int) -> Any:
    """Return the rows of windows of single requests."""
    scenario, planner = engine.scenario, WindowPlanner(engine, prices)
    actions = scenario.joint_actions

    def mean(policy: Policy, windows: int = WINDOWS) -> float:
        return float(play(engine, prices, policy, windows, seed).mean())

    def static(index: int) -> Policy:
        return lambda env: np.tile(actions[index], (env.num_envs, 1))

    def choose(pick: Callable[[np.ndarray], np.ndarray], values: list[np.ndarray] | None) -> Policy:
        def policy(env: Any) -> np.ndarray:
            t, state = env.clusters.n_served, env.clusters.state
            after = None if values is None else values[t + 1]
            rows = planner.rows(env.states)
            return actions[pick(planner.action_values(t, state.degradation, state.waiting_work, rows, after))]

        return policy

    def best_action(values: np.ndarray) -> np.ndarray:
        return values.argmax(axis=1)

    screened = np.array([mean(static(k), SCREENED) for k in range(len(actions))])
    finalists = {int(k): mean(static(int(k))) for k in np.argsort(screened)[-3:]}
    best = max(finalists, key=lambda k: finalists[k])
    same_but_last = np.flatnonzero((actions[:, :-1] == actions[best, :-1]).all(axis=1))
    restricted = np.full(len(actions), -np.inf)
    restricted[same_but_last] = 0.0
    far, truncated = planner.plan(), planner.plan(same_but_last)
    joint = mean(choose(best_action, far))
    sees_all = not any(f.seen_by or f.hidden for f in scenario.features)
    rows: dict[str, float | None] = {
        "truncation": mean(choose(lambda q: best_action(q + restricted), truncated)),
        "independent": mean(choose(lambda q: best_action(independent_values(scenario, q)), far)),
        "own_information": joint if sees_all else None,
        "myopic": mean(choose(best_action, None)),
        "joint": joint,
        "hindsight": joint + _value_of_hindsight(engine, prices, planner, choose(best_action, far), seed),
    }
    grid = f"by dynamic programming over levels and {GRID} points of waiting work of each cluster"
    how = {
        "requests": f"{WINDOWS:,} windows, played in the environment",
        "random": "uniform joint actions",
        "static": "the joint action of the highest mean return",
        "truncation": f"the last decision adapts to request and clusters, the others are static; {grid}",
        "independent": "each agent's best option as if the others chose at random, by the values of the joint row",
        "own_information": "equal to joint: every stage observes request and clusters"
        if sees_all
        else "not computed: stages observe different features",
        "myopic": "the best action for the request's own net reward in the state of the clusters (γ = 0)",
        "joint": f"{grid}; exact up to the grid",
        "hindsight": f"as joint, all requests of a window known in advance; difference on {KNOWN} windows",
    }
    random = mean(_random_policy(engine, seed))
    return random, finalists[best], scenario.named_options(actions[best][None])[0], rows, how


def _value_of_hindsight(engine: Engine, prices: np.ndarray, planner: WindowPlanner, joint: Policy, seed: int) -> float:
    """Return what knowing all requests of a window adds to the joint policy, on the same windows."""
    requests: list[np.ndarray] = []

    def recording(env: Any) -> np.ndarray:
        requests.append(planner.rows(env.states))
        return joint(env)

    without = play(engine, prices, recording, KNOWN, seed)
    values = planner.plan_known(np.stack(requests, axis=1))

    def policy(env: Any) -> np.ndarray:
        t, state = env.clusters.n_served, env.clusters.state
        rows = planner.rows(env.states)
        known = planner.action_values(t, state.degradation, state.waiting_work, rows, values[t + 1])
        return engine.scenario.joint_actions[known.argmax(axis=1)]

    return float((play(engine, prices, policy, KNOWN, seed) - without).mean())


def _random_policy(engine: Engine, seed: int, sites: tuple[int, ...] = ()) -> Policy:
    rng, actions = np.random.default_rng(seed), engine.scenario.joint_actions
    return lambda env: actions[rng.integers(len(actions), size=(env.num_envs, *sites))]


def _fleet_rows(engine: Engine, prices: np.ndarray, seed: int) -> Any:
    """Return the rows of a fleet."""
    scenario, planner = engine.scenario, FleetPlanner(engine, prices, seed)
    actions, sites = scenario.joint_actions, scenario.n_sites

    def mean(policy: Policy, windows: int = WINDOWS) -> float:
        return float(play(engine, prices, policy, windows, seed).mean())

    def act(choose: Callable[..., np.ndarray]) -> Policy:
        def policy(env: Any) -> np.ndarray:
            state = env.clusters.state
            level, waiting = state.degradation[:, 0], state.waiting_work[:, 0]
            return actions[choose(env.clusters.n_served, level, waiting, planner.single.rows(env.states))]

        return policy

    alone = planner.single.plan()

    def independent(t: int, level: np.ndarray, waiting: np.ndarray, rows: np.ndarray) -> np.ndarray:
        levels, work = (np.repeat(x, sites)[:, None] for x in (level, waiting))
        q = planner.single.action_values(t, levels, work, rows.ravel(), alone[t + 1])
        return q.argmax(axis=1).reshape(rows.shape)

    _, myopic = planner.plan(central=False, far_sighted=False)
    _, prices_by_state = planner.plan(central=False)
    values, _ = planner.plan(central=True)
    static, best = _static_fleet(mean, len(actions), sites, actions)
    rows: dict[str, float | None] = {
        "truncation": None,
        "independent": mean(act(independent)),
        "own_information": mean(act(lambda *state: planner.priced_actions(prices_by_state, *state))),
        "myopic": mean(act(lambda *state: planner.priced_actions(myopic, *state))),
        "joint": mean(act(lambda t, *state: planner.central_actions(values[t + 1], t, *state))),
        "hindsight": None,
    }
    price = "one price of computation for all sites, by dynamic programming over level and waiting work"
    how = {
        "requests": f"{WINDOWS:,} windows of {sites} sites, played in the environment",
        "random": "uniform actions",
        "static": "an action for each site: the best one for all, then site by site until no change helps",
        "truncation": "no meaning: all decisions are made in the same step or by the same site",
        "independent": "each site optimal alone, as if all traffic of the cluster were like its own request",
        "own_information": f"each site acts on its own request: {price}; the best known",
        "myopic": "one price for all sites that is best for the slice's own net reward (γ = 0)",
        "joint": f"a controller who sees all requests: {price} and requests; the best known",
        "hindsight": "not computed",
    }
    named = scenario.named_options(actions[best])
    chosen = {f"site_{k} {name}": option for k, row in enumerate(named) for name, option in row.items()}
    return mean(_random_policy(engine, seed, (sites,))), static, chosen, rows, how


def _static_fleet(
    mean: Callable[..., float], n_actions: int, sites: int, actions: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the mean return of the best static action of each site that was found, and the actions (N,)."""

    def value(plan: np.ndarray) -> float:
        return mean(lambda env: np.tile(actions[plan], (env.num_envs, 1, 1)))

    equal = [np.full(sites, k) for k in range(n_actions)]
    values = [value(plan) for plan in equal]
    best, highest, improves = equal[int(np.argmax(values))], max(values), True
    while improves:
        improves = False
        for site, change in np.ndindex(sites, 2):
            plan = best.copy()
            plan[site] = np.clip(plan[site] + 2 * change - 1, 0, n_actions - 1)
            if plan[site] != best[site] and (found := value(plan)) > highest:
                best, highest, improves = plan, found, True
    return highest, best
