"""The losses of a team once more: NumPy, float64, one episode and one step at a time; only Q is the networks'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.algorithms.presets import Preset
from agents.team.team import Team, TeamSpec, action_key, mask_key, obs_key

Turn = tuple[int, int]
"""Episode and step."""


def make_batch(spec: TeamSpec, n: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """Episodes of 1 to T steps, ended or cut off, agents on turn at random, and rubbish in the padding; float64."""
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
        mask[waits] = np.arange(a) == a - 1
        actions = np.where(mask[:, :-1], rng.random((n, t, a)), -1).argmax(-1)
        batch |= {obs_key(agent): rng.normal(size=(n, t + 1, o)), mask_key(agent): mask, action_key(agent): actions}
    return {k: torch.as_tensor(v) for k, v in batch.items()}


@dataclass
class Episode:
    """One row of a batch, without its padding; arrays over steps, the last observation included where there is one."""

    length: int
    reward: np.ndarray
    ended: bool
    state: np.ndarray
    action: list[np.ndarray]
    mask: list[np.ndarray]
    q: list[np.ndarray]
    target: list[np.ndarray]
    star: list[np.ndarray]
    star_target: list[np.ndarray]

    def on_turn(self, g: int, t: int) -> bool:
        return bool(self.mask[g][t, :-1].any())


def read(spec: TeamSpec, online: Team, target: Team, batch: dict[str, torch.Tensor], scale: float) -> list[Episode]:
    """The rows of a batch; Q (T + 1, K, A) of each agent."""

    def values(part: Any) -> list[np.ndarray]:
        return [] if part is None else [x.detach().numpy() for x in part.unroll(batch)[0]]

    all_q = [values(x) for x in (online, target, online.central, target.central)]
    b = {k: v.numpy() for k, v in batch.items()}
    rows = []
    for i, length in enumerate(b["filled"].sum(1)):
        rows.append(
            Episode(
                int(length),
                b["reward"][i, :length] / scale,
                bool(b["terminated"][i, length - 1]),
                b["state"][i, : length + 1],
                [b[action_key(a)][i, :length] for a in spec.agents],
                [b[mask_key(a)][i, : length + 1] for a in spec.agents],
                *([q[i, : length + 1] for q in part] for part in all_q),
            )
        )
    return rows


def slow_losses(
    online: Team, target: Team, batch: dict[str, torch.Tensor], *, scale: float, draw: np.ndarray | None = None
) -> dict[str, float]:
    """What :func:`agents.team.td_losses.team_losses` returns; ``draw`` (K,) are REM's uniform numbers."""
    preset, spec = online.preset, online.spec
    options = preset.options
    served = np.full(options["heads"], 1 / options["heads"])
    if options["head_weighting"] == "random":
        assert draw is not None
        served = draw / draw.sum()
    rows = read(spec, online, target, batch, scale)
    own = own_losses(rows, spec, preset, served)
    mixed = mixer_losses(rows, online, target, own["weights"], served)
    found = {"agent_loss": own["loss"], "q_tot": mixed["q_tot"] * scale}
    if options["mixer"] == "none":
        return found | {"loss": own["loss"], "mixer_loss": 0.0, "td_error": own["td_error"] * scale}
    loss = mixed["mixer_loss"] + mixed.get("central_loss", 0.0) + options["agent_loss"] * own["loss"]
    return found | mixed | {"loss": loss, "q_tot": mixed["q_tot"] * scale, "td_error": mixed["td_error"] * scale}


def loss_of(error: Any, options: dict[str, Any]) -> Any:
    size = np.abs(error)
    if options["loss"] == "mae":
        return size
    if options["loss"] == "huber":
        d = options["huber_delta"]
        return np.where(size <= d, size * size / 2, d * size - d * d / 2)
    return size * size


def best_action(q: np.ndarray, mask: np.ndarray, served: np.ndarray) -> int:
    """Legal argmax of the heads' mixture; ``q`` (K, A)."""
    value = served @ q
    return max((a for a in range(len(mask)) if mask[a]), key=lambda a: value[a])


