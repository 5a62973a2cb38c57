"""A trained team as an allocation policy: the value of every joint action, and the best one at given prices.

Needs neither ray nor the training code's state. A policy is a folder of ``policy.json`` and ``weights.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.checkpoints import checkpoints_in
from agents.episodes import team_encoder
from agents.presets import Preset
from agents.team import Team, TeamSpec
from agents.tree import DecisionTree, Level
from marca_env.checks import check_codes
from marca_env.cost_model import CostModel
from marca_env.engine import shipped_folder
from marca_env.errors import InputError
from marca_env.saving import read_pair, rebuilding, write_pair
from marca_env.scenario import Scenario
from marca_env.serving import allocate

DESCRIPTION, WEIGHTS, FORMAT = "policy.json", "weights.safetensors", 1
_REMEDY = "export the policy again, or give the whole folder of a policy, of a checkpoint or of a run"
COSTS = "cost_model"
_CHUNK_FLOATS = 4_000_000  # floats of the widest temporary of a chunk of requests


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
        tensors: state of a :class:`agents.team.Team`, tensors or arrays.
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
    """The policy at ``path``: that folder, that of a checkpoint, or that of the newest checkpoint of a run."""
    path = Path(path)
    if not (path / DESCRIPTION).is_file():
        path = next(reversed(checkpoints_in(path)), path)
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
    with rebuilding(folder):
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

    Attributes:
        scenario: the recommender.
        preset: the algorithm that trained it.
        cost_model: expected action results, which later stages observe, and costs.
    """

    def __init__(
        self, team: Team, scenario: Scenario, cost_model: CostModel, *, reward_scale: float = 1.0, device: str = "cpu"
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

    @classmethod
    def load(cls, path: str | Path, *, cost_model: CostModel | None = None, device: str = "cpu") -> AllocationPolicy:
        """Read a policy folder, or the policy of a training checkpoint, or of the newest one of a run.

        Args:
            path: the folder.
            cost_model: ``None``: the folder's own (``cost_model/``), else the one shipped for the scenario.

        Raises:
            InputError: a file is missing, cut short or inconsistent, the team does not serve a recommender, or the
                shipped cost model is another system's.
        """
        team, description = load_team(path, device)
        if description.get("scenario") is None:
            raise InputError(f"{path}: trained on an environment without a scenario; it cannot allocate computation")
        scenario = Scenario.from_dict(description["scenario"])
        if cost_model is None:
            own = policy_folder(path) / COSTS
            home = own if own.is_dir() else shipped_folder(scenario.name) / COSTS
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
        distinct, where = np.unique(self._checked(states), axis=0, return_inverse=True)
        tree = self._tree
        out = np.empty((len(distinct), len(tree.leaves)), np.float32)
        step = max(1, _CHUNK_FLOATS // (len(tree.leaves) * self._width()))
        for start in range(0, len(distinct), step):
            out[start : start + step] = self._values(distinct[start : start + step])
        return (out * self.reward_scale)[where.reshape(-1)[:, None], tree.leaf_of]

    def costs(self, states: np.ndarray) -> np.ndarray:
        """Expected cost of every joint action: ``states`` (B, F) int → (B, J, G), core-seconds per request."""
        distinct, where = np.unique(self._checked(states), axis=0, return_inverse=True)
        return self.cost_model.table(distinct)[1][where.reshape(-1)]

    def decide(self, states: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """The joint action of each request at the prices.

        Args:
            states: (B, F) int.
            prices: (G,) λ, currency per core-second.

        Returns:
            (B, D) int64 option indices.
        """
        distinct, where = np.unique(self._checked(states), axis=0, return_inverse=True)
        chosen = allocate(self.values(distinct), self.cost_model.table(distinct)[1], np.asarray(prices, dtype=float))
        return self.scenario.joint_actions[chosen[where.reshape(-1)]]

    # -- parts ---------------------------------------------------------------------------------------------
    def _checked(self, states: np.ndarray) -> np.ndarray:
        states = np.asarray(states)
        if states.ndim != 2:
            raise InputError(f"states have shape {states.shape}; give (requests, features)")
        return check_codes("state", states, self.scenario.feature_names, self.scenario.feature_sizes)

    def _width(self) -> int:
        """Floats of the widest layer of one node."""
        network, mixer = self.preset.network, self.preset.mixer
        heads = network.heads * max([*network.hidden, *self.team.spec.action_sizes])
        return max(heads, (len(self.team.spec.agents) + 1) * mixer.mixer_width, self.team.spec.state_size)

    @torch.inference_mode()
    def _values(self, states: np.ndarray) -> np.ndarray:
        """(U, J') in units of the reward scale."""
        spec, tree = self.team.spec, self._tree
        n = len(states)
        hidden: dict[str, Tensor] = {}
        utilities: dict[str, Tensor] = {}
        state = None
        for turn, level in enumerate(tree.levels):
            name = self.encoder.turn_agent[turn]
            net = self.team.agents[spec.agents.index(name)]
            observed, state = self._observe(states, level, turn, name)
            before = net.initial_hidden(n * level.size)
            if name in hidden:
                before = hidden[name][:, level.previous].flatten(0, 1)
            after = net.advance(observed, before)
            hidden[name] = after.view(n, level.size, net.hidden_size)
            if level.final:
                q = net.values(observed, after).mean(1).view(n, level.size, -1)
                utilities[name] = q[:, level.of_leaf, tree.leaves[:, turn]]  # U J'
        assert state is not None
        return self._mixed(torch.stack([utilities[a] for a in spec.agents], -1), state.view(n, -1, spec.state_size))

    def _observe(self, states: np.ndarray, level: Level, turn: int, name: str) -> tuple[Tensor, Tensor]:
        """What the agent on turn and the mixer see at each node; (U·n, O) and (U·n, S)."""
        rows = np.repeat(states, level.size, axis=0)
        actions = np.tile(level.prefixes, (len(states), 1))
        results = np.zeros((len(rows), len(self.scenario.stages)), np.float32)
        if self.encoder.settled(turn).any():
            results = self.cost_model.results(rows, actions)
        observed, _, state = self.encoder.encode(rows, actions, results, turn)
        return torch.from_numpy(observed[name]).to(self.device), torch.from_numpy(state).to(self.device)

    def _mixed(self, utilities: Tensor, state: Tensor) -> np.ndarray:
        """Q_tot of every leaf; ``utilities`` (U, J', N), ``state`` (U, n, S) of the last turn's nodes."""
        tree, mixer, names = self._tree, self.team.mixer, self.team.spec.agents
        assert mixer is not None
        n, leaves, _ = utilities.shape
        if not self.team.sees_actions:
            weights = mixer.weights(state.flatten(0, 1))
            grouped = utilities[:, tree.groups].flatten(0, 1)  # U·n M N
            mixed = mixer.mix(grouped, weights).view(n, *tree.groups.shape)
            return mixed.flatten(1)[:, tree.ungroup].cpu().numpy()
        acting = self.encoder.turn_agent[-1]
        last = torch.from_numpy(tree.leaves[:, -1]).to(state.device).repeat(n)
        waits = zip(names, self.team.spec.action_sizes, strict=True)
        actions = [last if a == acting else torch.full_like(last, size - 1) for a, size in waits]
        condition = self.team.condition(state[:, tree.levels[-1].of_leaf].flatten(0, 1), actions)
        return mixer(utilities.flatten(0, 1), condition).view(n, leaves).cpu().numpy()
