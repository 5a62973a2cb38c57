"""Computation cost of a request: candidates per stage predicted by an MMoE-DCN, priced by the cost map.

arXiv 2512.24325, Part 2: a deep & cross network (DCN) under a multi-gate mixture of experts (MMoE), with one task per
stage, predicts how many candidates each stage will process. The monotone cost map turns these into core-seconds.
Signals that stages report are further tasks. Shapes: B batch, W columns of a state, D decisions, S stages, N signals,
R = S + N results, G clusters, J joint actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from marca_env.logs.schema import check_table, decision_columns, feature_columns, result_columns, state_table
from marca_env.models.analytic import Law, LawFormulas, load_law
from marca_env.models.cost_map import CostMap
from marca_env.models.deterministic_linear import chunks
from marca_env.models.mmoe_dcn import MMoEDCN
from marca_env.models.training_loop import minimise
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.model_files import check_device, explain_model_faults, is_analytic_model, load_model, save_model
from marca_env.utils.progress import ProgressCallback

if TYPE_CHECKING:
    import pandas as pd

_SIGNAL_WEIGHT = 0.02
"""Weight of a signal's squared error. Signals scatter by 1 on their scale, counts by a few hundredths. With equal
weights the error of the counts is three times that of a model without signals, with this weight it is the same.
"""
TRAINING: dict[str, Any] = {"epochs": 6, "batch_size": 256, "learning_rate": 1e-2, "min_steps": 500}
"""Arguments of the training loop. Batches of 1,024 at a rate of 3e-3 take as long and have about twice the error."""


@dataclass(frozen=True)
class ResultScale:
    """Scales on which the network predicts results: shares of the most candidates, standardised signals."""

    counts: np.ndarray
    """(S,) float32, greatest number of candidates of each stage in the log; positive."""
    mean: np.ndarray
    """(N,) float32, mean of each signal in the log."""
    std: np.ndarray
    """(N,) float32, standard deviation of each signal in the log; positive."""

    @classmethod
    def fit(cls, results: np.ndarray, n_stages: int) -> ResultScale:
        """Take the scales from logged results (M, R) float32."""
        signals = results[:, n_stages:].astype(np.float64)
        mean, std = signals.mean(axis=0), signals.std(axis=0)
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1.0), std, 1.0)  # a signal that never changes
        return cls(np.maximum(results[:, :n_stages].max(axis=0), 1.0), *(x.astype(np.float32) for x in (mean, std)))

    @classmethod
    def from_description(cls, description: Mapping[str, Any], scenario: Scenario) -> ResultScale:
        """Read the scales from the description of a model.

        Raises:
            ValueError: not one number per stage and signal, or a scale that is not positive.
        """
        lists = [description["scale"], description.get("signal_mean", []), description.get("signal_std", [])]
        counts, mean, std = (np.array(values, dtype=np.float32) for values in lists)
        if counts.shape != (len(scenario.stages),) or not np.all(counts > 0):
            raise ValueError(f"scale is {description['scale']!r}, not one positive number per stage")
        shape = (len(scenario.signals),)
        if mean.shape != shape or std.shape != shape or not (np.isfinite(mean).all() and np.all(std > 0)):
            raise ValueError(f"signal_mean and signal_std are {lists[1:]!r}, not numbers for {shape[0]} signals")
        return cls(counts, mean, std)

    def to_description(self) -> dict[str, Any]:
        """Return the entries of a model's description."""
        described = {"scale": self.counts.tolist()}
        if len(self.mean):
            described |= {"signal_mean": self.mean.tolist(), "signal_std": self.std.tolist()}
        return described

    def scaled(self, results: np.ndarray) -> np.ndarray:
        """Return logged results on the network's scale: (M, R) → (M, R) float32."""
        counts, signals = np.split(results, [len(self.counts)], axis=1)
        return np.concatenate([counts / self.counts, (signals - self.mean) / self.std], axis=1)

    def results(self, outputs: np.ndarray) -> np.ndarray:
        """Return the results that the network's outputs stand for: (B, R) → (B, R) float32."""
        counts, signals = np.split(outputs, [len(self.counts)], axis=1)
        return np.concatenate([counts.clip(0.0, 1.0) * self.counts, signals * self.std + self.mean], axis=1)


class CostModel:
    """Predicted computation of a request on each cluster; build it with :meth:`fit` or :meth:`load`.

    Attributes:
        scenario: system that the model was fitted to.
        cost_map: map from actions and candidates to core-seconds.
    """

    def __init__(self, scenario: Scenario, net: MMoEDCN, scale: ResultScale, cost_map: CostMap, device: str) -> None:
        self.scenario, self.cost_map, self.device = scenario, cost_map, device
        self._encoder = InputEncoder(scenario)
        self._net = net.to(device).eval()
        self._scale = scale

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
        """Fit candidates and signals to a request log and the cost map to a cost log.

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
        states, actions = state_table(scenario, log), log[list(scenario.decision_names)].to_numpy()
        results = log[list(scenario.result_columns)].to_numpy(np.float32)
        scale = ResultScale.fit(results, len(scenario.stages))
        x = torch.from_numpy(encoder.inputs(states, actions)).to(device)
        y = torch.from_numpy(scale.scaled(results)).to(device)
        net = _network(encoder, seed).to(device)
        weights = torch.ones(y.shape[1], device=device)
        weights[len(scenario.stages) :] = _SIGNAL_WEIGHT

        def loss(rows: Tensor) -> Tensor:
            if not scenario.signals:
                return nn.functional.mse_loss(net(x[rows]), y[rows])
            return ((net(x[rows]) - y[rows]).square() * weights).mean()

        training = TRAINING if epochs is None else {**TRAINING, "epochs": epochs, "min_steps": 1}
        minimise(net, loss, len(x), **training, seed=seed, progress=progress)
        return cls(scenario, net, scale, cost_map, device)

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict candidates, then signals: ``states`` (B, W), ``actions`` (B, D) → float32 (B, R)."""
        codes, numbers = self._encoder.codes(states, actions), self._encoder.numbers(states)
        out = np.empty((len(codes), len(self.scenario.result_columns)), dtype=np.float32)
        for part in chunks(len(codes), self.device):
            x = torch.from_numpy(self._encoder.encode(codes[part], numbers[part])).to(self.device)
            with torch.inference_mode():
                out[part] = self._net(x).cpu().numpy()
        return self._scale.results(out)

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict core-seconds per request on each cluster: ``states`` (B, W), ``actions`` (B, D) → (B, G)."""
        return self.cost_map.cost(actions, self.results(states, actions), self.scenario.site_of(states))

    def table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict every joint action: ``states`` (B, W) → results float32 (B, J, R) and cost (B, J, G)."""
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
            **self._scale.to_description(),
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
            scale = ResultScale.from_description(description, scenario)
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
    numbers = range(int(offsets[-1]) + len(encoder.sizes), encoder.width)
    features = [*range(offsets[encoder.n_features]), *numbers]
    gates = []
    for stage in scenario.result_stages:
        visible = [encoder.n_features + d for d, s in enumerate(scenario.decision_stage) if s <= stage]
        columns = [c for k in visible for c in range(offsets[k], offsets[k + 1])]
        gates.append(columns or features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MMoEDCN(encoder.width, gates)
