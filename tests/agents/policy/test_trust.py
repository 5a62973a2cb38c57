"""Signatures of checkpoints and code that artefacts name: only what this user wrote or allows is loaded."""

from __future__ import annotations

import json
import logging
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.algorithms.presets import PRESETS
from agents.policy import trust
from agents.policy.allocation_policy import DESCRIPTION, AllocationPolicy, load_team, save_team
from agents.policy.checkpoints import find_fault, writing_checkpoint
from agents.policy.trust import KEY_VARIABLE, MANIFEST, is_own, is_own_file, key_file, named_code, sign
from agents.team.team import Team, TeamSpec
from marca_env.utils.errors import InputError

SPEC = TeamSpec(("a", "b"), (3, 3), (2, 2), 4, 2)
PRESET = PRESETS["QMIX"].replace(gru=None, hidden=(4,), mixer_width=4, hypernet=4)
PAYLOAD = """
import pathlib, torch
pathlib.Path({marker!r}).write_text("executed")
class Mixer(torch.nn.Module):
    def __init__(self, n_agents, condition_size):
        super().__init__()
    def forward(self, utilities, condition):
        return utilities.sum(-1)
"""


@pytest.fixture
def own_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a key yet; return where it will be."""
    path = tmp_path / "state" / "signing.key"
    monkeypatch.setenv(KEY_VARIABLE, str(path))
    monkeypatch.setattr(trust, "_process_key", [])
    return path


def write_checkpoint(folder: Path, **files: str) -> Path:
    with writing_checkpoint(folder, 1) as part:
        for name, text in files.items():
            (part / name).write_text(text)
    return folder / "checkpoint_000001"


def write_policy(folder: Path, mixer: Any = None) -> Path:
    team = Team(SPEC, PRESET)
    save_team(folder, tensors=team.state_dict(), preset=PRESET, spec=SPEC, reward_scale=1.0, scenario=None)
    if mixer is not None:
        description = json.loads((folder / DESCRIPTION).read_text())
        description["preset"]["mixer"]["mixer"] = mixer
        (folder / DESCRIPTION).write_text(json.dumps(description))
    return folder


def test_a_checkpoint_is_signed_with_a_key_that_only_its_user_can_read(own_key_file: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, a="1", b="2")
    assert key_file() == own_key_file
    assert stat.S_IMODE(own_key_file.stat().st_mode) == 0o600
    assert is_own(checkpoint)
    assert find_fault(checkpoint) is None
    assert is_own_file(checkpoint, "a")


def test_the_key_of_another_user_signs_nothing_of_mine(
    own_key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path, a="1")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "other.key"))
    assert not is_own(checkpoint)  # without a key of one's own
    sign({})
    assert not is_own(checkpoint)  # with another one


@pytest.mark.parametrize("change", ["signature", "entry", "added", "link", "unsigned", "text", "list"])
def test_a_changed_checkpoint_is_not_mine(change: str, own_key_file: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, a="1")
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    if change == "signature":
        manifest["signature"] = "é" + manifest["signature"][1:]
    elif change == "entry":
        manifest["files"]["a"]["sha256"] = "0" * 64
    elif change == "added":
        (checkpoint / "state.pkl").write_text("x")
    elif change == "link":
        (checkpoint / "more").symlink_to("/")
    elif change == "unsigned":
        del manifest["signature"]
    (checkpoint / MANIFEST).write_text(
        {"text": "{", "list": "[" * 100_000}.get(change, json.dumps(manifest)), encoding="utf-8"
    )
    assert not is_own(checkpoint)
    assert not is_own_file(checkpoint, "a")


def test_a_changed_file_of_a_signed_checkpoint_is_not_mine(own_key_file: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, a="1", b="2")
    (checkpoint / "a").write_text("3")
    assert not is_own_file(checkpoint, "a")
    assert is_own_file(checkpoint, "b")
    assert not is_own_file(checkpoint, "c")
    assert find_fault(checkpoint) is not None


def test_a_key_that_others_can_read_is_refused_with_the_remedy(
    own_key_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = write_checkpoint(tmp_path, a="1")
    own_key_file.chmod(0o644)
    with pytest.raises(InputError, match=r"other users can read or own this key; .*: chmod 600 .*signing\.key"):
        is_own(checkpoint)
    with caplog.at_level(logging.WARNING):
        checkpoint = write_checkpoint(tmp_path / "more", a="1")
    assert "chmod 600" in caplog.text
    own_key_file.chmod(0o600)
    assert is_own(checkpoint)  # with the key of this process


def test_without_a_place_for_a_key_a_process_still_knows_its_own_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "file" / "signing.key"))
    monkeypatch.setattr(trust, "_process_key", [])
    with caplog.at_level(logging.WARNING):
        checkpoints = [write_checkpoint(tmp_path / name, a="1") for name in ("x", "y")]
    assert all(map(is_own, checkpoints))
    assert caplog.text.count("MARCA_KEY") == 1
    assert "--trust" in caplog.text
    monkeypatch.setattr(trust, "_process_key", [])  # as in another process
    assert not any(map(is_own, checkpoints))


def test_the_key_is_in_the_state_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert key_file() == tmp_path / "marca-env" / "signing.key"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert key_file() == tmp_path / ".local" / "state" / "marca-env" / "signing.key"


@pytest.mark.slow
def test_two_processes_that_need_a_key_at_once_get_the_same(own_key_file: Path, tmp_path: Path) -> None:
    program = "from agents.policy.trust import sign; print(sign({'a': 1}))"
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(3)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [p.name for p in own_key_file.parent.iterdir()] == ["signing.key"]


@pytest.mark.parametrize("place", ["cwd", "beside", "path"])
def test_a_policy_does_not_import_what_it_names(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the current folder, nor from beside the policy, nor from anywhere on the path."""
    marker = tmp_path / "marker"
    name = f"payload_{place}"
    folder = write_policy(tmp_path / "policy", f"{name}.Mixer")
    home = folder if place == "beside" else tmp_path
    (home / f"{name}.py").write_text(PAYLOAD.format(marker=str(marker)))
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home) if place == "path" else "")
    for load in (AllocationPolicy.load, load_team):
        with pytest.raises(InputError) as error:
            load(folder)
        message = str(error.value)
        assert message.startswith(f"{folder / DESCRIPTION}: names the code '{name}.Mixer'")
        assert f"--allow-code {name}.Mixer" in message
        assert f"trust=['{name}.Mixer']" in message
        with pytest.raises(InputError, match="names the code"):
            load(folder, trust=["another.Mixer"])
    assert not marker.exists()
    assert name not in sys.modules
    if place == "path":
        with pytest.raises(InputError, match="do not belong together"):  # the weights are those of a built-in mixer
            load_team(folder, trust=[f"{name}.Mixer"])
        assert marker.exists()


