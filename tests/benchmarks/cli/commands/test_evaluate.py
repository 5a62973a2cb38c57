"""``marca evaluate``: greedy returns of every kind of checkpoint, repeatable for a seed; errors on one line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.policy.allocation_policy import AllocationPolicy, load_team, policy_folder
from agents.rllib import independent, train
from agents.rllib.training.evaluation import CheckpointPlayer
from benchmarks.cli.commands.evaluate import summarise
from benchmarks.cli.main import main
from marca_env.utils.errors import InputError

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train presets on a game and on the recommender, PPO on both and on CartPole; return the folder."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--config", "gru=null", "hidden=[8]", "learning_starts=64", "updates_per_iteration=2"]
    ppo = ["--config", "train_batch_size_per_learner=40", "minibatch_size=20", "num_epochs=1"]
    ppo += ['model_config={"fcnet_hiddens": [8]}']
    once = ["--stop", "training_iteration=1"]
    for name, algo, env, options in (
        ("vdn", "VDN", GAME, small),
        ("recommender", "VDN", "marca_env/parallel-v0", [*small, "num_envs_per_env_runner=64"]),
        ("joint", "JointDQN", "marca_env/parallel-v0", ["--config", *small[2:], "num_envs_per_env_runner=64"]),
        ("ppo", "PPO", GAME, ppo),
        ("shared", "PPO", "marca_env/parallel-v0", [*ppo, "share_parameters=true"]),
        ("pole", "PPO", "CartPole-v1", ppo),
    ):
        assert main(["train", "--algo", algo, "--env", env, *options, *once, "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vdn", "recommender", "ppo", "shared", "pole"])
def test_figures_are_written_and_repeatable(
    name: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = []
    for k in range(2):
        out = tmp_path / f"{k}.json"
        assert main(["evaluate", str(runs / name), "--episodes", "12", "--seed", "4", "--out", str(out)]) == 0
        figures.append(json.loads(out.read_text()))
    assert figures[0] == figures[1]
    assert len(figures[0]["returns"]) == len(figures[0]["lengths"]) == 12
    assert figures[0]["return_mean"] == pytest.approx(np.mean(figures[0]["returns"]))
    low, high = figures[0]["return_interval"]
    assert low <= figures[0]["return_mean"] <= high
    printed = capsys.readouterr().out
    assert "return mean" in printed
    assert "12 greedy episodes" in printed
    if name in ("vdn", "ppo"):  # the team's return, not the sum over the agents
        assert set(figures[0]["returns"]) <= {0.0, 1.0, 7.0, 8.0}
        assert set(figures[0]["lengths"]) == {2}


def test_greedy_returns_equal_a_hand_computed_argmax(runs: Path) -> None:
    """The hand computation takes both agents' greedy actions in both steps of the game."""
    from benchmarks.experiments.games.matrix_games import TwoStepGame

    team, _ = load_team(runs / "vdn")
    game, total = TwoStepGame(1), 0.0
    step = game.reset()
    for _ in range(2):
        actions = {}
        for name, net in zip(team.spec.agents, team.agents, strict=True):
            q = net.values(torch.from_numpy(step.observations[name]), net.initial_hidden(1)).mean(1)
            actions[name] = q.argmax(-1).numpy()
        step = game.step(actions)
        total += float(step.reward[0])
    played = CheckpointPlayer(runs / "vdn").play(3)
    assert played.returns.tolist() == [total] * 3


def test_run_checkpoint_and_policy_folder_are_the_same_policy(runs: Path) -> None:
    (checkpoint,) = (runs / "recommender").glob("checkpoint_*")
    returns = [
        CheckpointPlayer(p, seed=2).play(20).returns for p in (runs / "recommender", checkpoint, checkpoint / "policy")
    ]
    np.testing.assert_array_equal(returns[0], returns[1])
    np.testing.assert_array_equal(returns[0], returns[2])
    assert len(set(returns[0].tolist())) > 1


def test_the_newest_complete_checkpoint_of_a_run_is_used(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (checkpoint,) = (runs / "recommender").glob("checkpoint_*")
    for name in ("checkpoint_000001", "checkpoint_000002"):
        shutil.copytree(checkpoint, tmp_path / name)
    assert policy_folder(tmp_path).parent.name == "checkpoint_000002"
    weights = tmp_path / "checkpoint_000002" / "policy" / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with caplog.at_level("WARNING", logger="agents"):
        policy = AllocationPolicy.load(tmp_path)
    assert caplog.text.count("using checkpoint_000001") == 1
    whole = AllocationPolicy.load(checkpoint).team.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in policy.team.state_dict().items())
    (tmp_path / "checkpoint_000001" / "manifest.json").unlink()
    with pytest.raises(InputError, match="all checkpoints are damaged"):
        AllocationPolicy.load(tmp_path)


