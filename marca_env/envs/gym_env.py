"""The cascade as one agent's task: a Gymnasium environment that makes every decision of a request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep, RewardFunction
from marca_env.envs.episode_info import request_frame, request_info
from marca_env.envs.pettingzoo_env import as_int_action
from marca_env.envs.rendering import views
from marca_env.envs.request_window import RequestWindow
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.validation import reject_unknown_options


class RecommenderEnv(gymnasium.Env):
    """
    ## Description
    `marca_env/Recommender-v0`: one agent makes all decisions of a request in pipeline order, with everything in
    view. It is the same episode, engine and encoder as the multi-agent environments: the same seed and the same
    decisions give the same request and outcome.

    ## Action Space
    `Discrete(n)`, n being the most options of any decision. Action k takes option k of the decision on turn. Where
    that decision has fewer options, an action beyond them takes its dearest (`on_illegal="nearest"`, which any
    algorithm can run) or is an error (`"error"`). `info["action_mask"]` (int8) marks the options that exist.

    ## Observation Space
    `Box` float32: one-hots of all features, of the turn and of the decisions so far, the scaled results of the
    stages that are settled, and the scaled prices λ.

    ## Rewards
    0 until the last decision, then the reward of the request: `revenue` in currency, `lagrangian`
    = revenue − Σ λ_g·cost_g, or your own callable. The last `info` holds its terms, cost per cluster in
    core-seconds and results per stage.

    ## Starting State
    A request drawn from the empirical population of the scenario.

    ## Episode End
    Terminates after the last decision (five steps with the default scenario). Never truncates.

    ## Arguments
    `scenario`, `reward`, `prices`, `engine`, `window`: see `marca_env.envs.batched_env.BatchedRecommender`.
    `on_illegal`: `nearest` or `error`. `render_mode`: `ansi`, `rgb_array` or `human`.

    ## Version History
    - v0: initial release
    """

    metadata: dict[str, Any] = {"render_modes": list(views.RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    @reject_unknown_options
    def __init__(
        self,
        scenario: str | Path | Scenario = "default",
        reward: str | RewardFunction = "revenue",
        prices: Sequence[float] | np.ndarray | None = None,
        on_illegal: str = "nearest",
        render_mode: str | None = None,
        engine: Engine | None = None,
        window: RequestWindow | int | dict | None = None,
    ) -> None:
        self._core = BatchedRecommender(1, scenario, reward, prices, engine, on_illegal, window)
        self.render_mode = render_mode
        self._screen = views.Screen(render_mode, self.metadata["render_fps"])
        self._options = self._core.scenario.action_shape
        self.observation_space: spaces.Box = self._core.encoder.state_space()
        self.action_space: spaces.Discrete = spaces.Discrete(max(self._options))
        self._step: BatchedStep | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a request. Without a seed the stream of requests goes on."""
        super().reset(seed=seed)
        self._step = self._core.reset(seed)
        self._show()
        return self._step.state[0], self._info(self._step)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Make the decision on turn.

        Raises:
            IllegalActionError: an option that does not exist, with ``on_illegal="error"``.
        """
        agent = self._core.agent_on_turn
        if agent is None:
            raise InputError("no episode is running; call reset() first")
        taken = as_int_action(agent, action)
        if self._core.on_illegal == "nearest" and taken in self.action_space:
            taken = min(taken, self._options[self._core.turn] - 1)
        waits = {name: np.array([n - 1]) for name, n in self._core.action_sizes.items()}
        self._step = step = self._core.step({**waits, agent: np.array([taken])})
        self._show()
        return step.state[0], float(step.reward[0]), bool(step.terminated[0]), False, self._info(step)

    def render(self) -> Any:
        """Text (``ansi``) or pixels (``rgb_array``) of the request, a window (``human``); ``None`` without a mode."""
        if self._step is None:
            raise InputError("nothing has happened yet; call reset() first")
        return self._screen.show(request_frame(self._core, self._step))

    def close(self) -> None:
        """Close the window, if there is one."""
        self._screen.close()

    def _show(self) -> None:
        """In ``human`` mode every step shows itself."""
        if self.render_mode == "human":
            self.render()

    def action_masks(self) -> np.ndarray:
        """(n,) bool: the options that exist now, as MaskablePPO of sb3-contrib asks for them."""
        mask = np.zeros(max(self._options), dtype=bool)
        if self._core.agent_on_turn is not None:
            mask[: self._options[self._core.turn]] = True
        return mask

    def _info(self, step: BatchedStep) -> dict[str, Any]:
        return {**request_info(self._core, step), "action_mask": self.action_masks().astype(np.int8)}
