"""Pure functions of temporal-difference (TD) learning: targets, losses, head weights, own-turn processes.

The own-turn process of an agent is its decision process in which the next state is the agent's own next turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LOSSES = ("mse", "mae", "huber")
HEAD_WEIGHTINGS = ("mean", "random", "adaptive", "disagreement")
HEAD_TARGETS = ("own", "mean")
HEAD_ACTIONS = ("mean", "own")
ENSEMBLE_LOSSES = ("weighted", "heads_and_mixture")
MIXER_TARGETS = ("td", "return")
POLICY_WEIGHTS = ("online", "average")
WAITING_VALUES = ("carried", "round", "zero")
WEIGHTING_LEVELS = ("sample", "batch")
CENTRAL_WEIGHTINGS = ("optimistic", "central")
TD_WEIGHTINGS = ("none", *CENTRAL_WEIGHTINGS, "advantage")
TRACES = ("greedy", "all", "better")


def greedy(q: Tensor, mask: Tensor) -> Tensor:
    """Return the best legal action; ``q`` and ``mask`` (…, A) → (…) int64. Ties go to the lowest index."""
    return q.masked_fill(~mask, -torch.inf).argmax(-1)


def take(q: Tensor, actions: Tensor) -> Tensor:
    """Return the value of one action for every head; ``q`` (…, K, A), ``actions`` (…) → (…, K)."""
    index = actions[..., None, None].expand(*q.shape[:-1], 1)
    return q.gather(-1, index).squeeze(-1)


def td_loss(error: Tensor, kind: str = "mse", delta: float = 1.0) -> Tensor:
    """Return the loss of TD errors, element by element.

    Args:
        error: δ, any shape.
        kind: ``mse`` δ², ``mae`` |δ|, or ``huber``: δ²/2 where |δ| ≤ ``delta``, ``delta``·(|δ| − ``delta``/2) beyond.
        delta: threshold of the Huber loss.
    """
    if kind == "mse":
        return error**2
    if kind == "mae":
        return error.abs()
    size = error.abs()
    return torch.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))


def optimistic_weights(error: Tensor, alpha: float) -> Tensor:
    """Return the optimistic weights (OW) of Weighted QMIX: 1 where Q_tot is below its target, else ``alpha``.

    Args:
        error: target − Q_tot, any shape.
        alpha: weight elsewhere, in [0, 1].
    """
    return torch.where(error > 0, torch.ones_like(error), torch.full_like(error, alpha))


def central_weights(target: Tensor, best_value: Tensor, greedy_taken: Tensor, alpha: float) -> Tensor:
    """Return the central weights (CW) of Weighted QMIX.

    The weight is 1 where the greedy joint action was taken or the target exceeds its Q*, else ``alpha``.

    Args:
        target: TD target, any shape.
        best_value: Q*(s, û) of the greedy joint action û. The paper writes Q*, its reference code uses the target
            network's value; here it is Q* itself.
        greedy_taken: bool, whether û was taken.
        alpha: weight elsewhere, in [0, 1].
    """
    return torch.where(greedy_taken | (target > best_value), torch.ones_like(target), torch.full_like(target, alpha))


def advantage_weights(value: Tensor, best_value: Tensor, valid: Tensor, alpha: float) -> Tensor:
    """Return weights that fall with the distance of an action's value from the best: α + (1 − α)·exp(−d / mean d).

    They depend on the state and the action alone. Unlike the weights of Weighted QMIX they contain no sample's reward,
    so that a noisy reward is still averaged without bias.

    Args:
        value: (B, T) Q_tot of the joint action taken.
        best_value: (B, T) Q_tot of the greedy joint action.
        valid: (B, T) bool; the mean distance is taken there.
        alpha: weight of actions far from the best, in [0, 1].
    """
    distance = (best_value - value).clamp(min=0)
    mean = masked_mean(distance, valid)
    scale = torch.where(mean > 0, mean, torch.ones_like(mean))
    return alpha + (1 - alpha) * torch.exp(-distance / scale)


def td_target(reward: Tensor, next_value: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """Return r + γ·Q'(next), without the second term where the episode ended; shapes broadcast."""
    return reward + gamma * next_value * ~terminated


