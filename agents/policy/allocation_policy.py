"""A trained team as an allocation policy: values of all joint actions, and the best action at given prices.

A policy is a folder with ``policy.json`` and ``weights.safetensors``. It needs neither ray nor the training state, and
loading it executes no code, unless the caller allows a class that it names (:mod:`agents.policy.trust`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.algorithms.presets import Preset
from agents.offline.episodes import team_encoder
from agents.policy.action_tree import ActionTree
from agents.policy.checkpoints import checkpoints_in, newest_checkpoint
from agents.policy.joint_action_values import JointActionValues
from agents.policy.node_inputs import make_inputs
from agents.policy.state_keys import StateCache, StateKeys
from agents.policy.trust import is_own_file, named_code, refuse_code
from agents.policy.value_parts import value_parts
from agents.team.team import Team, TeamSpec
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import artefact_folder, load_latency_map
from marca_env.models.latency_map import FILE as LATENCY_FILE
from marca_env.models.latency_map import LatencyMap
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import allocate
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, shown
from marca_env.utils.model_files import DESCRIPTION as MODEL_DESCRIPTION
from marca_env.utils.model_files import explain_model_faults, read_pair, write_pair
from marca_env.utils.validation import as_array, check_codes, prices_by_cluster

DESCRIPTION, WEIGHTS, FORMAT = "policy.json", "weights.safetensors", 1
RLLIB_CHECKPOINT = "rllib_checkpoint.json"
_REMEDY = "export the policy again, or pass the complete folder of a policy, a checkpoint or a run"
COSTS, COSTS_SUM = "cost_model", "cost_model_sha256"
HAS_VALUES = "has_values"
"""Key of the description: false for policies, such as MAPPO's, whose networks return no values."""
Observe = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""States (B, W), actions (B, D) and turn → results (B, R) that are settled then."""
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.025
_MAX_CACHED_NUMBERS = 25_000_000  # maximum size of a table of all states
_CHUNK_PAIRS = 32_768  # pairs of state and action that the cost model evaluates together


_NO_VALUES = (
    "which cannot serve: it has no value of each joint action to weigh against the price. `marca evaluate` plays it; "
    "train a preset to serve, such as `marca train --algo AWRQMixer`, or compare it through a policy class of yours"
)


def save_team(
    folder: str | Path,
    *,
    tensors: Mapping[str, Any],
    preset: Preset,
    spec: TeamSpec | Mapping[str, Any],
    reward_scale: float,
    reward_shift: float = 0.0,
    scenario: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None = None,
    cost_model_sum: str | None = None,
    has_values: bool = True,
) -> None:
    """Write the weights of a team and everything that is needed to rebuild it.

    Args:
        folder: folder to write into.
        tensors: state dict of a :class:`agents.team.team.Team`, tensors or arrays.
        preset: the algorithm.
        spec: shapes of the team.
        reward_scale: currency per unit of Q.
        reward_shift: currency that was subtracted from each step's reward.
        scenario: the scenario as a dict; ``None`` for a team of another environment.
        environment: environment of the training as plain data, for an evaluation; ``None``: not recorded.
        cost_model_sum: SHA-256 sum of the description of the cost model in the folder; ``None``: any will do.
        has_values: whether the networks return values of actions; otherwise the policy only plays.
    """
    shapes = spec.to_dict() if isinstance(spec, TeamSpec) else dict(spec)
    description = {
        "format": FORMAT,
        "preset": preset.to_dict(),
        "team": shapes,
        "reward_scale": float(reward_scale),
        "reward_shift": float(reward_shift),
        "scenario": scenario,
        "environment": environment,
        COSTS_SUM: cost_model_sum,
        **({} if has_values else {HAS_VALUES: False}),
    }
    write_pair(folder, (WEIGHTS, DESCRIPTION), {k: torch.as_tensor(v) for k, v in tensors.items()}, description)


def policy_folder(path: str | Path) -> Path:
    """Return the policy folder at ``path``: the folder itself, a checkpoint's, or that of a run's newest checkpoint.

    Damaged checkpoints of a run are skipped.

    Raises:
        InputError: all checkpoints of the run are damaged.
    """
    path = Path(path)
    if not (path / DESCRIPTION).is_file() and checkpoints_in(path):
        path = newest_checkpoint(path)
    return path / "policy" if (path / "policy").is_dir() else path


def load_team(folder: str | Path, device: str = "cpu", *, trust: Collection[str] = ()) -> tuple[Team, dict[str, Any]]:
    """Rebuild a team from a policy folder, or from a training checkpoint or run that holds one.

    Args:
        folder: the folder.
        device: device on which the networks run.
        trust: dotted paths of the code that the folder may name, such as a user-defined mixer.

    Returns:
        The team, in evaluation mode, and the description (``reward_scale``, ``scenario``, …).

    Raises:
        InputError: a file is missing or cut short, the two files do not belong together, a weight is not finite, or
            the folder names code that is not trusted, which is then not imported.
    """
    folder = policy_folder(folder)
    _check_serves(folder)
    tensors, description = read_pair(folder, (WEIGHTS, DESCRIPTION), device, _REMEDY)
    with explain_model_faults(folder):
        if description["format"] != FORMAT:
            raise InputError(f"{folder}: format {description['format']}, this version reads {FORMAT}; train it again")
        _check_code(folder, description, trust)
        preset, spec = Preset.from_dict(description["preset"]), TeamSpec.from_dict(description["team"])
        if not (isinstance(spec.max_steps, int) and spec.max_steps >= 1):
            raise ValueError(f"max_steps is {spec.max_steps!r}")
        _check_shapes(spec, preset, tensors)
        team = Team(spec, preset)
        team.load_state_dict(tensors)
        scale, shift = float(description["reward_scale"]), float(description.get("reward_shift", 0.0))
        if not 0 < scale < math.inf:
            raise InputError(f"{folder}: reward_scale is {scale}; train it for longer before use")
        if not math.isfinite(shift):
            raise InputError(f"{folder}: reward_shift is {shift}; {_REMEDY}")
    return team.to(device).eval(), description


def _check_shapes(spec: TeamSpec, preset: Preset, tensors: Mapping[str, torch.Tensor]) -> None:
    """Compare the networks that a description asks for with the weights, before memory is taken for them.

    Raises:
        ValueError: they differ; the message names a tensor.
    """
    with torch.device("meta"):  # shapes without numbers
        team = Team(spec, preset, mixing="." not in preset.mixer.mixer)
    for name, tensor in team.state_dict().items():
        there = tuple(tensors[name].shape) if name in tensors else "missing"
        if there != tuple(tensor.shape):
            raise ValueError(f"{name} is {there} in {WEIGHTS} and {tuple(tensor.shape)} in {DESCRIPTION}")


def _check_serves(folder: Path) -> None:
    """Refuse a checkpoint of an algorithm without values of actions: nothing can be weighed against a price."""
    if (folder / RLLIB_CHECKPOINT).is_file() and not (folder / DESCRIPTION).is_file():
        raise InputError(f"{folder}: a checkpoint of one of RLlib's own algorithms, such as PPO, {_NO_VALUES}")


def _check_code(folder: Path, description: Mapping[str, Any], trust: Collection[str]) -> None:
    """Refuse code that the description names and the caller does not allow; one's own checkpoints may name any."""
    names = named_code(description["preset"])
    if set(names) - set(trust) and not is_own_policy(folder):
        refuse_code(folder / DESCRIPTION, names, trust)


