"""Every public function and class with every wrong value for every argument: the data, and what may come of it.

A call either works or raises an :class:`InputError` of one short line. Everything else is a fault: another exception, a
message of several lines, or a call that does not end.
"""

from __future__ import annotations

import dataclasses
import datetime
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd

import agents
import marca_env
import mpc
from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.price_env import BalancingEnv
from marca_env.envs.vector_env import RecommenderVectorEnv
from marca_env.integration.feature_coding import FeatureCoding
from marca_env.integration.number_columns import NumberColumn
from marca_env.scenario.parts import (
    Audience,
    Catalogue,
    Cluster,
    Decision,
    Display,
    Feature,
    Latency,
    Protection,
    Stage,
)
from marca_env.utils.errors import InputError

SECONDS = 10
"""A call that takes longer hangs."""
LONGEST = 1200
"""Most characters of a message."""
SCENARIO = "stages-3-v0"


class Hostile:
    """An object whose every use fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __len__(self) -> int:
        raise RuntimeError("no length")


WRONG: dict[str, Any] = {
    "none": None,
    "minus one": -1,
    "zero": 0,
    "huge": 2**70,
    "trillion": 10**12,
    "half": 0.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "minus inf": float("-inf"),
    "true": True,
    "text": "x",
    "empty text": "",
    "null byte": "a\0b",
    "long text": "x" * 5000,
    "bytes": b"x",
    "empty list": [],
    "list": [1],
    "list of text": ["a", "b"],
    "list of none": [None],
    "ragged": [[1, 2], [3]],
    "nested": [[[[1]]]],
    "empty mapping": {},
    "mapping": {"x": 1},
    "mapping of numbers": {1: 2},
    "tuple": (),
    "set": {1},
    "complex": 1j,
    "object": object(),
    "hostile": Hostile(),
    "class": int,
    "function": lambda *args: None,
    "date": datetime.date(2020, 1, 1),
    "delta": datetime.timedelta(seconds=1),
    "empty array": np.zeros(0),
    "array": np.zeros((2, 3, 4)),
    "nan array": np.full(3, np.nan),
    "complex array": np.ones(3, dtype=complex),
    "object array": np.array([object()], dtype=object),
    "text array": np.array(["a"]),
    "big array": np.full((2, 5), 2**40),
    "frame": pd.DataFrame({"x": [1]}),
    "empty frame": pd.DataFrame(),
    "path": Path("nowhere"),
    "numpy scalar": np.float64("nan"),
    "date array": np.array(["2020-01-01"], dtype="datetime64[D]"),
}
"""Name → value that is wrong for most arguments."""


@dataclass(frozen=True)
class Call:
    """A public call with valid arguments, of which one at a time becomes wrong."""

    name: str
    function: Callable[..., Any]
    valid: dict[str, Any] = field(default_factory=dict)
    fuzzed: tuple[str, ...] = ()
    """Arguments that get the wrong values; empty: all of ``valid``."""

    def cases(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (name, arguments) of every case."""
        for argument in self.fuzzed or tuple(self.valid):
            for kind, value in WRONG.items():
                yield f"{self.name}({argument}={kind})", {**self.valid, argument: value}


