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
    weights = agent_part["weights"]
    if options["head_weighting"] == "disagreement":  # Q_tot is that of the heads' mean
        weights = [dict.fromkeys(turns, head_mixture) for turns in weights]
    mixed = mixer_losses(rows, online, target, weights, head_mixture, units)
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


def is_kept(row: Episode, g: int, t: int, options: dict[str, Any], head_mixture: np.ndarray) -> bool:
    """Return whether agent ``g``'s action at its turn ``t`` leaves the trace of the λ-return as it is."""
    return options["trace"] == "all" or row.action[g][t] == next_action(row, g, t, options, head_mixture)


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
    if options["head_weighting"] == "disagreement":
        distances = [{turn: disagreement(rows, g, turn) for turn in agent_turns(rows, g)} for g in range(len(same))]
        same = [head_weights(x, options, head_mixture) for x in distances]
    if options["agent_loss"] == 0 and options["head_weighting"] != "adaptive":
        return {"loss": 0.0, "td_error": 0.0, "weights": same}
    credits = credit_weights(rows, spec, options["credit"], units.scale / units.return_scale)
    total, sizes, weights = 0.0, [], []
    for g in range(len(spec.agents)):
        errors = {turn: agent_error(rows, g, turn, options, credits, head_mixture) for turn in agent_turns(rows, g)}
        losses = {turn: td_loss(e, options) for turn, e in errors.items()}
        weights.append(
            head_weights(losses, options, head_mixture) if options["head_weighting"] == "adaptive" else same[g]
        )
        combined = [ensemble_loss(losses[turn], errors[turn], weights[g][turn], options) for turn in losses]
        step_weights = agent_step_weights(credits[g], [t for _, t in losses], options) if combined else []
        total += float(np.mean(np.array(combined) * step_weights)) if combined else 0.0
        sizes.append(np.mean([np.abs(e).mean() for e in errors.values()]) if errors else 0.0)
    return {"loss": total, "td_error": float(np.mean(sizes)), "weights": weights}


def disagreement(rows: list[Episode], g: int, turn: Turn) -> np.ndarray:
    """Return each head's mean squared distance (K,) from the heads' mean over the legal actions."""
    i, t = turn
    legal = rows[i].q[g][t][:, rows[i].mask[g][t]]
    return np.mean((legal - legal.mean(0)) ** 2, axis=1)


def agent_step_weights(credits: list[float], steps: list[int], options: dict[str, Any]) -> np.ndarray:
    """Return the weight of an agent's loss at each of its turns, of mean 1."""
    return mean_one([credits[t] for t in steps], options) if uses_weights(options) else np.ones(len(steps))


def uses_weights(options: dict[str, Any]) -> bool:
    """Return whether credit weights the losses."""
    return options["credit"] != "none" and options["credit_use"] == "weight"


def mean_one(credits: list[float], options: dict[str, Any]) -> np.ndarray:
    """Return credits divided by their mean, mixed with equal weights."""
    values, share = np.array(credits), options["credit_share"]
    return 1 - share + share * values / values.mean() if values.mean() > 0 else np.ones(len(values))


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
    taken = rows[i].q[g][t, :, rows[i].action[g][t]]
    return agent_target(rows, g, turn, options, credits, head_mixture) - taken


def agent_target(
    rows: list[Episode], g: int, turn: Turn, options: dict[str, Any], credits: Any, head_mixture: np.ndarray
) -> np.ndarray:
    """Return the target (K,) of an agent at a turn; with λ it depends on its later turns."""
    i, t = turn
    row = rows[i]
    last = row.length if row.ended else row.length + 1  # observations that may be followed by another turn
    later = [u for u in range(t + 1, last) if row.on_turn(g, u)]
    earned = row.reward[t : later[0] if later else None].sum()
    if options["credit"] != "none" and options["credit_use"] == "reward":
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
        if later[0] < row.length and options["td_lambda"]:
            follows = agent_target(rows, g, (i, later[0]), options, credits, head_mixture)
            mixed = (1 - options["td_lambda"]) * ahead + options["td_lambda"] * follows
            if is_kept(row, g, later[0], options, head_mixture):
                ahead = mixed
            elif options["trace"] == "better":
                ahead = np.maximum(ahead, mixed)
    return earned + options["gamma"] * ahead