def is_own_policy(folder: str | Path) -> bool:
    """Return whether a policy folder lies in a checkpoint that this user wrote, and is as it was written."""
    return is_own_file(Path(folder).parent, f"{Path(folder).name}/{DESCRIPTION}")


def _load_cost_model(
    path: Path, scenario: Scenario, given: str | Path | None, device: str
) -> tuple[CostModel, str | None]:
    """Return the cost model of a policy and, if it is the policy's own, the sum of its description."""
    own, shipped = path / COSTS, artefact_folder(scenario) / COSTS
    home = Path(given) if given is not None else own if own.is_dir() else shipped
    if home == shipped and not home.is_dir():
        raise InputError(
            f"{own}: no cost model, and none is shipped for scenario {scenario.name!r}; copy the one that "
            "`marca fit` made to this folder, or pass cost_model"
        )
    before = _model_sum(home)
    model = CostModel.load(home, device=device)
    is_stable = before == _model_sum(home)
    return model, None if given is not None or home != own else before if is_stable else ""


def _load_latency_map(path: Path, scenario: Scenario, model: CostModel, given: object) -> LatencyMap | None:
    """Return the service times that a policy's agents observe; ``None`` without a latency limit."""
    if scenario.latency is None:
        return None
    homes = [path / COSTS] if given is None else []
    if isinstance(given, str | Path):
        homes = [Path(given), Path(given).parent]  # the model lies in the scenario's folder
    home = next((home for home in homes if (home / LATENCY_FILE).is_file()), None)
    return load_latency_map(scenario, model.cost_map, home)


