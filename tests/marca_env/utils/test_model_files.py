"""Model files: complete, absent, or an error of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel
from marca_env.utils.errors import InputError
from marca_env.utils.model_files import check_device, load_model, read_pair, save_model, write_pair

NAMES = ("w.safetensors", "w.json")


def test_a_saved_model_is_loaded_unchanged(tmp_path: Path) -> None:
    save_model(tmp_path, "Thing", {"a": torch.arange(3.0)}, {"size": 3})
    tensors, description = load_model(tmp_path, "Thing")
    assert tensors["a"].tolist() == [0.0, 1.0, 2.0]
    assert description == {"kind": "Thing", "size": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("call", [0, 1])
def test_a_kill_while_saving_leaves_the_old_model_or_none(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files are complete before one is replaced; a kill between the two replacements is found when loading."""
    write_pair(tmp_path, NAMES, {"a": torch.zeros(1)}, {"scale": 1})
    replace, calls = os.replace, iter(range(9))

    def killed(*paths: Any) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_pair(tmp_path, NAMES, {"a": torch.ones(1)}, {"scale": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES)
    if call == 0:
        tensors, description = read_pair(tmp_path, NAMES)
        assert (tensors["a"].tolist(), description) == ([0.0], {"scale": 1})
    else:
        with pytest.raises(InputError, match=r"w\.safetensors: cannot be read: .* of another model than w\.json"):
            read_pair(tmp_path, NAMES)


SAVER = """
import itertools, sys, torch
from marca_env.utils.model_files import write_pair
for k in itertools.count():
    write_pair(sys.argv[1], ("w.safetensors", "w.json"), {"a": torch.full((2000,), float(k))}, {"scale": k})
"""


@pytest.mark.slow
def test_loading_while_another_process_saves_gives_one_model_or_the_other(tmp_path: Path) -> None:
    write_pair(tmp_path, NAMES, {"a": torch.zeros(2000)}, {"scale": 0})
    with subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)]) as saver:
        try:
            loaded: list[int] = []
            end = time.monotonic() + 60
            while len(set(loaded)) < 300 and time.monotonic() < end:
                tensors, description = read_pair(tmp_path, NAMES)
                assert set(tensors["a"].tolist()) == {float(description["scale"])}
                loaded.append(description["scale"])
        finally:
            saver.kill()
    assert len(set(loaded)) == 300  # the other process did save meanwhile
    assert loaded == sorted(loaded)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    write_pair(tmp_path, NAMES, {"good": torch.zeros(2), "bad.one": torch.tensor([0.0, value])}, {})
    with pytest.raises(InputError, match=r"w\.safetensors: tensor 'bad\.one' has values that are not finite"):
        read_pair(tmp_path, NAMES)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, NAMES, {"a": torch.zeros(4)}, {})
    data = bytearray((tmp_path / NAMES[0]).read_bytes())
    data[-1] ^= 1
    (tmp_path / NAMES[0]).write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_pair(tmp_path, NAMES)


def test_models_of_earlier_versions_have_no_sum_and_are_read(tmp_path: Path) -> None:
    write_pair(tmp_path, NAMES, {"a": torch.zeros(1)}, {"scale": 1})
    (tmp_path / NAMES[1]).write_text('{"scale": 1}')
    assert read_pair(tmp_path, NAMES)[1] == {"scale": 1}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_weights_and_description_have_the_same_permissions(tmp_path: Path) -> None:
    write_pair(tmp_path, NAMES, {"a": torch.zeros(1)}, {})
    weights, text = ((tmp_path / name).stat().st_mode for name in NAMES)
    assert weights == text


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unavailable_device_is_refused(device: str, tiny_artefacts: Path) -> None:
    with pytest.raises(InputError, match=rf"device '{device}' cannot be used here .* use 'cpu'"):
        CostModel.load(tiny_artefacts / "cost_model", device=device)
    assert check_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (CostModel, "scale", None),
        (CostModel, "scale", [1.0]),
        (CostModel, "scale", [1.0, -1.0, 1.0]),
        (CostModel, "scale", {}),
        (CostModel, "cost_map", {"curves": [{"of": "ranking", "component": "base", "lengths": [], "costs": []}]}),
        (CostModel, "cost_map", {"curves": [{"of": "ranking", "component": "base", "lengths": [1, 2], "costs": [1]}]}),
        (RevenueModel, "members", "x"),
        (RevenueModel, "members", None),
        (RevenueModel, "members", 7),
    ],
)
def test_a_damaged_description_is_one_line(
    model: type[CostModel] | type[RevenueModel], field: str, value: object, tiny_artefacts: Path, tmp_path: Path
) -> None:
    name = "cost_model" if model is CostModel else "revenue_model"
    for file in (tiny_artefacts / name).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, field: value}))
    with pytest.raises(InputError) as error:
        model.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_giant_file_of_weights_is_not_read(tmp_path: Path) -> None:
    write_pair(tmp_path, NAMES, {"a": torch.zeros(1)}, {})
    os.truncate(tmp_path / NAMES[0], 20 * 1024**3)
    with pytest.raises(InputError, match=r"w\.safetensors: 20\.0 GiB, too large for a model"):
        read_pair(tmp_path, NAMES)
