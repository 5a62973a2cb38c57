"""Shared part of the views of a single episode: a batch of one, its info and its frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep
from marca_env.envs.episode_info import request_frame, request_info
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.envs.options import ViewOptions
from marca_env.envs.rendering.screen import Screen
from marca_env.utils.errors import InputError, shown
from marca_env.utils.validation import as_array

_LIMIT = 2**63


class SingleEpisode:
    """One episode of a batch of one, with rendering."""

    metadata: dict[str, Any]
    render_mode: str | None

    _core: Any

    def _set_up(self, options: ViewOptions) -> None:
        """Build the batch of one and the screen."""
        self._core = self._make_core(options)
        self.render_mode = options.render_mode
        self._screen = Screen(options.render_mode, self.metadata["render_fps"])
        self._step: BatchedStep | None = None
        self._waits = {agent: np.array([n - 1]) for agent, n in self._core.action_sizes.items()}

    def _make_core(self, options: ViewOptions) -> BatchedRecommender | BatchedFleet:
        """Return the batch of one."""
        return BatchedRecommender(1, options)

    @property
    def max_steps(self) -> int:
        """Number of decisions of an episode."""
        return self._core.max_steps

    @property
    def _latest(self) -> BatchedStep:
        """Result of the last reset or step."""
        if self._step is None:
            raise InputError("no episode has started; call reset() first")
        return self._step

    def _decide(self, action: int) -> BatchedStep:
        """Let the agent on turn take ``action`` while the others wait."""
        assert self._core.agent_on_turn is not None
        self._step = self._core.step({**self._waits, self._core.agent_on_turn: np.array([action])})
        return self._step

    def _info(self) -> dict[str, Any]:
        """Return the info of the last step."""
        return request_info(self._core, self._latest)

    def render(self) -> Any:
        """Return text (``ansi``) or pixels (``rgb_array``), or show a window (``human``); ``None`` without a mode."""
        return self._screen.show(request_frame(self._core, self._latest)) if self.render_mode else None

    def _render_if_human(self) -> None:
        """Render the step in ``human`` mode."""
        if self.render_mode == "human":
            self.render()

    def close(self) -> None:
        """Close the window if one is open."""
        self._screen.close()


def as_int_action(agent: str, action: Any) -> int:
    """Return a single action as an int.

    Raises:
        InputError: the action is no integer; a fraction would be truncated without notice.
    """
    if type(action) is int:
        return _in_range(agent, action)
    is_number = isinstance(action, (int, float, np.number, np.ndarray)) and not isinstance(action, bool)
    if not is_number or np.ndim(action) != 0 or as_array(action).dtype.kind not in "iuf" or action % 1 != 0:  # or nan
        raise InputError(
            f"agent {agent!r}: action {shown(action)} is not an integer; pass the index of one of its options"
        )
    return _in_range(agent, int(action))


def _in_range(agent: str, action: int) -> int:
    if not -_LIMIT <= action < _LIMIT:
        raise InputError(f"agent {agent!r}: action {shown(action)} is not the index of one of its options")
    return action
