"""Small cooperative games with known optima, as natively batched environments.

``TwoStepGame`` separates the mixers: a sum cannot represent its pay-off, so VDN settles for 7 where QMIX finds 8.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError

Payoff = tuple[tuple[float, ...], ...]
"""3×3 pay-offs; rows agent_0, columns agent_1."""

MATRIX_3X3: Payoff = ((8.0, -12.0, -12.0), (-12.0, 0.0, 0.0), (-12.0, 0.0, 0.0))
"""Optimum that turns into a heavy loss if one agent deviates (Son et al., QTRAN, 2019)."""
CLIMBING: Payoff = ((11.0, -30.0, 0.0), (-30.0, 7.0, 6.0), (0.0, 0.0, 5.0))
"""Climbing game of Claus and Boutilier (1998): the optimum of 11 lies beside losses of 30."""


class _Game:
    """Batch of a two-agent game, played in lockstep, with all actions always legal."""

    agents = ("agent_0", "agent_1")
    actions: int
    phases: int
    """Number of states, with the terminal one."""
    max_steps: int

    def __init__(self, num_envs: int) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}; pass at least 1")
        self.num_envs = num_envs
        self.observation_sizes = dict.fromkeys(self.agents, self.phases + 2)
        self.action_sizes = dict.fromkeys(self.agents, self.actions)
        self.state_size = self.phases
        self._phase = np.zeros(num_envs, dtype=np.int64)

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Start again; nothing is random."""
        self._phase = np.zeros(self.num_envs, dtype=np.int64)
        return self._observe(np.zeros(self.num_envs, dtype=np.float32))

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Let both agents act.

        Args:
            actions: agent → (B,) int.
        """
        reward, self._phase = self._play(*(np.asarray(actions[a]) for a in self.agents))
        return self._observe(reward.astype(np.float32))

    def close(self) -> None:
        """Do nothing; other batched environments release resources here."""

    def _play(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the reward (B,) and the next phase (B,)."""
        raise NotImplementedError

    def _observe(self, reward: np.ndarray) -> BatchedStep:
        state = np.eye(self.phases, dtype=np.float32)[self._phase]
        agent_id = np.eye(2, dtype=np.float32)
        observations = {
            a: np.hstack([state, np.tile(agent_id[k], (self.num_envs, 1))]) for k, a in enumerate(self.agents)
        }
        legal = {a: np.ones((self.num_envs, self.actions), dtype=bool) for a in self.agents}
        ended = self._phase == self.phases - 1
        return BatchedStep(observations, legal, state, reward, ended, np.zeros_like(ended))


class TwoStepGame(_Game):
    """Game of two steps: agent_0 chooses a matrix, all sevens or ((0, 1), (1, 8)); then both agents play it.

    The best return is 8. A learner that adds the agents' values underestimates the second matrix and returns 7.
    """

    actions, phases, max_steps = 2, 4, 2
    second = np.array([[0.0, 1.0], [1.0, 8.0]])

    def _play(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        paid = np.where(self._phase == 1, 7.0, np.where(self._phase == 2, self.second[first, second], 0.0))
        return paid, np.where(self._phase == 0, 1 + first, self.phases - 1)


class MatrixGame(_Game):
    """Game of one step with a 3×3 pay-off matrix; the optimum of the default matrix is 8, in a corner."""

    actions, phases, max_steps = 3, 2, 1

    def __init__(self, num_envs: int, payoff: Payoff = MATRIX_3X3) -> None:
        super().__init__(num_envs)
        self.payoff = np.asarray(payoff, dtype=float)
        if self.payoff.shape != (self.actions, self.actions):
            raise InputError(f"payoff has shape {self.payoff.shape}; pass {self.actions}×{self.actions} numbers")

    def _play(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.payoff[first, second], np.ones_like(first)


def climbing_game(num_envs: int) -> MatrixGame:
    """Return the climbing game; best return 11, and 5 for learners that avoid the losses beside it."""
    return MatrixGame(num_envs, CLIMBING)


def penalty_game(num_envs: int, penalty: float = -10.0) -> MatrixGame:
    """Return the penalty game of Claus and Boutilier (1998); best return 10, in two corners.

    Args:
        num_envs: B.
        penalty: pay-off k of the other two corners, at most 0.

    Raises:
        InputError: a penalty above 0, or not a number.
    """
    if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not penalty <= 0:
        raise InputError(f"penalty is {penalty!r}; use a number of at most 0, such as -10")
    return MatrixGame(num_envs, ((penalty, 0.0, 10.0), (0.0, 2.0, 0.0), (10.0, 0.0, penalty)))
