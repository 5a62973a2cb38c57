"""``marca bench run``: cases are measured once, failures lose nothing, runs resume, wrong input stops early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli.main import main
from benchmarks.suite import records, registry
from benchmarks.suite.staleness import user_module_file
from marca_env.utils.errors import InputError
from tests.helpers.documents import USER_EXPERIMENT
from tests.helpers.paths import HELPERS

ROOTS = "tests.helpers.roots_experiment"


def command(*arguments: Any) -> int:
    return main(["bench", "run", *map(str, arguments)])


# -- runs ------------------------------------------------------------------------------------------------------
def test_parts_run_after_their_experiment_with_their_own_seeds(two_experiments: dict[str, Any], tmp_path: Path) -> None:
    assert command("first", "--out", tmp_path) == 0
    first, second = tmp_path / "first", tmp_path / "second"
    assert two_experiments == {"first": [(first, False, 3), (first, False, 4)], "second": [(second, False, 0)]}
    two_experiments.clear()
    assert command("second", "--seeds", 0, "--out", tmp_path) == 0
    assert two_experiments == {}
    assert command("second", "--quick", "--seeds", 7, 8, "--out", tmp_path) == 0
    assert two_experiments == {"second": [(second, True, 7), (second, True, 8)]}


def test_quick_runs_are_recorded_in_another_folder(
    two_experiments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("all", "--quick") == 0
    assert {name: calls[0][0] for name, calls in two_experiments.items()} == {
        name: Path("results/bench-quick") / name for name in ("first", "second")
    }
    assert not Path("results/bench").exists()


# -- cases -----------------------------------------------------------------------------------------------------
def test_a_recorded_case_is_measured_again_only_with_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command(ROOTS, "--seeds", 2, "--out", tmp_path) == 0
    assert command(ROOTS, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "2 of 4 cases to measure" in printed
    assert "square <roots>" in printed
    rows = records.read(tmp_path / ROOTS)
    assert [(r.case.method, r.case.seed) for r in rows] == [(m, s) for s in (2, 3) for m in ("newton", "bisection")]
    assert rows[0].numbers["error"] < 1e-6 < rows[1].numbers["error"]
    assert command(ROOTS, "--again", "--seeds", 2, "--out", tmp_path) == 0
    again = records.read(tmp_path / ROOTS)
    assert again[:4] == rows
    assert [r.case.key for r in again[4:]] == [r.case.key for r in rows[:2]]


def test_a_failing_case_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ("--methods", "broken", "newton", f"{ROOTS}.guess", "--seeds", 2, "--out", tmp_path)
    assert command(ROOTS, *options) == 1
    error = capsys.readouterr().err
    assert f"{ROOTS}: broken, root, default, seed 2: ZeroDivisionError: no root at all" in error
    assert "1 failed; the other cases are recorded" in error
    rows = records.read(tmp_path / ROOTS)
    assert {r.case.method for r in rows} == {"newton", f"{ROOTS}.guess"}
    assert rows[1].numbers["error"] == pytest.approx(2**0.5 - 1)
    assert command(ROOTS, *options) == 1  # tried again, alone
    assert len(records.read(tmp_path / ROOTS)) == 2


@pytest.mark.parametrize("edited", ["experiment", "method"])
def test_rows_older_than_the_users_code_are_reported(
    edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    experiment, method = f"own_experiment_{edited}", f"own_method_{edited}"
    for name in (experiment, method):
        (tmp_path / f"{name}.py").write_text((HELPERS / "roots_experiment.py").read_text())
    options = (experiment, "--methods", "newton", f"{method}.guess", "--seeds", 2, "--out", tmp_path / "out")
    assert command(*options) == 0
    assert command(*options) == 0
    assert "last changed" not in capsys.readouterr().out
    path, number = {"experiment": (tmp_path / f"{experiment}.py", 2), "method": (tmp_path / f"{method}.py", 1)}[edited]
    later = time.time() + 5
    os.utime(path, (later, later))
    assert command(*options) == 0
    note = f"{number} of 2 rows were recorded before {path.name} last changed; --again measures them again"
    assert f"{experiment}: {note}" in capsys.readouterr().out
    assert command(*options, "--again") == 0
    assert "last changed" not in capsys.readouterr().out


def test_modules_of_this_package_are_not_user_modules() -> None:
    assert user_module_file(ROOTS) == HELPERS / "roots_experiment.py"
    assert (
        user_module_file("benchmarks.suite.runner")
        is user_module_file("PPO shared 0")
        is user_module_file("no_such.module")
        is None
    )


def test_failing_tables_are_reported_without_asking_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import tests.helpers.roots_experiment as roots

    monkeypatch.setattr(roots, "tables", lambda rows: 1 / 0)
    assert command(ROOTS, "--methods", "newton", "--seeds", 2, "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert f"{ROOTS}: its tables: ZeroDivisionError" in error
    assert "again" not in error
    assert command(ROOTS, "--methods", "broken", "--seeds", 2, "--out", tmp_path) == 1
    assert "marca: 1 failed; the other cases are recorded, and the same command" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_continues_after_the_last_recorded_case(tmp_path: Path, end: signal.Signals) -> None:
    options = [ROOTS, "--methods", "newton", "slow", "bisection", "--seeds", "2", "--out", str(tmp_path)]
    folder = tmp_path / ROOTS
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", "bench", "run", *options], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not (folder / "begun").exists():
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(end)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (130 if end is signal.SIGINT else -9)
    assert ("finished results are saved" in error) == (end is signal.SIGINT)
    (first,) = records.read(folder)
    with (folder / records.FILE).open("ab") as file:
        file.write(b'{"key": "to')  # as if the process had been killed while writing a line
    (folder / "go").touch()
    assert command(*options) == 0
    rows = records.read(folder)
    assert rows[0] == first
    assert [r.case.method for r in rows] == ["newton", "slow", "bisection"]


@pytest.mark.slow
def test_cases_run_as_ray_tasks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ("--methods", "newton", "broken", "deadly", "bisection", "--out", tmp_path, "--address", "local")
    assert command(ROOTS, *options) == 1
    error = capsys.readouterr().err
    assert f"{ROOTS}: broken, root, default, seed 3: ZeroDivisionError" in error
    assert f"{ROOTS}: deadly, root, default, seed 3: WorkerCrashedError" in error
    assert "4 failed" in error
    rows = records.read(tmp_path / ROOTS)
    assert {(r.case.method, r.case.seed) for r in rows} == {(m, s) for m in ("newton", "bisection") for s in (2, 3)}
    assert all(r.about["machine"]["cores"] >= 1 for r in rows)


def test_experiments_that_measure_speed_run_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import tests.helpers.roots_experiment as roots

    monkeypatch.setattr(roots, "ALONE", True, raising=False)
    monkeypatch.setattr("benchmarks.suite.runner.run_on_ray", lambda plan: pytest.fail("on ray"))
    assert command(ROOTS, "--out", tmp_path, "--address", "local") == 0
    assert "one case after another, not on the cluster" in capsys.readouterr().out


def test_the_experiment_in_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "my_experiment.py").write_text(USER_EXPERIMENT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert command("my_experiment", "--quick", "--seeds", 0) == 0
    least, most = records.read(tmp_path / "results" / "bench-quick" / "my_experiment")
    assert least.numbers["cost"] < most.numbers["cost"]
    assert "core-seconds" in capsys.readouterr().out


# -- wrong input -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["troughput"], "unknown experiment 'troughput'; did you mean 'throughput'"),
        (["no_such.module"], "experiment no_such.module: No module named 'no_such'"),
        (["tests.conftest"], "has no function cases"),
        (["throughput", "--seeds", "-1"], "-1 is negative"),
        (["throughput", "--methods", "QMIX"], "--methods: experiment throughput has a fixed set of methods"),
        (["throughput", "--tasks", "climbing"], "--tasks: experiment throughput has a fixed set of tasks"),
        (["games", "--device", "cuda"], "--device: experiment games does not measure a device; leave --device out"),
        (["throughput", "--device", "cdua"], "did you mean 'cuda'"),
        ([ROOTS, "--address", "127.0.0.1:9"], "no Ray cluster at '127.0.0.1:9'"),
        ([], "the following arguments are required: ID"),
        ([ROOTS, "--quik"], "did you mean --quick"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_measured(
    tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture
) -> None:
    assert command(*arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["{1, 2}", "float('nan')"])
def test_a_case_must_be_plain_data(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    parts = ["from benchmarks.suite.api import Case", "measure = tables = print"]
    parts += ["def cases(*, quick, seeds): return [Case('m', 0, config={'x': VALUE})]"]
    name = f"not_plain_{len(value)}"
    (tmp_path / f"{name}.py").write_text("\n".join([f"VALUE = {value}", *parts]))
    monkeypatch.syspath_prepend(tmp_path)
    assert command(name, "--out", tmp_path / "out") == 2
    assert f"experiment {name}: a case holds more than plain data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("experiment", "method", "expected"),
    [
        ("ranking", "QMX", "unknown method of the ranking 'QMX'; did you mean 'QMIX'? (valid: AWRQMixer, "),
        ("ranking", "PPO", "unknown method of the ranking 'PPO'"),
        ("ranking", "ray.rllib.algorithms.sac.SACConfig", "does not learn from request logs; choose a preset"),
        ("ranking", "agents.rllib.MyQMIX", "unknown name in agents.rllib 'MyQMIX'; did you mean 'QMIXConfig'?"),
        ("marl", "PPO shard", "unknown method of the leaderboard 'PPO shard'; did you mean 'PPO shared'? (valid: "),
        ("marl", "SAC", "unknown method of the leaderboard 'SAC'"),
        ("marl", "ray.rllib.algorithms.sac.SACConfig", "SACConfig: the leaderboard takes presets, PPO, DQN"),
    ],
)
def test_a_wrong_method_is_refused_before_anything_is_measured(
    experiment: str, method: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ray = pytest.importorskip("ray")
    running = ray.is_initialized()
    options = ("--quick", "--seeds", 0, "--methods", "QMIX", method, "--out", tmp_path / "out")
    assert command(ROOTS, experiment, *options) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert ray.is_initialized() == running


def test_valid_methods_pass_the_check() -> None:
    pytest.importorskip("ray")
    for name in ("ranking", "marl"):
        experiment = registry.load_experiment(name)
        for case in experiment.cases(
            quick=True, seeds=(0,), methods=(*experiment.METHODS, "agents.rllib.VDNConfig", "IQL")
        ):
            experiment.check(case)


def test_each_method_is_checked_once_if_it_has_cases_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.helpers.roots_experiment as roots

    checked: list[str] = []
    monkeypatch.setattr(roots, "check", lambda case: checked.append(case.method), raising=False)
    assert command(ROOTS, "--methods", "newton", "--out", tmp_path) == 0
    assert command(ROOTS, "--out", tmp_path) == 0
    assert checked == ["newton", "bisection"]


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("(*, quick): return []", "TypeError: cases() got an unexpected keyword argument 'seeds'; see"),
        ("(*, quick, seeds): return [1 / 0]", "ZeroDivisionError: division by zero (faulty_1.py, line 3); see"),
        ("(*, quick, seeds): return ['newton']", "AttributeError: 'str' object has no attribute 'key'; see"),
        ("(*, quick, seeds): return None", "TypeError: 'NoneType' object is not iterable; see"),
    ],
)
def test_an_error_in_cases_is_one_line_with_its_place(
    cases: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    name = f"faulty_{int('1 / 0' in cases)}"
    (tmp_path / f"{name}.py").write_text(f"measure = tables = print\n\ndef cases{cases}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert command(name, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"experiment {name}: cases(*, quick, seeds) fails: {expected} benchmarks/suite/api.py" in error
    assert error.count("\n") == 1


def test_measure_must_return_a_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import tests.helpers.roots_experiment as roots

    monkeypatch.setattr(roots, "measure", lambda case, folder: 3.0)
    assert command(ROOTS, "--methods", "newton", "--seeds", 2, "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert "newton, root, default, seed 2: measure must return a dict of numbers; got float" in error
    assert "Traceback" not in error


def test_wrong_input_stops_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError):
        registry.expand_names(["nothing"])
    (tmp_path / ROOTS).mkdir()
    (tmp_path / ROOTS / records.FILE).write_text("what\n")
    assert command("tests.helpers.another_roots", ROOTS, "--out", tmp_path) == 2
    assert "records.jsonl, line 1: not a record" in capsys.readouterr().err
    assert not (tmp_path / "tests.helpers.another_roots").exists()
    (tmp_path / "file").write_text("")
    assert command(ROOTS, "--out", tmp_path / "file") == 2
    assert "nothing can be written there" in capsys.readouterr().err