def lambda_targets(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    is_kept: Tensor,
    *,
    gamma: float,
    td_lambda: float,
    may_improve: Tensor | None = None,
) -> Tensor:
    """Return λ-returns G_t = r_t + γ·[(1 − λ·c_{t+1})·V_{t+1} + λ·c_{t+1}·G_{t+1}], computed from the end.

    With λ = 0 this is :func:`td_target`. The trace c says whether the return that followed stands for the next value.
    c = 1 at greedy actions alone is Watkins's Q(λ), which is the tree backup of a greedy policy (Precup et al., 2000);
    c = 1 at every step is Peng's Q(λ). With ``may_improve`` c is also 1 where G_{t+1} > V_{t+1}: what an action has
    earned is a lower bound of what the best one earns (He et al., 2017), unless it was luck.

    Args:
        reward: (B, T).
        next_value: (B, T) bootstrap value V_{t+1} of the observation after each step.
        terminated: (B, T) bool.
        is_kept: (B, T) bool, c_t; False at padded steps, so that a truncated episode bootstraps at its end.
        gamma: γ.
        td_lambda: λ, in [0, 1].
        may_improve: (B, T) bool, steps whose trace is kept where their return exceeds their value; ``None``: nowhere.
    """
    targets: list[Tensor] = []
    for t in reversed(range(reward.shape[1])):
        value = next_value[:, t]
        if targets:
            mixed, kept = torch.lerp(value, targets[-1], td_lambda), is_kept[:, t + 1]
            if may_improve is not None:
                kept = kept | (may_improve[:, t + 1] & (targets[-1] > value))
            value = torch.where(kept, mixed, value)
        targets.append(td_target(reward[:, t], value, terminated[:, t], gamma))
    return torch.stack(targets[::-1], 1)


def carry_forward(values: Tensor, on_turn: Tensor, rounds: Tensor | None = None) -> Tensor:
    """Return an agent's value at its latest turn, zero before its first; ``values``, ``on_turn`` (B, T) → (B, T).

    With ``rounds`` (B, T), see :func:`turn_rounds`, it is zero where the latest turn was in an earlier round. Rounds of
    one more step (B, T + 1) are those of the steps after, to which the values are then carried.
    """
    steps = torch.arange(1, values.shape[1] + 1, device=values.device)
    latest = (on_turn * steps).cummax(1).values  # step of the latest turn, counted from 1
    has_value, latest = latest > 0, (latest - 1).clamp(min=0)
    if rounds is not None:
        has_value = has_value & (rounds.gather(1, latest) == rounds[:, -values.shape[1] :])
    return torch.where(has_value, values.gather(1, latest), 0.0)


def turn_rounds(turns: Sequence[Tensor]) -> Tensor:
    """Return the round of each step, counted by the agent that has had most turns; agents' turns (B, T) → (B, T)."""
    return torch.stack([on_turn.cumsum(1) for on_turn in turns]).amax(0)


def waiting_values(values: Tensor, on_turn: Tensor, kind: str, rounds: Tensor | None = None) -> Tensor:
    """Return an agent's value at each step: at its turns its own, elsewhere that of its latest turn or zero.

    Args:
        values: (B, T).
        on_turn: (B, T) bool.
        kind: ``carried``, see :func:`carry_forward`; ``round``, carried to the end of the round; or ``zero``.
        rounds: (B, T), see :func:`turn_rounds`; needed with ``round``.
    """
    if kind == "zero":
        return torch.where(on_turn, values, 0.0)
    return carry_forward(values, on_turn, rounds if kind == "round" else None)


