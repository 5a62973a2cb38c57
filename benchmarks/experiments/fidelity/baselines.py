"""Baselines for the fitted models: gradient-boosted trees and plain networks, on the same rows and inputs.

Baselines of the cost model predict the candidates of each stage; baselines of the revenue model predict the revenue of
a request. They have the methods that :mod:`marca_env.integration.model_errors` needs to test them.

B pairs of request and action, F features, D decisions, S stages, J joint actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn

from marca_env.models.cost_model import TRAINING
from marca_env.models.training_loop import minimise
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario

Predictor = Callable[[np.ndarray], np.ndarray]
"""Inputs (B, width) → (B, outputs)."""
TREES = {"max_iter": 300, "learning_rate": 0.1, "max_leaf_nodes": 31, "early_stopping": True}
HIDDEN = (128, 96)
"""Hidden units of the plain networks: about as many weights as the MMoE-DCN has."""
_CHUNK = 65_536


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        scenario: whose requests and actions it predicts.
        encoder: of its inputs.
        predictor: inputs → outputs.
        size: number of weights of a network, or of nodes of all trees.
        ordinal: whether its inputs are only the position of each code in its range (trees); otherwise they have one-hot
            columns as well (networks).
    """

    scenario: Scenario
    encoder: InputEncoder
    predictor: Predictor
    size: int
    ordinal: bool

    def outputs(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict from ``states`` (B, F) and ``actions`` (B, D); returns (B, outputs)."""
        codes = self.encoder.codes(states, actions)
        parts = [codes[k : k + _CHUNK] for k in range(0, len(codes), _CHUNK)]
        return np.concatenate([self.predictor(_inputs(self.encoder, part, self.ordinal)) for part in parts])


class ResultBaseline(Baseline):
    """Baseline that predicts the number of candidates of each stage."""

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict from ``states`` (B, F) and ``actions`` (B, D); returns (B, S)."""
        return np.maximum(self.outputs(states, actions), 0.0)


class RevenueBaseline(Baseline):
    """Baseline that predicts the expected revenue, in currency."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict from ``states`` (B, F) and ``actions`` (B, D); returns (B,)."""
        return self.outputs(states, actions)[:, 0]

    def table(self, states: np.ndarray) -> np.ndarray:
        """Predict the revenue of every joint action from ``states`` (B, F); returns (B, J)."""
        first = self.encoder.distinct_actions
        distinct = self.scenario.joint_actions[first]
        pairs = np.repeat(states, len(distinct), axis=0), np.tile(distinct, (len(states), 1))
        return self.predict(*pairs).reshape(len(states), len(distinct))[:, self.encoder.distinct_of]


def tree_results(scenario: Scenario, log: pd.DataFrame, seed: int) -> ResultBaseline:
    """Fit least-squares boosted trees for each stage."""
    encoder, x = _encode(scenario, log, ordinal=True)
    models = [_fit_trees("squared_error", x, log[f"result_{s}"].to_numpy(float), seed) for s in scenario.stage_names]
    return ResultBaseline(scenario, encoder, lambda x: _predict_trees(models, x), _count_nodes(models), ordinal=True)


def net_results(scenario: Scenario, log: pd.DataFrame, seed: int) -> ResultBaseline:
    """Fit one multi-layer perceptron for all stages, trained like the MMoE-DCN."""
    encoder, x = _encode(scenario, log, ordinal=False)
    results = log[[f"result_{s}" for s in scenario.stage_names]].to_numpy(np.float32)
    scale = np.maximum(results.max(axis=0), 1.0)

    def loss(predicted: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(predicted, target)

    net = _fit_network(x, results / scale, loss, seed, TRAINING)
    return ResultBaseline(
        scenario, encoder, lambda x: _predict_network(net, x) * scale, _count_weights(net), ordinal=False
    )


def tree_revenue(scenario: Scenario, log: pd.DataFrame, seed: int) -> RevenueBaseline:
    """Fit boosted trees with the Poisson deviance of the revenue."""
    encoder, x = _encode(scenario, log, ordinal=True)
    models = [_fit_trees("poisson", x, log["revenue"].to_numpy(float), seed)]
    return RevenueBaseline(scenario, encoder, lambda x: _predict_trees(models, x), _count_nodes(models), ordinal=True)


def net_revenue(scenario: Scenario, log: pd.DataFrame, seed: int, *, epochs: int = 10) -> RevenueBaseline:
    """Fit one multi-layer perceptron with the Poisson deviance of the revenue."""
    encoder, x = _encode(scenario, log, ordinal=False)
    revenue = log["revenue"].to_numpy(np.float32)
    mean = float(revenue.mean())

    def loss(predicted: Tensor, target: Tensor) -> Tensor:
        return (torch.exp(predicted) - target * predicted).mean()

    training = {"epochs": epochs, "batch_size": 2048, "learning_rate": 2e-3, "weight_decay": 1e-1}
    net = _fit_network(x, (revenue / mean)[:, None], loss, seed, training)
    return RevenueBaseline(
        scenario, encoder, lambda x: mean * np.exp(_predict_network(net, x)), _count_weights(net), ordinal=False
    )


def _inputs(encoder: InputEncoder, codes: np.ndarray, ordinal: bool) -> np.ndarray:
    inputs = encoder.encode(codes)
    return inputs[:, -len(encoder.sizes) :] if ordinal else inputs


def _encode(scenario: Scenario, log: pd.DataFrame, *, ordinal: bool) -> tuple[InputEncoder, np.ndarray]:
    encoder = InputEncoder(scenario)
    states, actions = log[list(scenario.feature_names)].to_numpy(), log[list(scenario.decision_names)].to_numpy()
    return encoder, _inputs(encoder, encoder.codes(states, actions), ordinal)


def _fit_trees(loss: str, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return HistGradientBoostingRegressor(loss=loss, random_state=seed, **TREES).fit(x, y)


def _predict_trees(models: Sequence[Any], x: np.ndarray) -> np.ndarray:
    return np.stack([model.predict(x) for model in models], axis=1)


def _count_nodes(models: Sequence[Any]) -> int:
    """Return the number of nodes of the trees; scikit-learn keeps them in a private list."""
    return sum(len(tree.nodes) for model in models for step in model._predictors for tree in step)


def _fit_network(x: np.ndarray, y: np.ndarray, loss: Any, seed: int, training: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [x.shape[1], *HIDDEN]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Linear(sizes[-1], y.shape[1]))
    inputs, targets = torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32))
    minimise(net, lambda rows: loss(net(inputs[rows]), targets[rows]), len(x), seed=seed, **training)
    return net


def _predict_network(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return net(torch.from_numpy(x)).numpy()


def _count_weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
