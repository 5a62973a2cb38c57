"""What stands beside the fitted models: gradient-boosted trees and plain networks, on the same rows and inputs.

Rivals of the cost model predict the candidates of each stage, rivals of the revenue model the revenue of a request;
they have the methods by which :mod:`benchmarks.evaluation.model_errors` judges those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import nn

from marca_env.models.cost_model import TRAINING
from marca_env.models.training_loop import minimise
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

Predictor = Callable[[np.ndarray], np.ndarray]
"""Inputs (B, width) → (B, outputs)."""
TREES = {"max_iter": 300, "learning_rate": 0.1, "max_leaf_nodes": 31, "early_stopping": True}
HIDDEN = (128, 96)
"""Of the plain networks: about as many weights as the MMoE-DCN has."""
_CHUNK = 65_536


@dataclass(frozen=True)
class Rival:
    """A fitted rival.

    Attributes:
        size: weights of a network, nodes of all trees.
    """

    scenario: Scenario
    encoder: InputEncoder
    predictor: Predictor
    size: int
    places: bool
    """Whether it sees the place of each code in its range alone (trees) or the one-hots too (networks)."""

    def outputs(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """``states`` (B, F), ``actions`` (B, D) → (B, outputs)."""
        codes = self.encoder.codes(states, actions)
        parts = [codes[k : k + _CHUNK] for k in range(0, len(codes), _CHUNK)]
        return np.concatenate([self.predictor(_inputs(self.encoder, part, self.places)) for part in parts])


class RivalResults(Rival):
    """Candidates of each stage."""

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """``states`` (B, F), ``actions`` (B, D) → (B, S)."""
        return np.maximum(self.outputs(states, actions), 0.0)


class RivalRevenue(Rival):
    """Expected revenue, currency."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """``states`` (B, F), ``actions`` (B, D) → (B,)."""
        return self.outputs(states, actions)[:, 0]

    def table(self, states: np.ndarray) -> np.ndarray:
        """Of every joint action: ``states`` (B, F) → (B, J)."""
        first = self.encoder.distinct_actions
        distinct = self.scenario.joint_actions[first]
        pairs = np.repeat(states, len(distinct), axis=0), np.tile(distinct, (len(states), 1))
        return self.predict(*pairs).reshape(len(states), len(distinct))[:, self.encoder.distinct_of]


# -- fitting -------------------------------------------------------------------------------------------------------
def tree_results(scenario: Scenario, log: pd.DataFrame, seed: int) -> RivalResults:
    """A least-squares boosting of trees for each stage."""
    encoder, x = _encoded(scenario, log, places=True)
    models = [_boosted("squared_error", x, log[f"result_{s}"].to_numpy(float), seed) for s in scenario.stage_names]
    return RivalResults(scenario, encoder, lambda x: _stacked(models, x), _nodes(models), places=True)


def net_results(scenario: Scenario, log: pd.DataFrame, seed: int) -> RivalResults:
    """One multi-layer perceptron for all stages, trained as the MMoE-DCN is."""

    encoder, x = _encoded(scenario, log, places=False)
    results = log[[f"result_{s}" for s in scenario.stage_names]].to_numpy(np.float32)
    scale = np.maximum(results.max(axis=0), 1.0)

    def loss(predicted: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(predicted, target)

    net = _trained(x, results / scale, loss, seed, TRAINING)
    return RivalResults(scenario, encoder, lambda x: _answers(net, x) * scale, _weights(net), places=False)


def tree_revenue(scenario: Scenario, log: pd.DataFrame, seed: int) -> RivalRevenue:
    """A boosting of trees on the Poisson deviance of the revenue."""
    encoder, x = _encoded(scenario, log, places=True)
    models = [_boosted("poisson", x, log["revenue"].to_numpy(float), seed)]
    return RivalRevenue(scenario, encoder, lambda x: _stacked(models, x), _nodes(models), places=True)


def net_revenue(scenario: Scenario, log: pd.DataFrame, seed: int, *, epochs: int = 10) -> RivalRevenue:
    """One multi-layer perceptron on the Poisson deviance of the revenue."""

    encoder, x = _encoded(scenario, log, places=False)
    revenue = log["revenue"].to_numpy(np.float32)
    mean = float(revenue.mean())

    def loss(predicted: Tensor, target: Tensor) -> Tensor:
        return (torch.exp(predicted) - target * predicted).mean()

    training = {"epochs": epochs, "batch_size": 2048, "learning_rate": 2e-3, "weight_decay": 1e-1}
    net = _trained(x, (revenue / mean)[:, None], loss, seed, training)
    return RivalRevenue(scenario, encoder, lambda x: mean * np.exp(_answers(net, x)), _weights(net), places=False)


# -- parts ---------------------------------------------------------------------------------------------------------
def _inputs(encoder: InputEncoder, codes: np.ndarray, places: bool) -> np.ndarray:
    inputs = encoder.encode(codes)
    return inputs[:, -len(encoder.sizes) :] if places else inputs


def _encoded(scenario: Scenario, log: pd.DataFrame, *, places: bool) -> tuple[InputEncoder, np.ndarray]:
    encoder = InputEncoder(scenario)
    states, actions = log[list(scenario.feature_names)].to_numpy(), log[list(scenario.decision_names)].to_numpy()
    return encoder, _inputs(encoder, encoder.codes(states, actions), places)


def _boosted(loss: str, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return HistGradientBoostingRegressor(loss=loss, random_state=seed, **TREES).fit(x, y)


def _stacked(models: Sequence[Any], x: np.ndarray) -> np.ndarray:
    return np.stack([model.predict(x) for model in models], axis=1)


def _nodes(models: Sequence[Any]) -> int:
    """Nodes of the trees; scikit-learn keeps them in a private list."""
    return sum(len(tree.nodes) for model in models for step in model._predictors for tree in step)


def _trained(x: np.ndarray, y: np.ndarray, loss: Any, seed: int, training: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [x.shape[1], *HIDDEN]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Linear(sizes[-1], y.shape[1]))
    inputs, targets = torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32))
    minimise(net, lambda rows: loss(net(inputs[rows]), targets[rows]), len(x), seed=seed, **training)
    return net


def _answers(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return net(torch.from_numpy(x)).numpy()


def _weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
