"""An update of AWRQ-Mixer as one would write it in plain torch, to compare speeds with.

Every agent is unrolled over all steps and a mask leaves out what is not its turn, or, where ``Sizes.turns`` says so,
over its own turns alone; heads are one einsum; the loss is Eq. 8 to 16 of the paper with dropout, gradient clipping and
fused Adam. It has the sizes and options of the update
beside it, but neither checks, metrics, checkpoints, several learners nor other algorithms. ``torch.compile`` fuses
the loss and its backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GAMMA, CLIP, RATE = 0.99, 10.0, 0.01


@dataclass(frozen=True)
class Sizes:
    """Sizes of the team and its networks."""

    observations: tuple[int, ...]
    actions: tuple[int, ...]
    state: int
    heads: int
    gru: int
    hidden: tuple[int, ...]
    dropout: float
    turns: tuple[tuple[int, ...], ...] | None = None
    """Steps that each agent unrolls, for whoever knows them beforehand; ``None``: all."""
    hypernet: int = 64
    width: int = 32


class Agent(nn.Module):
    """GRU and K heads of one agent."""

    def __init__(self, inputs: int, actions: int, sizes: Sizes) -> None:
        super().__init__()
        self.cell, self.dropout = nn.GRUCell(inputs, sizes.gru), nn.Dropout(sizes.dropout)
        widths = (sizes.gru, *sizes.hidden, actions)
        shapes = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(torch.randn(sizes.heads, a, b) * a**-0.5 for a, b in shapes)
        self.biases = nn.ParameterList(torch.zeros(sizes.heads, b) for _, b in shapes)

    def forward(self, observations: Tensor, steps: tuple[int, ...]) -> Tensor:
        """Return Q (B, T, K, A), zero except at ``steps``; ``observations`` (B, T, O)."""
        hidden = observations.new_zeros(len(observations), self.cell.hidden_size)
        states = []
        for t in steps:
            hidden = self.cell(observations[:, t], hidden)
            states.append(hidden)
        q = self._heads(torch.stack(states, 1))
        if len(steps) == observations.shape[1]:
            return q
        nothing = torch.zeros_like(q[:, 0])
        return torch.stack([q[:, steps.index(t)] if t in steps else nothing for t in range(observations.shape[1])], 1)

    def _heads(self, x: Tensor) -> Tensor:
        """Return Q (B, T, K, A) of recurrent states (B, T, H)."""
        if len(self.weights) == 1:
            x = self.dropout(x)
        x = torch.einsum("bti,kio->btko", x, self.weights[0]) + self.biases[0]
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            x = self.dropout(torch.relu(x))
            x = torch.einsum("btki,kio->btko", x, weight) + bias
        return x


class Mixer(nn.Module):
    """Monotone mixer with softplus weights from hypernetworks of the state."""

    def __init__(self, agents: int, sizes: Sizes) -> None:
        super().__init__()
        self.agents, self.width, inner = agents, sizes.width, sizes.hypernet
        self.w1 = nn.Sequential(nn.Linear(sizes.state, inner), nn.ReLU(), nn.Linear(inner, agents * sizes.width))
        self.w2 = nn.Sequential(nn.Linear(sizes.state, inner), nn.ReLU(), nn.Linear(inner, sizes.width))
        self.b1 = nn.Linear(sizes.state, sizes.width)
        self.b2 = nn.Sequential(nn.Linear(sizes.state, sizes.width), nn.ReLU(), nn.Linear(sizes.width, 1))

    def forward(self, utilities: Tensor, state: Tensor) -> Tensor:
        """Return Q_tot (B, T); ``utilities`` (B, T, N), ``state`` (B, T, S)."""
        w1 = nn.functional.softplus(self.w1(state)).unflatten(-1, (self.agents, self.width))
        mixed = torch.relu(torch.einsum("btn,btne->bte", utilities, w1) + self.b1(state))
        return (mixed * nn.functional.softplus(self.w2(state))).sum(-1) + self.b2(state)[..., 0]


class Networks(nn.Module):
    """All agents and the mixer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        pairs = zip(sizes.observations, sizes.actions, strict=True)
        self.turns = sizes.turns
        self.agents = nn.ModuleList(Agent(o, a, sizes) for o, a in pairs)
        self.mixer = Mixer(len(sizes.actions), sizes)


@dataclass
class Episodes:
    """A batch of episodes; lists have one entry an agent."""

    observations: list[Tensor]
    masks: list[Tensor]
    actions: list[Tensor]
    turns: list[Tensor]
    state: Tensor
    reward: Tensor
    terminated: Tensor