def own_turn_process(
    reward: Tensor,
    value: Tensor,
    on_turn: Tensor,
    terminated: Tensor,
    *,
    is_kept: Tensor | None = None,
    may_improve: Tensor | None = None,
    gamma: float = 1.0,
    td_lambda: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Rewrite an episode as one agent sees it, from each of its turns to its next turn.

    With λ > 0 the value at the next turn is mixed with the λ-return from there, where its trace is kept; see
    :func:`lambda_targets`.

    Args:
        reward: (B, T) team reward of each step.
        value: (B, T + 1, K) bootstrap value of each head at each observation.
        on_turn: (B, T + 1) bool.
        terminated: (B, T) bool, True at the step that ends the episode.
        is_kept: (B, T) bool, turns whose λ-return stands for their value; needed with λ > 0.
        may_improve: (B, T) bool, turns whose λ-return does so where it is larger.
        gamma: γ, discount from turn to turn, in λ-returns.
        td_lambda: λ, in [0, 1].

    Returns:
        The undiscounted reward collected from each turn until the next one (B, T), and the value at the next turn
        (B, T, K), zero if the agent has no further turn. For an agent that always acts these are r_t and V_{t+1}.
    """
    steps = reward.shape[1]
    collected = torch.zeros_like(reward[:, 0])
    next_value = torch.where(on_turn[:, steps, None], value[:, steps], torch.zeros_like(value[:, steps]))
    rewards, next_values = [], []
    for t in reversed(range(steps)):
        ended = terminated[:, t]
        next_value = torch.where(ended[:, None], torch.zeros_like(next_value), next_value)
        collected = torch.where(ended, torch.zeros_like(collected), collected) + reward[:, t]
        rewards.append(collected)
        next_values.append(next_value)
        turn, turn_value = on_turn[:, t], value[:, t]
        if is_kept is not None and td_lambda:
            turn_return = collected[:, None] + gamma * next_value
            kept = is_kept[:, t, None]
            if may_improve is not None:
                kept = kept | (may_improve[:, t, None] & (turn_return > turn_value))
            turn_value = torch.where(kept, torch.lerp(turn_value, turn_return, td_lambda), turn_value)
        collected = torch.where(turn, torch.zeros_like(collected), collected)
        next_value = torch.where(turn[:, None], turn_value, next_value)
    return torch.stack(rewards[::-1], 1), torch.stack(next_values[::-1], 1)


def used_steps(on_turn: Tensor, filled: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the steps at which TD errors use an agent's values; no other values need to be computed.

    Args:
        on_turn: (B, T + 1) bool.
        filled: (B, T) bool.
        terminated: (B, T) bool.

    Returns:
        Three masks (B, T + 1): steps at which the agent acts (its value is learnt); turns from which an earlier step
        bootstraps; steps at which it acts and whose value is carried forward to a next step at which it is not on
        turn (Q'_tot needs the value there).
    """
    nowhere = torch.zeros_like(on_turn[:, :1])
    continues = filled & ~terminated
    is_acting, next_on_turn = on_turn[:, :-1] & filled, on_turn[:, 1:]
    return (
        torch.cat([is_acting, nowhere], 1),
        torch.cat([nowhere, next_on_turn & continues], 1),
        torch.cat([is_acting & continues & ~next_on_turn, nowhere], 1),
    )


def adaptive_weights(losses: Tensor, valid: Tensor, level: str = "sample", *, differentiable: bool = False) -> Tensor:
    """Return adaptive weights (AW) η_k = L_k / Σ_k L_k (Eq. 9): heads with larger TD errors get larger weights.

    Args:
        losses: (B, T, K) loss of each TD error, its square in the paper.
        valid: (B, T) bool.
        level: ``sample`` as in the paper, or ``batch``: one weight per head, as in its reference code.
        differentiable: whether the gradient also flows through the weights, as in the reference code.

    Returns:
        (B, T, K) or, for ``batch``, (1, 1, K); equal weights where every error is zero.
    """
    if not differentiable:
        losses = losses.detach()
    if level == "batch":
        losses = (losses * valid[..., None]).sum((0, 1), keepdim=True)
    total = losses.sum(-1, keepdim=True)
    share = losses / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(total > 0, share, torch.full_like(share, 1 / losses.shape[-1]))


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """Return ``value`` with the gradient of ``other``, which has the same shape (a straight-through estimate)."""
    return value.detach() + (other - other.detach())


def head_disagreement(q: Tensor, mask: Tensor) -> Tensor:
    """Return each head's mean squared distance from the ensemble's mean, over the legal actions.

    It is a property of the state: unlike a TD error it contains neither the reward nor the action taken. Its mean over
    the heads is the variance of the ensemble there. No gradient flows through it.

    Args:
        q: (…, K, A) values of the heads.
        mask: (…, A) bool, legal actions.

    Returns:
        (…, K).
    """
    q, legal = q.detach(), mask[..., None, :].to(q.dtype)
    distance = (q - q.mean(-2, keepdim=True)) ** 2
    return (distance * legal).sum(-1) / legal.sum(-1).clamp(min=1)


def ensemble_loss(
    losses: Tensor, errors: Tensor, weights: Tensor, form: str = "weighted", kind: str = "mse", delta: float = 1.0
) -> Tensor:
    """Return an agent's loss at each step, (B, T), from its heads'.

    ``weighted`` is Σ_k η_k L_k. ``heads_and_mixture`` is (Σ_k L_k + L(Σ_k η_k δ_k)) / (K + 1), the form of the
    reference code: every head learns alike, and their mixture as one more.

    Args:
        losses: (B, T, K) L_k.
        errors: (B, T, K) δ_k.
        weights: (B, T, K) or (1, 1, K) η_k.
        form: ``weighted`` or ``heads_and_mixture``.
        kind: loss of the mixture's TD error; see :func:`td_loss`.
        delta: threshold of the Huber loss.
    """
    if form == "weighted":
        return (weights * losses).sum(-1)
    mixture = td_loss((weights * errors).sum(-1), kind, delta)
    return (losses.sum(-1) + mixture) / (losses.shape[-1] + 1)


def random_weights(heads: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a random convex mixture of the heads, once per update (REM, random ensemble mixture); (1, 1, K)."""
    draw = torch.rand(heads, generator=generator, pin_memory=like.is_cuda).to(like, non_blocking=True)
    return (draw / draw.sum())[None, None]


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the valid entries; zero if no entry is valid."""
    weight = valid.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)
