"""``marca train file``: faults are named before anything runs; failures, resuming, runs side by side."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import pytest

from benchmarks.cli.main import main
from tests.helpers.cli import refuse

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"


FILE = textwrap.dedent(
    f"""
    games:
      run: VDN
      env: {GAME}
      stop: {{training_iteration: 2}}
      config: {{gru: null, hidden: [8], learning_starts: 64, lr: {{grid_search: [1e-3, 1e-4]}}}}
      num_samples: 2
    broken:
      run: broken_algorithm.Broken
      env: {GAME}
      stop: {{training_iteration: 2}}
    ppo:
      run: PPO
      env: {GAME}
      stop: {{training_iteration: 1}}
      config: {{train_batch_size_per_learner: 64, minibatch_size: 32, num_epochs: 1}}
    """
)
BROKEN = """
from agents.rllib import VDNConfig
from agents.rllib.core.algorithms import VDN

class Fails(VDN):
    def training_step(self):
        raise RuntimeError("a fault of the user's own")

class Broken(VDNConfig):
    def __init__(self, algo_class=None):
        super().__init__(Fails)
"""


@pytest.mark.slow
def test_all_runs_are_trained_and_unfinished_ones_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All combinations and samples; a failure does not stop the others; a second call resumes what is not done."""
    (tmp_path / "two.yaml").write_text(FILE)
    (tmp_path / "broken_algorithm.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["train", "file", "two.yaml", "--out", "out"]) == 1
    printed = capsys.readouterr()
    assert "a fault of the user's own" in printed.err
    runs = sorted(str(p.parent.relative_to("out")) for p in Path("out").rglob("result.json"))
    variants = [f"games/lr={lr},sample={k}" for lr in ("0.0001", "0.001") for k in (0, 1)]
    assert runs == sorted(["broken", "ppo", *variants])
    for name in (*variants, "ppo"):
        assert list((Path("out") / name).glob("checkpoint_*")), name
    results = {name: json.loads((Path("out") / name / "result.json").read_text()) for name in runs}
    assert results["games/lr=0.001,sample=1"]["trial"]["seed"] == 1
    assert results["games/lr=0.001,sample=1"]["trial"]["config"]["lr"] == 1e-3
    assert {n: r["status"] for n, r in results.items() if r["status"] != "done"} == {"broken": "failed"}
    assert "RuntimeError" in Path("out/broken/error.txt").read_text()
    assert "left by an earlier run" in refuse(["train", "file", "two.yaml", "--out", "out"], capsys)
    Path("two.yaml").write_text(FILE.replace("training_iteration: 2", "training_iteration: 3"))
    assert main(["train", "file", "two.yaml", "--out", "out", "--resume", "--only", "games"]) == 0
    assert all(len(list((Path("out") / name).glob("checkpoint_*"))) == 2 for name in variants)
    Path("two.yaml").write_text(FILE.replace("hidden: [8]", "hidden: [9]"))
    capsys.readouterr()
    assert "a resumed run keeps its configuration" in refuse(
        ["train", "file", "two.yaml", "--out", "out", "--resume"], capsys
    )


@pytest.mark.slow
def test_concurrent_runs_train_in_their_own_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"a: {{run: VDN, env: {GAME}, stop: {{training_iteration: 1}}, num_samples: 2, config: {{gru: null}}}}\n"
    (tmp_path / "side.yaml").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    assert main(["train", "file", "side.yaml", "--out", "out", "--concurrent", "2"]) == 0
    assert {p.parent.name for p in Path("out").rglob("checkpoint_000001")} == {"sample=0", "sample=1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("a: [1, 2", "not valid YAML or JSON"),
        ("- run: VDN", "expected a mapping"),
        ("a: {run: VDN}\na: {run: QMIX}", "line 2, column 1: key 'a' appears twice, first on line 1"),
        ("a:\n  run: VDN\n  run: QMIX", "line 3, column 3: key 'run' appears twice, first on line 2"),
        ("a: VDN", "experiment 'a': expected run, env, stop and config"),
        ("a: {env: x}", "experiment 'a': field 'run' is missing"),
        ("a: {run: VDN, stp: {}}", "experiment 'a': unknown field 'stp'; did you mean 'stop'"),
        ("a: {run: 3}", "experiment 'a': field 'run' is 3; give the name of an algorithm"),
        ("a: {run: VDN, stop: 50}", "field 'stop' is 50; give an object of limits"),
        ("a: {run: VDN, stop: {env_steps: many}}", "field 'stop': env_steps is 'many'"),
        ("a: {run: VDN, config: [1]}", "field 'config' is [1]"),
        ("a: {run: VDN, num_samples: 0}", "field 'num_samples' is 0"),
        ("a: {run: VDN, num_samples: true}", "field 'num_samples' is True"),
        ("a: {run: VDN, seed: 1, config: {seed: 2}}", "seed is given twice"),
        ("a: {run: VDN, config: {lr: {grid_search: 3}}}", "field 'config.lr': grid_search is 3; give a list"),
        ("a: {run: VDN, config: {lr: {grid_search: [1], x: 2}}}", "grid_search stands alone; remove x"),
        ("a/b: {run: VDN}", "the name becomes a folder"),
        ("3: {run: VDN}", "key 3 is not text"),
        ("a: {run: VDN, env: x, offline: y}", "experiment 'a': offline and env exclude each other"),
        (f"a: {{run: VDN, env: {GAME}}}\nb: {{run: QMX}}", "experiment 'b': unknown algorithm 'QMX'"),
        (f"a: {{run: VDN, env: {GAME}, config: {{head: 2}}}}", "experiment 'a': unknown option 'head'"),
        (f"a: {{run: VDN, env: {GAME}, stop: {{steps: 2}}}}", "experiment 'a': unknown stopping criterion 'steps'"),
    ],
)
def test_faults_of_a_file_are_named_before_training(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    error = refuse(["train", "file", str(file), "--out", str(tmp_path / "out")], capsys)
    assert message in error
    assert "f.yaml" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: FILE.yaml"),
        (["nowhere.yaml"], "nowhere.yaml: no such experiment file"),
        (["f.yaml", "--only", "b"], "unknown experiment 'b' (valid: a)"),
        (["f.yaml", "--concurrent", "0"], "--concurrent is 0"),
        (["f.yaml", "--keep", "0"], "--keep is 0"),
        (["f.yaml", "--resmue"], "did you mean --resume"),
        (["f.yaml", "--address", "127.0.0.1:9"], "nothing answers there"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "f.yaml").write_text("a: {run: VDN}")
    monkeypatch.chdir(tmp_path)
    assert message in refuse(["train", "file", *arguments], capsys)


def test_a_file_may_give_every_field_of_a_trial() -> None:
    from dataclasses import fields

    from benchmarks.training.experiment_files import FIELDS, SAMPLES
    from benchmarks.training.trials import Trial

    assert {f.name for f in fields(Trial)} == set(FIELDS) - {SAMPLES}