def loss_of(online: Networks, target: Networks, batch: Episodes) -> Tensor:
    """Return the mixer's loss and the agents' own losses of a batch."""
    steps = batch.reward.shape[1]
    total, taken, following = batch.reward.new_zeros(()), [], []
    returns = batch.reward.sum(1)
    going_on = ~batch.terminated
    parts = zip(batch.observations, batch.masks, batch.actions, batch.turns, strict=True)
    for g, (observations, mask, action, turn) in enumerate(parts):
        unrolled = tuple(range(steps + 1)) if online.turns is None else online.turns[g]
        q = online.agents[g](observations, unrolled)
        with torch.no_grad():
            q_target = target.agents[g](observations, unrolled)
            best = q.mean(2).masked_fill(~mask, -torch.inf).argmax(-1)
            q_next = q_target.gather(-1, best[..., None, None].expand(*q.shape[:-1], 1))[..., 0]
            held = q_target[:, :-1].gather(-1, action[..., None, None].expand(-1, -1, q.shape[2], 1))[..., 0].mean(-1)
        q_taken = q[:, :-1].gather(-1, action[..., None, None].expand(-1, -1, q.shape[2], 1))[..., 0]
        acts = turn[:, :-1]
        with torch.no_grad():
            ahead = torch.where(turn[:, steps, None], q_next[:, steps], 0.0)
            bootstraps = []
            for t in reversed(range(steps)):
                ahead = torch.where(going_on[:, t, None], ahead, 0.0)
                bootstraps.append(ahead)
                ahead = torch.where(turn[:, t, None], q_next[:, t], ahead)
            credit = _credit(returns, action, acts, q.shape[-1])
            goal = credit * returns[:, None]
            goal = goal[..., None] + GAMMA * torch.stack(bootstraps[::-1], 1)
        losses = (goal - q_taken) ** 2
        share = losses.detach() / losses.detach().sum(-1, keepdim=True).clamp(min=1e-12)
        weight = acts.to(losses.dtype)
        total = total + ((share * losses).sum(-1) * weight).sum() / weight.sum().clamp(min=1)
        taken.append(_latest((share * q_taken).sum(-1), acts))
        following.append(torch.where(turn[:, 1:], q_next[:, 1:].mean(-1), _latest(held, acts)))
    q_tot = online.mixer(torch.stack(taken, -1), batch.state[:, :-1])
    with torch.no_grad():
        next_value = target.mixer(torch.stack(following, -1), batch.state[:, 1:])
        goal = batch.reward + GAMMA * next_value * going_on
    return ((goal - q_tot) ** 2).mean() + total


def _latest(values: Tensor, acts: Tensor) -> Tensor:
    """Return each step's value, or the latest before it; (B, T)."""
    out, last = [], torch.zeros_like(values[:, 0])
    for t in range(values.shape[1]):
        last = torch.where(acts[:, t], values[:, t], last)
        out.append(last)
    return torch.stack(out, 1)


def _credit(returns: Tensor, action: Tensor, acts: Tensor, n_actions: int) -> Tensor:
    """Return the variance over actions of their mean returns, at each step; (T,)."""
    chosen = nn.functional.one_hot(action, n_actions) * acts[..., None]
    count = chosen.sum(0).to(returns.dtype)
    mean = torch.einsum("b,bta->ta", returns, chosen.to(returns.dtype)) / count.clamp(min=1)
    occurs = (count > 0).to(returns.dtype)
    number = occurs.sum(-1).clamp(min=1)
    centre = (mean * occurs).sum(-1) / number
    return ((mean - centre[:, None]) ** 2 * occurs).sum(-1) / number


def make_step(sizes: Sizes, *, backend: str | None) -> Callable[[Episodes], Tensor]:
    """Return a function that takes one gradient step and returns the loss.

    Args:
        sizes: of the team and its networks.
        backend: of ``torch.compile``; ``None``: not compiled.
    """
    online, target = Networks(sizes), Networks(sizes).requires_grad_(False).eval()
    target.load_state_dict(online.state_dict())
    parameters = list(online.parameters())
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    loss = loss_of if backend is None else torch.compile(loss_of, dynamic=False, backend=backend)
    old: list[Tensor] = list(target.parameters())
    new: list[Tensor] = list(online.parameters())

    def step(batch: Episodes) -> Tensor:
        optimizer.zero_grad()
        value = loss(online, target, batch)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        torch._foreach_lerp_(old, new, 0.01)
        return value.detach()

    return step