@pytest.mark.parametrize(
    "mixer", [["payload.Mixer"], {"payload.Mixer": 1}, {"a": ["x", "p.M"]}, "os:system", 3, None, "x"]
)
def test_a_mixer_that_is_no_name_is_one_line(mixer: Any, tmp_path: Path) -> None:
    folder = write_policy(tmp_path, 0 if mixer is None else mixer)
    with pytest.raises(InputError) as error:
        load_team(folder)
    assert "\n" not in str(error.value)


def test_a_policy_of_a_built_in_mixer_needs_nothing(tmp_path: Path) -> None:
    team, _ = load_team(write_policy(tmp_path))
    assert team.preset == PRESET
    assert not any(named_code(preset.to_dict()) for preset in PRESETS.values())


def test_trust_is_a_list_of_paths(tmp_path: Path) -> None:
    folder = write_policy(tmp_path, "payload.Mixer")
    with pytest.raises(InputError, match=r"give a list of dotted paths, such as \['payload.Mixer'\]"):
        load_team(folder, trust="payload.Mixer")


def test_a_class_in_a_checkpoint_of_mine_needs_no_trust(
    own_key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "payload_mine.py").write_text(PAYLOAD.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(tmp_path))
    preset = PRESET.replace(mixer="payload_mine.Mixer")
    marker.unlink()
    with writing_checkpoint(tmp_path / "run", 1) as part:
        tensors = Team(SPEC, preset).state_dict()
        save_team(part / "policy", tensors=tensors, preset=preset, spec=SPEC, reward_scale=1.0, scenario=None)
    team, _ = load_team(tmp_path / "run")
    assert team.preset.mixer.mixer == "payload_mine.Mixer"
    with (tmp_path / "run" / "checkpoint_000001" / "policy" / DESCRIPTION).open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="names the code"):
        load_team(tmp_path / "run" / "checkpoint_000001")


@pytest.mark.parametrize("name", ["reward_scale", "reward_shift"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_units_that_are_not_finite_are_refused(name: str, value: float, tmp_path: Path) -> None:
    folder = write_policy(tmp_path)
    description = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps({**description, name: value}))
    with pytest.raises(InputError, match=r"policy\.json: has (NaN|Infinity) in place of a number"):
        load_team(folder)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    tensors = Team(SPEC, PRESET).state_dict()
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], value)
    save_team(tmp_path, tensors=tensors, preset=PRESET, spec=SPEC, reward_scale=1.0, scenario=None)
    with pytest.raises(InputError, match=f"tensor '{name}' has values that are not finite"):
        load_team(tmp_path)


@pytest.mark.parametrize("value", [10**9, 10**30, -1, 0, "x", None, [], float("nan")])
@pytest.mark.parametrize("place", ["state_size", "max_steps", "observation_sizes", "mixer_width", "heads", "hidden"])
def test_sizes_that_the_weights_do_not_have_take_no_memory(place: str, value: Any, tmp_path: Path) -> None:
    folder = write_policy(tmp_path)
    data = json.loads((folder / DESCRIPTION).read_text())
    group = data["team"] if place in data["team"] else data["preset"]["mixer" if "mixer" in place else "network"]
    group[place] = [3, value] if place == "observation_sizes" else [value] if place == "hidden" else value
    (folder / DESCRIPTION).write_text(json.dumps(data))
    if place == "max_steps" and isinstance(value, int) and value > 0:
        return  # the length of an episode takes no memory here; a policy compares it with its scenario's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as error:
        load_team(folder)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
