"""``marca train``: accepted options, errors on one line, written files, and resuming of every kind of run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli.main import main
from benchmarks.training.run_log import read_lines
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.cli import refuse
from tests.helpers.documents import USER_METHOD
from tests.helpers.tensorboard import scalars

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
VDN = ["--algo", "VDN", "--env", GAME]
SMALL = ["--config", "gru=null", "hidden=[8]", "learning_starts=64", "updates_per_iteration=2"]
PPO = ["--algo", "PPO", "--env", GAME, "--config", "train_batch_size_per_learner=64", "minibatch_size=32"]
PPO += ["num_epochs=1", 'model_config={"fcnet_hiddens": [8]}']
DQN = ["--algo", "DQN", "--env", GAME, "--config", "min_sample_timesteps_per_iteration=40", "share_parameters=true"]
DQN += ["num_steps_sampled_before_learning_starts=20", 'model_config={"fcnet_hiddens": [8]}']

OWN_LOSS = """
from agents.rllib import QMIXConfig
from agents.rllib.core.learner import TeamLearner

class Decayed(TeamLearner):
    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        loss = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        size = sum(p.pow(2).sum() for p in self.module[module_id].parameters() if p.requires_grad)
        self.metrics.log_value((module_id, "size"), float(size.detach()), window=1)
        return loss + 1e-3 * size

class MyLoss(QMIXConfig):
    defaults = {"gru": None}
    def get_default_learner_class(self):
        return Decayed
"""
OWN_SUM = """
from torch import nn

class Plain(nn.Module):
    def __init__(self, n_agents, condition_size):
        super().__init__()
    def forward(self, utilities, condition):
        return utilities.sum(-1)
"""


BAD = [
    (["--algo", "QMX"], "did you mean 'QMIX'"),
    (["--algo", "PP0"], "did you mean 'PPO'"),
    (["--algo", "nowhere.Mine"], "No module named 'nowhere'"),
    (["--algo", "json.dumps"], "neither an Algorithm nor an AlgorithmConfig"),
    (["--algo", "json.JSONDecodr"], "did you mean 'JSONDecoder'"),
    (["--algo"], "expected one argument"),
    (["--offline", "nowhere.parquet"], "nowhere.parquet: no such file"),
    (["--offline", __file__, "--env", GAME], "exclude each other"),
    (["--offline", __file__, "--algo", "PPO"], "PPO does not learn from request logs"),
    ([*VDN, "--config", "head=2"], "did you mean 'heads'"),
    ([*VDN, "--config", "optimiser=sgd"], "did you mean 'optimizer'? (also near: "),
    ([*VDN, "--config", "epsilon=much"], "epsilon is 'much'"),
    ([*VDN, "--config", "epsilon=[[9,0.5],[3,0]]"], "with rising steps"),
    ([*VDN, "--config", "reward_scale=-1"], "reward_scale is -1"),
    ([*VDN, "--config", "grad_clip=-1"], "grad_clip is -1"),
    ([*VDN, "--config", "num_env_runners=x"], "num_env_runners is 'x'"),
    ([*VDN, "--config", "env_config=3"], "env_config is 3"),
    ([*VDN, "--config", "lr=fast"], "lr is 'fast'"),
    ([*VDN, "--config", "mixer=nowhere.Mixer"], "No module named 'nowhere'"),
    ([*VDN, "--config", "mixer=json.JSONDecoder"], "not a torch.nn.Module"),
    (["--algo", "VDN", "--config", "share_parameters=true"], "no two agents have equal observation and action sizes"),
    ([*VDN, "--config", "share_parameters=2"], "share_parameters is 2"),
    ([*PPO, "num_epoch=2"], "did you mean 'num_epochs'"),
    ([*PPO, "num_epochs=two"], "num_epochs is 'two'"),
    (["--algo", "SAC", "--env", GAME], "SAC does not support the action masks"),
    (["--algo", "VDN", "--env", "marca_env/paralel-v0"], "did you mean 'marca_env/parallel-v0'"),
    (["--algo", "PPO", "--env", "nowhere.Env"], "no module 'nowhere'"),
    ([*VDN, "--config", "lr=NaN"], "lr is nan; use a finite number"),
    ([*VDN, "--config", "lr=[[0,1],[9,Infinity]]"], "use a finite number"),
    ([*VDN, "--stop", "training_iteration=-3"], "use a positive limit"),
    ([*VDN, "--stop", "steps=2"], "unknown stopping criterion"),
    ([*VDN, "--stop", "training_iteration=soon"], "is 'soon'; use a number"),
    ([*VDN, "--stop", "training_iteration=1e999"], "is inf; use a number that is finite"),
    ([*VDN, "--stop", "time_total_s=Infinity"], "is inf; use a number that is finite"),
    ([*VDN, "--stop", "evaluation/env_runners/episode_return_mean=1"], "nothing is evaluated"),
    ([*VDN, "--num-env-runners", "-1"], "--num-env-runners is -1"),
    ([*VDN, "--num-learners", "two"], "invalid int value: 'two'"),
    ([*VDN, "--device", "tpu"], "unknown device 'tpu'"),
    ([*VDN, "--seed", "-3"], "seed is -3"),
    ([*VDN, "--checkpoint-freq", "-1"], "checkpoint_freq is -1"),
    ([*VDN, "--keep", "0"], "--keep is 0"),
    ([*VDN, "--evaluate-freq", "3"], "--evaluate-freq evaluates offline runs"),
    ([*VDN, "--resume", "nowhere"], "--resume keeps the configuration"),
    (["--resume", "nowhere"], "nowhere: no such folder"),
    (["--address", "127.0.0.1:9"], "nothing answers there"),
    (["--address", "somewhere"], "give host:port"),
    (["--itertions", "3"], "unknown argument --itertions"),
    (["--checkpiont-freq", "3"], "did you mean --checkpoint-freq"),
    (["--wandb"], "expected one argument"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a).replace(GAME, "G")[-60:] for a, _ in BAD])
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("precious")
    assert message in refuse(["train", "--out", str(tmp_path), *arguments], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert file.read_text() == "precious"


def test_out_must_not_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "a file; give a folder" in refuse(["train", *VDN, "--out", str(tmp_path / "file")], capsys)


def test_an_unwritable_out_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "nothing can be written there" in refuse(["train", *VDN, "--out", str(tmp_path / "file" / "in")], capsys)


def test_a_folder_with_checkpoints_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shorter second run would leave the first one's checkpoint as the newest."""
    (tmp_path / "checkpoint_000050").mkdir()
    assert "checkpoint_000050: left by an earlier run" in refuse(["train", *VDN, "--out", str(tmp_path)], capsys)


