"""Many requests side by side as a ``gymnasium.vector.VectorEnv``: ``gymnasium.make_vec`` uses it for the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep
from marca_env.envs.episode_info import CLUSTER_TERMS, NUMBER_TERMS, request_frame
from marca_env.envs.options import ViewOptions, arguments_of
from marca_env.envs.rendering.screen import Screen
from marca_env.utils.argument_types import checked_fields
from marca_env.utils.errors import InputError, shown, unknown_option
from marca_env.utils.validation import as_array, as_seed

RENDER_MODES = ("ansi", "rgb_array")


@dataclass(frozen=True)
@checked_fields
class VectorOptions(ViewOptions):
    """Options of a vector of environments.

    Raises:
        InputError: an option is invalid, or the render mode is ``human``.
    """

    _: KW_ONLY
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
    """What follows the last step of an episode. ``NextStep``: the next ``step`` ignores the actions and starts the next
    episode. ``SameStep``: the last step returns the first observation of the next episode. ``Disabled``: ``reset``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        modes = [mode.value for mode in AutoresetMode]
        if not isinstance(self.autoreset_mode, AutoresetMode) and self.autoreset_mode not in modes:
            raise InputError(unknown_option("autoreset_mode", self.autoreset_mode, modes))
        if self.render_mode == "human":
            raise InputError("render_mode is 'human', which has one window; pass 'rgb_array' or 'ansi' for a vector")


