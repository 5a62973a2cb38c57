"""Model files: complete, absent, or an error of one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel
from marca_env.utils import model_files
from marca_env.utils.errors import InputError
from marca_env.utils.model_files import check_device, load_model, read_pair, save_model, write_pair

NAMES = ("w.safetensors", "w.json")


def test_a_saved_model_is_loaded_unchanged(tmp_path: Path) -> None:
    save_model(tmp_path, "Thing", {"a": torch.arange(3.0)}, {"size": 3})
    tensors, description = load_model(tmp_path, "Thing")
    assert tensors["a"].tolist() == [0.0, 1.0, 2.0]
    assert description == {"kind": "Thing", "size": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_a_kill_leaves_no_description_beside_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, NAMES, {"a": torch.zeros(1)}, {"scale": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model_files, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_pair(tmp_path, NAMES, {"a": torch.ones(1)}, {"scale": 2})
    with pytest.raises(InputError, match=r"w\.json: no such file"):
        read_pair(tmp_path, NAMES)


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
