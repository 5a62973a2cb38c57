"""The cascade as a cooperative game of its stages: PettingZoo environments, one request per episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep, RewardFunction
from marca_env.envs.episode_info import request_frame, request_info
from marca_env.envs.rendering import views
from marca_env.envs.request_window import RequestWindow
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.validation import reject_unknown_options

_METADATA: dict[str, Any] = {
    "name": "marca_recommender_v0",
    "render_modes": list(views.RENDER_MODES),
    "render_fps": 1,
}


class _OneRequest:
    """What the AEC and the Parallel view share: a batch of one, its spaces, infos and frames."""

    render_mode: str | None

    def _set_up(self, core: BatchedRecommender, render_mode: str | None) -> None:
        self._core = core
        self.render_mode = render_mode
        self._screen = views.Screen(render_mode, _METADATA["render_fps"])
        self.possible_agents = list(core.agents)
        self.agents: list[str] = []
        self.observation_spaces = {agent: core.encoder.observation_space(agent) for agent in core.agents}
        self.action_spaces = {agent: core.encoder.action_space(agent) for agent in core.agents}
        self.state_space = core.encoder.state_space()
        self._waits = {agent: np.array([n - 1]) for agent, n in core.action_sizes.items()}
        self._step: BatchedStep | None = None

    def observation_space(self, agent: str) -> spaces.Space:
        """Dict of ``observation`` and ``action_mask``; always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """Discrete; always the same object."""
        return self.action_spaces[agent]

    @property
    def max_steps(self) -> int:
        """Decisions of the longest episode."""
        return self._core.max_steps

    def state(self) -> np.ndarray:
        """The state for centralised training, (state_size,) float32."""
        return self._latest.state[0]

    @property
    def _latest(self) -> BatchedStep:
        if self._step is None:
            raise InputError("nothing has happened yet; call reset() first")
        return self._step

    def _seen_by(self, agent: str) -> dict[str, np.ndarray]:
        step = self._latest
        return {"observation": step.observations[agent][0], "action_mask": step.masks[agent][0].astype(np.int8)}

    def _advance(self, action: int) -> None:
        """The agent on turn takes ``action``, the others wait."""
        assert self._core.agent_on_turn is not None
        self._step = self._core.step({**self._waits, self._core.agent_on_turn: np.array([action])})

    def _info(self) -> dict[str, Any]:
        return request_info(self._core, self._latest)

    def render(self) -> Any:
        """Text (``ansi``) or pixels (``rgb_array``) of the request, a window (``human``); ``None`` without a mode."""
        return self._screen.show(request_frame(self._core, self._latest)) if self.render_mode else None

    def _show(self) -> None:
        """In ``human`` mode every step shows itself."""
        if self.render_mode == "human":
            self.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._screen.close()