def head_weights(
    losses: dict[Turn, np.ndarray], options: dict[str, Any], head_mixture: np.ndarray
) -> dict[Turn, np.ndarray]:
    """Return the weights of the heads at each turn."""
    if options["head_weighting"] not in ("adaptive", "disagreement"):
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
    rows: list[Episode],
    online: Team,
    target: Team,
    weights: list[dict[Turn, np.ndarray]],
    head_mixture: np.ndarray,
    units: RewardUnits,
) -> dict[str, float]:
    """Return the mixer's losses, step by step."""
    options, entries = online.preset.options, []
    step_weights = team_step_weights(rows, online.spec, options, units)
    for i, row in enumerate(rows):
        n = len(row.q)
        utilities, central_utilities = np.zeros(n), np.zeros(n)
        next_values = team_next_values(row, target, options, head_mixture)
        td_targets = team_targets(row, next_values, options, head_mixture)
        for t in range(row.length):
            if starts_afresh(row, t, options):
                utilities, central_utilities = np.zeros(n), np.zeros(n)
            central_greedy, is_greedy = central_utilities.copy(), True
            best = utilities.copy()
            for g in range(n):
                if not row.on_turn(g, t):
                    continue
                a = row.action[g][t]
                utilities[g] = weights[g][i, t] @ row.q[g][t, :, a]
                best[g] = best_value(row.q[g][t], row.mask[g][t], weights[g][i, t])
                if row.central:
                    greedy_agent_action = greedy_action(row.q[g][t], row.mask[g][t], head_mixture)
                    central_utilities[g] = head_mixture @ row.central[g][t, :, a]
                    central_greedy[g] = head_mixture @ row.central[g][t, :, greedy_agent_action]
                    is_greedy = is_greedy and a == greedy_agent_action
            td_target = td_targets[t]
            deciders = sum(row.on_turn(g, t) for g in range(n))
            q_tot = mix(online, utilities, row.state[t], [x[t] for x in row.action], best, deciders)
            entry = {"q_tot": q_tot}
            if options["td_weighting"] == "advantage":
                best_actions = [
                    greedy_action(row.q[g][t], row.mask[g][t], head_mixture) if row.on_turn(g, t) else row.action[g][t]
                    for g in range(n)
                ]
                entry["distance"] = max(0.0, mix(online, best, row.state[t], best_actions, best) - q_tot)
            if options["mixer_target"] == "return":
                td_target = row.reward.sum()
            if options["mixer_target"] == "td" or t == row.length - 1:
                entry["td_error"] = abs(td_target - q_tot)
                entry["mixer_loss"] = td_loss(td_target - q_tot, options) * step_weights[i, t]
            if row.central:
                entry["central_loss"] = td_loss(
                    td_target - mix_central(online, central_utilities, row.state[t]), options
                )
                entry["central_loss"] *= step_weights[i, t]
                greedy_value = mix_central(online, central_greedy, row.state[t])
                entry["mixer_loss"] *= td_weight(td_target, q_tot, greedy_value, is_greedy, options)
            entries.append(entry)
    if options["td_weighting"] == "advantage":
        mean = float(np.mean([entry["distance"] for entry in entries]))
        for entry in entries:
            entry["mixer_loss"] *= options["td_alpha"] + (1 - options["td_alpha"]) * np.exp(-entry["distance"] / mean)
    names = {name for entry in entries for name in entry} - {"distance"}
    return {name: float(np.mean([x[name] for x in entries if name in x])) for name in names}


def best_value(q: np.ndarray, mask: np.ndarray, weights: np.ndarray) -> float:
    """Return the best legal value of the heads' mixture; ``q`` (K, A)."""
    return float((weights @ q)[mask].max())


def team_step_weights(
    rows: list[Episode], spec: TeamSpec, options: dict[str, Any], units: RewardUnits
) -> dict[Turn, float]:
    """Return the weight of the team's loss at every step: the credit of those who act, with mean 1 over such steps."""
    steps = [(i, t) for i, row in enumerate(rows) for t in range(row.length)]
    if not uses_weights(options):
        return dict.fromkeys(steps, 1.0)
    credits = credit_weights(rows, spec, options["credit"], units.scale / units.return_scale)
    acting = {(i, t): [g for g in range(len(spec.agents)) if rows[i].on_turn(g, t)] for i, t in steps}
    decided = [step for step in steps if acting[step]]
    values = mean_one([float(np.mean([credits[g][step[1]] for g in acting[step]])) for step in decided], options)
    return {**dict.fromkeys(steps, 1.0), **dict(zip(decided, values, strict=True))}


def starts_afresh(row: Episode, t: int, options: dict[str, Any]) -> bool:
    """Return whether no value of an earlier step counts at step t: always, or in a round that begins there."""
    if options["waiting_values"] != "round":
        return options["waiting_values"] == "zero"
    turns = [[row.on_turn(g, s) for s in range(t + 1)] for g in range(len(row.q))]
    return max(sum(x) for x in turns) > max(sum(x[:-1]) for x in turns)


def team_next_values(row: Episode, target: Team, options: dict[str, Any], head_mixture: np.ndarray) -> list[float]:
    """Return the bootstrap value of the observation after each step: of the greedy team action there."""
    n = len(row.q)
    latest, latest_central, values = np.zeros(n), np.zeros(n), []
    for t in range(row.length):
        for g in range(n):
            if row.on_turn(g, t):
                latest[g] = head_mixture @ row.target[g][t, :, row.action[g][t]]
                if row.central:
                    latest_central[g] = head_mixture @ row.central_target[g][t, :, row.action[g][t]]
        if starts_afresh(row, t + 1, options):
            latest, latest_central = np.zeros(n), np.zeros(n)
        utilities, best, central = latest.copy(), latest.copy(), latest_central.copy()
        actions = [next_action(row, g, t + 1, options, head_mixture) for g in range(n)]
        for g in range(n):
            if row.on_turn(g, t + 1):
                utilities[g] = head_mixture @ row.target[g][t + 1, :, actions[g]]
                best[g] = best_value(row.target[g][t + 1], row.mask[g][t + 1], head_mixture)
                if row.central:
                    central[g] = head_mixture @ row.central_target[g][t + 1, :, actions[g]]
        state, deciders = row.state[t + 1], sum(row.on_turn(g, t + 1) for g in range(n))
        values.append(
            mix_central(target, central, state)
            if row.central
            else mix(target, utilities, state, actions, best, deciders)
        )
    return values


