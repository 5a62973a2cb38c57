"""``marca train``: options from pairs, objects and files; errors in one line; a run that is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.commands.train import parse_pairs
from marca_env.errors import InputError

GAME = "benchmarks.games.TwoStepGame"


def test_options_from_pairs_objects_and_files(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("heads: 3\nmixer: softplus\n")
    found = parse_pairs(
        [str(file), '{"gamma": 0.5}', "heads=5", "gru=null", "hidden=[8,4]", "double_q=false"], "--config"
    )
    assert found == {
        "heads": 5,
        "mixer": "softplus",
        "gamma": 0.5,
        "gru": None,
        "hidden": [8, 4],
        "double_q": False,
    }


@pytest.mark.parametrize(
    ("item", "message"), [("heads", "give key=value"), ("no.yaml", "no such file"), ("{[", "neither JSON nor YAML")]
)
def test_what_cannot_be_read(item: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_pairs([item], "--config")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "QMX"], "did you mean 'QMIX'"),
        (["--offline", "nowhere.parquet"], "nowhere.parquet: no such file"),
        (["--algo", "VDN", "--env", GAME, "--config", "head=2"], "did you mean 'heads'"),
        (["--algo", "VDN", "--env", GAME, "--stop", "steps=2"], "unknown stopping criterion"),
        (["--algo", "VDN", "--env", GAME, "--config", "epsilon=much"], "epsilon is 'much'"),
        (["--algo", "VDN", "--env", GAME, "--config", "epsilon=[[9,0.5],[3,0]]"], "with rising steps"),
        (["--algo", "VDN", "--env", GAME, "--config", "reward_scale=-1"], "reward_scale is -1; it must be a positive"),
        (["--algo", "VDN", "--env", GAME, "--config", "grad_clip=-1"], "grad_clip is -1"),
        (["--algo", "VDN", "--env", GAME, "--config", "num_env_runners=x"], "num_env_runners is 'x'"),
        (["--algo", "VDN", "--env", GAME, "--config", "env_config=3"], "env_config is 3"),
        (["--algo", "VDN", "--env", GAME, "--config", "lr=fast"], "Invalid `lr` (fast)"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("marca: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_train_then_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--config", "gru=null", "hidden=[8]", "learning_starts=64", "updates_per_iteration=2"]
    run = ["train", "--out", str(tmp_path), "--stop"]
    assert main([*run, "training_iteration=2", "--algo", "VDN", "--env", GAME, *small]) == 0
    assert main([*run, "training_iteration=3", "--resume", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_000002", "checkpoint_000003"]
    assert "policy:" in capsys.readouterr().out


def test_a_folder_with_checkpoints_is_not_written_to_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shorter second run would leave the first one's checkpoint as the newest."""
    (tmp_path / "checkpoint_000050").mkdir()
    assert main(["train", "--out", str(tmp_path), "--algo", "VDN", "--env", GAME]) == 2
    assert "checkpoint_000050: left by an earlier run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop", "training_iteration=soon"], "is 'soon'; give a number"),
        (["--stop", "env_steps=9"], "env_steps cannot stop a run on a log"),
        (["--resume", "{folder}", "--scenario", "default"], "leave --scenario out"),
    ],
)
def test_limits_that_cannot_be_reached_and_options_that_are_ignored(
    arguments: list[str], message: str, tiny_artefacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ["--offline", str(tiny_artefacts / "requests.parquet")] if "--stop" in arguments else []
    arguments = [a.format(folder=tmp_path) for a in arguments]
    assert main(["train", "--algo", "VDN", "--out", str(tmp_path / "out"), *log, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_resuming_a_finished_run_adds_nothing(tmp_path: Path) -> None:
    small = ["--config", "gru=null", "hidden=[8]", "learning_starts=64", "updates_per_iteration=2"]
    run = ["train", "--out", str(tmp_path), "--stop", "training_iteration=2"]
    assert main([*run, "--algo", "VDN", "--env", GAME, *small]) == 0
    assert main([*run, "--resume", str(tmp_path)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_000002"]