def choice(row: Episode, g: int, t: int, options: dict[str, Any], served: np.ndarray) -> int:
    return best_action((row.q if options["double_q"] else row.target)[g][t], row.mask[g][t], served)


# -- the agents' own losses --------------------------------------------------------------------------------
def own_losses(rows: list[Episode], spec: TeamSpec, preset: Preset, served: np.ndarray) -> dict[str, Any]:
    """Sum over agents, and the weight of each agent's heads at each of its turns."""
    options = preset.options
    same = [dict.fromkeys(turns_of(rows, g), served) for g in range(len(spec.agents))]
    if options["agent_loss"] == 0 and options["head_weighting"] != "adaptive":
        return {"loss": 0.0, "td_error": 0.0, "weights": same}
    credits = slow_credits(rows, spec, options["credit"])
    total, sizes, weights = 0.0, [], []
    for g in range(len(spec.agents)):
        errors = {turn: own_error(rows, g, turn, options, credits, served) for turn in turns_of(rows, g)}
        losses = {turn: loss_of(e, options) for turn, e in errors.items()}
        weights.append(head_weights(losses, options, served))
        total += float(np.mean([weights[g][turn] @ losses[turn] for turn in losses])) if losses else 0.0
        sizes.append(np.mean([np.abs(e).mean() for e in errors.values()]) if errors else 0.0)
    return {"loss": total, "td_error": float(np.mean(sizes)), "weights": weights}


def turns_of(rows: list[Episode], g: int) -> list[Turn]:
    return [(i, t) for i, row in enumerate(rows) for t in range(row.length) if row.on_turn(g, t)]


def own_error(
    rows: list[Episode], g: int, turn: Turn, options: dict[str, Any], credits: Any, served: np.ndarray
) -> np.ndarray:
    """(K,) TD error of an agent whose next state is its own next turn."""
    i, t = turn
    row = rows[i]
    last = row.length if row.ended else row.length + 1  # observations after which something may still come
    later = [u for u in range(t + 1, last) if row.on_turn(g, u)]
    earned = row.reward[t : later[0] if later else None].sum()
    if options["credit"] != "none":
        earned = credits[g][t] * row.reward.sum()
    ahead = np.zeros(options["heads"])
    if later:
        ahead = row.target[g][later[0], :, choice(row, g, later[0], options, served)]
        if options["head_target"] == "mean":
            ahead = np.full_like(ahead, ahead.mean())
    return earned + options["gamma"] * ahead - row.q[g][t, :, row.action[g][t]]


def head_weights(losses: dict[Turn, np.ndarray], options: dict[str, Any], served: np.ndarray) -> dict[Turn, np.ndarray]:
    if options["head_weighting"] != "adaptive":
        return dict.fromkeys(losses, served)
    if options["weighting_level"] == "batch":
        together = sum(losses.values())
        return {turn: together / np.sum(together) for turn in losses}
    return {turn: x / x.sum() for turn, x in losses.items()}


def slow_credits(rows: list[Episode], spec: TeamSpec, form: str) -> list[list[float]]:
    """VGCA's weight of each agent and step: the variance of the mean return between actions (Eq. 16)."""
    steps, variances = spec.max_steps, []
    for g in range(len(spec.agents)):
        variances.append([])
        for t in range(steps):
            returns: dict[int, list[float]] = {}
            for row in rows:
                if t < row.length and row.on_turn(g, t):
                    returns.setdefault(int(row.action[g][t]), []).append(row.reward.sum())
            variances[g].append(float(np.var([np.mean(x) for x in returns.values()])) if returns else 0.0)
    if form == "cumulative":
        total, running = np.sum(variances), 0.0
        for t in range(steps):
            for g in range(len(spec.agents)):
                running += variances[g][t]
                variances[g][t] = running / total
    return variances


