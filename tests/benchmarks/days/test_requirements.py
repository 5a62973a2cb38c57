"""Requirements of a rehearsal: what a file may say, and which bounds a replay breaks."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.cli.commands.balance import check_requirements
from benchmarks.cli.main import main
from benchmarks.days.requirements import Requirements
from marca_env.utils.errors import InputError

CLUSTERS, METHODS = ("retrieval", "ranking"), ("feedback", "mpc")


def read(tmp_path, text: str, methods=METHODS) -> Requirements:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return Requirements.read(path, CLUSTERS, methods)


def scores(seed: int = 0, **changes) -> dict:
    row = {
        "method": "mpc",
        "seed": seed,
        "settings": {},
        "mu": {"retrieval": 0.95, "ranking": 0.97, "all": 0.96},
        "nu": {"retrieval": 0.004, "ranking": 0.002, "all": 0.003},
        "priced_mu": {"retrieval": 0.98, "ranking": 0.98, "all": 0.98},
        "priced_nu": {"retrieval": 0.01, "ranking": 0.01, "all": 0.01},
        "events": {"missing": 1, "timeout": 3},
        "degraded": 0.05,
        "lost": 0.0,
        "bound_share": 0.98,
    }
    return {**row, **changes}


def minutes(seed: int = 0) -> pd.DataFrame:
    """Return a hundred minutes with prices from 1 to 100, and from 0.5 to 50."""
    frame = pd.DataFrame({"price_retrieval": range(1, 101)}).astype(float)
    return frame.assign(price_ranking=frame["price_retrieval"] / 2, method="mpc", seed=seed)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mu: 0.96", ""),
        ("mu: 0.961", "mu.all: utilisation μ is 0.96 (seed 0), below the required 0.961"),
        ("mu: {ranking: 0.97, retrieval: 0.96}", "mu.retrieval: utilisation μ is 0.95"),
        ("nu: 0.003", ""),
        ("nu: {retrieval: 0.003}", "nu.retrieval: over-utilisation ν is 0.004 (seed 0), above the required 0.003"),
        ("price_max: 100", ""),
        ("price_max: 99.5", "price_max.retrieval: highest price is 100"),
        ("price_max: {ranking: 49}", "price_max.ranking: highest price is 50"),
        ("price_min: 0.6", "price_min.ranking: lowest price is 0.5"),
        ("faults: 0.04", ""),
        ("faults: 0.03", "faults.all: faults per minute is 0.04"),
        ("faults: {missing: 0, solver: 0}", "faults.missing: faults per minute is 0.01"),
        ("degraded: 0.01", "degraded: share of degraded minutes is 0.05"),
        ("bound_share: 0.99", "bound_share: share of the dual bound is 0.98"),
        ("priced_mu: 0.99", "priced_mu.all"),
    ],
)
def test_a_broken_bound_is_one_line_and_a_kept_one_none(tmp_path, text, line):
    broken = read(tmp_path, text).broken([scores()], [minutes()])
    assert len(broken) == bool(line)
    assert all(line in each and each.startswith("mpc: ") and "\n" not in each for each in broken)


def test_every_seed_must_keep_the_bounds_and_the_worst_is_named(tmp_path):
    rows = [scores(0), scores(1, lost=0.2), scores(2, lost=0.1), scores(3, method="feedback", lost=0.9)]
    rows.append(scores(0, lost=0.9, settings={"alpha": 0.2}))  # a sweep is another controller
    requirements = read(tmp_path, "lost: 0.05\nmu: 0.99")
    broken = requirements.broken(rows, [minutes(seed) for seed in range(3)])
    assert [line.split(":")[1].strip() for line in broken] == ["lost", "mu.all"]
    assert "0.2 (seed 1)" in broken[0]


def test_a_value_that_is_no_number_breaks_its_bound(tmp_path):
    row = scores(priced_mu={"all": float("nan")})
    assert len(read(tmp_path, "priced_mu: 0.0").broken([row], [minutes()])) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping"),
        ("{}", "no bound in it"),
        ("method: mpc", "no bound in it"),
        ("[1]", "expected a mapping"),
        ("mu: [", "not valid YAML"),
        ("mux: 0.9", "did you mean 'mu'"),
        ("mu: high", "mu is 'high'"),
        ("mu: 95", "from 0 to 1"),
        ("mu: .nan", "mu is nan"),
        ("nu: -0.1", "nu is -0.1"),
        ("nu: null", "nu is None"),
        ("nu: {rankin: 0.1}", "did you mean 'ranking'"),
        ("nu: {}", "write 'nu: 0.01'"),
        ("nu: {ranking: x}", "nu.ranking is 'x'"),
        ("price_max: {all: 3}", "cluster"),
        ("faults: {timeuot: 0}", "did you mean 'timeout'"),
        ("lost: {ranking: 0.1}", "write 'lost: 0.01'"),
        ("method: slices\nnu: 0.1", "--methods"),
        ("method: [1]\nnu: 0.1", "method"),
        ("nu: 0.1\nnu: 0.2", "appears twice"),
    ],
)
def test_a_wrong_file_names_the_field_and_what_to_write(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert "gate.yaml" in str(caught.value)


def test_the_method_is_mpc_or_the_only_one_or_named(tmp_path):
    assert read(tmp_path, "nu: 1").method == "mpc"
    assert read(tmp_path, "nu: 1", ["static"]).method == "static"
    assert read(tmp_path, "method: feedback\nnu: 1").method == "feedback"
    with pytest.raises(InputError, match="method is missing"):
        read(tmp_path, "nu: 1", ["static", "feedback"])
    with pytest.raises(InputError, match="no such requirements file"):
        Requirements.read(tmp_path / "none.yaml", CLUSTERS, METHODS)


def test_the_exit_status_is_1_with_a_line_for_each_broken_bound(tmp_path, capsys):
    assert check_requirements(read(tmp_path, "mu: 0.5\nnu: 0.1"), [scores()], [minutes()]) == 0
    assert "mpc keeps all 2 bounds" in capsys.readouterr().out
    assert check_requirements(read(tmp_path, "mu: 0.99\nnu: 0.1\nprice_max: 2"), [scores()], [minutes()]) == 1
    assert [line.split(": ")[:4] for line in capsys.readouterr().err.splitlines()] == [
        ["marca", "requirement broken", "mpc", name] for name in ("mu.all", "price_max.retrieval", "price_max.ranking")
    ]


def test_a_wrong_file_ends_the_command_before_anything_long(tmp_path, capsys):
    gate = tmp_path / "gate.json"
    gate.write_text('{"my": 1.0}')
    command = ["balance", "--out", str(tmp_path / "out"), "--require", str(gate)]
    assert main(command) == 2
    assert "unknown field 'my'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--fit-only"]) == 2
    assert "--fit-only" in capsys.readouterr().err