class RecommenderAEC(_OneRequest, AECEnv):
    """
    ## Description
    A request passes a cascade of stages; each stage with decisions is an agent that sets its elastic knobs
    (retrieval channels, recall lengths, models, truncation) in pipeline order. Together they should earn revenue
    and spare computation. One request is one episode; agents act one at a time.

    ## Action Space
    `Discrete(A)` per agent, A − 1 being the most options of its decisions. Action k takes option k of the decision
    on turn; options rise in cost. The last action, `wait`, is legal only for an agent that is not on turn. With
    the default scenario: retrieval decides channels (4), two_tower_length (5), item_to_item_length (5) and
    rescoring (2), then pre_ranking decides truncation (5).

    ## Observation Space
    `Dict(observation=Box, action_mask=Box)` per agent. `observation`: one-hots of the request's features that the
    agent sees, of the turn and of its own decisions so far, the scaled results of earlier stages (candidates)
    and the scaled prices λ. `action_mask`: 1 where an action is legal. `state()` holds all features, decisions,
    results and prices, for centralised training.

    ## Rewards
    0 until the last decision; then one team reward, given whole to every agent (not divided by their number):
    `revenue` of the request in currency, `lagrangian` = revenue − Σ λ_g·cost_g, or your own callable.
    The last `info` holds revenue, expected_revenue, computation (Σ λ_g·cost_g), cost per cluster in core-seconds
    and results per stage.

    ## Starting State
    A request drawn from the empirical population of the scenario.

    ## Episode End
    Terminates for every agent after the last decision (of the last request of a window). Never truncates.

    ## Arguments
    `scenario`, `reward`, `prices`, `engine`, `on_illegal`, `window`: see `marca_env.envs.batched_env.BatchedRecommender`.
    `render_mode`: `ansi`, `rgb_array` or `human`.

    ## Version History
    - v0: initial release
    """

    metadata = _METADATA

    def __init__(self, core: BatchedRecommender, render_mode: str | None = None) -> None:
        super().__init__()
        self._set_up(core, render_mode)

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        """Draw a request. Without a seed the stream of requests goes on."""
        self._step = self._core.reset(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self.agent_selection = str(self._core.agent_on_turn)
        self._show()

    def observe(self, agent: str) -> dict[str, np.ndarray]:
        """What ``agent`` sees now."""
        return self._seen_by(agent)

    def step(self, action: int | None) -> None:
        """The selected agent makes its decision.

        Raises:
            IllegalActionError: the mask forbids the action.
        """
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._advance(as_int_action(agent, action))
        done = bool(self._latest.terminated[0])
        for name in self.agents:
            self.rewards[name] = float(self._latest.reward[0])
            self.terminations[name] = done
            self.infos[name] = self._info()
        self.agent_selection = self.agents[0] if done else str(self._core.agent_on_turn)
        self._accumulate_rewards()
        self._show()


class RecommenderParallel(_OneRequest, ParallelEnv):
    """
    ## Description
    The same request as in `RecommenderAEC`, in steps that all agents take together: at step t the agent whose
    decision it is decides and the others `wait`.

    ## Action Space
    As in `RecommenderAEC`. An agent that is not on turn has one legal action, `wait`, the last.

    ## Observation Space
    As in `RecommenderAEC`.

    ## Rewards
    As in `RecommenderAEC`: one team reward at the last step, given whole to every agent.

    ## Starting State
    A request drawn from the empirical population of the scenario.

    ## Episode End
    Terminates for every agent after the last decision (five steps with the default scenario). Never truncates.

    ## Arguments
    As in `RecommenderAEC`.

    ## Version History
    - v0: initial release
    """

    metadata = _METADATA

    def __init__(self, core: BatchedRecommender, render_mode: str | None = None) -> None:
        self._set_up(core, render_mode)

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, Any]]]:
        """Draw a request. Without a seed the stream of requests goes on."""
        self._step = self._core.reset(seed)
        self.agents = list(self.possible_agents)
        self._show()
        return {agent: self._seen_by(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, dict[str, np.ndarray]], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Every agent acts.

        Raises:
            IllegalActionError: a mask forbids an action.
        """
        if not self.agents:
            raise InputError("the episode is over; call reset() first")
        if not isinstance(actions, Mapping):
            raise InputError(f"actions are a {type(actions).__name__}; give a dict of one action per agent")
        self._step = self._core.step(
            {agent: np.array([as_int_action(agent, action)]) for agent, action in actions.items()}
        )
        agents, done = self.agents, bool(self._step.terminated[0])
        if done:
            self.agents = []
        self._show()
        return (
            {agent: self._seen_by(agent) for agent in agents},
            {agent: float(self._step.reward[0]) for agent in agents},
            dict.fromkeys(agents, done),
            dict.fromkeys(agents, False),
            {agent: self._info() for agent in agents},
        )


@reject_unknown_options
def env(
    scenario: str | Path | Scenario = "default",
    reward: str | RewardFunction = "revenue",
    prices: Sequence[float] | np.ndarray | None = None,
    render_mode: str | None = None,
    engine: Engine | None = None,
    on_illegal: str = "error",
    window: RequestWindow | int | dict | None = None,
) -> AECEnv:
    """The turn-based PettingZoo environment (:class:`RecommenderAEC`), which also enforces the order of calls."""
    return OrderEnforcingWrapper(raw_env(scenario, reward, prices, render_mode, engine, on_illegal, window))


@reject_unknown_options
def raw_env(
    scenario: str | Path | Scenario = "default",
    reward: str | RewardFunction = "revenue",
    prices: Sequence[float] | np.ndarray | None = None,
    render_mode: str | None = None,
    engine: Engine | None = None,
    on_illegal: str = "error",
    window: RequestWindow | int | dict | None = None,
) -> RecommenderAEC:
    """:func:`env` without wrappers."""
    return RecommenderAEC(BatchedRecommender(1, scenario, reward, prices, engine, on_illegal, window), render_mode)


@reject_unknown_options
def parallel_env(
    scenario: str | Path | Scenario = "default",
    reward: str | RewardFunction = "revenue",
    prices: Sequence[float] | np.ndarray | None = None,
    render_mode: str | None = None,
    engine: Engine | None = None,
    on_illegal: str = "nearest",
    window: RequestWindow | int | dict | None = None,
) -> RecommenderParallel:
    """The PettingZoo environment in which all agents step together (:class:`RecommenderParallel`).

    Samplers that know no masks, PettingZoo's own tests among them, run on it as it is: with ``on_illegal="nearest"``
    an agent that is not on turn waits whatever it says. ``"error"`` finds learners that ignore the mask.
    """
    return RecommenderParallel(BatchedRecommender(1, scenario, reward, prices, engine, on_illegal, window), render_mode)


@reject_unknown_options
def batched_env(
    num_envs: int,
    scenario: str | Path | Scenario = "default",
    reward: str | RewardFunction = "revenue",
    prices: Sequence[float] | np.ndarray | None = None,
    engine: Engine | None = None,
    on_illegal: str = "error",
    window: RequestWindow | int | dict | None = None,
) -> BatchedRecommender:
    """``num_envs`` requests in lockstep, as arrays (:class:`~marca_env.envs.batched_env.BatchedRecommender`)."""
    return BatchedRecommender(num_envs, scenario, reward, prices, engine, on_illegal, window)


def as_int_action(agent: str, action: Any) -> int:
    """A single action as an int."""
    if type(action) is int:
        return action
    whole = isinstance(action, (int, float, np.number, np.ndarray)) and not isinstance(action, bool)
    if not whole or np.ndim(action) != 0 or action % 1 != 0:  # nan and inf included
        raise InputError(f"agent {agent!r}: action {action!r} is not a whole number; give one index of its options")
    return int(action)
