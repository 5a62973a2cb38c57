"""Reference losses of a team in NumPy, float64, one episode and one step at a time; only Q is the networks'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.algorithms.presets import Preset
from agents.team.reward_statistics import RewardUnits
from agents.team.team import Team, TeamSpec, action_key, mask_key, obs_key, turn_key

Turn = tuple[int, int]
"""Episode and step."""


def make_batch(spec: TeamSpec, n: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random episodes of 1 to T steps in float64, terminated or truncated, with random padding."""
    rng = np.random.default_rng(seed)
    t = spec.max_steps
    length = rng.integers(1, t + 1, n)
    filled = np.arange(t)[None] < length[:, None]
    batch: dict[str, Any] = {"state": rng.normal(size=(n, t + 1, spec.state_size)), "filled": filled}
    batch["reward"] = rng.normal(size=(n, t)) + 3.0 * (rng.random((n, t)) < 0.3)
    batch["terminated"] = (np.arange(t)[None] == length[:, None] - 1) & (rng.random(n) < 0.6)[:, None]
    for agent, o, a in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        mask = rng.random((n, t + 1, a)) < 0.6
        mask[..., 0] = True
        waits = rng.random((n, t + 1)) < 0.4
        forced = rng.random((n, t + 1)) < 0.2  # on turn or not, the last action may be the only legal one
        mask[waits | forced] = np.arange(a) == a - 1
        actions = np.where(mask[:, :-1], rng.random((n, t, a)), -1).argmax(-1)
        batch |= {obs_key(agent): rng.normal(size=(n, t + 1, o)), mask_key(agent): mask, action_key(agent): actions}
        batch[turn_key(agent)] = ~waits
    return {k: torch.as_tensor(v) for k, v in batch.items()}


@dataclass
class Episode:
    """One row of a batch without its padding; arrays over steps, with the last observation where it applies."""

    length: int
    reward: np.ndarray
    ended: bool
    state: np.ndarray
    action: list[np.ndarray]
    mask: list[np.ndarray]
    turn: list[np.ndarray]
    q: list[np.ndarray]
    target: list[np.ndarray]
    central: list[np.ndarray]
    central_target: list[np.ndarray]

    def on_turn(self, g: int, t: int) -> bool:
        """Return whether agent ``g`` is on turn at step ``t``."""
        return bool(self.turn[g][t])


def read(
    spec: TeamSpec, online: Team, target: Team, batch: dict[str, torch.Tensor], units: RewardUnits
) -> list[Episode]:
    """Return the rows of a batch, with Q (T + 1, K, A) of each agent."""

    def values(part: Any) -> list[np.ndarray]:
        return [] if part is None else [x.detach().numpy() for x in part.unroll(batch)[0]]

    all_q = [values(x) for x in (online, target, online.central, target.central)]
    b = {k: v.numpy() for k, v in batch.items()}
    rows = []
    for i, length in enumerate(b["filled"].sum(1)):
        rows.append(
            Episode(
                int(length),
                (b["reward"][i, :length] - units.shift) / units.scale,
                bool(b["terminated"][i, length - 1]),
                b["state"][i, : length + 1],
                [b[action_key(a)][i, :length] for a in spec.agents],
                [b[mask_key(a)][i, : length + 1] for a in spec.agents],
                [b[turn_key(a)][i, : length + 1] for a in spec.agents],
                *([q[i, : length + 1] for q in part] for part in all_q),
            )
        )
    return rows