@pytest.mark.slow
def test_env_steps_cannot_stop_a_run_on_a_log(
    tiny_artefacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ["--offline", str(tiny_artefacts / "requests.parquet"), "--algo", "VDN", "--stop", "env_steps=9"]
    assert "env_steps cannot stop a run on a log" in refuse(["train", *log, "--out", str(tmp_path)], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[*VDN, *SMALL], PPO, DQN], ids=["VDN", "PPO", "DQN shared"])
def test_every_kind_of_run_resumes(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two iterations, one more, then none: all numbers are in the log, each iteration once."""
    run = ["train", "--out", str(tmp_path), "--stop"]
    assert main([*run, "training_iteration=2", *arguments]) == 0
    assert "next:       marca evaluate" in capsys.readouterr().out
    resume = ["train", "--resume", str(tmp_path), "--stop"]
    assert main([*resume, "training_iteration=3", "env_runners/episode_return_mean=1000"]) == 0
    assert main([*resume, "training_iteration=3"]) == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert [n for n in names if n.startswith("checkpoint")] == ["checkpoint_000002", "checkpoint_000003"]
    lines = read_lines(tmp_path)
    assert [line["training_iteration"] for line in lines] == [1, 2, 3]
    assert lines[0]["time_total_s"] < lines[1]["time_total_s"] < lines[2]["time_total_s"]
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["episode_return_mean"]) for r in rows] == [line["episode_return_mean"] for line in lines]
    assert set(rows[0]) == {name for line in lines for name in line}
    assert "env_runners/episode_return_mean" in rows[0]
    assert scalars(tmp_path)["episode_return_mean"] == pytest.approx(
        {int(line["training_iteration"]): line["episode_return_mean"] for line in lines}
    )


@pytest.mark.slow
def test_returns_of_rllibs_algorithms_count_the_team_reward_once(tmp_path: Path) -> None:
    """RLlib counts the team reward once for each agent; the log has both numbers."""
    assert main(["train", "--out", str(tmp_path), "--stop", "training_iteration=1", *PPO]) == 0
    (line,) = read_lines(tmp_path)
    assert line["env_runners/episode_return_mean"] == pytest.approx(2 * line["episode_return_mean"])
    assert 0 <= line["episode_return_mean"] <= 8


def test_a_limit_on_an_unknown_number_names_the_nearest_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = ["--stop", "learners/default_policy/qtot=5"]
    error = error_of_last_line(["train", "--out", str(tmp_path), *VDN, *SMALL, *stop], capsys)
    assert "learners/default_policy/q_tot" in error


def error_of_last_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MyQMIX", "MyLoss"])
def test_a_users_algorithm_trains_resumes_and_is_evaluated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"own_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(USER_METHOD if name == "MyQMIX" else OWN_LOSS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    stop = ["--out", "run", "--stop", "training_iteration=2"]
    few = ["--config", "hidden=[8]", "learning_starts=64", "updates_per_iteration=2"]
    assert main(["train", "--algo", f"{module}.{name}", "--env", GAME, *few, *stop]) == 0
    assert main(["train", "--resume", "run", "--stop", "training_iteration=3"]) == 0
    lines = read_lines(Path("run"))
    assert len(lines) == 3
    assert ("learners/default_policy/size" in lines[-1]) == (name == "MyLoss")
    capsys.readouterr()
    assert main(["evaluate", "run", "--episodes", "5"]) == 0
    assert f"{name} on {GAME}" in capsys.readouterr().out


def test_the_algorithm_in_the_readme_has_ten_lines() -> None:
    assert len([line for line in USER_METHOD.splitlines() if line.strip()]) == 10


def test_a_users_mixer_is_served_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's sum mixer gives the same values of joint actions as VDN from the same weights."""
    import numpy as np

    from agents.algorithms.presets import preset
    from agents.offline.episodes import team_encoder
    from agents.policy.allocation_policy import AllocationPolicy
    from agents.team.team import Team, TeamSpec
    from marca_env.models.engine import get_engine

    (tmp_path / "own_sum.py").write_text(OWN_SUM)
    monkeypatch.syspath_prepend(str(tmp_path))
    engine, values = get_engine("default"), []
    states = engine.sample_states(np.random.default_rng(0), 3)
    weights: dict[str, Any] = {}
    for mixer in ("sum", "own_sum.Plain"):
        team = Team(TeamSpec.from_source(team_encoder(engine.scenario)), preset("VDN", gru=8, hidden=(8,), mixer=mixer))
        weights = weights or team.state_dict()
        team.load_state_dict(weights)
        AllocationPolicy(team, engine.scenario, engine.cost_model).save(tmp_path / mixer)  # type: ignore[arg-type]
        values.append(AllocationPolicy.load(tmp_path / mixer, trust=["own_sum.Plain"]).values(states))
    assert np.ptp(values[0]) > 0
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    description = json.loads((tmp_path / "own_sum.Plain" / "policy.json").read_text())
    description["preset"]["mixer"]["mixer"] = "own_sum.Gone"
    (tmp_path / "own_sum.Plain" / "policy.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="Gone"):
        AllocationPolicy.load(tmp_path / "own_sum.Plain", trust=["own_sum.Gone"])


def test_a_mixer_of_the_wrong_shape_is_named() -> None:
    import torch
    from torch import nn

    from agents.networks.mixers import UserMixer

    class Flat(nn.Module):
        def forward(self, utilities: Any, condition: Any) -> Any:
            return utilities.sum(-1, keepdim=True)

    with pytest.raises(InputError, match="return one value for each"):
        UserMixer(Flat())(torch.zeros(4, 2), torch.zeros(4, 3))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[*VDN, *SMALL], PPO], ids=["VDN", "PPO"])
