"""The parts of a joint action's value: after each decision, of each agent, and of the team."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.team.team import Team

Results = Callable[[np.ndarray, np.ndarray], np.ndarray]


@torch.inference_mode()
def value_parts(
    team: Team, encoder: Any, results: Results, states: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the values of one joint action of each request, turn by turn, without the tree of all joint actions.

    Args:
        team: the networks, in evaluation mode.
        encoder: encoder of the scenario's observations with which the team was trained.
        results: expected action results, ``(states (B, W), actions (B, D)) -> (B, R)``.
        states: (B, W).
        actions: (B, D) int64 option indices.

    Returns:
        In units of Q: the value of the agent on turn after each decision (B, D), each agent's value at its last
        decision (B, N), and Q_tot at the last turn (B,). Heads are averaged, as when decisions are served.
    """
    device = next(team.parameters()).device
    hidden: dict[str, Tensor] = {}
    latest: dict[str, Tensor] = {}
    best: dict[str, Tensor] = {}  # of an agent that waits at the last turn, the value that it carries
    by_decision, state = [], torch.empty(0)
    for turn, name in enumerate(encoder.turn_agent):
        prefix = np.where(np.arange(actions.shape[1]) < turn, actions, 0)
        settled = encoder.settled(turn)
        seen = results(states, prefix) if settled.any() else np.zeros((len(states), len(settled)), np.float32)
        observations, masks, encoded = encoder.encode(states, prefix, seen, turn)
        observation, state = (torch.from_numpy(x).to(device) for x in (observations[name], encoded))
        network = team.agents[team.spec.agents.index(name)]
        after = network.advance(observation, hidden.get(name, network.initial_hidden(len(states))))
        q = network.values(observation, after).mean(1)
        option = torch.from_numpy(actions[:, turn : turn + 1]).to(device)
        hidden[name], latest[name] = after, q.gather(1, option)[:, 0]
        best[name] = latest[name]
        if turn == len(encoder.turn_agent) - 1:
            best[name] = q.masked_fill(~torch.from_numpy(masks[name]).to(device), -torch.inf).amax(1)
        by_decision.append(latest[name])
    by_agent, best_by_agent = (torch.stack([x[name] for name in team.spec.agents], 1) for x in (latest, best))
    mixed = by_agent
    if team.preset.mixer.waiting_values == "zero":
        is_on_turn = torch.tensor([name == encoder.turn_agent[-1] for name in team.spec.agents], device=device)
        mixed, best_by_agent = (torch.where(is_on_turn, x, 0.0) for x in (by_agent, best_by_agent))
    # agents that are not on turn at the last step wait: their action there is their last one
    waits = [torch.full((len(states),), size - 1, device=device) for size in team.spec.action_sizes]
    waits[team.spec.agents.index(encoder.turn_agent[-1])] = torch.from_numpy(actions[:, -1]).to(device)
    total = team.mix(mixed, state, waits, best_by_agent, torch.ones_like(waits[0]))
    return torch.stack(by_decision, 1).cpu().numpy(), by_agent.cpu().numpy(), total.cpu().numpy()
