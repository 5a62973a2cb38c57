"""Slices of common turns and packed turns give the same values and gradients; plans name the right steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.networks.q_network import QNetwork
from agents.networks.unroll_plan import CommonTurns, PackedTurns, _packed_turns, at_steps, plan_unroll, steps_of

TURNS = np.tile([True, False, True, True, False], (7, 1))


def test_equal_episodes_need_slices_alone() -> None:
    needed = np.tile([True, True, False, True, True], (7, 1))
    assert plan_unroll(TURNS) == CommonTurns((0, 2, 3), (0, 2, 3))
    assert plan_unroll(TURNS, needed) == CommonTurns((0, 2, 3), (0, 3))
    assert plan_unroll(torch.tensor(TURNS), torch.zeros(7, 5, dtype=torch.bool)) == CommonTurns((), ())


def test_one_different_episode_makes_the_turns_packed() -> None:
    ragged = TURNS.copy()
    ragged[4] = [False, True, True, True, True]
    plan = plan_unroll(ragged)
    assert isinstance(plan, PackedTurns)
    assert plan.counts == (7, 7, 7, 1)
    assert plan.positions[:7].tolist() == [21, 0, 5, 10, 15, 25, 30]  # the episode with most turns is first
    assert plan.needed is None
    one_needed = np.zeros_like(ragged)
    one_needed[2, 2] = True
    plan = plan_unroll(ragged, one_needed)
    assert isinstance(plan, PackedTurns)
    assert (plan.counts, plan.positions.tolist(), plan.needed_positions.tolist()) == ((1, 1), [10, 12], [12])


@pytest.mark.parametrize("gru", [None, 6])
@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("needed", [None, [True, True, False, True, True], [False] * 5])
def test_common_and_packed_turns_give_the_same_values_and_gradients(
    gru: int | None, hidden: tuple[int, ...], needed: list[bool] | None
) -> None:
    """Values are equal to the last bit; gradients up to the order of their sums."""
    torch.manual_seed(1)
    net = QNetwork(5, 3, heads=2, hidden=hidden, gru=gru).double()
    observations, factor = torch.randn(7, 5, 5).double(), torch.randn(7, 5, 2, 3).double()
    wanted = TURNS if needed is None else TURNS & np.array(needed)
    results = []
    for plan in (plan_unroll(TURNS, wanted), _packed_turns(TURNS, wanted, "cpu")):
        net.zero_grad()
        q = net.unroll_planned(observations, plan)
        if wanted.any():
            (q**2 * factor).sum().backward()
        results.append((q.detach(), {n: p.grad for n, p in net.named_parameters()}))
    (common, common_grads), (packed, packed_grads) = results
    assert torch.equal(common, packed)
    assert common[torch.tensor(wanted)].abs().sum() > 0 or not wanted.any()
    for name, grad in packed_grads.items():
        torch.testing.assert_close(common_grads[name], grad, rtol=1e-12, atol=1e-14)


def test_steps_are_put_back_where_they_were_taken() -> None:
    values = torch.arange(24.0).view(2, 4, 3)
    back = at_steps(steps_of(values, (1, 3)), (1, 3), 4)
    assert torch.equal(back[:, [1, 3]], values[:, [1, 3]])
    assert not back[:, [0, 2]].any()
