"""Computation cost of a request: candidates per stage predicted by an MMoE-DCN, priced by the cost map.

arXiv 2512.24325, Part 2: a deep & cross network (DCN) under a multi-gate mixture of experts (MMoE), with one task per
stage, predicts how many candidates each stage will process. The monotone cost map turns these into core-seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from marca_env.logs.schema import check_table, decision_columns, feature_columns, result_columns
from marca_env.models.analytic import Law, LawFormulas, load_law
from marca_env.models.cost_map import CostMap
from marca_env.models.deterministic_linear import DeterministicLinear
from marca_env.models.training_loop import minimise
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.model_files import check_device, explain_model_faults, is_analytic_model, load_model, save_model
from marca_env.utils.progress import ProgressCallback

if TYPE_CHECKING:
    import pandas as pd

CROSS_LAYERS, DEEP, WIDE, EXPERTS, EXPERT_WIDTH = 3, (64, 32), 16, 4, 32
_CHUNK = 1024
"""Rows of a forward pass."""
TRAINING: dict[str, Any] = {"epochs": 6, "batch_size": 256, "learning_rate": 1e-2, "min_steps": 500}
"""Arguments of the training loop. Batches of 1,024 at a rate of 3e-3 take as long and have about twice the error."""


class MMoEDCN(nn.Module):
    """Deep & cross network → experts → one gated task per stage.

    The gate of a task sees only the decisions of its own and of earlier stages.

    Args:
        inputs: width of the encoded input.
        gate_inputs: input columns of each stage's gate.
    """

    def __init__(self, inputs: int, gate_inputs: list[list[int]]) -> None:
        super().__init__()
        self.gate_inputs = gate_inputs
        self.cross = nn.ModuleList(DeterministicLinear(inputs, 1) for _ in range(CROSS_LAYERS))
        self.cross_bias = nn.Parameter(torch.zeros(CROSS_LAYERS, inputs))
        self.deep = nn.Sequential(
            DeterministicLinear(inputs, DEEP[0]), nn.ReLU(), DeterministicLinear(DEEP[0], DEEP[1]), nn.ReLU()
        )
        self.wide = DeterministicLinear(inputs, WIDE)
        joined = inputs + DEEP[1] + WIDE
        self.experts = DeterministicLinear(joined, EXPERTS * EXPERT_WIDTH)
        self.gates = nn.ModuleList(DeterministicLinear(len(columns), EXPERTS) for columns in gate_inputs)
        self.towers = nn.ModuleList(DeterministicLinear(EXPERT_WIDTH, 1) for _ in gate_inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return candidates as a share of their scale: (B, inputs) → (B, S)."""
        crossed = x
        for layer, bias in zip(self.cross, self.cross_bias, strict=True):
            crossed = x * layer(crossed) + bias + crossed
        joined = torch.cat([crossed, self.deep(x), self.wide(x)], dim=1)
        experts = torch.relu(self.experts(joined)).view(len(x), EXPERTS, EXPERT_WIDTH)
        tasks = []
        for gate, tower, columns in zip(self.gates, self.towers, self.gate_inputs, strict=True):
            weights = torch.softmax(gate(x[:, columns]), dim=1)  # B E
            mixed = sum(weights[:, e, None] * experts[:, e] for e in range(EXPERTS))  # added in one order for every B
            tasks.append(tower(mixed))
        return torch.cat(tasks, dim=1)


