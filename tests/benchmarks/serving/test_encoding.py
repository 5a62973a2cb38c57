"""Encoding of live requests: the codes of the coding itself, and a fault for each bad request alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.serving.encoding import RequestEncoder
from marca_env.integration.feature_coding import FeatureCoder, FeatureCoding
from marca_env.integration.number_columns import NumberColumn
from marca_env.scenario.parts import Feature
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

CODINGS = [
    FeatureCoding("value", 4, "value", "quantile"),
    FeatureCoding("page", 8, "page", "hash"),
    FeatureCoding("site", 3, "site", "frequency"),
    FeatureCoding("hour", 24, "at", "time"),
    FeatureCoding("tier", 3, "tier", "code"),
]


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "value": rng.normal(size=200),
            "page": rng.choice(["home", "search", "cart"], 200),
            "site": rng.choice(["Lyon", "Oslo", "Rome", "Kyiv"], 200),
            "at": rng.choice(["2026-03-03 18:20", "2026-03-03T01:00:00+02:00", "77"], 200),
            "tier": rng.integers(0, 3, 200),
        }
    )


def scenario_of(codings: list[FeatureCoding]) -> Scenario:
    kinds = [Feature(c.name, c.width, kind="number" if c.is_number else "category") for c in codings]
    return Scenario.load("default").replace(features=tuple(kinds), audience=Scenario.load("default").audience)


def test_raw_requests_get_the_codes_of_the_coding_also_from_memory(log):
    coder = FeatureCoder.fit(CODINGS, log)
    requests = log.to_dict("records")
    requests += [requests[0] | {"page": "new", "site": None, "value": None}, requests[1] | {"value": "1.5"}]
    encoder = RequestEncoder(scenario_of(CODINGS), coder)
    expected = coder.encode(requests)
    for _ in range(2):
        states, faults = encoder.encode(requests)
        assert not any(faults)
        assert states.dtype == np.int64
        assert np.array_equal(states, expected)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"value": "dear"}, "wrong-type"),
        ({"value": float("inf")}, "wrong-type"),
        ({"page": ["home"]}, "wrong-type"),
        ({"at": "yesterday"}, "wrong-type"),
        ({"tier": 3}, "unseen-value"),
        ({"tier": "gold"}, "wrong-type"),
        ({"tier": 10**400}, "unseen-value"),
    ],
)
def test_a_raw_value_that_cannot_be_coded_fails_its_request_alone(log, change, status):
    coder, requests = FeatureCoder.fit(CODINGS, log), log.head(3).to_dict("records")
    encoder = RequestEncoder(scenario_of(CODINGS), coder)
    states, faults = encoder.encode([requests[0], requests[1] | change, requests[2], {"value": 1}])
    assert [f and f.status for f in faults] == [None, status, None, "missing-feature"]
    assert np.array_equal(states[[0, 2]], coder.encode([requests[0], requests[2]]))
    assert not states[[1, 3]].any()


def test_numbers_are_standardised_as_the_coding_does(log):
    codings = [
        FeatureCoding("page", 8, "page"),
        FeatureCoding("embedding", 2, "embedding", "numeric", numbers=(NumberColumn("x"), NumberColumn("y"))),
    ]
    table = log[["page"]].assign(x=log.value * 3 + 2, y=log.value.where(log.value > 0))
    coder = FeatureCoder.fit(codings, table)
    requests = table.head(20).to_dict("records")
    states, faults = RequestEncoder(scenario_of(list(coder.codings)), coder).encode([*requests, {"page": "home"}])
    assert [f and f.status for f in faults] == [None] * 20 + ["missing-feature"]
    assert states.dtype == np.float64
    assert np.array_equal(states[:20], coder.encode(requests))


def test_a_coding_of_another_system_is_refused(log):
    with pytest.raises(InputError, match=r"pass the features\.json with which the policy was trained"):
        RequestEncoder(Scenario.load("default"), FeatureCoder.fit(CODINGS, log))