def fault(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> str | None:
    """Return what is wrong with a call, or ``None``."""
    try:
        with limited(SECONDS):
            function(**arguments)
    except InputError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST or not text:
            return f"{name}: a message of {text.count(chr(10)) + 1} lines and {len(text)} characters: {text[:200]!r}"
        return None
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{name}: {type(error).__name__}: {message_of(error)} ({Path(last.filename).name}:{last.lineno})"
    return None


def message_of(error: BaseException) -> str:
    """Return the start of an error's message."""
    try:
        return str(error)[:90]
    except Exception:  # it prints a hostile object
        return "a message that cannot be printed"


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after some seconds."""

    def expire(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- the calls --------------------------------------------------------------------------------------------------------
def environment_calls() -> list[Call]:
    """Return the environments: how they are built, reset and stepped."""
    options: dict[str, Any] = {"scenario": SCENARIO, "reward": "revenue", "prices": None, "engine": None}
    options |= {"on_illegal": "nearest", "window": None}
    team = {**options, "render_mode": None, "observations": "dict"}
    price = {"scenario": SCENARIO, "traffic": None, "penalty": 1.0, "price_max": None, "minutes": 3}
    price |= {"pool_size": 5, "render_mode": None, "engine": None, "pool": None}
    window = {"requests": 3, "seconds": 60.0, "traffic": None, "price_rate": 0.0}
    parallel = marca_env.parallel_env(SCENARIO)
    batched = marca_env.batched_env(2, SCENARIO)
    single, priced = RecommenderEnv(SCENARIO), BalancingEnv(SCENARIO, minutes=3, pool_size=5)
    vector, aec = RecommenderVectorEnv(2, SCENARIO), marca_env.env(SCENARIO)

    def then(environment: Any, method: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            environment.reset(seed=0)
            return getattr(environment, method)(**arguments)

        return call

    def of_one_agent(action: Any) -> Any:
        parallel.reset(seed=0)
        return parallel.step({**dict.fromkeys(parallel.agents, 0), parallel.agents[0]: action})

    def of_one_batched_agent(action: Any) -> Any:
        batched.reset(seed=0)
        return batched.step({**{a: np.zeros(2, dtype=int) for a in batched.agents}, batched.agents[0]: action})

    def with_reward(result: Any) -> Any:
        environment = marca_env.batched_env(2, SCENARIO, reward=lambda outcome, prices: result)
        environment.reset(seed=0)
        while environment.agent_on_turn is not None:
            environment.step({a: np.zeros(2, dtype=int) for a in environment.agents})

    return [
        Call("batched_env", marca_env.batched_env, {"num_envs": 2, **options}),
        Call("tensor_env", marca_env.tensor_env, {"num_envs": 2, "device": "cpu", **options}),
        Call("parallel_env", marca_env.parallel_env, team),
        Call("env", marca_env.env, team, ("scenario", "observations")),
        Call("EnvOptions", marca_env.EnvOptions, options),
        Call("RequestWindow", marca_env.RequestWindow, window),
        Call("RecommenderEnv", RecommenderEnv, {**options, "render_mode": None}, ("scenario", "render_mode")),
        Call(
            "RecommenderVectorEnv",
            RecommenderVectorEnv,
            {"num_envs": 2, "scenario": SCENARIO, "autoreset_mode": "NextStep"},
        ),
        Call("BalancingEnv", BalancingEnv, price),
        Call(
            "gymnasium.make",
            lambda **o: gymnasium.make("marca_env/Balancing-v0", **o),
            {"scenario": SCENARIO, "minutes": 3},
        ),
        Call("UniformAgents", marca_env.UniformAgents, {"env": parallel, "flat": False}),
        Call("parallel.reset", parallel.reset, {"seed": 0, "options": None}),
        Call("batched.reset", batched.reset, {"seed": 0}),
        Call("single.reset", single.reset, {"seed": 0, "options": None}),
        Call("vector.reset", vector.reset, {"seed": 0, "options": None}),
        Call("priced.reset", priced.reset, {"seed": 0, "options": None}),
        Call("aec.reset", aec.reset, {"seed": 0, "options": None}),
        Call("parallel.step", then(parallel, "step"), {"actions": dict.fromkeys(parallel.possible_agents, 0)}),
        Call("parallel.step of one agent", of_one_agent, {"action": 0}),
        Call("batched.step", then(batched, "step"), {"actions": {}}),
        Call("batched.step of one agent", of_one_batched_agent, {"action": np.zeros(2, dtype=int)}),
        Call("single.step", then(single, "step"), {"action": 0}),
        Call("vector.step", then(vector, "step"), {"actions": np.zeros(2, dtype=int)}),
        Call("priced.step", then(priced, "step"), {"action": np.zeros(2)}),
        Call("priced.prices_of", priced.prices_of, {"action": np.zeros(2)}),
        Call("priced.action_of", priced.action_of, {"prices": np.zeros(2)}),
        Call("aec.step", then(aec, "step"), {"action": 0}),
        Call("parallel.observation_space", parallel.observation_space, {"agent": parallel.possible_agents[0]}),
        Call("parallel.action_space", parallel.action_space, {"agent": parallel.possible_agents[0]}),
        Call("parallel.is_on_turn", then(parallel, "is_on_turn"), {"agent": parallel.possible_agents[0]}),
        Call("reward", with_reward, {"result": np.ones(2)}),
    ]


def model_calls(folder: Path) -> list[Call]:
    """Return scenarios, fitted models, logs and the TestBench.

    Args:
        folder: an empty folder.
    """
    scenario = marca_env.Scenario.load(SCENARIO)
    engine = marca_env.Engine.load(SCENARIO)
    states, actions = engine.population.states[:2], np.zeros((2, len(scenario.decisions)), dtype=int)
    rng = np.random.default_rng(0)
    parts = {"scenario": scenario, "cost_model": engine.cost_model, "revenue_model": engine.revenue_model}
    parts |= {"population": engine.population, "noise": "none", "sparsity": None}
    log = pd.DataFrame({"age": [1, 2, 3], "page": ["a", "b", "a"]})
    coding = FeatureCoding("age", 2, "age", "quantile")
    numbers = NumberColumn("age", 2.0, 1.0)
    coder = marca_env.FeatureCoder(marca_env.FeatureCoder.fit([coding], log).codings, [numbers])
    fit = {"scenario": scenario, "request_log": log, "seed": 0, "epochs": 1, "device": "cpu"}
    bench = {"scenario": SCENARIO, "machines": 1, "seconds": 1.0, "repeats": 1, "qps": None, "utilisation": 0.45}
    bench |= {"arrivals": "uniform", "seed": 0, "service": None, "target": None}
    outcome = {"states": states, "actions": actions, "rng": rng}
    options = {f.name: f.default for f in dataclasses.fields(marca_env.TraceOptions)}
    calls = [
        Call("Scenario.load", marca_env.Scenario.load, {"source": SCENARIO}),
        Call("Scenario.from_dict", marca_env.Scenario.from_dict, {"data": scenario.to_dict()}),
        Call("Scenario.replace", scenario.replace, {f: getattr(scenario, f) for f in scenario.to_dict()}),
        Call("Scenario.save", scenario.save, {"path": folder / "s.yaml"}),
        Call("Scenario.differs_from", scenario.differs_from, {"other": scenario}),
        Call("Scenario.joint_index", scenario.joint_index, {"actions": actions}),
        Call("Scenario.degraded", scenario.degraded, {"cluster": 0, "level": 1, "site": 0}),
        Call(
            "Engine.load",
            marca_env.Engine.load,
            {"scenario": SCENARIO, "folder": None, "noise": "none", "device": "cpu"},
        ),
        Call("Engine", marca_env.Engine, parts),
        Call("engine.evaluate", engine.evaluate, {"states": states, "actions": actions}),
        Call("engine.table", engine.table, {"states": states}),
        Call("engine.outcome", engine.outcome, outcome, ("states", "actions")),
        Call("engine.pool", engine.pool, {"size": 2, "seed": 0}),
        Call("engine.sample_states", engine.sample_states, {"rng": rng, "n": 2}, ("n",)),
        Call("engine.results", engine.results, {"states": states, "actions": actions, "turn": 0}),
        Call("cost.predict", engine.cost_model.predict, {"states": states, "actions": actions}),  # type: ignore[attr-defined]
        Call("cost.results", engine.cost_model.results, {"states": states, "actions": actions}),
        Call("revenue.predict", engine.revenue_model.predict, {"states": states, "actions": actions}),
        Call("revenue.table", engine.revenue_model.table, {"states": states}),  # type: ignore[attr-defined]
        Call("CostModel.load", marca_env.CostModel.load, {"folder": folder, "device": "cpu"}),
        Call("RevenueModel.load", marca_env.RevenueModel.load, {"folder": folder, "device": "cpu"}),
        Call("RevenueModel.load(scenario)", marca_env.RevenueModel.load, {"folder": scenario}),
        Call("CostModel.fit", marca_env.CostModel.fit, {**fit, "cost_log": log}),
        Call("RevenueModel.fit", marca_env.RevenueModel.fit, {**fit, "members": 1}),
        Call("FeatureCoder", marca_env.FeatureCoder, {"codings": [coding], "signals": [numbers]}),
        Call("NumberColumn", NumberColumn, {"column": "a", "mean": 0.0, "std": 1.0, "missing": 0.0}),
        Call("FeatureCoder.fit", marca_env.FeatureCoder.fit, {"codings": [coding], "log": log}),
        Call("FeatureCoder.load", marca_env.FeatureCoder.load, {"path": folder}),
        Call("coder.encode", coder.encode, {"raw": log}),
        Call("coder.encode_signals", coder.encode_signals, {"raw": log}),
        Call("TestBench", marca_env.TestBench, bench),
        Call("read_request_log", marca_env.read_request_log, {"path": folder / "r.csv", "scenario": SCENARIO}),
        Call("read_cost_log", marca_env.read_cost_log, {"path": folder / "c.csv"}),
        Call("read_system_log", marca_env.read_system_log, {"path": folder / "s.csv"}),
        Call(
            "read_trace",
            marca_env.read_trace,
            {"path": folder / "t.csv", "scenario": scenario, "minutes": 3, "start": None},
        ),
        Call("TraceOptions", marca_env.TraceOptions, options),
        Call("FeatureCoding", type(coding), {"name": "a", "size": 2, "column": "a", "coding": "hash", "numbers": ()}),
    ]
    return calls + part_calls()


def part_calls() -> list[Call]:
    """Return the parts of a scenario."""
    catalogue = {"items": 10, "dim": 2, "categories": 2, "max_history": 1, "noise": {}, "seed": 0}
    decision = {"name": "d", "kind": "queue", "options": (1, 2), "channel": None}
    return [
        Call("Feature", Feature, {"name": "f", "size": 2, "seen_by": ()}),
        Call("Decision", Decision, decision),
        Call("Stage", Stage, {"name": "s", "cluster": "c", "decisions": (), "queue_limit": None}),
        Call("Cluster", Cluster, {"name": "c", "cores": 2.0, "budget": 1.0}),
        Call("Protection", Protection, {"levels": (0.5,), "trigger": 1.02, "release": 0.98, "timeout": 10.0}),
        Call("Latency", Latency, {"limit": 0.1, "fallback": 0.5, "hard": False}),
        Call("Catalogue", Catalogue, catalogue),
        Call("Audience", Audience, {"value_sigma": 1.0, "affinity_scale": 1.0, "click_bias": -7.0, "conversion": 0.0}),
        Call("Display", Display, {"slots": (1,), "decay": 0.5}),
    ]


def agent_calls(policy: Any, folder: Path) -> list[Call]:
    """Return what ``agents`` exports.

    Args:
        policy: an :class:`agents.AllocationPolicy`.
        folder: an empty folder.
    """
    states = np.zeros((2, len(policy.scenario.features)), dtype=int)
    prices = np.zeros(len(policy.scenario.clusters))
    return [
        Call("preset", agents.preset, {"name": "QMIX", "gru": 8, "heads": 1, "mixer": "monotonic"}),
        Call("Split", agents.Split, {"by": "hash", "validation": 0.1, "test": 0.1, "seed": 0}),
        Call(
            "AllocationPolicy.load", agents.AllocationPolicy.load, {"path": folder, "cost_model": None, "device": "cpu"}
        ),
        Call("policy.decide", policy.decide, {"states": states, "prices": prices}),
        Call(
            "policy.tables_in_turn",
            policy.tables_in_turn,
            {"states": states, "observe": lambda s, a, turn: policy.cost_model.results(s, a)},
        ),
        Call(
            "policy.decide_in_turn",
            policy.decide_in_turn,
            {"states": states, "prices": prices, "observe": lambda s, a, turn: policy.cost_model.results(s, a)},
        ),
        Call(
            "policy.decide_with_estimates",
            policy.decide_with_estimates,
            {"states": states, "prices": prices, "fixed": [0] * len(policy.scenario.decisions)},
        ),
        Call("policy.values", policy.values, {"states": states}),
        Call("policy.costs", policy.costs, {"states": states}),
        Call("policy.save", policy.save, {"path": folder / "p"}),
        Call("TeamSpec.from_dict", agents.TeamSpec.from_dict, {"data": policy.team.spec.to_dict()}),
        Call("Preset.from_dict", agents.Preset.from_dict, {"data": policy.preset.to_dict()}),
    ]


def control_calls(folder: Path) -> list[Call]:
    """Return what ``mpc`` exports, but the update of its balancers, which never raises."""
    values, costs = np.ones((2, 3)), np.ones((2, 3, 2))
    bisection = {"values": values, "costs": costs, "weights": None, "windows": None}
    bisection |= {"n_windows": 1, "tolerance": 0.01, "sweeps": 2}
    fit = {"system_log": pd.DataFrame(), "clusters": None, "seed": 0}
    fit |= {"epochs": 1, "hidden": 2, "windows": 1, "members": 1}
    adaptation = {f.name: f.default for f in dataclasses.fields(mpc.AdaptationSettings)}
    static = mpc.StaticBalancer([1.0])
    return [
        Call("StaticBalancer", mpc.StaticBalancer, {"prices": [1.0, 2.0]}),
        Call(
            "FeedbackSettings",
            mpc.FeedbackSettings,
            {"proportional": 0.4, "integral": 0.0, "margin": 0.0, "scale": (1.0,)},
        ),
        Call("FeedbackBalancer", mpc.FeedbackBalancer, {"settings": None, "price_max": 10.0}),
        Call("PrimalDualBalancer", mpc.PrimalDualBalancer, {"rate": [1.0, 2.0], "window": 1, "price_max": 10.0}),
        Call("SliceBalancer", mpc.SliceBalancer, {"prices": np.ones((4, 2))}),
        Call(
            "BisectionBalancer",
            mpc.BisectionBalancer,
            {
                "values": values,
                "costs": costs,
                "weights": None,
                "windows": None,
                "n_windows": 1,
                "tolerance": 0.01,
                "sweeps": 2,
            },
        ),
        Call("DitheredBalancer", mpc.DitheredBalancer, {"base": static, "seed": 0, "spread": 0.5}),
        Call("MPCSettings", mpc.MPCSettings, {"horizon": 5, "alpha": 0.5, "margin": 0.0}),
        Call("AdaptationSettings", mpc.AdaptationSettings, adaptation),
        Call("TrafficForecaster.fit", mpc.TrafficForecaster.fit, {"days": np.ones((1, 1440))}),
        Call("SystemModel.load", mpc.SystemModel.load, {"folder": folder, "device": "cpu"}),
        Call(
            "SystemModel.fit",
            mpc.SystemModel.fit,
            {
                "system_log": pd.DataFrame(),
                "clusters": None,
                "seed": 0,
                "epochs": 1,
                "hidden": 2,
                "windows": 1,
                "members": 1,
            },
        ),
    ]