def team_targets(
    row: Episode, next_values: list[float], options: dict[str, Any], head_mixture: np.ndarray
) -> list[float]:
    """Return the team's target at each step, from the last to the first."""
    targets: list[float] = []
    for t in reversed(range(row.length)):
        last = t == row.length - 1
        value = 0.0 if last and row.ended else next_values[t]
        if not last:
            acting = [g for g in range(len(row.q)) if row.on_turn(g, t + 1)]
            mixed = (1 - options["td_lambda"]) * value + options["td_lambda"] * targets[0]
            if all(is_kept(row, g, t + 1, options, head_mixture) for g in acting):
                value = mixed
            elif options["trace"] == "better":
                value = max(value, mixed)
        targets.insert(0, row.reward[t] + options["gamma"] * value)
    return targets


def td_weight(td_target: float, q_tot: float, greedy_value: float, greedy: bool, options: dict[str, Any]) -> float:
    """Return Weighted QMIX's weight of one TD error."""
    if options["td_weighting"] == "optimistic":
        return 1.0 if q_tot < td_target else options["td_alpha"]
    return 1.0 if greedy or td_target > greedy_value else options["td_alpha"]


def mix(
    team: Team, utilities: np.ndarray, state: np.ndarray, actions: list[int], best: np.ndarray, deciders: int = 2
) -> float:
    """Return Q_tot by Eq. 11–14, the sum, or with a mixer of joint actions."""
    mixer_options = team.preset.mixer
    if mixer_options.mixer in ("none", "sum"):
        return float(utilities.sum() / (len(utilities) if mixer_options.mixer == "none" else 1))
    hots = [np.eye(size)[a] for a, size in zip(actions, team.spec.action_sizes, strict=True)]
    joint = np.concatenate([state, *hots])
    if mixer_options.mixer_input == "state+actions":
        state = joint
    w = {k: v.detach().numpy() for k, v in team.mixer.state_dict().items()}

    def two(name: str, inputs: np.ndarray | None = None) -> np.ndarray:
        hidden = np.maximum(w[f"{name}.0.weight"] @ (state if inputs is None else inputs) + w[f"{name}.0.bias"], 0)
        return w[f"{name}.2.weight"] @ hidden + w[f"{name}.2.bias"]

    if mixer_options.mixer == "qplex":
        return duplex_mix(two, utilities, best, joint, mixer_options.attention_heads)
    residual = 0.0
    if mixer_options.mixer in ("resq", "residual"):
        if (utilities < best - 1e-9).any() and (deciders >= 2 or mixer_options.mixer == "resq"):
            residual = abs(float(two("residual", joint)[0]))
        w = {k.removeprefix("monotone."): v for k, v in w.items()}
    if mixer_options.mixer in ("additive", "residual"):
        return float(utilities.sum() + two("baseline")[0]) - residual
    positive = np.abs if mixer_options.mixer == "absolute" else lambda x: np.log1p(np.exp(x))
    hidden = utilities @ positive(two("w1")).reshape(len(utilities), -1) + w["b1.weight"] @ state + w["b1.bias"]
    act = {
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "tanh": np.tanh,
    }[mixer_options.mixer_activation]
    return float((act(hidden) @ positive(two("w2")) + two("b2"))[0]) - residual


def duplex_mix(two: Any, utilities: np.ndarray, best: np.ndarray, joint: np.ndarray, heads: int) -> float:
    """Return Σ w·V + b + Σ λ·w·A (QPLEX); ``two`` evaluates a network of the state, or of what is passed."""

    def softplus(x: np.ndarray) -> np.ndarray:
        return np.log1p(np.exp(x))

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    w, n = softplus(two("weight")), len(utilities)
    total = float(w @ best + two("bias")[0])
    for g in range(n):
        importance = sum(
            softplus(two("head_scale"))[k]
            * sigmoid(two("agent_gate"))[k * n + g]
            * sigmoid(two("action_gate", joint))[k * n + g]
            for k in range(heads)
        )
        total += float(importance * w[g] * (utilities[g] - best[g]))
    return total


def mix_central(team: Team, utilities: np.ndarray, state: np.ndarray) -> float:
    """Return Q*: three ReLU layers on the state and the utilities."""
    w = {k: v.detach().numpy() for k, v in team.central.mixer.state_dict().items()}
    x = np.concatenate([state, utilities])
    for layer in (0, 2, 4):
        x = np.maximum(w[f"net.{layer}.weight"] @ x + w[f"net.{layer}.bias"], 0)
    return float((w["net.6.weight"] @ x + w["net.6.bias"])[0])
