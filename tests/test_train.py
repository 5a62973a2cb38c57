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
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments]) == 2
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
