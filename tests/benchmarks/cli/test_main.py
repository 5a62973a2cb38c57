"""The command line: help, completion, and errors that are one line on stderr, exit status 2, and overwrite nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

from benchmarks.cli.main import main
from benchmarks.cli.parsers import COMMANDS
from benchmarks.cli.reference import cli_reference


def run(capsys, *arguments: str) -> tuple[int, str]:
    status = main([str(a) for a in arguments])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_help_page(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: marca {command}" in capsys.readouterr().out


def test_help_imports_no_command():
    code = "import sys; from benchmarks.cli.main import main; main(['--help'])"
    check = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_the_reference_page_has_every_command_and_option():
    page = cli_reference()
    assert all(f"\n## marca {command}\n" in page for command in COMMANDS)
    assert "| `--stop KEY=N [KEY=N ...]` | limits" in page
    assert "--entry" not in page


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_know_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("headroom", "reference", "checkpoint-freq"))


def test_marca_alone_prints_its_help_with_status_2(capsys):
    status, error = run(capsys)
    assert status == 2
    assert all(name in error for name in COMMANDS if " " not in name)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["simulate", "--minuts", "3"], "unknown argument --minuts 3; did you mean --minutes"),
        (["simulate", "--minutes", "few"], "argument --minutes: invalid int value: 'few'; see marca simulate --help"),
        (["--nothing"], "the following arguments are required: COMMAND"),
        (["headroom", "more"], "unknown argument more"),
        (["bench", "rport"], "unknown command of marca bench 'rport'; did you mean 'report'?"),
        (["train", "fil"], "unknown command of marca train 'fil'; did you mean 'file'?"),
    ],
)
def test_parse_errors_are_one_line_with_a_suggestion(arguments, expected, capsys):
    status, error = run(capsys, *arguments)
    assert status == 2
    assert expected in error
    assert error.startswith("marca: error: ")
    assert error.count("\n") == 1


def test_algo_list_prints_all_algorithms(capsys):
    assert main(["train", "--algo", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("AWRQMixer", "WeightedQMIX", "REM", "PPO", "DQN"))


def test_an_unknown_command_or_policy_is_answered_with_the_nearest(capsys):
    status, error = run(capsys, "simulat")
    assert status == 2
    assert "did you mean 'simulate'" in error
    status, error = run(capsys, "simulate", "--policies", "marca_mpc")
    assert status == 2
    assert "did you mean 'marca-mpc'" in error


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("timestamp,a,b\n2020-01-01,1,1\n2020-01-02,1,1\n", "pass --value-column"),
        ("timestamp,value\n2020-01-02,1\n2020-01-01,1\n", "line 3"),
        ("timestamp,value\n2020-01-01,1\n2020-01-01,1\n", "repeats"),
        ("timestamp,value\n2020-01-01,1\n2020-01-02,nan\n", "column 'value' has 1 row with a value"),
        ("timestamp,value\n2020-01-01,1\n2020-01-02,-4\n", "line 3: value '-4' is negative"),
    ],
)
def test_bad_traces_end_with_status_2_and_overwrite_nothing(tmp_path, capsys, rows, expected):
    (tmp_path / "t.csv").write_text(rows)
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text("precious")
    status, error = run(capsys, "simulate", "--trace", tmp_path / "t.csv", "--out", out, "--minutes", 60)
    assert status == 2
    assert expected in error
    assert error.count("\n") == 1
    assert (out / "summary.json").read_text() == "precious"


@pytest.mark.slow
def test_bad_scenarios_and_checkpoints_end_with_status_2(tmp_path, capsys):
    from marca_env.scenario.scenario import Scenario

    data = Scenario.load("default").to_dict()
    data["clusters"][1]["budget"] = 0.01
    Scenario.from_dict(data).save(tmp_path / "poor.yaml")
    status, error = run(capsys, "simulate", "--scenario", tmp_path / "poor.yaml", "--minutes", 10)
    assert status == 2
    assert "even the cheapest joint action needs" in error
    (tmp_path / "odd.yaml").write_text("nmae: x\n")
    status, error = run(capsys, "simulate", "--scenario", tmp_path / "odd.yaml")
    assert status == 2
    assert "did you mean 'name'" in error
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.json").write_text('{"kind": "tea')  # cut short
    (tmp_path / "policy" / "weights.safetensors").write_bytes(b"")
    status, error = run(capsys, "simulate", "--checkpoint", tmp_path / "policy", "--policies", "marca-mpc")
    assert status == 2
    assert "policy.json" in error


@pytest.mark.slow
def test_simulate_writes_tables_figure_and_summary(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MARCA_CACHE", str(tmp_path / "cache"))
    arguments = ["simulate", "--policies", "static", "dcaf", "--minutes", "70", "--seeds", "0", "1"]
    assert main([*arguments, "--requests", "64", "--out", str(tmp_path / "day")]) == 0
    summary = json.loads((tmp_path / "day" / "summary.json").read_text())
    assert list(summary["policies"]) == ["static", "dcaf"]
    assert summary["seeds"] == [0, 1]
    row = summary["policies"]["dcaf"]
    assert set(row["utilisation"]) == {"retrieval", "ranking"}
    assert row["uplift_interval"][0] <= row["uplift"] <= row["uplift_interval"][1]
    assert 0 < row["bound_share"] <= 1
    assert summary["policies"]["static"]["uplift"] == 0
    minutes = pd.read_csv(tmp_path / "day" / "minutes.csv")
    assert len(minutes) == 2 * 2 * 70
    pairs = minutes.pivot(index=["seed", "minute"], columns="policy", values="requests")
    assert (pairs["static"] == pairs["dcaf"]).all()
    assert (tmp_path / "day" / "day.png").stat().st_size > 10_000
    assert "dcaf" in capsys.readouterr().out


def test_a_missing_extra_is_named_and_other_import_errors_are_not_hidden(capsys, monkeypatch):
    import benchmarks.cli.commands.headroom as command

    def missing(_args):
        raise ImportError("this needs cvxpy: pip install 'marca-env[mpc]'")

    monkeypatch.setattr(command, "run", missing)
    status, error = run(capsys, "headroom")
    assert status == 2
    assert "pip install 'marca-env[mpc]'" in error

    def broken(_args):
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(command, "run", broken)
    with pytest.raises(ImportError, match="cannot import name"):
        main(["headroom"])
