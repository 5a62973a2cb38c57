"""``marca_env/Recommender-v0``: a Gymnasium environment in which one agent makes every decision of a request."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from marca_env.envs.batched_step import BatchedStep
from marca_env.envs.options import ViewOptions, arguments_of
from marca_env.envs.rendering.screen import RENDER_MODES
from marca_env.envs.single_episode import SingleEpisode, as_int_action
from marca_env.utils.errors import InputError
from marca_env.utils.validation import as_seed


class ControllerEnv(SingleEpisode, gymnasium.Env):
    """An episode as one agent's task: the agent observes the whole state and decides for everybody."""

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode with new requests; without a seed the random stream continues."""
        super().reset(seed=as_seed(seed))
        self._step = self._core.reset(seed)
        self._render_if_human()
        return self._step.state[0], self._info()

    def action_masks(self) -> np.ndarray:
        """Return bool: the actions that exist now, in the form that sb3-contrib's MaskablePPO expects."""
        raise NotImplementedError

    def _shown(self, step: BatchedStep) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return a step as Gymnasium has it, after showing it in ``human`` mode."""
        self._render_if_human()
        return step.state[0], float(step.reward[0]), bool(step.terminated[0]), False, self._info()

    def _info(self) -> dict[str, Any]:
        """Return the info of the last step and the action mask."""
        return {**super()._info(), "action_mask": self.action_masks().astype(np.int8)}


class RecommenderEnv(ControllerEnv):
    """A request in a cascade of stages, as one agent's task.

    ## Description
    The id is `marca_env/Recommender-v0`; `gymnasium.make_vec` steps many as arrays
    (`marca_env.envs.vector_env.RecommenderVectorEnv`). One agent makes all decisions of a request in pipeline order
    and observes all of its features. Episode, engine and encoder are those of the multi-agent environments: the same
    seed and the same decisions give the same request and outcome.

    ## Action Space
    `Discrete(n)`, where n is the largest number of options of a decision. Action k takes option k of the current
    decision. If that decision has fewer options, a higher action takes its last option (`on_illegal="nearest"`, the
    default, which any algorithm can run) or raises an error (`"error"`). `info["action_mask"]` (n,) int8 marks the
    options that exist; `action_masks()` returns them as sb3-contrib's MaskablePPO expects.

    ## Observation Space
    `Box` float32. It holds, in this order:

    | part | range |
    |---|---|
    | one-hots of all features of the request | 0, 1 |
    | one-hot of the turn | 0, 1 |
    | one-hots of the decisions so far | 0, 1 |
    | results (candidates) of the stages over their queue limit; 0 until settled | 0 … 4 |
    | with `window`: load over budget, degradation and backlog of each cluster, and the share of the window passed | 0 … 4, then 0 … 1 |
    | prices of the clusters, log(1 + λ · budget / peak rate) | 0 … 8 |

    ## Rewards
    0 until the last decision of a request, then its reward: `revenue` in currency, `lagrangian`
    = revenue − Σ_g λ_g · cost_g, or a callable of your own. `info` of that step holds `revenue`, `expected_revenue`,
    `computation` (Σ_g λ_g · cost_g), `cost` by cluster in core-seconds and `results` by stage; with `window` also
    `load`, `degradation`, `backlog` and `prices` by cluster, and the share `dropped`.

    ## Starting State
    A request drawn from the empirical population of the scenario; with `window` also idle clusters.

    ## Episode End
    Terminates after the last decision (five steps in the default scenario). Never truncated.

    ## Arguments
    | name | default | content |
    |---|---|---|
    | `scenario` | `"default"` | preset name, YAML file, folder of `marca fit`, or `Scenario` |
    | `reward` | `"revenue"` | `revenue`, `lagrangian`, or a callable `(outcome, prices) → (B,)` |
    | `prices` | `None` | (G,) λ, currency per core-second; `None`: zeros |
    | `engine` | `None` | engine to run instead of the scenario's fitted models |
    | `on_illegal` | `"nearest"` | for an option that does not exist: `nearest` takes the last one, `error` raises `IllegalActionError` |
    | `window` | `None` | episode of several requests: a `RequestWindow`, a dict of its fields, or a number of requests |
    | `render_mode` | `None` | `ansi`, `rgb_array` or `human` |

    ## Version History
    - v0: initial release
    """  # noqa: E501

    @arguments_of(ViewOptions)
    def __init__(self, options: ViewOptions) -> None:
        self._set_up(options)
        self._n_options = self._core.scenario.action_shape
        self.observation_space: spaces.Box = self._core.encoder.state_space()
        self.action_space: spaces.Discrete = spaces.Discrete(max(self._n_options))

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Make the current decision.

        Raises:
            IllegalActionError: the option does not exist and ``on_illegal`` is ``error``.
        """
        agent = self._core.agent_on_turn
        if agent is None:
            raise InputError("no episode is running; call reset() first")
        option = as_int_action(agent, action)
        if self._core.on_illegal == "nearest" and option in self.action_space:
            option = min(option, self._n_options[self._core.turn] - 1)
        return self._shown(self._decide(option))

    def action_masks(self) -> np.ndarray:
        """Return (n,) bool: the options that exist now, in the form that sb3-contrib's MaskablePPO expects."""
        mask = np.zeros(max(self._n_options), dtype=bool)
        if self._core.agent_on_turn is not None:
            mask[: self._n_options[self._core.turn]] = True
        return mask
