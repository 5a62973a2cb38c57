"""Malformed inputs of many kinds: each error is one line that names the file or option, the place and the remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
import yaml

import marca_env
from benchmarks.cli.main import main
from marca_env.cascade.outcomes import _fingerprint, outcome_table
from marca_env.integration.feature_coding import FeatureCoder
from marca_env.integration.logged_system import read_logged_system
from marca_env.integration.mapping import Mapping
from marca_env.logs.log_files import read_cost_log, read_request_log, read_system_log
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.target_config import load_target
from marca_env.traffic.workload import read_trace
from marca_env.utils.errors import InputError
from tests.helpers.factories import OWN_MAPPING, make_cost_log, make_requests, make_tiny_scenario

SCENARIO = make_tiny_scenario()
RAW = pd.DataFrame(
    {
        "city": ["a", "b"] * 6,
        "spend": np.linspace(0.0, 1.0, 12),
        "depth": [10, 20, 40] * 4,
        "seen": [10, 20, 40] * 4,
        "ms": [1.0, 2.0, 4.0] * 4,
        "euros": [0.0, 0.0, 0.5] * 4,
    }
)
SYSTEM = pd.DataFrame({"rps": [5.0, 10.0], "busy": [0.4, 0.8]})
MAPPING = OWN_MAPPING


def put(data: Any, path: str, value: Any) -> Any:
    """Return ``data`` with the entry at a path such as ``a.0.b`` changed; ``...`` removes it."""
    data = json.loads(json.dumps(data))
    *parents, last = (int(p) if p.isdigit() else p for p in path.split("."))
    node = data
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


def cell(frame: pd.DataFrame, column: str, row: int, value: object) -> pd.DataFrame:
    frame = frame.astype({column: object})
    frame.loc[row, column] = value
    return frame


# -- readers -------------------------------------------------------------------------------------------------------
def text(name: str, content: str | bytes, read: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a case that reads a file of this content."""

    def case(folder: Path) -> None:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        read(path)

    return case