def test_a_policy_folder_alone_needs_no_pickle(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its scenario gives the environment; for a policy of another environment --env is needed."""
    for name in ("recommender", "vdn"):
        (policy,) = (runs / name).glob("checkpoint_*/policy")
        shutil.copytree(policy, tmp_path / name)
    assert len(CheckpointPlayer(tmp_path / "recommender").play(5).returns) == 5
    assert main(["evaluate", str(tmp_path / "vdn"), "--episodes", "2"]) == 2
    assert "pass --env" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "vdn"), "--episodes", "2", "--env", GAME]) == 0


@pytest.mark.slow
def test_a_trained_policy_scores_better_than_an_untrained_one(tmp_path: Path) -> None:
    """PPO on a one-step matrix game with a safe payoff: greedy play takes the best action."""
    from ray.rllib.algorithms.ppo import PPOConfig

    config = independent(
        PPOConfig(),
        "benchmarks.experiments.games.matrix_games.MatrixGame",
        {"payoff": [[1, 0, 0], [0, 0, 0], [0, 0, 0]]},
    )
    config.training(lr=1e-2, train_batch_size_per_learner=128, minibatch_size=64, num_epochs=4, entropy_coeff=0.0)
    config.rl_module(model_config={"fcnet_hiddens": [16]})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=16).debugging(seed=0)
    algorithm, _ = train(config, stop={"training_iteration": 12}, out=tmp_path / "run")
    algorithm.stop()
    assert CheckpointPlayer(tmp_path / "run").play(4).returns.mean() == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recommender", "joint", "shared"])
def test_render_prints_an_episode_as_text(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs / name), "--episodes", "2", "--render"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("truncation=?") == 5  # the start, and four steps before the last decision
    assert "core-ms" in printed


def bad_checkpoints(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "file.json").write_text("{}")
    (folder / "cut" / "policy").mkdir(parents=True)
    (folder / "cut" / "policy" / "policy.json").write_text('{"kind"')
    (folder / "cut" / "policy" / "weights.safetensors").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: checkpoint"),
        (["{bad}/nowhere"], "no such folder"),
        (["{bad}/file.json"], "a file; give the folder"),
        (["{bad}/empty"], "no checkpoint here"),
        (["{bad}/cut/policy"], "policy.json"),
        (["{runs}/vdn", "--episodes", "0"], "--episodes is 0"),
        (["{runs}/vdn", "--episodes", "many"], "invalid int value: 'many'"),
        (["{runs}/vdn", "--seed", "-1"], "--seed is -1"),
        (["{runs}/vdn", "--env", "nowhere.Env"], "no module 'nowhere'"),
        (["{runs}/vdn", "--env", "marca_env/parallel-v0"], "the policy was trained with agents"),
        (["{runs}/ppo", "--env", "marca_env/parallel-v0"], "with the same agents as the checkpoint"),
        (["{runs}/ppo", "--env", "benchmarks.experiments.games.matrix_games.MatrixGame"], "weights do not fit"),
        (["{runs}/vdn", "--render"], "renders no text"),
        (["{runs}/pole", "--render"], "renders no text"),
        (["{runs}/vdn", "--config", "env_config=3"], "env_config is 3"),
        (["{runs}/ppo", "--config", "num_env_runner=3"], "did you mean 'num_env_runners'"),
        (["{runs}/vdn", "--out", "{bad}/file.json"], "exists already"),
        (["{runs}/vdn", "--episode-count", "3"], "unknown argument --episode-count"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad_checkpoints(tmp_path)
    assert main(["evaluate", *(a.format(runs=runs, bad=tmp_path) for a in arguments)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("marca: error: ")
    assert message in error
    assert (tmp_path / "file.json").read_text() == "{}"


def test_intervals_of_one_of_equal_and_of_many_episodes() -> None:
    one = summarise(np.array([3.0]), np.array([2]))
    assert one["return_interval"] is None
    assert summarise(np.full(5, 2.0), np.ones(5, int))["return_interval"] == [2.0, 2.0]
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        low, high = summarise(rng.normal(1.0, 2.0, 80), np.ones(80, int))["return_interval"]
        covered += low <= 1.0 <= high
    assert covered >= 50


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("VDN", ["gru=null", "hidden=[8]", "learning_starts=64", "updates_per_iteration=2", "epsilon=1.0"]),
        ("PPO", ["train_batch_size_per_learner=40", "minibatch_size=20", "num_epochs=1", "explore=true"]),
        (
            "DQN",
            ["min_sample_timesteps_per_iteration=40", "num_steps_sampled_before_learning_starts=20", "epsilon=1.0"],
        ),
    ],
    ids=["VDN", "PPO", "DQN"],
)
def test_episodes_are_greedy_whatever_the_training_explored(
    algo: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the deterministic game, greedy episodes are all equal; random ones have four different returns."""
    once = ["--stop", "training_iteration=1", "--out", str(tmp_path)]
    assert main(["train", "--algo", algo, "--env", GAME, "--config", *options, *once]) == 0
    returns = CheckpointPlayer(tmp_path, seed=1).play(40).returns
    assert len(set(returns.tolist())) == 1
    assert main(["evaluate", str(tmp_path), "--config", "explore=true"]) == 2
    assert "explore: the episodes are greedy" in capsys.readouterr().err


@pytest.mark.slow
def test_the_output_says_what_a_return_is(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, label in (("vdn", "return of the team"), ("ppo", "return mean of 2 agents"), ("pole", "seed 0\n")):
        out = tmp_path / f"{name}.json"
        assert main(["evaluate", str(runs / name), "--episodes", "2", "--out", str(out)]) == 0
        assert label in capsys.readouterr().out
        assert json.loads(out.read_text())["team_reward"] in label