def _model_sum(folder: Path) -> str | None:
    """Return the sum of a model's description, which names the sum of its weights; ``None`` without a description."""
    path = folder / MODEL_DESCRIPTION
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@dataclass(frozen=True)
class DecidedActions:
    """Decisions of a batch, and what they are expected to earn and cost. B requests, D decisions, G clusters."""

    actions: np.ndarray
    """(B, D) int64 option indices."""
    values: np.ndarray
    """(B,) revenue of the actions, currency per request."""
    costs: np.ndarray
    """(B, G) cost of the actions, core-seconds per request."""
    fixed_values: np.ndarray
    """(B,) revenue of the fixed action."""
    fixed_costs: np.ndarray
    """(B, G) cost of the fixed action."""


class AllocationPolicy:
    """Policy a* = argmax_a Q̂_tot(s, a) − Σ_g λ_g C_g(s, a) (Eq. 6, arXiv 2512.24325).

    Q̂_tot(s, a) is the mixer's value at the last turn of the episode that takes the joint action a. It is the team's
    estimate of the request's revenue. λ_g is the price of computation in cluster g and C_g the expected cost there.
    Joint actions with the same effect share one value, such as all recall lengths of a channel that is off.

    Values and costs do not depend on the prices. If those of all states fit in memory they are cached, so that a
    repeated state costs only a look-up. States with numbers are not cached.

    Args:
        team: the trained team, with its mixer.
        scenario: the recommender.
        cost_model: cost model of that recommender.
        reward_scale: currency per unit of Q.
        reward_shift: currency that was subtracted from each step's reward.
        device: device on which the networks run.
        remember: whether to cache values and costs; :meth:`forget` clears the cache.
        latency_map: service times, in a scenario with a latency limit; ``None``: those of the scenario's artefacts.

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
        reward_shift: float = 0.0,
        device: str = "cpu",
        remember: bool = True,
        latency_map: LatencyMap | None = None,
    ) -> None:
        self.team, self.scenario, self.cost_model = team.to(device).eval(), scenario, cost_model
        self.preset = team.preset
        self.reward_scale, self.reward_shift, self.device = reward_scale, reward_shift, device
        if scenario.latency is not None and latency_map is None:
            latency_map = load_latency_map(scenario, cost_model.cost_map)
        self.latency_map = latency_map
        self.encoder = team_encoder(scenario, joint=team.preset.joint, latency_map=latency_map)
        expected = TeamSpec.from_source(self.encoder)
        if expected != team.spec:
            has_windows = scenario.window is not None or scenario.agent_kind == "site"
            remedy = "train it on requests without window and agent_kind of the" if has_windows else "train it on this"
            raise InputError(
                f"scenario {scenario.name!r} has {expected.describe()}, but the team was trained with "
                f"{team.spec.describe()}; {remedy} scenario"
            )
        self._tree = ActionTree(scenario, list(self.encoder.turn_agent))
        inputs, self._cost_tensors = make_inputs(self.encoder, self._tree, cost_model, torch.device(device))
        self._evaluate = JointActionValues(self.team, self.encoder, self._tree, inputs)
        self._keys = StateKeys(scenario)
        n_states, limit = self._keys.n_states or 0, _MAX_CACHED_NUMBERS if remember and self._keys.n_states else 0
        self._leaf_values = StateCache(self._compute_values, n_states, limit)
        self._leaf_costs = StateCache(self._compute_costs, n_states, limit)

    @classmethod
    @checked_arguments
    def load(
        cls,
        path: str | Path,
        *,
        cost_model: CostModel | str | Path | None = None,
        device: str = "cpu",
        trust: Collection[str] = (),
    ) -> AllocationPolicy:
        """Read the policy of a policy folder, a training checkpoint, or a training run.

        For a run this is its newest complete checkpoint; a warning names the damaged checkpoints that are skipped.

        Args:
            path: the folder.
            cost_model: the model or its folder; ``None``: the policy's own (``cost_model/``), else the one shipped for
                the scenario.
            device: device on which the networks run.
            trust: dotted paths of the code that the policy may name, such as ``["my_module.MyMixer"]``. Loading a
                policy executes no other code; one that names more is refused before anything is imported.

        Raises:
            InputError: a file is missing, cut short or inconsistent, the team was not trained on a recommender, the
                policy names code that is not trusted, or the cost model is missing or was fitted to another system.
        """
        path = policy_folder(path)
        for attempt in range(_ATTEMPTS):  # another process may be between saving the cost model and saving the team
            team, description = load_team(path, device, trust=trust)
            if not description.get(HAS_VALUES, True):
                raise InputError(f"{path}: a policy of {team.preset.name}, {_NO_VALUES}")
            if description.get("scenario") is None:
                raise InputError(
                    f"{path}: trained on an environment without a scenario; use a policy trained on a recommender"
                )
            scenario = Scenario.from_dict(description["scenario"])
            if isinstance(cost_model, CostModel):
                model, model_sum = cost_model, None
            else:
                model, model_sum = _load_cost_model(path, scenario, cost_model, device)
            if model_sum is None or description.get(COSTS_SUM) in (None, model_sum):
                break
            if attempt == _ATTEMPTS - 1:
                raise InputError(
                    f"{path / COSTS}: not the cost model with which this policy was saved; pass cost_model to use "
                    "another one, or save the policy again"
                )
            time.sleep(_PAUSE_SECONDS)
        if not isinstance(cost_model, CostModel) and (differing := scenario.differs_from(model.scenario)):
            raise InputError(
                f"{path}: cost model fitted to another system than the policy ({', '.join(differing)} differ); "
                "pass the cost_model of the policy's scenario"
            )
        units = {"reward_scale": description["reward_scale"], "reward_shift": description.get("reward_shift", 0.0)}
        latency_map = _load_latency_map(path, scenario, model, cost_model)
        return cls(team, scenario, model, **units, device=device, latency_map=latency_map)

    @checked_arguments
    def save(self, path: str | Path) -> None:
        """Write a folder that :meth:`load` reads, including the cost model."""
        self.cost_model.save(Path(path) / COSTS)
        if self.latency_map is not None:
            self.latency_map.save(Path(path) / COSTS)
        save_team(
            path,
            tensors=self.team.state_dict(),
            preset=self.preset,
            spec=self.team.spec,
            reward_scale=self.reward_scale,
            reward_shift=self.reward_shift,
            scenario=self.scenario.to_dict(),
            cost_model_sum=_model_sum(Path(path) / COSTS),
        )

    def values(self, states: np.ndarray) -> np.ndarray:
        """Return Q̂_tot of every joint action: ``states`` (B, W) → (B, J) float32, currency per request.

        Stages that report signals are taken to report the expected ones. The columns of hidden features have no effect
        and may be left out.
        """
        distinct, index = self._keys.distinct(states)
        return self._leaf_values.get(distinct)[index[:, None], self._tree.leaf_of_action]

    def value_parts(self, states: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parts of the value of one joint action of each request.

        They correspond to the columns ``a1_output`` … ``a5_output``, ``q_re_output``, ``q_pre_output`` and
        ``q_final_output`` of the predictions that were published with the method.

        Args:
            states: (B, W).
            actions: (B, D) option indices.

        Returns:
            (B,) float64 arrays in currency: for every decision the value of its agent after it, for every agent its
            value at its last decision, and ``total``, which is :meth:`values` of the joint action. The names are
            ``decision:<name>``, ``agent:<name>`` and ``total``.

        Raises:
            InputError: states or actions of a wrong shape or out of range.
        """
        scenario, tree = self.scenario, self._tree
        keys, index = self._keys.distinct(states)
        chosen = check_codes("action", np.asarray(actions), scenario.decision_names, scenario.action_shape)
        if len(chosen) != len(index):
            raise InputError(f"{len(index)} states and {len(chosen)} actions; pass one action for each state")
        joint = np.ravel_multi_index(tuple(chosen.T), tuple(scenario.action_shape))
        leaves = tree.leaves[tree.leaf_of_action[joint]]  # actions with the same effect share one value
        rows = self._keys.states(keys)[index]
        decisions, agents, total = value_parts(self.team, self.encoder, self.cost_model.results, rows, leaves)
        parts = {f"decision:{name}": decisions[:, d] for d, name in enumerate(scenario.decision_names)}
        parts |= {f"agent:{name}": agents[:, n] for n, name in enumerate(self.team.spec.agents)}
        parts = {name: value.astype(float) * self.reward_scale for name, value in parts.items()}
        return parts | {"total": total.astype(float) * self.reward_scale + self.reward_shift}

    def costs(self, states: np.ndarray) -> np.ndarray:
        """Return the expected cost of every joint action: ``states`` (B, W) → (B, J, G), core-seconds/request."""
        distinct, index = self._keys.distinct(states)
        return self._leaf_costs.get(distinct)[index[:, None], self._tree.leaf_of_action]

    def decide(self, states: np.ndarray, prices: np.ndarray | Mapping[str, float]) -> np.ndarray:
        """Return the best joint action of each request at the prices, decided at once.

        Signals of stages are not known yet then, and the expected ones stand in; :meth:`decide_in_turn` uses them.

        Args:
            states: (B, W); the columns of hidden features have no effect and may be left out.
            prices: (G,) λ, currency per core-second, in the scenario's order of clusters; or the price of each cluster
                by its name.

        Returns:
            (B, D) int64 option indices; among joint actions with the same effect or equal value, the first.
        """
        distinct, index = self._keys.distinct(states)
        prices = prices_by_cluster(prices, self.scenario.cluster_names)
        values, costs = self._leaf_values.get(distinct), self._leaf_costs.get(distinct)
        return self._tree.leaves[allocate(values, costs, prices)[index]]

    def decide_with_estimates(
        self, states: np.ndarray, prices: np.ndarray | Mapping[str, float], fixed: Sequence[int]
    ) -> DecidedActions:
        """Return the actions of :meth:`decide` with what they, and a fixed action, are expected to earn and cost.

        Args:
            states: as in :meth:`decide`.
            prices: as in :meth:`decide`.
            fixed: (D,) option indices of the joint action to compare with, such as a static rule.

        Raises:
            InputError: states, prices or an action of a wrong shape or out of range.
        """
        distinct, index = self._keys.distinct(states)
        prices = prices_by_cluster(prices, self.scenario.cluster_names)
        values, costs = self._leaf_values.get(distinct), self._leaf_costs.get(distinct)
        best = allocate(values, costs, prices)
        fixed_rows = np.atleast_1d(self.scenario.joint_index(as_array(fixed)))
        if fixed_rows.shape != (1,):
            raise InputError(f"fixed: {shown(fixed)}; pass one joint action, {len(self.scenario.decisions)} indices")
        fixed_leaf = self._tree.leaf_of_action[int(fixed_rows[0])]
        row = np.arange(len(best))
        return DecidedActions(
            actions=self._tree.leaves[best[index]],
            values=values[row, best][index],
            costs=costs[row, best][index],
            fixed_values=values[index, fixed_leaf],
            fixed_costs=costs[index, fixed_leaf],
        )

    @property
    def remembered_share(self) -> float:
        """Share of all states whose values and costs are cached; 0 where states are not cached."""
        return min(self._leaf_values.cached_share, self._leaf_costs.cached_share)

    def decide_in_turn(
        self, states: np.ndarray, prices: np.ndarray | Mapping[str, float], observe: Observe
    ) -> np.ndarray:
        """Return the joint action of each request, in which each agent knows what the stages before it reported.

        Whenever results and signals are revealed, the rest of the joint action is decided anew: as in :meth:`decide`,
        but among the joint actions that continue what was decided, with what was observed in place of what was
        expected. Where stages report what was expected, the result is that of :meth:`decide`.

        Args:
            states: (B, W), as ``observe`` takes them.
            prices: as in :meth:`decide`.
            observe: ``(states, actions (B, D), turn)`` → (B, R), the candidates and signals of the stages that are
                settled before ``turn``, such as :meth:`marca_env.Engine.results`. Decisions from ``turn`` on are 0.

        Returns:
            (B, D) int64 option indices.

        Raises:
            InputError: states or prices of a wrong shape, or observed results of a wrong shape or not finite.
        """
        _check_observe(observe)
        prices = prices_by_cluster(prices, self.scenario.cluster_names)
        leaves, settled = self._tree.leaves, np.zeros(len(self.scenario.result_columns), dtype=bool)
        rows = self._keys.complete(states)
        actions = self.decide(rows, prices)
        for turn, level in enumerate(self._tree.levels):
            known = self.encoder.settled(turn)
            if np.array_equal(known, settled):
                continue  # nothing was revealed: the plan stands
            settled = known
            decided = np.where(np.arange(actions.shape[1]) < turn, actions, 0)
            observed = check_results(observe(states, decided, turn), len(rows), self.scenario)
            step = max(1, _CHUNK_PAIRS // len(leaves))
            for node, prefix in enumerate(level.prefixes):
                members = np.flatnonzero((decided == prefix).all(axis=1))
                columns = np.flatnonzero(level.node_of_leaf == node)
                for start in range(0, len(members), step):
                    part = members[start : start + step]
                    values, costs = self._observed_leaves(rows[part], observed[part], known, columns)
                    actions[part] = leaves[columns[allocate(values, costs, prices)]]
        return actions

    def tables_in_turn(self, states: np.ndarray, observe: Observe) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return what every joint action is expected to earn and cost, each time that stages have reported.

        They do not depend on prices, so that decisions in turn at many prices need no further evaluation
        (:class:`marca_env.traffic.policies.InTurnPolicy`).

        Args:
            states: (B, W), as ``observe`` takes them.
            observe: as in :meth:`decide_in_turn`.

        Returns:
            For turn 0 and each turn at which results are revealed: the turn, values (B, J) and costs (B, J, G); those
            of a joint action are what is expected once its decisions before the turn were taken.

        Raises:
            InputError: states of a wrong shape, or observed results of a wrong shape or not finite.
        """
        _check_observe(observe)
        rows = self._keys.complete(states)
        tables = [(0, self.values(rows), self.costs(rows))]
        settled = np.zeros(len(self.scenario.result_columns), dtype=bool)
        for turn, level in enumerate(self._tree.levels):
            known = self.encoder.settled(turn)
            if np.array_equal(known, settled):
                continue
            settled = known
            values = np.empty((len(rows), len(self._tree.leaves)), dtype=np.float32)
            costs = np.empty((*values.shape, len(self.scenario.clusters)), dtype=np.float32)
            step = max(1, _CHUNK_PAIRS // len(self._tree.leaves))
            for node, prefix in enumerate(level.prefixes):
                columns = np.flatnonzero(level.node_of_leaf == node)
                taken = np.tile(prefix, (len(rows), 1))
                observed = check_results(observe(states, taken, turn), len(rows), self.scenario)
                for start in range(0, len(rows), step):
                    part = slice(start, start + step)
                    found = self._observed_leaves(rows[part], observed[part], known, columns)
                    values[part, columns], costs[part, columns] = found
            joint = self._tree.leaf_of_action
            tables.append((turn, values[:, joint], costs[:, joint]))
        return tables

    def _observed_leaves(
        self, states: np.ndarray, observed: np.ndarray, known: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values (B, C) and costs (B, C, G) of some leaves, given observed results (B, R) where ``known``."""
        leaves = self._tree.leaves[columns]
        values = self._in_currency(self._evaluate(states, observed, known))[:, columns]
        pairs = np.repeat(states, len(leaves), axis=0), np.tile(leaves, (len(states), 1))
        results = self.cost_model.results(*pairs)
        results[:, known] = np.repeat(observed[:, known], len(leaves), axis=0)
        costs = self.cost_model.cost_map.cost(pairs[1], results, self.scenario.site_of(pairs[0]))
        return values, costs.reshape(len(states), len(leaves), -1)

    def forget(self) -> None:
        """Clear the cached values and costs; call this after changing the team's weights."""
        self._leaf_values.clear()
        self._leaf_costs.clear()

    def _compute_values(self, keys: np.ndarray) -> np.ndarray:
        return self._in_currency(self._evaluate(self._keys.states(keys)))

    def _in_currency(self, values: np.ndarray) -> np.ndarray:
        # Q_tot at the last turn is the value of one step, from which the shift was subtracted once.
        return values * np.float32(self.reward_scale) + np.float32(self.reward_shift)

    def _compute_costs(self, keys: np.ndarray) -> np.ndarray:
        leaves = self._tree.leaves
        out = np.empty((len(keys), len(leaves), len(self.scenario.clusters)))
        for start in range(0, len(keys), step := max(1, _CHUNK_PAIRS // len(leaves))):
            states = self._keys.states(keys[start : start + step])
            if self._cost_tensors is not None:
                costs = self._cost_tensors.costs(states, self._cost_tensors.results(states))
                out[start : start + step] = costs.cpu().numpy()
                continue
            pairs = np.repeat(states, len(leaves), axis=0), np.tile(leaves, (len(states), 1))
            out[start : start + step] = self.cost_model.predict(*pairs).reshape(len(states), *out.shape[1:])
        return out


def _check_observe(observe: object) -> None:
    if not callable(observe) or isinstance(observe, type):
        raise InputError(f"observe is {shown(observe)}; pass a function such as Engine.results")


def check_results(results: np.ndarray, n_rows: int, scenario: Scenario) -> np.ndarray:
    """Return observed results (B, R) as float32.

    Raises:
        InputError: another shape, or a number that is not finite.
    """
    checked, shape = as_array(results), (n_rows, len(scenario.result_columns))
    if checked.shape != shape or checked.dtype.kind not in "biuf":
        names = ", ".join(scenario.result_columns)
        raise InputError(f"observe returned {checked.dtype} of shape {checked.shape}; return numbers {shape}: {names}")
    if not np.isfinite(checked).all():
        row, column = np.argwhere(~np.isfinite(checked))[0]
        raise InputError(
            f"observe returned {checked[row, column]} for {scenario.result_columns[column]} of request {row}"
        )
    return checked.astype(np.float32)