def table(name: str, frame: pd.DataFrame, read: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a case that reads a table of these rows."""

    def case(folder: Path) -> None:
        frame.to_csv(folder / name, index=False)
        read(folder / name)

    return case


def requests_of(path: Path) -> object:
    return read_request_log(path, SCENARIO)


REQUESTS, COSTS = make_requests(SCENARIO, 12), make_cost_log(SCENARIO)
MINUTES = pd.DataFrame(
    {"day": [0, 0], "minute": [0, 1], "qps": 1.0, "load_a": 1.0, "price_a": 0.0, "degradation_a": 0, "backlog_a": 0.0}
).assign(revenue=1.0)

READERS = {
    "no such log": (lambda f: requests_of(f / "gone.csv"), ["gone.csv", "no such file", "check the path"]),
    "another suffix": (text("r.xlsx", "x", requests_of), ["r.xlsx", "'.xlsx'", ".parquet"]),
    "empty file": (text("r.csv", "", requests_of), ["r.csv", "empty", "write the log again"]),
    "header alone": (table("r.csv", REQUESTS.head(0), requests_of), ["r.csv", "no rows", "write the log again"]),
    "no text": (text("r.csv", bytes(range(128, 256)), requests_of), ["r.csv", "cannot be read", "save it as CSV"]),
    "no Parquet": (text("r.parquet", "PAR1 and no more", requests_of), ["r.parquet", "cannot be read", "cut short"]),
    "ragged rows": (text("r.csv", "a,b\n1,2\n1,2,3\n", requests_of), ["r.csv", "line 3", "write the log again"]),
    "column too few": (table("r.csv", REQUESTS.drop(columns="g"), requests_of), ["r.csv", "'g' is missing", "columns"]),
    "word for a number": (
        table("r.csv", cell(REQUESTS, "gmv", 4, "lots"), requests_of),
        ["r.csv", "row 5", "'gmv'", "'lots'", "correct it"],
    ),
    "half an option": (
        table("r.csv", cell(REQUESTS, "channels", 2, 0.5), requests_of),
        ["r.csv", "row 3", "'channels'", "whole number"],
    ),
    "negative cost": (
        table("c.csv", cell(COSTS, "cost", 6, -1.0), read_cost_log),
        ["c.csv", "row 7", "'cost'", "below 0", "remove the row"],
    ),
    "nameless cluster": (
        table("c.csv", cell(COSTS, "cluster", 0, None), read_cost_log),
        ["c.csv", "row 1", "'cluster'", "empty", "fill the value in"],
    ),
    "minute 1440": (
        table("s.csv", MINUTES.assign(minute=1440), read_system_log),
        ["s.csv", "row 1", "'minute'", "out of range", "correct it"],
    ),
    "system log without clusters": (
        table("s.csv", MINUTES[["day", "minute", "qps"]], read_system_log),
        ["s.csv", "load_<cluster>"],
    ),
    "trace without values": (
        text("t.csv", "timestamp\n2020-01-01\n", read_trace),
        ["t.csv", "looks like one column", "separate time and value"],
    ),
    "trace out of order": (
        text("t.csv", "timestamp,value\n2020-01-02,1\n2020-01-01,1\n", read_trace),
        ["t.csv", "line 3", "sort the file"],
    ),
    "trace too short": (
        text("t.csv", "timestamp,value\n2020-01-01T00:00,1\n2020-01-01T00:05,1\n", read_trace),
        ["t.csv", "covers 10 minutes", "lower --minutes"],
    ),
    "population out of range": (
        table(
            "p.csv",
            pd.DataFrame([[9, 0, 0, 0, 1]], columns=[*SCENARIO.feature_names, "count"]),
            lambda p: Population.load(p, SCENARIO),
        ),
        ["p.csv", "row 1", "'uv'", "0 … 2"],
    ),
}


# -- scenarios -----------------------------------------------------------------------------------------------------
def scenario(path: str, value: Any) -> Callable[[Path], None]:
    """Return a case that loads the default scenario with one entry changed."""

    def case(folder: Path) -> None:
        changed = put(Scenario.load("default").to_dict(), path, value)
        (folder / "s.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
        Scenario.load(folder / "s.yaml")

    return case


SCENARIOS = {
    "no such preset": (lambda f: Scenario.load("defualt"), ["'defualt'", "did you mean 'default'"]),
    "no such folder": (lambda f: Scenario.load(f / "gone"), ["gone", "folder of `marca fit`"]),
    "folder without a scenario": (lambda f: Scenario.load(f), ["without scenario.yaml", "marca fit --out"]),
    "broken YAML": (text("s.yaml", "name: [1, 2", Scenario.load), ["s.yaml", "line 1", "not valid YAML"]),
    "a list": (text("s.yaml", "- name\n", Scenario.load), ["s.yaml", "expected a mapping"]),
    "unknown field": (scenario("peak_qsp", 1), ["s.yaml", "'peak_qsp'", "did you mean 'peak_qps'"]),
    "missing field": (scenario("peak_qps", ...), ["s.yaml", "'peak_qps' is missing"]),
    "text for a number": (scenario("clusters.1.budget", "much"), ["s.yaml", "clusters[1].budget", "finite number"]),
    "unknown cluster": (scenario("stages.1.cluster", "rankin"), ["s.yaml", "'pre_ranking'", "did you mean 'ranking'"]),
    "budget over cores": (scenario("clusters.0.budget", 9.0), ["s.yaml", "'retrieval'", "lower the budget"]),
    "lengths that fall": (
        scenario("stages.0.decisions.1.options", [9, 4]),
        ["s.yaml", "'two_tower_length'", "[9, 4] must rise"],
    ),
    "unknown channel": (
        scenario("stages.0.decisions.1.channel", "two_towers"),
        ["s.yaml", "'two_towers'", "did you mean 'two_tower'"],
    ),
    "nothing to decide": (
        scenario("stages", [{"name": "a", "cluster": "ranking"}, {"name": "b", "cluster": "retrieval"}]),
        ["s.yaml", "no stage has a decision"],
    ),
}


# -- fit with a mapping --------------------------------------------------------------------------------------------
def fit(
    mapping: Any = MAPPING, requests: pd.DataFrame = RAW, costs: Any = RAW, system: Any = SYSTEM, header: bool = True
) -> Callable[[Path], None]:
    """Return a case that reads the logs with the mapping."""

    def case(folder: Path) -> None:
        (folder / "m.yaml").write_text(yaml.safe_dump(mapping))
        paths: dict[str, Path | None] = {}
        for name, frame in (("requests", requests), ("costs", costs), ("system", system)):
            paths[name] = None if frame is None else folder / f"{name}.csv"
            if frame is not None:
                frame.to_csv(paths[name], index=False, header=header)
        read_logged_system(Mapping.load(folder / "m.yaml"), **paths)  # type: ignore[arg-type]

    return case


DECISION = "stages.0.decisions.0"
FITS = {
    "no such mapping": (lambda f: Mapping.load("publshed"), ["'publshed'", "did you mean 'published'"]),
    "mapping is no file": (lambda f: Mapping.load(f / "m.yaml"), ["m.yaml", "no such mapping file", "check the path"]),
    "unknown mapping field": (fit(put(MAPPING, "clusers", [])), ["m.yaml", "did you mean 'clusters'"]),
    "unknown coding": (
        fit(put(MAPPING, "features.0.coding", "hashed")),
        ["m.yaml", "feature 'city'", "did you mean 'hash'"],
    ),
    "w that is no time": (fit(put(MAPPING, "features.0.name", "w")), ["m.yaml", "time of day", "use coding 'time'"]),
    "values too few": (
        fit(put(MAPPING, f"{DECISION}.values", ["S", "M"])),
        ["m.yaml", "decision 'depth'", "each of the 3 options"],
    ),
    "channels without values": (
        fit(put(put(MAPPING, f"{DECISION}.kind", "channel"), f"{DECISION}.options", [["a"], ["a", "b"]])),
        ["m.yaml", "decision 'depth'", "'values'"],
    ),
    "two features of a name": (fit(put(MAPPING, "features.1.name", "city")), ["m.yaml", "share a name"]),
    "unknown cost source": (
        fit(put(MAPPING, "costs", {"source": "sytem"})),
        ["m.yaml", "costs", "did you mean 'system'"],
    ),
    "share over one": (fit(put(MAPPING, "costs", {"fixed_share": 2.0})), ["m.yaml", "fixed_share is 2.0", "[0, 1]"]),
    "no header and no names": (
        fit(requests=RAW[["spend", "depth"]].assign(city=1), header=False),
        ["requests.csv", "not names", "name the columns"],
    ),
    "names too few": (
        fit(put(MAPPING, "requests.columns", ["city", "spend"]), header=False),
        ["requests.csv", "6 columns", "mapping names 2"],
    ),
    "feature not logged": (
        fit(requests=RAW.drop(columns="city")),
        ["requests.csv", "'city' of feature 'city' is missing", "columns: spend"],
    ),
    "number that is none": (
        fit(requests=cell(RAW, "spend", 3, "rich")),
        ["requests.csv", "row 4", "'spend'", "'rich'", "use 'hash'"],
    ),
    "option never declared": (
        fit(requests=cell(RAW, "depth", 7, 80)),
        ["requests.csv", "row 8", "'depth'", "'80'", "10, 20, 40", "add it to the mapping"],
    ),
    "decision not logged": (
        fit(requests=RAW.drop(columns="depth")),
        ["requests.csv", "'depth' of decision 'depth' is missing"],
    ),
    "negative revenue": (
        fit(requests=cell(RAW, "euros", 2, -3)),
        ["requests.csv", "row 3", "'euros' (revenue of a request)", "below 0"],
    ),
    "candidates not logged": (
        fit(costs=RAW.drop(columns="seen")),
        ["costs.csv", "'seen' with the candidates of stage 'search'", "leave 'result' out"],
    ),
    "cost not logged": (fit(costs=RAW.drop(columns="ms")), ["costs.csv", "'ms' is missing"]),
    "cost that is none": (
        fit(costs=cell(RAW, "ms", 5, "")),
        ["costs.csv", "row 6", "'ms' (cost on cluster 'pool')"],
    ),
    "no cost log": (
        fit(put(MAPPING, "costs", {"source": "requests"}), costs=None),
        ["costs.source is 'requests'", "pass --costs"],
    ),
    "no budget anywhere": (
        fit(put(MAPPING, "peak_qps", 9.0), system=None),
        ["cluster 'pool'", "has no budget", "'budget: NUMBER'", "pass --system"],
    ),
    "no peak anywhere": (
        fit(put(MAPPING, "clusters.0.budget", 1.0), system=None),
        ["no peak_qps", "pass --system"],
    ),
    "system log without rates": (fit(system=SYSTEM.drop(columns="rps")), ["system.csv", "'rps' is missing"]),
    "system log without traffic": (fit(system=SYSTEM.assign(rps=0.0)), ["system.csv", "'rps' is zero in every row"]),
    "negative load": (fit(system=cell(SYSTEM, "busy", 1, -1.0)), ["system.csv", "row 2", "'busy'", "below 0"]),
}


# -- models, caches, options ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fitted(tiny_artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a valid scenario folder; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    shutil.copytree(tiny_artefacts, folder)
    SCENARIO.save(folder / "scenario.yaml")
    return folder


def damaged(change: Callable[[Path], object], use: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a case that uses a copy of the scenario folder after a change to it."""

    def case(folder: Path) -> None:
        change(folder / "tiny")
        use(folder / "tiny")

    return case


def cut(name: str) -> Callable[[Path], object]:
    """Return a change that cuts a file in half."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def other_stages(folder: Path) -> None:
    changed = put(SCENARIO.to_dict(), "stages.0.decisions.1.options", [10, 20, 30])
    (folder / "scenario.yaml").write_text(yaml.safe_dump(changed))


def cached(content: bytes) -> Callable[[Path], None]:
    """Return a case that reads outcomes from a cache file of this content."""

    def case(folder: Path) -> None:
        (folder / f"outcomes-{_fingerprint(SCENARIO, 4, 0)}.npz").write_bytes(content)
        outcome_table(SCENARIO, 4, 0, cache=folder)

    return case


DAMAGES = {
    "weights cut short": (
        damaged(cut("cost_model/model.safetensors"), Engine.load),
        ["model.safetensors", "cannot be read", "fit and save the model again"],
    ),
    "description cut short": (
        damaged(cut("revenue_model/model.json"), Engine.load),
        ["model.json", "not valid JSON", "fit and save the model again"],
    ),
    "the other model": (
        damaged(lambda f: shutil.copytree(f / "revenue_model", f / "cost_model", dirs_exist_ok=True), Engine.load),
        ["model.json", "'RevenueModel', not a 'CostModel'"],
    ),
    "model of another system": (
        damaged(other_stages, Engine.load),
        ["cost_model", "stages differ", "marca fit"],
    ),
    "no population": (
        damaged(lambda f: (f / "population.parquet").unlink(), Engine.load),
        ["population.parquet", "no such artefact", "marca fit"],
    ),
    "scale of a model": (
        damaged(
            lambda f: (f / "cost_model/model.json").write_text(
                json.dumps(put(json.loads((f / "cost_model/model.json").read_text()), "scale", [1.0]))
            ),
            lambda f: CostModel.load(f / "cost_model"),
        ),
        ["cost_model", "scale", "fit and save the model again"],
    ),
    "coding of features": (
        text("features.json", '{"features": [{"name": "x", "size": 2, "colum": "x"}]}', FeatureCoder.load),
        ["features.json", "did you mean 'column'", "fit again"],
    ),
    "coding cut short": (text("features.json", '{"feat', FeatureCoder.load), ["features.json", "fit again"]),
    "outcome cache cut short": (cached(b"PK\x03\x04 and no more"), ["outcomes-", ".npz", "delete the file"]),
    "outcome cache that is text": (cached(b"hello"), ["outcomes-", ".npz", "delete the file"]),
    "target without a service": (
        text("t.yaml", "buckets: [{stage: a, cluster: a, component: base, request: {}}]", load_target),
        ["t.yaml", "one of http and python"],
    ),
    "target without a clock": (
        text(
            "t.yaml",
            "http: {url: http://h}\nbuckets: [{stage: a, cluster: a, component: base, request: {}}]",
            load_target,
        ),
        ["t.yaml", "one of pid and cpu_url"],
    ),
    "target with a typo": (
        text(
            "t.yaml",
            "http: {url: http://h, pid: 1}\nbuckets: [{stage: a, cluster: a, component: base, request: {pth: /}}]",
            load_target,
        ),
        ["t.yaml", "did you mean 'path'"],
    ),
    "target of no function": (
        text("t.yaml", "python: os:pth\nbuckets: [{stage: a, cluster: a, component: base, request: 1}]", load_target),
        ["t.yaml", "python os:pth", "did you mean 'path'"],
    ),
}
OPTIONS = {
    "parallel_env": (lambda f: marca_env.parallel_env(scenaro="x"), ["'scenaro'", "did you mean 'scenario'"]),
    "env": (lambda f: marca_env.env(rewrd="x"), ["'rewrd'", "did you mean 'reward'"]),
    "batched_env": (lambda f: marca_env.batched_env(2, price=[1]), ["'price'", "did you mean 'prices'"]),
    "gymnasium": (
        lambda f: gymnasium.make("marca_env/Recommender-v0", on_ilegal="error"),
        ["'on_ilegal'", "did you mean 'on_illegal'"],
    ),
    "balancing": (
        lambda f: gymnasium.make("marca_env/Balancing-v0", penality=1.0),
        ["'penality'", "did you mean 'penalty'"],
    ),
}
CASES = {**READERS, **SCENARIOS, **FITS, **DAMAGES, **OPTIONS}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_error_is_one_line_with_place_and_remedy(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    case, expected = CASES[name]
    if name in DAMAGES:
        shutil.copytree(request.getfixturevalue("fitted"), tmp_path / "tiny")
    with pytest.raises(InputError) as error:
        case(tmp_path)
    message = str(error.value)
    for part in expected:
        assert part in message
    assert "\n" not in message


def test_there_are_at_least_fifty_kinds() -> None:
    assert len(CASES) >= 50
    assert len(CASES) == sum(map(len, (READERS, SCENARIOS, FITS, DAMAGES, OPTIONS)))


def test_valid_inputs_are_read(tmp_path: Path, fitted: Path) -> None:
    """The cases above differ from these inputs in one place."""
    fit()(tmp_path)
    assert Engine.load(fitted).scenario == SCENARIO
    table("r.csv", REQUESTS, requests_of)(tmp_path)
    table("c.csv", COSTS, read_cost_log)(tmp_path)
    table("s.csv", MINUTES, read_system_log)(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mapping", "m.yaml"], "pass them with --requests"),
        (["--system", "s.csv", "--requests", "r.csv"], "pass --mapping FILE"),
        (["--mapping", "m.yaml", "--requests", "r.csv", "--costs", "gone.csv"], "gone.csv: no such file"),
    ],
)
def test_fit_needs_mapping_and_logs_together(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(MAPPING))
    RAW.to_csv("r.csv", index=False)
    SYSTEM.to_csv("s.csv", index=False)
    assert main(["fit", "--out", "out", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