def slow_losses(
    online: Team, target: Team, batch: dict[str, torch.Tensor], *, units: RewardUnits, draw: np.ndarray | None = None
) -> dict[str, float]:
    """Return the same as :func:`agents.team.td_losses.team_losses`; ``draw`` (K,) are REM's uniform numbers."""
    preset, spec = online.preset, online.spec
    options = preset.options
    head_mixture = np.full(options["heads"], 1 / options["heads"])
    if options["head_weighting"] == "random":
        assert draw is not None
        head_mixture = draw / draw.sum()
    rows = read(spec, online, target, batch, units)
    agent_part = agent_losses(rows, spec, preset, head_mixture, units)
    mixed = mixer_losses(rows, online, target, agent_part["weights"], head_mixture)
    scale = units.scale
    unit = scale if options["loss"] == "mae" else scale**2
    rewards_to_go = [
        sum(options["gamma"] ** k for k in range(row.length - t)) for row in rows for t in range(row.length)
    ]
    value = mixed["q_tot"] * scale + units.shift * float(np.mean(rewards_to_go))
    results = {"agent_loss": agent_part["loss"] * unit, "q_tot": value}
    if options["mixer"] == "none":
        return results | {"loss": agent_part["loss"], "mixer_loss": 0.0, "td_error": agent_part["td_error"] * scale}
    loss = mixed["mixer_loss"] + mixed.get("central_loss", 0.0) + options["agent_loss"] * agent_part["loss"]
    losses = {name: mixed[name] * unit for name in ("mixer_loss", "central_loss") if name in mixed}
    return results | losses | {"loss": loss, "td_error": mixed["td_error"] * scale}


def td_loss(error: Any, options: dict[str, Any]) -> Any:
    """Return the loss of a TD error."""
    size = np.abs(error)
    if options["loss"] == "mae":
        return size
    if options["loss"] == "huber":
        d = options["huber_delta"]
        return np.where(size <= d, size * size / 2, d * size - d * d / 2)
    return size * size


def greedy_action(q: np.ndarray, mask: np.ndarray, head_mixture: np.ndarray) -> int:
    """Return the legal argmax of the heads' mixture; ``q`` (K, A)."""
    value = head_mixture @ q
    return max((a for a in range(len(mask)) if mask[a]), key=lambda a: value[a])


def next_action(row: Episode, g: int, t: int, options: dict[str, Any], head_mixture: np.ndarray) -> int:
    """Return the next action: greedy for the online network with ``double_q``, else for the target network."""
    return greedy_action((row.q if options["double_q"] else row.target)[g][t], row.mask[g][t], head_mixture)


# -- the agents' own losses --------------------------------------------------------------------------------
def agent_losses(
    rows: list[Episode], spec: TeamSpec, preset: Preset, head_mixture: np.ndarray, units: RewardUnits
) -> dict[str, Any]:
    """Return the loss, summed over agents, and the weights of each agent's heads at each of its turns."""
    options = preset.options
    same = [dict.fromkeys(agent_turns(rows, g), head_mixture) for g in range(len(spec.agents))]
    if options["agent_loss"] == 0 and options["head_weighting"] != "adaptive":
        return {"loss": 0.0, "td_error": 0.0, "weights": same}
    credits = credit_weights(rows, spec, options["credit"], units.scale / units.return_scale)
    total, sizes, weights = 0.0, [], []
    for g in range(len(spec.agents)):
        errors = {turn: agent_error(rows, g, turn, options, credits, head_mixture) for turn in agent_turns(rows, g)}
        losses = {turn: td_loss(e, options) for turn, e in errors.items()}
        weights.append(head_weights(losses, options, head_mixture))
        combined = [ensemble_loss(losses[turn], errors[turn], weights[g][turn], options) for turn in losses]
        total += float(np.mean(combined)) if combined else 0.0
        sizes.append(np.mean([np.abs(e).mean() for e in errors.values()]) if errors else 0.0)
    return {"loss": total, "td_error": float(np.mean(sizes)), "weights": weights}


def ensemble_loss(losses: np.ndarray, errors: np.ndarray, weights: np.ndarray, options: dict[str, Any]) -> float:
    """Return an agent's loss at one turn."""
    if options["ensemble_loss"] == "weighted":
        return float(weights @ losses)
    return float((losses.sum() + td_loss(weights @ errors, options)) / (len(losses) + 1))


