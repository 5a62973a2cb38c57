"""Decisions of tables equal those of the policy in process; invalid requests get the static action."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.batch import BatchDecider
from benchmarks.serving.decider import Decider
from benchmarks.serving.request_states import RequestStates
from benchmarks.serving.static_rule import StaticRule
from marca_env.integration.feature_coding import FeatureCoder, FeatureCoding
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.batch_policies import (
    NumericLaw,
    TinyCosts,
    make_numeric_scenario,
    make_requests_table,
    make_varied_policy,
)
from tests.helpers.factories import make_tiny_scenario

TINY_PRICES, TINY_STATIC = np.array([20.0, 10.0]), (1, 2, 0, 1)


def make_tiny_policy() -> AllocationPolicy:
    scenario = make_tiny_scenario()
    return make_varied_policy(scenario, TinyCosts(scenario))


def make_numeric_policy() -> AllocationPolicy:
    scenario = make_numeric_scenario()
    return make_varied_policy(scenario, NumericLaw(scenario))


def make_tiny_decider(**options: Any) -> BatchDecider:
    policy = make_tiny_policy()
    coder = options.pop("coder", None)
    return BatchDecider(policy, RequestStates(policy.scenario, coder), TINY_PRICES, TINY_STATIC, **options)


def decide_in_parts(decider: BatchDecider, requests: pa.Table, size: int) -> pa.Table:
    parts = [decider.decide(requests.slice(start, size)) for start in range(0, len(requests), size)]
    return pa.concat_tables(parts).unify_dictionaries()


def actions_of(decided: pa.Table, scenario: Scenario) -> np.ndarray:
    return np.stack([decided.column(name).to_numpy() for name in scenario.decision_names], axis=1)


@pytest.mark.parametrize(("make", "prices"), [(make_tiny_policy, TINY_PRICES), (make_numeric_policy, np.array([0.3]))])
@pytest.mark.parametrize("size", [1, 77, 2000])
def test_decisions_equal_those_in_process_in_tables_of_any_size(make: Any, prices: np.ndarray, size: int) -> None:
    policy, alone = make(), make()
    scenario = policy.scenario
    requests = make_requests_table(scenario, 60 if size == 1 else 2000)
    static = (0,) * len(scenario.decisions)
    decider = BatchDecider(policy, RequestStates(scenario), prices, static, ["id"], with_values=True)
    decided = decide_in_parts(decider, requests, size)

    states = np.stack([requests.column(name).to_numpy() for name in scenario.state_columns], axis=1)
    expected = alone.decide(states, prices)
    assert len(np.unique(expected, axis=0)) > 1
    np.testing.assert_array_equal(actions_of(decided, scenario), expected)
    rows, joint = np.arange(len(states)), scenario.joint_index(expected)
    np.testing.assert_allclose(decided.column("value").to_numpy(), alone.values(states)[rows, joint], rtol=1e-5)
    costs = np.stack([decided.column(f"cost_{c}").to_numpy() for c in scenario.cluster_names], axis=1)
    np.testing.assert_allclose(costs, alone.costs(states)[rows, joint], rtol=1e-5)
    options = scenario.named_options(expected)
    assert decided.column("id").equals(requests.column("id"))
    assert decided.column(f"{scenario.decision_names[-1]}_option").to_pylist() == [
        list(o.values())[-1] for o in options
    ]


def test_invalid_requests_get_the_static_action_and_others_are_unaffected() -> None:
    decider = make_tiny_decider(with_values=True)
    requests = make_requests_table(decider.scenario, 300).to_pandas()
    requests["uv"] = requests["uv"].astype(object)
    requests.loc[3, "uv"], requests.loc[4, "uv"], requests.loc[5, "uv"] = None, 3, 1.5
    requests["g"] = requests["g"].astype(float)
    requests.loc[[5, 6], "g"] = [np.inf, -1.0]
    bad = [3, 4, 5, 6]
    decided = decider.decide(pa.Table.from_pandas(requests))
    status = decided.column("status").to_pylist()
    assert [status[k] for k in bad] == ["missing-feature", "unseen-value", "wrong-type", "unseen-value"]
    assert [decided.column("status_column").to_pylist()[k] for k in bad] == ["uv", "uv", "uv", "g"]
    actions = actions_of(decided, decider.scenario)
    np.testing.assert_array_equal(actions[bad], [TINY_STATIC] * 4)
    assert decided.column("value").is_null().to_numpy().nonzero()[0].tolist() == bad

    good = np.setdiff1d(np.arange(300), bad)
    assert {status[k] for k in good} == {"ok"}
    states = requests.loc[good, list(decider.scenario.state_columns)].to_numpy().astype(np.int64)
    np.testing.assert_array_equal(actions[good], make_tiny_policy().decide(states, TINY_PRICES))


@pytest.mark.parametrize("values", [["1", "2"], [True, False], pd.to_datetime(["2025-01-01", "2025-01-02"])])
def test_a_column_of_another_type_is_no_code(values: Any) -> None:
    decider = make_tiny_decider()
    frame = pd.DataFrame({"uv": values, "w": 0, "g": 0, "history": 0})
    decided = decider.decide(pa.Table.from_pandas(frame))
    assert decided.column("status").to_pylist() == ["wrong-type", "wrong-type"]


def make_coder() -> FeatureCoder:
    codings = (
        FeatureCoding("uv", 3, "spend", "quantile"),
        FeatureCoding("w", 4, "when", "time"),
        FeatureCoding("g", 2, "page", "code"),
        FeatureCoding("history", 2, "user", "hash"),
    )
    log = pd.DataFrame({"spend": range(30), "when": "10:00", "page": 1, "user": "x"})
    return FeatureCoder.fit(codings, log.assign(when="2025-01-01 10:00"))


def test_raw_features_are_coded_and_unreadable_ones_are_counted_by_column() -> None:
    coder = make_coder()
    decider = make_tiny_decider(coder=coder)
    frame = pd.DataFrame(
        {
            "spend": ["3", "x", None, "25.5", "7"],
            "when": ["2025-03-03 18:20", "2025-03-03 18:20", "2025-03-03", "soon", "2025-03-03 01:00"],
            "page": [1, 0, 1, 0, 7],
            "user": [2**60 + 1, None, 4, 5, 6],
        }
    ).astype({"user": "Int64"})
    decided = decider.decide(pa.Table.from_pandas(frame))
    assert decided.column("status").to_pylist() == ["ok", "wrong-type", "ok", "wrong-type", "unseen-value"]
    assert decided.column("status_column").to_pylist() == [None, "spend", None, "when", "page"]
    expected = make_tiny_policy().decide(coder.encode(frame.loc[[0, 2]]), TINY_PRICES)
    np.testing.assert_array_equal(actions_of(decided, decider.scenario)[[0, 2]], expected)


def test_keys_keep_their_types_and_faulty_tables_are_one_line() -> None:
    decider = make_tiny_decider(keys=["when"])
    requests = make_requests_table(decider.scenario, 4)
    stamps = pa.array([1, 2, None, 4], pa.timestamp("us", "UTC"))
    assert decider.decide(requests.append_column("when", stamps)).schema.field("when").type == stamps.type
    with pytest.raises(InputError, match=r"column 'when' is missing \(columns: id, uv"):
        decider.schema(requests.schema, "log.parquet")
    with pytest.raises(InputError, match="column 'w' appears twice"):
        make_tiny_decider().schema(requests.append_column("w", requests.column("w")).schema, "log.parquet")
    with pytest.raises(InputError, match="key 'status' has the name of a column of the result"):
        make_tiny_decider(keys=["status"]).schema(requests.append_column("status", stamps).schema, "log.parquet")


def test_a_coding_of_another_scenario_is_refused() -> None:
    with pytest.raises(InputError, match=r"coding of features has uv \(3\).* has taste \(2\), segment \(3\)"):
        RequestStates(make_numeric_scenario(), make_coder())


def test_actions_and_statuses_are_those_of_the_decision_server() -> None:
    """Null in a table is what a missing field is in a request."""
    requests = make_requests_table(make_tiny_scenario(), 60).to_pandas().drop(columns="id").astype(object)
    for row, (name, value) in enumerate(
        [("uv", 3), ("w", -1), ("g", 0.5), ("history", np.nan), ("w", 2.0), ("g", 1e30)]
    ):
        requests.loc[row, name] = value
    policy = make_tiny_policy()
    rule = StaticRule(TINY_STATIC, 0.0, (0.0, 0.0))
    server = Decider(policy, policy.scenario, rule)
    sent = [{k: v for k, v in r.items() if not pd.isna(v)} for r in requests.to_dict("records")]
    answers = server.decide(sent, TINY_PRICES)
    table = pa.Table.from_pandas(requests.map(float))
    decided = make_tiny_decider(with_values=True).decide(table)
    assert decided.column("status").to_pylist() == [answer.status for answer in answers]
    np.testing.assert_array_equal(actions_of(decided, policy.scenario), [answer.action for answer in answers])
    ok = [k for k, answer in enumerate(answers) if answer.status == "ok"]
    np.testing.assert_array_equal(decided.column("value").to_numpy()[ok], [answers[k].value for k in ok])