def test_ctrl_c_saves_a_checkpoint(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cli", "train", "--out", str(tmp_path / "run"), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [*command, "--stop", "training_iteration=100000"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 200
            while not (tmp_path / "run" / "progress.csv").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()  # or a run that ignores the signal outlives the tests
    assert process.returncode == 130
    assert "continue with: marca train --resume" in out
    (checkpoint,) = (tmp_path / "run").glob("checkpoint_*")
    done = int(checkpoint.name.removeprefix("checkpoint_"))
    assert main(["train", "--resume", str(tmp_path / "run"), "--stop", f"training_iteration={done + 1}"]) == 0


def test_an_offline_run_is_evaluated_on_rows_that_it_does_not_learn_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.rllib.core.offline_log import log_split
    from benchmarks.training.trials import Trial, make_evaluator
    from marca_env.models.engine import shipped_folder

    log = str(shipped_folder("default") / "requests.parquet")
    trial = Trial(run="VDN", offline=log, evaluate_freq=2)
    config = trial.build()
    assert config.split == "hash"
    assert log_split(config) is not None
    assert make_evaluator(trial, None) is not None
    assert make_evaluator(Trial(run="VDN", offline=log), None) is None


@pytest.mark.slow
def test_an_evaluated_offline_run_says_which_rows_are_held_out(
    tiny_scenario: Scenario, tiny_artefacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_scenario.save(tmp_path / "tiny.yaml")
    log = ["--offline", str(tiny_artefacts / "requests.parquet"), "--scenario", str(tmp_path / "tiny.yaml")]
    once = ["--config", "gru=null", "hidden=[8]", "--stop", "training_iteration=1"]
    run = ["train", "--algo", "VDN", *log, *once]
    assert main([*run, "--out", str(tmp_path / "all")]) == 0
    assert "held out" not in capsys.readouterr().out
    later = ["train", "--resume", str(tmp_path / "all"), "--evaluate-freq", "1", "--stop", "training_iteration=2"]
    assert "learns from all rows of its log, none is held out" in error_of_last_line(later, capsys)
    assert main([*run, "--config", "validation_share=0.2", "--evaluate-freq", "9", "--out", str(tmp_path / "run")]) in (
        0,
        2,
    )
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("held out of 6,000 rows: ")]
    assert "on which the run is evaluated (validation_share = 0.2)" in line
    rows = int(line.split(": ")[1].split()[0].replace(",", ""))
    assert rows == pytest.approx(1_200, abs=150)


def test_lists_name_algorithms_and_environments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--env", "list"]) == 0
    printed = capsys.readouterr().out
    assert "marca_env/parallel-v0" in printed
    assert "games/climbing-v0" in printed
    assert main(["train", "--algo", "list"]) == 0
    assert "QMIX" in capsys.readouterr().out


def test_a_missing_wandb_is_named_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install wandb" in error_of_last_line(
        ["train", *VDN, "--out", str(tmp_path / "run"), "--wandb", "x"], capsys
    )


