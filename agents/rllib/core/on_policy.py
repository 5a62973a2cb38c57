"""Learning from the latest round alone: its runner, its buffer of one round, and its learner."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from agents.offline.episodes import Columns
from agents.rllib.core.learner import TeamLearner
from agents.rllib.core.replay import EpisodeBuffer
from agents.rllib.core.rollout import rollout
from agents.rllib.core.runner import TeamEnvRunner


class DrawnActions:
    """A module's policies for :func:`agents.rllib.core.rollout.rollout`, with actions drawn from them.

    Args:
        module: the team.
        rng: generator of the draws.
    """

    def __init__(self, module: Any, rng: np.random.Generator) -> None:
        self.module, self.rng, self.initial_hidden = module, rng, module.initial_hidden

    def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.module.drawn(batch, self.rng)


class PolicyRunner(TeamEnvRunner):
    """Runner whose agents draw their actions from their policies, and are greedy without exploration."""

    def epsilon(self) -> float:
        """Return 1: every action is drawn from its policy."""
        return 1.0

    def _rollout(self, rng: np.random.Generator, rate: float) -> Columns:
        actor = DrawnActions(self.module, rng) if rate > 0 else self.module
        return rollout(self.env, actor, self.spec, rng, 0.0)


class RoundBuffer(EpisodeBuffer):
    """Episodes of one round; :meth:`sample` walks through them in an order that is drawn for each epoch."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(capacity=2**31, seed=seed)
        self._order = np.zeros(0, np.int64)

    def clear(self) -> None:
        """Remove all episodes."""
        self.columns, self.size, self.next = {}, 0, 0
        self._order = np.zeros(0, np.int64)

    def add(self, columns: Columns) -> None:
        """Append episodes of the same round."""
        names = self.columns or columns
        self.columns = {k: np.concatenate([self.columns[k], columns[k]]) if self.size else columns[k] for k in names}
        self.size = len(self.columns["reward"])

    def annotate(self, columns: Columns) -> None:
        """Add columns of all episodes."""
        self.columns |= columns

    def sample(self, n: int) -> Columns:
        """Return the next ``n`` episodes, at most all; an epoch whose rest is smaller gives way to the next one."""
        n = min(n, self.size)
        if len(self._order) < n:
            self._order = self.rng.permutation(self.size)
        rows, self._order = self._order[:n], self._order[n:]
        return {name: values[rows] for name, values in self.columns.items()}

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return the constructor's arguments, as RLlib's checkpoints need them."""
        return (self.seed,), {}


class PolicyLearner(TeamLearner):
    """Learner of policies and a central value."""

    metric_names: ClassVar[tuple[str, ...]] = ("policy_loss", "value_loss", "entropy", "clipped")

    def annotate(self, columns: Columns) -> Columns:
        """Return advantages, value targets and log probabilities of the episodes of a round."""
        batch = {name: torch.as_tensor(values).to(self._device) for name, values in columns.items()}
        annotated = self._team.annotate(batch, self.config.gamma)
        return {name: tensor.cpu().numpy() for name, tensor in annotated.items()}
