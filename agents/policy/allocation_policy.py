"""A trained team as an allocation policy: the value of every joint action, and the best one at given prices.

Needs neither ray nor the training code's state. A policy is a folder of ``policy.json`` and ``weights.safetensors``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.algorithms.presets import Preset
from agents.offline.episodes import team_encoder
from agents.policy.action_tree import DecisionTree
from agents.policy.checkpoints import checkpoints_in, newest_checkpoint
from agents.policy.joint_action_values import JointValues
from agents.team.team import Team, TeamSpec
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import shipped_folder
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import allocate
from marca_env.utils.errors import InputError
from marca_env.utils.files import explain_model_faults, read_pair, write_pair
from marca_env.utils.validation import check_codes

DESCRIPTION, WEIGHTS, FORMAT = "policy.json", "weights.safetensors", 1
_REMEDY = "export the policy again, or give the whole folder of a policy, of a checkpoint or of a run"
COSTS = "cost_model"
_MOST_REMEMBERED = 25_000_000  # numbers of a table of all states
_CHUNK_PAIRS = 32_768  # pairs of state and action that the cost model is asked for together


def save_team(
    folder: str | Path,
    *,
    tensors: Mapping[str, Any],
    preset: Preset,
    spec: TeamSpec | Mapping[str, Any],
    reward_scale: float,
    scenario: Mapping[str, Any] | None,
) -> None:
    """Write the weights of a team and all that is needed to rebuild it.

    Args:
        tensors: state of a :class:`agents.team.team.Team`, tensors or arrays.
        reward_scale: currency per unit of Q.
        scenario: as a dict; ``None`` for a team of another environment.
    """
    shapes = spec.to_dict() if isinstance(spec, TeamSpec) else dict(spec)
    description = {
        "format": FORMAT,
        "preset": preset.to_dict(),
        "team": shapes,
        "reward_scale": float(reward_scale),
        "scenario": scenario,
    }
    write_pair(folder, (WEIGHTS, DESCRIPTION), {k: torch.as_tensor(v) for k, v in tensors.items()}, description)


def policy_folder(path: str | Path) -> Path:
    """The policy at ``path``: that folder, that of a checkpoint, or that of the newest whole checkpoint of a run.

    Raises:
        InputError: a run none of whose checkpoints is whole.
    """
    path = Path(path)
    if not (path / DESCRIPTION).is_file() and checkpoints_in(path):
        path = newest_checkpoint(path)
    return path / "policy" if (path / "policy").is_dir() else path


def load_team(folder: str | Path, device: str = "cpu") -> tuple[Team, dict[str, Any]]:
    """Rebuild a team from a policy folder, or from a training checkpoint or run that holds one.

    Returns:
        The team, in evaluation mode, and the description (``reward_scale``, ``scenario``, …).

    Raises:
        InputError: a file is missing, cut short, or does not belong to the other.
    """
    folder = policy_folder(folder)
    tensors, description = read_pair(folder, (WEIGHTS, DESCRIPTION), device, _REMEDY)
    with explain_model_faults(folder):
        if description["format"] != FORMAT:
            raise InputError(f"{folder}: format {description['format']}, this version reads {FORMAT}; train it again")
        team = Team(TeamSpec.from_dict(description["team"]), Preset.from_dict(description["preset"]))
        team.load_state_dict(tensors)
        if not float(description["reward_scale"]) > 0:
            raise InputError(f"{folder}: reward_scale is {description['reward_scale']}; train it for longer before use")
    return team.to(device).eval(), description


class AllocationPolicy:
    """Serves a* = argmax_a Q̂_tot(s, a) − Σ_g λ_g C_g(s, a) (Eq. 6, arXiv 2512.24325).

    Q̂_tot(s, a) is the mixer's value at the last turn of the episode that takes a: what the team then expects of the
    request's revenue. Joint actions that do the same (the recall length of a channel that is off) share one value.

    Values and costs do not depend on the prices. Where those of all states fit in memory they are remembered, so that
    a state seen before costs a look-up.

    Args:
        team: what was trained, with its mixer.
        scenario: the recommender.
        cost_model: of that recommender.
        reward_scale: currency per unit of Q.
        device: where the networks run.
        remember: keep values and costs of the states seen; :meth:`forget` drops them.

    Attributes:
        scenario: the recommender.
        preset: the algorithm that trained it.
        cost_model: expected action results, which later stages observe, and costs.
    """

    def __init__(
        self,
        team: Team,
        scenario: Scenario,
        cost_model: CostModel,
        *,
        reward_scale: float = 1.0,
        device: str = "cpu",
        remember: bool = True,
    ) -> None:
        self.team, self.scenario, self.cost_model = team.to(device).eval(), scenario, cost_model
        self.preset = team.preset
        self.reward_scale, self.device = reward_scale, device
        self.encoder = team_encoder(scenario, joint=team.preset.joint)
        expected = TeamSpec.of(self.encoder)
        if expected != team.spec:
            raise InputError(
                f"the team was trained on other shapes than scenario {scenario.name!r} has "
                f"({team.spec} instead of {expected}); train it on this scenario"
            )
        self._tree = DecisionTree(scenario, list(self.encoder.turn_agent))
        self._evaluate = JointValues(self.team, self.encoder, self._tree, cost_model.results)
        n_states, most = math.prod(map(int, scenario.feature_sizes)), _MOST_REMEMBERED if remember else 0
        self._leaf_values = _Remembered(self._compute_values, n_states, most)
        self._leaf_costs = _Remembered(self._compute_costs, n_states, most)

    @classmethod
    def load(
        cls, path: str | Path, *, cost_model: CostModel | str | Path | None = None, device: str = "cpu"
    ) -> AllocationPolicy:
        """Read a policy folder, or the policy of a training checkpoint, or of the newest whole one of a run; a warning
        names the torn ones that are passed over.

        Args:
            path: the folder.
            cost_model: the model or its folder; ``None``: the policy's own (``cost_model/``), else the one shipped for
                the scenario.

        Raises:
            InputError: a file is missing, cut short or inconsistent, the team does not serve a recommender, there is
                no cost model, or it is another system's.
        """
        path = policy_folder(path)
        team, description = load_team(path, device)
        if description.get("scenario") is None:
            raise InputError(f"{path}: trained on an environment without a scenario; it cannot allocate computation")
        scenario = Scenario.from_dict(description["scenario"])
        if cost_model is None or isinstance(cost_model, (str, Path)):
            own, shipped = path / COSTS, shipped_folder(scenario.name) / COSTS
            home = Path(cost_model) if cost_model is not None else own if own.is_dir() else shipped
            if home == shipped and not home.is_dir():
                raise InputError(
                    f"{own}: no cost model, and none is shipped for scenario {scenario.name!r}; copy the one that "
                    "`marca fit` made for it there, or pass cost_model"
                )
            cost_model = CostModel.load(home, device=device)
            if differing := scenario.differs_from(cost_model.scenario):
                raise InputError(
                    f"{home}: fitted to another system than the policy ({', '.join(differing)} differ); "
                    "pass the cost_model of the policy's scenario"
                )
        return cls(team, scenario, cost_model, reward_scale=description["reward_scale"], device=device)

    def save(self, path: str | Path) -> None:
        """Write a folder that :meth:`load` reads, the cost model included."""
        self.cost_model.save(Path(path) / COSTS)
        save_team(
            path,
            tensors=self.team.state_dict(),
            preset=self.preset,
            spec=self.team.spec,
            reward_scale=self.reward_scale,
            scenario=self.scenario.to_dict(),
        )

    def values(self, states: np.ndarray) -> np.ndarray:
        """Q̂_tot of every joint action: ``states`` (B, F) int → (B, J) float32, currency per request."""
        distinct, where = self._distinct(states)
        return self._leaf_values.of(distinct)[where[:, None], self._tree.leaf_of]

    def costs(self, states: np.ndarray) -> np.ndarray:
        """Expected cost of every joint action: ``states`` (B, F) int → (B, J, G), core-seconds per request."""
        distinct, where = self._distinct(states)
        return self._leaf_costs.of(distinct)[where[:, None], self._tree.leaf_of]

    def decide(self, states: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """The joint action of each request at the prices.

        Args:
            states: (B, F) int.
            prices: (G,) λ, currency per core-second.

        Returns:
            (B, D) int64 option indices; of joint actions that do the same, and of equals, the first.
        """
        distinct, where = self._distinct(states)
        values, costs = self._leaf_values.of(distinct), self._leaf_costs.of(distinct)
        return self._tree.leaves[allocate(values, costs, np.asarray(prices, dtype=float))[where]]

    def forget(self) -> None:
        """Drop the values and costs of the states seen so far; call it after changing the team's weights."""
        self._leaf_values.forget()
        self._leaf_costs.forget()

    # -- parts ---------------------------------------------------------------------------------------------
    def _distinct(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the distinct states, and for each request its place among them."""
        states = np.asarray(states)
        if states.ndim != 2:
            raise InputError(f"states have shape {states.shape}; give (requests, features)")
        checked = check_codes("state", states, self.scenario.feature_names, self.scenario.feature_sizes)
        codes = np.ravel_multi_index(tuple(checked.T), tuple(self.scenario.feature_sizes))
        distinct, where = np.unique(codes, return_inverse=True)
        return distinct, where.reshape(-1)

    def _states(self, codes: np.ndarray) -> np.ndarray:
        return np.stack(np.unravel_index(codes, tuple(self.scenario.feature_sizes)), 1)

    def _compute_values(self, codes: np.ndarray) -> np.ndarray:
        return self._evaluate(self._states(codes)) * np.float32(self.reward_scale)

    def _compute_costs(self, codes: np.ndarray) -> np.ndarray:
        leaves = self._tree.leaves
        out = np.empty((len(codes), len(leaves), len(self.scenario.clusters)))
        for start in range(0, len(codes), step := max(1, _CHUNK_PAIRS // len(leaves))):
            states = self._states(codes[start : start + step])
            pairs = np.repeat(states, len(leaves), axis=0), np.tile(leaves, (len(states), 1))
            out[start : start + step] = self.cost_model.predict(*pairs).reshape(len(states), *out.shape[1:])
        return out


class _Remembered:
    """A function of state codes, (U,) → (U, …), whose values are kept where all of them fit in memory."""

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray], n_states: int, most: int) -> None:
        self.compute, self.n_states, self.most = compute, n_states, most if n_states <= most else 0
        self.forget()

    def forget(self) -> None:
        self.kept: np.ndarray | None = None
        self.known = np.zeros(self.n_states if self.most else 0, dtype=bool)

    def of(self, codes: np.ndarray) -> np.ndarray:
        """Values of ``codes``; those not known yet are computed, all together."""
        if not self.most:
            return self.compute(codes)
        new = codes[~self.known[codes]]
        if len(new) or self.kept is None:
            found = self.compute(new)
            if self.kept is None and math.prod(found.shape[1:]) * self.n_states > self.most:
                self.most = 0
                return found
            if self.kept is None:
                self.kept = np.empty((self.n_states, *found.shape[1:]), found.dtype)
            self.kept[new], self.known[new] = found, True
        return self.kept[codes]
