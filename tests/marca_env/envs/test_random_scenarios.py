"""Properties of every scenario and every sequence of actions: spaces, masks, costs, conservation."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import marca_env
from marca_env.envs.batched_env import batched_env
from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.request_window import RequestWindow
from marca_env.models.analytic import Law, StageLaw
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.engine import Engine
from marca_env.models.population import Population, Sparsity
from marca_env.models.revenue_model import AnalyticRevenueModel
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage

MODELS = {"small": 0.3, "middle": 1.0, "large": 2.5}


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    """Draw chains of one to four stages, each with a queue, a model, both or (except the first) no decision."""
    positive = st.floats(1e-6, 1e-2)
    n, clusters = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    stages, laws = [], []
    for k in range(n):
        decisions = []
        if k == 0 or draw(st.booleans()):
            lengths = draw(st.lists(st.integers(1, 500), min_size=2, max_size=4, unique=True))
            decisions.append(Decision(f"keep_{k}", "queue", tuple(sorted(lengths))))
        if draw(st.booleans()):
            names = list(MODELS)[: draw(st.integers(2, 3))]
            decisions.append(Decision(f"model_{k}", "model", tuple(names)))
        stages.append(Stage(f"stage_{k}", f"cluster_{draw(st.integers(0, clusters - 1))}", tuple(decisions)))
        loss, scale = draw(st.floats(0.0, 1.0)), draw(st.floats(1.0, 500.0))
        laws.append(StageLaw(loss, scale, draw(positive), draw(positive)))
    names = sorted({stage.cluster for stage in stages})
    machines = tuple(Cluster(c, cores=1.0, budget=draw(st.floats(0.05, 1.0))) for c in names)
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    features = tuple(Feature(f"f{k}", size) for k, size in enumerate(sizes))
    scenario = Scenario(
        name="random", stages=tuple(stages), clusters=machines, features=features, peak_qps=draw(st.floats(1.0, 500.0))
    )
    spread = st.dictionaries(st.sampled_from([f.name for f in features]), st.floats(-2.0, 2.0))
    law = Law(tuple(laws), MODELS, value=draw(spread), supply=draw(spread), need=draw(spread))
    states = np.indices(sizes).reshape(len(sizes), -1).T
    population = Population(states, np.ones(len(states)))
    noise = draw(st.sampled_from(["none", "gamma"]))
    models = AnalyticCostModel(scenario, law), AnalyticRevenueModel(scenario, law)
    return Engine(scenario, *models, population, noise=noise, sparsity=Sparsity(0.5, 1.0))


windows = st.one_of(
    st.none(),
    st.builds(
        RequestWindow,
        requests=st.integers(1, 4),
        traffic=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=3).map(tuple),
        price_rate=st.sampled_from([0.0, 0.5]),
    ),
)
seeds = st.integers(0, 2**32 - 1)
laws = settings(max_examples=30, deadline=None)


def mask_of(scenario: Scenario, agent: str, turn: int, n: int) -> list[bool]:
    """Return the expected mask: the options of the current decision, or only `wait`."""
    decides = turn < len(scenario.decisions) and scenario.stage_names[scenario.decision_stage[turn]] == agent
    options = scenario.action_shape[turn] if decides else 0
    return [k < options if decides else k == n - 1 for k in range(n)]


@laws
@given(engines(), windows, seeds)
def test_observations_lie_in_their_spaces_and_masks_are_right(engine: Engine, window: RequestWindow, seed: int) -> None:
    rng, scenario = np.random.default_rng(seed), engine.scenario
    prices = rng.uniform(0.0, 5.0, len(scenario.clusters))
    env = batched_env(3, engine=engine, window=window, prices=prices, reward="lagrangian")
    step = env.reset(seed=seed)
    for t in range(env.max_steps + 1):
        turn = t % env.encoder.n_turns if t < env.max_steps else env.encoder.n_turns
        assert all(env.encoder.state_space().contains(row) for row in step.state)
        for agent in env.agents:
            space, n = env.encoder.observation_space(agent), env.action_sizes[agent]
            for observation, mask in zip(step.observations[agent], step.masks[agent], strict=True):
                assert space.contains({"observation": observation, "action_mask": mask.astype(np.int8)})
                assert mask.tolist() == mask_of(scenario, agent, turn, n)
        assert np.isfinite(step.reward).all()
        assert all(np.isfinite(values).all() for values in step.infos.values())
        assert step.terminated.all() == (t == env.max_steps)
        if step.infos:
            assert (step.infos["revenue"] >= 0).all()
            assert (step.infos["cost"] >= 0).all()
            assert (np.diff(step.infos["results"], axis=1) <= 0).all()  # no stage creates candidates
        else:
            assert not step.reward.any()
        if t < env.max_steps:
            step = env.step({a: np.array([rng.choice(np.flatnonzero(m)) for m in step.masks[a]]) for a in env.agents})


@laws
@given(engines(), seeds)
def test_cost_rises_with_every_queue_and_results_respect_it(engine: Engine, seed: int) -> None:
    scenario, rng = engine.scenario, np.random.default_rng(seed)
    states = engine.sample_states(rng, 8)
    actions = rng.integers(0, scenario.action_shape, (8, len(scenario.decisions)))
    for d, decision in enumerate(scenario.decisions):
        tried = [np.where(np.arange(actions.shape[1]) == d, k, actions) for k in range(len(decision.options))]
        evaluations = [engine.evaluate(states, each) for each in tried]
        if decision.kind == "queue":
            results, cost = (np.stack([f[k] for f in evaluations]) for k in (0, 1))
            assert (np.diff(results, axis=0) >= 0).all()
            assert (np.diff(cost, axis=0) >= 0).all()
            next_stage = scenario.decision_stage[d] + 1  # a queue bounds what the next stage gets
            if 0 < next_stage < len(scenario.stages):
                assert (results[:, :, next_stage] <= np.array(decision.options)[:, None]).all()
        else:
            assert (np.diff(np.stack([f[1] for f in evaluations]), axis=0) >= 0).all()  # these models rise in price


@laws
@given(engines(), windows, seeds)
def test_single_agent_environment_accepts_every_action_of_its_space(
    engine: Engine, window: RequestWindow, seed: int
) -> None:
    env = RecommenderEnv(engine=engine, window=window)
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    total, terminated = 0.0, False
    while not terminated:
        assert env.observation_space.contains(observation)
        assert env.action_masks().tolist() == [bool(m) for m in info["action_mask"]]
        assert env.action_masks().sum() == engine.scenario.action_shape[env._core.turn]
        observation, reward, terminated, _, info = env.step(int(env.action_space.sample()))
        total += reward
    assert np.isfinite(total)
    assert not env.action_masks().any()


@laws
@given(engines(), windows, seeds)
def test_resets_with_one_seed_agree_and_so_do_the_views(engine: Engine, window: RequestWindow, seed: int) -> None:
    def played(env: marca_env.UniformAgents) -> list[float]:
        rng, rewards = np.random.default_rng(seed), []
        observations, _ = env.reset(seed=seed)
        while env.agents:
            masks = {a: np.flatnonzero(observations[a]["action_mask"]) for a in env.agents}
            observations, reward, *_ = env.step({a: int(rng.choice(m)) for a, m in masks.items()})
            rewards += reward.values()
        return rewards

    plain = marca_env.parallel_env(engine=engine, window=window, on_illegal="error")
    first = played(plain)
    assert played(plain) == first
    assert played(marca_env.UniformAgents(plain)) == first