class CostModel:
    """Predicted computation of a request on each cluster; build it with :meth:`fit` or :meth:`load`.

    Attributes:
        scenario: system that the model was fitted to.
        cost_map: map from actions and candidates to core-seconds.
    """

    def __init__(self, scenario: Scenario, net: MMoEDCN, scale: np.ndarray, cost_map: CostMap, device: str) -> None:
        self.scenario, self.cost_map, self.device = scenario, cost_map, device
        self._encoder = InputEncoder(scenario)
        self._net = net.to(device).eval()
        self._scale = np.asarray(scale, dtype=np.float32)

    @classmethod
    @checked_arguments
    def fit(
        cls,
        scenario: Scenario | str | Path,
        request_log: pd.DataFrame,
        cost_log: pd.DataFrame | CostMap,
        *,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        progress: ProgressCallback | None = None,
    ) -> CostModel:
        """Fit the candidates to a request log and the cost map to a cost log.

        Args:
            scenario: the system.
            request_log: features, decisions and results of requests.
            cost_log: measurements of the TestBench, or a fitted cost map.
            epochs: passes over the requests; ``None``: 6, and more on a small log.
            seed: seed of the initial weights and the shuffling.
            device: torch device.
            progress: called after each training step.

        Raises:
            InputError: a log lacks a column, a row is invalid, or a component was not measured.
        """
        scenario, device = Scenario.load(scenario), check_device(device)
        cost_map = cost_log if isinstance(cost_log, CostMap) else CostMap.from_log(scenario, cost_log)
        columns = (*feature_columns(scenario), *decision_columns(scenario), *result_columns(scenario))
        log = check_table(request_log, columns, "request log")
        encoder = InputEncoder(scenario)
        states, actions = log[list(scenario.feature_names)].to_numpy(), log[list(scenario.decision_names)].to_numpy()
        results = log[[c.name for c in result_columns(scenario)]].to_numpy(np.float32)
        scale = np.maximum(results.max(axis=0), 1.0)
        x = torch.from_numpy(encoder.encode(encoder.codes(states, actions))).to(device)
        y = torch.from_numpy(results / scale).to(device)
        net = _network(encoder, seed).to(device)

        def loss(rows: Tensor) -> Tensor:
            return nn.functional.mse_loss(net(x[rows]), y[rows])

        training = TRAINING if epochs is None else {**TRAINING, "epochs": epochs, "min_steps": 1}
        minimise(net, loss, len(x), **training, seed=seed, progress=progress)
        return cls(scenario, net, scale, cost_map, device)

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict the candidates of each stage: ``states`` (B, F), ``actions`` (B, D) → float32 (B, S)."""
        codes = self._encoder.codes(states, actions)
        out = np.empty((len(codes), len(self.scenario.stages)), dtype=np.float32)
        for k in range(0, len(codes), _CHUNK):
            x = torch.from_numpy(self._encoder.encode(codes[k : k + _CHUNK])).to(self.device)
            with torch.inference_mode():
                out[k : k + _CHUNK] = self._net(x).clamp(0.0, 1.0).cpu().numpy()
        return out * self._scale

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict core-seconds per request on each cluster: ``states`` (B, F), ``actions`` (B, D) → (B, G)."""
        return self.cost_map.cost(actions, self.results(states, actions), self.scenario.site_of(states))

    def table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict every joint action: ``states`` (B, F) → candidates float32 (B, J, S) and cost (B, J, G)."""
        first = self._encoder.distinct_actions
        distinct = self.scenario.joint_actions[first]  # J' D
        repeated, pairs = np.repeat(states, len(distinct), axis=0), np.tile(distinct, (len(states), 1))
        results = self.results(repeated, pairs)
        cost = self.cost_map.cost(pairs, results, self.scenario.site_of(repeated))
        shape = (len(states), len(distinct))
        results, cost = (x.reshape(*shape, x.shape[-1])[:, self._encoder.distinct_of] for x in (results, cost))
        return results, cost

    def degradation(self, levels: np.ndarray) -> np.ndarray:
        """Return f(D) of Eq. 1, the core-seconds per request that degradation saves: ``levels`` (G,) → (G,)."""
        return self.cost_map.degradation(levels)

    @checked_arguments
    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``."""
        description = {
            "scenario": self.scenario.to_dict(),
            "scale": self._scale.tolist(),
            "cost_map": self.cost_map.to_dict(),
        }
        save_model(folder, "CostModel", self._net.state_dict(), description)

    @classmethod
    @checked_arguments
    def load(cls, folder: str | Path, device: str = "cpu") -> CostModel:
        """Read what :meth:`save` wrote; a folder with a law gives an :class:`AnalyticCostModel`.

        Raises:
            InputError: a file is missing, incomplete or of another model.
        """
        if is_analytic_model(folder):
            return AnalyticCostModel(*load_law(folder))
        tensors, description = load_model(folder, "CostModel", device)
        with explain_model_faults(folder):
            scenario = Scenario.from_dict(description["scenario"])
            net = _network(InputEncoder(scenario), 0)
            net.load_state_dict(tensors)
            scale = np.array(description["scale"], dtype=np.float32)
            if scale.shape != (len(scenario.stages),) or not np.all(scale > 0):
                raise ValueError(f"scale is {description['scale']!r}, not one positive number per stage")
            return cls(scenario, net, scale, CostMap.from_dict(scenario, description["cost_map"]), device)


class AnalyticCostModel(CostModel):
    """Cost model of a generated scenario: exact formulas instead of a fitted network."""

    def __init__(self, scenario: Scenario, law: Law) -> None:
        self._formulas = LawFormulas(scenario, law)
        self.scenario, self.cost_map, self.device = scenario, self._formulas.cost_map(), "cpu"
        self._encoder = InputEncoder(scenario)

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the candidates of each stage: ``states`` (B, F), ``actions`` (B, D) → float32 (B, S)."""
        return self._formulas.candidates(*self._formulas.check(states, actions)).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write ``model.json`` into ``folder``."""
        self._formulas.save(folder)


def _network(encoder: InputEncoder, seed: int) -> MMoEDCN:
    """Build a network with weights drawn from ``seed``; the global random state is left unchanged."""
    scenario, offsets = encoder.scenario, np.concatenate([[0], np.cumsum(encoder.sizes)])
    gates = []
    for stage in range(len(scenario.stages)):
        visible = [encoder.n_features + d for d, s in enumerate(scenario.decision_stage) if s <= stage]
        columns = [c for k in visible for c in range(offsets[k], offsets[k + 1])]
        gates.append(columns or list(range(offsets[encoder.n_features])))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MMoEDCN(encoder.width, gates)