# -- the team's loss ---------------------------------------------------------------------------------------
def mixer_losses(
    rows: list[Episode], online: Team, target: Team, weights: list[dict[Turn, np.ndarray]], served: np.ndarray
) -> dict[str, float]:
    options, found = online.preset.options, []
    for i, row in enumerate(rows):
        n = len(row.q)
        used, done, star, star_done = (np.zeros(n) for _ in range(4))
        for t in range(row.length):
            top, greedy, best = star.copy(), True, [choice(row, g, t + 1, options, served) for g in range(n)]
            for g in range(n):
                if not row.on_turn(g, t):
                    continue
                a = row.action[g][t]
                used[g] = weights[g][i, t] @ row.q[g][t, :, a]
                done[g] = served @ row.target[g][t, :, a]
                if row.star:
                    mine = best_action(row.q[g][t], row.mask[g][t], served)
                    star[g], top[g] = served @ row.star[g][t, :, a], served @ row.star[g][t, :, mine]
                    star_done[g], greedy = served @ row.star_target[g][t, :, a], greedy and a == mine
            ahead, star_ahead = done.copy(), star_done.copy()
            for g in range(n):
                if row.on_turn(g, t + 1):
                    ahead[g] = served @ row.target[g][t + 1, :, best[g]]
                    if row.star:
                        star_ahead[g] = served @ row.star_target[g][t + 1, :, best[g]]
            goal = row.reward[t]
            if not (row.ended and t == row.length - 1):
                coming = row.state[t + 1]
                following = mix_star(target, star_ahead, coming) if row.star else mix(target, ahead, coming, best)
                goal += options["gamma"] * following
            q_tot = mix(online, used, row.state[t], [x[t] for x in row.action])
            entry = {"q_tot": q_tot, "td_error": abs(goal - q_tot), "mixer_loss": loss_of(goal - q_tot, options)}
            if row.star:
                entry["central_loss"] = loss_of(goal - mix_star(online, star, row.state[t]), options)
                best_star = mix_star(online, top, row.state[t])
                entry["mixer_loss"] *= td_weight(goal, q_tot, best_star, greedy, options)
            found.append(entry)
    return {name: float(np.mean([x[name] for x in found])) for name in found[0]}


def td_weight(goal: float, q_tot: float, best_star: float, greedy: bool, options: dict[str, Any]) -> float:
    if options["td_weighting"] == "optimistic":
        return 1.0 if q_tot < goal else options["td_alpha"]
    return 1.0 if greedy or goal > best_star else options["td_alpha"]


def mix(team: Team, utilities: np.ndarray, state: np.ndarray, actions: list[int]) -> float:
    """Eq. 11–14, or the sum."""
    chosen = team.preset.mixer
    if chosen.mixer in ("none", "sum"):
        return float(utilities.sum() / (len(utilities) if chosen.mixer == "none" else 1))
    if chosen.mixer_input == "state+actions":
        hots = [np.eye(size)[a] for a, size in zip(actions, team.spec.action_sizes, strict=True)]
        state = np.concatenate([state, *hots])
    w = {k: v.detach().numpy() for k, v in team.mixer.state_dict().items()}

    def two(name: str) -> np.ndarray:
        hidden = np.maximum(w[f"{name}.0.weight"] @ state + w[f"{name}.0.bias"], 0)
        return w[f"{name}.2.weight"] @ hidden + w[f"{name}.2.bias"]

    positive = np.abs if chosen.mixer == "absolute" else lambda x: np.log1p(np.exp(x))
    hidden = utilities @ positive(two("w1")).reshape(len(utilities), -1) + w["b1.weight"] @ state + w["b1.bias"]
    act = {
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "tanh": np.tanh,
    }[chosen.mixer_activation]
    return float((act(hidden) @ positive(two("w2")) + two("b2"))[0])


def mix_star(team: Team, utilities: np.ndarray, state: np.ndarray) -> float:
    """Q*: three layers of ReLU on the state and the utilities."""
    w = {k: v.detach().numpy() for k, v in team.central.mixer.state_dict().items()}
    x = np.concatenate([state, utilities])
    for layer in (0, 2, 4):
        x = np.maximum(w[f"net.{layer}.weight"] @ x + w[f"net.{layer}.bias"], 0)
    return float((w["net.6.weight"] @ x + w["net.6.bias"])[0])
