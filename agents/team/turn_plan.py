"""Which values of a batch of episodes the losses need, decided on the host before the batch is evaluated.

A batch on a GPU carries its ``turn:``, ``filled`` and ``terminated`` columns a second time as arrays on the host
(:func:`host_columns`), so that no decision here waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.algorithms.td_targets import used_steps
from agents.networks.unroll_plan import CommonTurns, UnrollPlan, on_host
from agents.team.team import Team, observed_steps, turn_key

HOST_KEY, PLAN_KEY = "host_columns", "turn_plan"
"""Entries of a batch: its columns on the host, and its plan, if they are known."""


@dataclass(frozen=True)
class TurnPlan:
    """Steps that each network evaluates in a batch. Plans of batches with common turns are equal if the turns are."""

    online: tuple[UnrollPlan, ...]
    """Per network of the team: where the loss needs the online values."""
    target: tuple[UnrollPlan, ...]
    """Per network: where it needs the values of the target network; those of Q* are the same."""
    central: tuple[UnrollPlan, ...]
    """Per network: where it needs Q*'s online values."""
    idle: tuple[int, ...]
    """Agents that never act in the batch."""
    is_common: bool
    """Whether all episodes have the same turns and lengths."""


def host_columns(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the columns from which :func:`plan_turns` makes a plan, as arrays on the host."""
    names = [n for n in columns if n.startswith("turn:") or n in ("filled", "terminated")]
    return {name: on_host(columns[name]) for name in names}


def plan_turns(team: Team, batch: Mapping[str, Any]) -> TurnPlan:
    """Return the batch's plan, or make it from its columns on the host.

    Args:
        team: the team whose loss is computed.
        batch: columns of episodes (:func:`agents.team.td_losses.team_losses`).
    """
    if PLAN_KEY in batch:
        plan: TurnPlan = batch[PLAN_KEY]
        return plan
    device = batch["filled"].device
    columns = batch.get(HOST_KEY) or host_columns(batch)
    is_common = all(len(x) and (x == x[:1]).all() for x in columns.values())
    if is_common:
        columns = {name: x[:1] for name, x in columns.items()}
    filled, terminated = (torch.from_numpy(columns[name]) for name in ("filled", "terminated"))
    observed = observed_steps(filled)
    turns = [torch.from_numpy(columns[turn_key(a)]) & observed for a in team.spec.agents]
    used = [used_steps(on_turn, filled, terminated) for on_turn in turns]
    double = team.preset.objective.double_q

    def plans(needed: list[Tensor]) -> tuple[UnrollPlan, ...]:
        return tuple(team.agents.plans([t.numpy() for t in turns], [n.numpy() for n in needed], device))

    acting = [a for a, _, _ in used]
    return TurnPlan(
        online=plans([a | next_ if double else a for a, next_, _ in used]),
        target=plans([next_ | carried for _, next_, carried in used]),
        central=plans(acting) if team.central is not None else (),
        idle=tuple(g for g, a in enumerate(acting) if not a.numpy().any()),
        is_common=is_common,
    )


def is_static(plan: TurnPlan) -> bool:
    """Return whether the plan has no indices: all networks evaluate slices of steps."""
    return all(isinstance(p, CommonTurns) for p in (*plan.online, *plan.target, *plan.central))