def agent_turns(rows: list[Episode], g: int) -> list[Turn]:
    """Return the turns of agent ``g`` in all episodes."""
    return [(i, t) for i, row in enumerate(rows) for t in range(row.length) if row.on_turn(g, t)]


def agent_error(
    rows: list[Episode], g: int, turn: Turn, options: dict[str, Any], credits: Any, head_mixture: np.ndarray
) -> np.ndarray:
    """Return the TD error (K,) of an agent whose next state is its own next turn."""
    i, t = turn
    row = rows[i]
    last = row.length if row.ended else row.length + 1  # observations that may be followed by another turn
    later = [u for u in range(t + 1, last) if row.on_turn(g, u)]
    earned = row.reward[t : later[0] if later else None].sum()
    if options["credit"] != "none":
        earned = credits[g][t] * row.reward.sum()
    ahead = np.zeros(options["heads"])
    if later:
        ahead = row.target[g][later[0], :, next_action(row, g, later[0], options, head_mixture)]
        if options["head_action"] == "own":
            one = np.eye(options["heads"])
            ahead = np.array(
                [row.target[g][later[0], k, next_action(row, g, later[0], options, one[k])] for k in range(len(one))]
            )
        if options["head_target"] == "mean":
            ahead = np.full_like(ahead, ahead.mean())
    return earned + options["gamma"] * ahead - row.q[g][t, :, row.action[g][t]]


def head_weights(
    losses: dict[Turn, np.ndarray], options: dict[str, Any], head_mixture: np.ndarray
) -> dict[Turn, np.ndarray]:
    """Return the weights of the heads at each turn."""
    if options["head_weighting"] != "adaptive":
        return dict.fromkeys(losses, head_mixture)
    if options["weighting_level"] == "batch":
        together = sum(losses.values())
        return {turn: together / np.sum(together) for turn in losses}
    return {turn: x / x.sum() for turn, x in losses.items()}


def credit_weights(rows: list[Episode], spec: TeamSpec, form: str, unit: float) -> list[list[float]]:
    """Return VGCA's weight of each agent and step: the variance of the mean return between actions (Eq. 16).

    ``unit`` converts returns to standard deviations of the return.
    """
    steps, variances = spec.max_steps, []
    for g in range(len(spec.agents)):
        variances.append([])
        for t in range(steps):
            returns: dict[int, list[float]] = {}
            for row in rows:
                if t < row.length and row.on_turn(g, t):
                    returns.setdefault(int(row.action[g][t]), []).append(row.reward.sum() * unit)
            variances[g].append(float(np.var([np.mean(x) for x in returns.values()])) if returns else 0.0)
    if form == "cumulative":
        for g in range(len(spec.agents)):
            total, running = np.sum(variances[g]), 0.0
            for t in range(steps):
                running += variances[g][t]
                variances[g][t] = running / total if total else 1.0
    return variances


