"""Losses never wait for a tensor's value, and are the same whether turns are common or packed."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from agents.algorithms.presets import PRESETS
from agents.networks.unroll_plan import CommonTurns, _packed_turns
from agents.team.td_losses import team_losses
from agents.team.team import Team, turn_key
from agents.team.turn_plan import HOST_KEY, PLAN_KEY, TurnPlan, host_columns, is_static, plan_turns
from tests.agents.team.test_td_losses import ALONE, AWRQ, SPEC, make_team
from tests.helpers.reference_losses import make_batch

OPTIONS: dict[str, dict[str, Any]] = {
    "AWRQMixer": AWRQ,
    "AWRQMixerV2": AWRQ,
    "QMIX": {"gru": None, "td_lambda": 0.5},
    "WeightedQMIX": {"gru": 5, "td_weighting": "central"},
    "REM": {"heads": 3},
}
WAITS = ("aten::nonzero", "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal")
"""Operators for whose result a GPU's stream is waited for."""


class CountWaits(TorchDispatchMode):
    """Counts operators that wait for a value, and copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        source = next((a.device for a in args if isinstance(a, torch.Tensor)), None)
        if name in WAITS or (name == "aten::_to_copy" and out.device != source):
            self.waits.append(name)
        return out


def common_batch(spec: Any) -> dict[str, torch.Tensor]:
    """Return random episodes that all have the turns and the length of the first."""
    batch = make_batch(spec)
    for name in [*(turn_key(a) for a in spec.agents), "filled", "terminated"]:
        batch[name] = batch[name][:1].expand_as(batch[name]).contiguous()
    batch["filled"] = torch.ones_like(batch["filled"])
    batch["terminated"] = torch.zeros_like(batch["terminated"])
    batch["terminated"][:, -1] = True
    return batch


def as_packed(plan: TurnPlan, episodes: int, steps: int) -> TurnPlan:
    """Return the same plan with indices in place of slices."""

    def packed(part: Any) -> Any:
        assert isinstance(part, CommonTurns)
        masks = np.zeros((2, episodes, steps), bool)
        masks[0, :, list(part.turns)] = masks[1, :, list(part.needed)] = True
        return _packed_turns(*masks, "cpu")

    parts = {name: tuple(map(packed, getattr(plan, name))) for name in ("online", "target", "central")}
    return dataclasses.replace(plan, **parts)


def losses_and_gradients(online: Team, target: Team, batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return losses and the gradient of each weight."""
    online.zero_grad()
    out = team_losses(online, target, batch, generator=torch.Generator().manual_seed(0))
    out["loss"].backward()
    return out, {n: p.grad.clone() for n, p in online.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", PRESETS)
def test_slices_and_indices_give_the_same_losses_and_gradients(name: str) -> None:
    """Losses agree to the last bit in float64, gradients up to the order of their sums."""
    online, target = (make_team(name, seed, OPTIONS.get(name, {})) for seed in (1, 2))
    batch: dict[str, Any] = common_batch(ALONE if online.preset.joint else SPEC)
    plan = plan_turns(online, batch)
    assert is_static(plan)
    assert plan == plan_turns(online, {**batch, "reward": batch["reward"] + 1})  # equal turns, equal plans
    sliced, gradients = losses_and_gradients(online, target, batch)
    batch[PLAN_KEY] = as_packed(plan, *batch[turn_key(online.spec.agents[0])].shape)
    packed, expected = losses_and_gradients(online, target, batch)
    for label, value in packed.items():
        assert torch.equal(sliced[label], value), label
    assert gradients.keys() == expected.keys()
    for label, gradient in expected.items():
        torch.testing.assert_close(gradients[label], gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("common", [True, False])
def test_losses_need_no_value_from_the_device(name: str, common: bool) -> None:
    """Tensors without values raise an error wherever a value is asked for; all decisions come from the host."""
    online = make_team(name, 1, OPTIONS.get(name, {}))
    spec = ALONE if online.preset.joint else SPEC
    batch = common_batch(spec) if common else make_batch(spec)
    device: dict[str, Any] = {k: v.to("meta") for k, v in batch.items()}
    device[HOST_KEY] = host_columns(batch)
    online = online.to("meta")
    team_losses(online, copy.deepcopy(online), device)["loss"].backward()


def test_a_waiting_operator_is_counted() -> None:
    """The counter sees what it is meant to see, and an update on a CPU has none of it."""
    with CountWaits() as counter:
        torch.nonzero(torch.ones(2))
        bool(torch.ones(()).isfinite())
    assert counter.waits == ["aten::nonzero", "aten::_local_scalar_dense"]
    online = make_team("AWRQMixer", 1, AWRQ)
    batch = common_batch(SPEC)
    with CountWaits() as counter:
        team_losses(online, copy.deepcopy(online), batch)["loss"].backward()
    assert counter.waits == []


def test_idle_agents_are_those_that_never_act() -> None:
    online, batch = make_team("QMIX", 1, {"gru": 5}), common_batch(SPEC)
    batch[turn_key("second")] = torch.zeros_like(batch[turn_key("second")])
    assert plan_turns(online, batch).idle == (1,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PRESETS)
def test_losses_on_a_gpu_do_not_synchronise(name: str) -> None:
    online = make_team(name, 1, OPTIONS.get(name, {})).cuda()
    batch = make_batch(ALONE if online.preset.joint else SPEC)
    device: dict[str, Any] = {k: v.cuda() for k, v in batch.items()}
    device[HOST_KEY] = host_columns(batch)
    target = copy.deepcopy(online)
    torch.cuda.set_sync_debug_mode("error")
    try:
        team_losses(online, target, device)["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