class RecommenderVectorEnv(VectorEnv):
    """Requests of a cascade recommender side by side, each as one agent's task.

    ## Description
    `gymnasium.make_vec("marca_env/Recommender-v0", num_envs=B)` returns it, and so do the ids of the presets. It gives
    the same numbers as `gymnasium.vector.SyncVectorEnv` of B environments with the same seeds, and steps all of them
    with a few array operations.

    ## Action Space
    `MultiDiscrete` of B times the actions of `RecommenderEnv`.

    ## Observation Space
    `Box` (B,n) float32, the observations of `RecommenderEnv`.

    ## Rewards
    (B,) float64, as in `RecommenderEnv`. `infos` are arrays as `SyncVectorEnv` has them: `infos["revenue"]` (B,) with
    the mask `infos["_revenue"]`, and so on. `infos["action_mask"]` (B,n) int8 marks the options that exist.

    ## Starting State
    As in `RecommenderEnv`. `reset(seed=s)` seeds environment k with s + k; a list has one seed per environment.

    ## Episode End
    All episodes have the same length and end in the same step. `autoreset_mode` says what follows; with
    `"SameStep"`, `infos["final_obs"]` and `infos["final_info"]` hold the end of the last episode.

    ## Arguments
    As in `RecommenderEnv`, and:

    | name | default | content |
    |---|---|---|
    | `num_envs` | | B |
    | `autoreset_mode` | `"NextStep"` | what follows the last step: `NextStep`, `SameStep` or `Disabled` |
    | `render_mode` | `None` | `ansi` or `rgb_array`: `render()` returns a tuple of B frames |

    ## Version History
    - v0: initial release
    """

    @arguments_of(VectorOptions)
    def __init__(self, num_envs: int, options: VectorOptions) -> None:
        self._core = BatchedRecommender(num_envs, options)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(options.autoreset_mode)
        self.metadata = {"render_modes": list(RENDER_MODES), "render_fps": 1, "autoreset_mode": self.autoreset_mode}
        self.render_mode = options.render_mode
        self._screen = Screen(options.render_mode, 1)
        self._n_options = self._core.scenario.action_shape
        self._n_actions = max(self._n_options)
        self.single_observation_space: spaces.Box = self._core.encoder.state_space()
        self.single_action_space: spaces.Discrete = spaces.Discrete(self._n_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._waits = {agent: np.full(num_envs, n - 1) for agent, n in self._core.action_sizes.items()}
        self._step: BatchedStep | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start B episodes; without a seed, each environment's random stream continues.

        Args:
            seed: of the first environment, and one more for each that follows; or one per environment, where ``None``
                continues its stream.
            options: ``reset_mask`` (B,) bool may only be true everywhere, because all episodes run in step.

        Raises:
            InputError: another number of seeds, or a mask that leaves an environment out.
        """
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"options are {shown(options)}; pass a dict or None")
        mask = as_array((options or {}).get("reset_mask", True))
        if mask.dtype != bool or mask.shape not in ((), (self.num_envs,)):
            raise InputError(f"reset_mask is {shown(mask)}; pass {self.num_envs} booleans, one per environment")
        if not mask.all():
            left_out = int(np.argmin(mask))
            raise InputError(
                f"reset_mask leaves out environment {left_out}; all episodes run in step: reset all of them, or make "
                "the vector with vectorization_mode='sync'"
            )
        if seed is not None and not (isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, (str, bytes))):
            first = as_seed(seed) or 0
            seed = [as_seed(first + k) for k in range(self.num_envs)]
        if seed is None and self._step is None:
            seed = [None] * self.num_envs
        return self._begin(seed)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Make the current decision of every request.

        Raises:
            IllegalActionError: an option does not exist and ``on_illegal`` is ``error``.
            InputError: the episodes are over and ``autoreset_mode`` is ``Disabled``, or no episode has started.
        """
        if self._step is None:
            raise InputError("no episode has started; call reset() first")
        if self._core.agent_on_turn is None:
            if self.autoreset_mode == AutoresetMode.DISABLED:
                raise InputError("the episodes are over; call reset() first, or pass autoreset_mode='NextStep'")
            observations, infos = self._begin(None)
            return observations, np.zeros(self.num_envs), *self._ends(), infos
        step = self._step = self._core.step({**self._waits, self._core.agent_on_turn: self._options(actions)})
        observations, infos, ends = step.state, self._infos(), self._ends()
        if step.terminated.any() and self.autoreset_mode == AutoresetMode.SAME_STEP:
            final = {"final_obs": _objects(observations), "final_info": infos}
            observations, first = self._begin(None)
            infos = {**self._with_masks(final), **first}
        return observations, step.reward.astype(np.float64), *ends, infos

    def action_masks(self) -> np.ndarray:
        """Return (B,n) bool: the options that exist now."""
        n = 0 if self._core.agent_on_turn is None else self._n_options[self._core.turn]
        return np.tile(np.arange(self._n_actions) < n, (self.num_envs, 1))

    def render(self) -> tuple[Any, ...] | None:
        """Return one frame per environment, as text (``ansi``) or pixels (``rgb_array``); ``None`` without a mode."""
        if self.render_mode is None:
            return None
        if self._step is None:
            raise InputError("no episode has started; call reset() first")
        step = self._step
        return tuple(self._screen.show(request_frame(self._core, step, k)) for k in range(self.num_envs))

    # -- parts ---------------------------------------------------------------------------------------------
    def _begin(self, seed: Sequence[int | None] | None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the next episodes; return their observations and infos."""
        self._step = self._core.reset(seed)
        return self._step.state, self._infos()

    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Return whether the episodes terminated and were truncated, (B,) bool each."""
        assert self._step is not None
        return self._step.terminated, self._step.truncated

    def _options(self, actions: np.ndarray) -> np.ndarray:
        """Return the options (B,) that the actions take; an action that is none is left as it is."""
        actions = as_array(actions)
        if self._core.on_illegal != "nearest" or actions.dtype.kind not in "iu":
            return actions
        last = self._n_options[self._core.turn] - 1
        return np.where((actions >= 0) & (actions < self._n_actions), np.minimum(actions, last), actions)

    def _infos(self) -> dict[str, Any]:
        """Return the infos of the last step: those of a single environment, as arrays."""
        assert self._step is not None
        scenario, terms = self._core.scenario, self._step.infos
        infos: dict[str, Any] = {"action_mask": self.action_masks().astype(np.int8)}
        if terms:
            infos |= {name: terms[name].astype(np.float64) for name in NUMBER_TERMS if name in terms}
            infos["results"] = self._by_name(scenario.stage_names, terms["results"])
            infos |= {
                name: self._by_name(scenario.cluster_names, terms[name]) for name in CLUSTER_TERMS if name in terms
            }
        return self._with_masks(infos)

    def _by_name(self, names: Sequence[str], columns: np.ndarray) -> dict[str, Any]:
        """Return the columns of (B,n) by name."""
        dtype = np.int64 if columns.dtype.kind in "iu" else np.float64
        return self._with_masks({name: columns[:, k].astype(dtype) for k, name in enumerate(names)})

    def _with_masks(self, infos: Mapping[str, Any]) -> dict[str, Any]:
        """Add gymnasium's mask (B,) of each key: every environment has it."""
        return {**infos, **{f"_{name}": np.ones(self.num_envs, dtype=bool) for name in infos}}


def _objects(rows: np.ndarray) -> np.ndarray:
    """Return the rows of (B,n) as B objects, as gymnasium holds final observations."""
    objects = np.empty(len(rows), dtype=object)
    objects[:] = list(rows)
    return objects


def bursty(num_envs: int, window: Any = 60, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/Bursty-v0``."""
    return RecommenderVectorEnv(num_envs, "bursty-v0", window=window, **options)


def congestion(num_envs: int, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/Congestion-v0``."""
    return RecommenderVectorEnv(num_envs, "congestion-v0", **options)


def handover(num_envs: int, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/Handover-v0``."""
    return RecommenderVectorEnv(num_envs, "handover-v0", **options)


def llm_cascade(num_envs: int, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/LlmCascade-v0``."""
    return RecommenderVectorEnv(num_envs, "llm-cascade-v0", **options)


def data_centres(num_envs: int, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/DataCentres-v0``."""
    return RecommenderVectorEnv(num_envs, "data-centres-v0", **options)


def deadline(num_envs: int, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/Deadline-v0``."""
    return RecommenderVectorEnv(num_envs, "deadline-v0", **options)


def ranking_model(num_envs: int, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/RankingModel-v0``."""
    return RecommenderVectorEnv(num_envs, "ranking-model-v0", **options)


def stages_chain(num_envs: int, stages: int = 2, **options: Any) -> RecommenderVectorEnv:
    """Return the vector of ``marca_env/Stages2-v0`` to ``marca_env/Stages10-v0``."""
    return RecommenderVectorEnv(num_envs, f"stages-{stages}-v0", **options)