@pytest.mark.slow
def test_a_bare_resume_goes_on_to_the_remembered_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run says so and how to go on; a limit given on resume replaces the remembered one."""
    out = tmp_path / "run"
    assert main(["train", "--out", str(out), *VDN, *SMALL, "--stop", "training_iteration=2", "env_steps=1e9"]) == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    capsys.readouterr()
    assert main(["train", "--resume", str(out), "--address", "auto"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "finished already (training_iteration 2 ≥ 2)" in printed
    assert f"marca train --resume {out} --address auto --stop training_iteration=4" in printed
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    assert main(["train", "--resume", str(out), "--stop", "training_iteration=4", "--checkpoint-freq", "1"]) == 0
    shutil.rmtree(out / "checkpoint_000004")
    assert main(["train", "--resume", str(out)]) == 0  # from iteration 3
    assert [line["training_iteration"] for line in read_lines(out)] == [1, 2, 3, 4]
    (out / "run.json").unlink()
    (out / "checkpoint_000004" / "run.json").unlink()
    assert main(["train", "--resume", str(out / "checkpoint_000004")]) == 2
    assert "no limit is remembered there; pass --stop" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason", "limit"),
    [
        (
            [*VDN, "--config", "learning_starts=300"],
            "no gradient step yet: 128 of learning_starts = 300 episodes; learning begins in iteration 5",
            10,
        ),
        (
            [*DQN[:-2], "num_steps_sampled_before_learning_starts=300"],
            "before_learning_starts = 300 steps; learning begins in iteration 8",
            16,
        ),
    ],
    ids=["VDN", "DQN"],
)
def test_a_run_too_short_to_learn_says_what_was_missing(
    arguments: list[str], reason: str, limit: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path), *arguments, "--stop", "training_iteration=2"]) == 0
    printed = capsys.readouterr().out
    assert "marca evaluate" not in printed
    assert reason in printed
    if arguments[1] == "VDN":
        assert main(["evaluate", str(tmp_path), "--episodes", "2"]) == 0
        assert "has taken no gradient step yet" in capsys.readouterr().out
    assert f"--stop training_iteration={limit} (or lower " in printed
    assert main(["train", "--resume", str(tmp_path), "--stop", f"training_iteration={limit}"]) == 0
    assert "next:       marca evaluate" in capsys.readouterr().out


def test_only_where_a_resumed_run_continues_can_be_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "--resume", str(tmp_path)]
    assert "leave --algo and --seed out" in refuse([*run, "--algo", "VDN", "--seed", "1"], capsys)
    assert "unknown device 'tpu'" in refuse([*run, "--device", "tpu", "--stop", "env_steps=1"], capsys)
    assert "--num-learners is -1" in refuse([*run, "--num-learners", "-1", "--stop", "env_steps=1"], capsys)
    assert "no checkpoint here" in refuse([*run, "--num-learners", "1", "--stop", "env_steps=1"], capsys)