# -- the team's loss ---------------------------------------------------------------------------------------
def mixer_losses(
    rows: list[Episode], online: Team, target: Team, weights: list[dict[Turn, np.ndarray]], head_mixture: np.ndarray
) -> dict[str, float]:
    """Return the mixer's losses, step by step."""
    options, entries = online.preset.options, []
    for i, row in enumerate(rows):
        n = len(row.q)
        utilities, latest_target, central_utilities, latest_central = (np.zeros(n) for _ in range(4))
        for t in range(row.length):
            central_greedy, is_greedy = central_utilities.copy(), True
            next_actions = [next_action(row, g, t + 1, options, head_mixture) for g in range(n)]
            for g in range(n):
                if not row.on_turn(g, t):
                    continue
                a = row.action[g][t]
                utilities[g] = weights[g][i, t] @ row.q[g][t, :, a]
                latest_target[g] = head_mixture @ row.target[g][t, :, a]
                if row.central:
                    greedy_agent_action = greedy_action(row.q[g][t], row.mask[g][t], head_mixture)
                    central_utilities[g] = head_mixture @ row.central[g][t, :, a]
                    central_greedy[g] = head_mixture @ row.central[g][t, :, greedy_agent_action]
                    latest_central[g] = head_mixture @ row.central_target[g][t, :, a]
                    is_greedy = is_greedy and a == greedy_agent_action
            next_target, next_central = latest_target.copy(), latest_central.copy()
            for g in range(n):
                if row.on_turn(g, t + 1):
                    next_target[g] = head_mixture @ row.target[g][t + 1, :, next_actions[g]]
                    if row.central:
                        next_central[g] = head_mixture @ row.central_target[g][t + 1, :, next_actions[g]]
            td_target = row.reward[t]
            if not (row.ended and t == row.length - 1):
                next_state = row.state[t + 1]
                if row.central:
                    next_value = mix_central(target, next_central, next_state)
                else:
                    next_value = mix(target, next_target, next_state, next_actions)
                td_target += options["gamma"] * next_value
            q_tot = mix(online, utilities, row.state[t], [x[t] for x in row.action])
            entry = {"q_tot": q_tot}
            if options["mixer_target"] == "return":
                td_target = row.reward.sum()
            if options["mixer_target"] == "td" or t == row.length - 1:
                entry["td_error"] = abs(td_target - q_tot)
                entry["mixer_loss"] = td_loss(td_target - q_tot, options)
            if row.central:
                entry["central_loss"] = td_loss(
                    td_target - mix_central(online, central_utilities, row.state[t]), options
                )
                greedy_value = mix_central(online, central_greedy, row.state[t])
                entry["mixer_loss"] *= td_weight(td_target, q_tot, greedy_value, is_greedy, options)
            entries.append(entry)
    names = {name for entry in entries for name in entry}
    return {name: float(np.mean([x[name] for x in entries if name in x])) for name in names}


def td_weight(td_target: float, q_tot: float, greedy_value: float, greedy: bool, options: dict[str, Any]) -> float:
    """Return Weighted QMIX's weight of one TD error."""
    if options["td_weighting"] == "optimistic":
        return 1.0 if q_tot < td_target else options["td_alpha"]
    return 1.0 if greedy or td_target > greedy_value else options["td_alpha"]


def mix(team: Team, utilities: np.ndarray, state: np.ndarray, actions: list[int]) -> float:
    """Return Q_tot by Eq. 11–14, or the sum."""
    mixer_options = team.preset.mixer
    if mixer_options.mixer in ("none", "sum"):
        return float(utilities.sum() / (len(utilities) if mixer_options.mixer == "none" else 1))
    if mixer_options.mixer_input == "state+actions":
        hots = [np.eye(size)[a] for a, size in zip(actions, team.spec.action_sizes, strict=True)]
        state = np.concatenate([state, *hots])
    w = {k: v.detach().numpy() for k, v in team.mixer.state_dict().items()}

    def two(name: str) -> np.ndarray:
        hidden = np.maximum(w[f"{name}.0.weight"] @ state + w[f"{name}.0.bias"], 0)
        return w[f"{name}.2.weight"] @ hidden + w[f"{name}.2.bias"]

    positive = np.abs if mixer_options.mixer == "absolute" else lambda x: np.log1p(np.exp(x))
    hidden = utilities @ positive(two("w1")).reshape(len(utilities), -1) + w["b1.weight"] @ state + w["b1.bias"]
    act = {
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "tanh": np.tanh,
    }[mixer_options.mixer_activation]
    return float((act(hidden) @ positive(two("w2")) + two("b2"))[0])


def mix_central(team: Team, utilities: np.ndarray, state: np.ndarray) -> float:
    """Return Q*: three ReLU layers on the state and the utilities."""
    w = {k: v.detach().numpy() for k, v in team.central.mixer.state_dict().items()}
    x = np.concatenate([state, utilities])
    for layer in (0, 2, 4):
        x = np.maximum(w[f"net.{layer}.weight"] @ x + w[f"net.{layer}.bias"], 0)
    return float((w["net.6.weight"] @ x + w["net.6.bias"])[0])
