"""An update that waits for nothing moves the weights as plain steps do, and skips what is not finite."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from agents.rllib.core.device_update import DeviceUpdate
from agents.team.td_losses import team_losses
from agents.team.team import Team
from agents.team.turn_plan import PLAN_KEY, plan_turns
from tests.agents.team.test_td_losses import AWRQ, SPEC, make_team
from tests.agents.team.test_turn_plan import CountWaits, common_batch


class Learnt(torch.nn.Module):
    """A team and its targets, with RLlib's ``forward_train``."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.target = (make_team("AWRQMixer", seed, AWRQ) for seed in (1, 2))
        self.target.requires_grad_(False)

    def forward_train(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the losses of a batch."""
        return team_losses(self.online, self.target, batch)


def make_update(device: str = "cpu", clip: float | None = 0.1, **options: Any) -> DeviceUpdate:
    """Build the update of a small team."""
    module = Learnt().to(device)
    optimizer = torch.optim.Adam(module.online.parameters(), lr=0.01, fused=True, capturable=device == "cuda")
    return DeviceUpdate(module, optimizer, clip, captures=False, **options)


def make_inputs(online: Team, reward: float = 1.0, device: str = "cpu") -> dict[str, Any]:
    """Return a batch with its plan."""
    batch: dict[str, Any] = common_batch(SPEC)
    plan = plan_turns(online, batch)
    batch["reward"] = batch["reward"] * reward
    return {name: x.to(device) for name, x in batch.items()} | {PLAN_KEY: plan}


def test_ten_updates_equal_plain_steps() -> None:
    update, plain = make_update(), make_update()
    for k in range(10):
        batch = make_inputs(plain.module.online, 1.0 + k)
        out = update(batch)
        plain.optimizer.zero_grad()
        plain.module.forward_train(batch)["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters, 0.1)
        plain.optimizer.step()
        torch.testing.assert_close(out["grad_norm"], norm)
    for a, b in zip(update.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert update.read_skips() == (0, 0, 0)


def test_what_is_not_finite_is_skipped_on_the_device() -> None:
    update = make_update()
    batch = make_inputs(update.module.online)
    update(batch)
    weights, state = copy.deepcopy(update.parameters), copy.deepcopy(update.optimizer.state_dict()["state"])
    for reward in (float("nan"), float("inf")):
        assert not torch.isfinite(update(make_inputs(update.module.online, reward))["grad_norm"])
    assert all(torch.equal(a, b) for a, b in zip(update.parameters, weights, strict=True))
    after = update.optimizer.state_dict()["state"]
    assert all(torch.equal(after[k][name], x) for k, values in state.items() for name, x in values.items())
    assert update.read_skips() == (2, 2, 2)
    update(make_inputs(update.module.online, float("nan")))
    assert update.read_skips() == (1, 3, 3)  # the row goes on
    update(batch)
    assert not all(torch.equal(a, b) for a, b in zip(update.parameters, weights, strict=True))
    assert update.read_skips()[:2] == (0, 0)


def test_no_operator_of_an_update_waits() -> None:
    """A value that is read again in the update would stop a GPU; this counts such operators on the CPU."""
    update = make_update()
    batch = make_inputs(update.module.online)
    update(batch)
    with CountWaits() as counter:
        update.optimizer.zero_grad()
        update(batch)
    assert counter.waits == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_update_equals_plain_steps_and_does_not_synchronise() -> None:
    captured, plain = make_update("cuda"), make_update("cuda")
    captured.captures = True
    batches = [make_inputs(plain.module.online, 1.0 + k, "cuda") for k in range(10)]
    captured(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            captured(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for batch in batches:
        plain.step(batch)
    assert captured.captures
    assert len(captured.graphs) == 1
    for a, b in zip(captured.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
