"""Expected revenue of every joint action: an ensemble fitted to a log of sparse, sampled revenue.

Most requests earn nothing and the others earn very different sums. The mean is therefore split into two parts that are
easier to learn: expected clicks (Poisson deviance) and spend per click (gamma deviance on rows with clicks, weighted
by clicks). If the log has no clicks, a request with revenue counts as one click. Each member has its own network and
its own bootstrap weights; all members run as one batched tensor program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from marca_env.logs.schema import Column, check_table, decision_columns, feature_columns, state_table
from marca_env.models.analytic import Law, LawFormulas, load_law
from marca_env.models.deterministic_linear import DeterministicFactor, chunks
from marca_env.models.training_loop import minimise
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError
from marca_env.utils.model_files import check_device, explain_model_faults, is_analytic_model, load_model, save_model
from marca_env.utils.progress import ProgressCallback

if TYPE_CHECKING:
    import pandas as pd

HIDDEN = (48, 32)
_CHUNK = 8_192
"""Pairs of state and action in a forward pass of the table."""
_BATCH_SIZE = 2048
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-1
Product = Callable[[Tensor], Tensor]
"""x → x @ weights."""


class TwoPartEnsemble(nn.Module):
    """K members, each a linear part plus a small MLP with two outputs.

    The outputs are the logs of expected clicks and of spend per click, relative to the log's means. The first layer
    can be computed in two halves, states and actions, so that a table of every action of every state computes each
    half once.
    """

    _deterministic: list[Product] | None = None
    mean: Tensor
    """Mean revenue of the log, currency per request; both outputs are relative to it."""

    def __init__(self, members: int, inputs: int, hidden: tuple[int, ...] = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))
        self.linear = nn.Parameter(torch.zeros(members, inputs, 2))
        sizes = [inputs, *hidden, 2]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.randn(members, a, b) * np.sqrt(2.0 / a) for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for _, b in pairs)
        with torch.no_grad():
            self.weights[-1] *= 0.1

    def train(self, mode: bool = True) -> TwoPartEnsemble:
        """Switch between training and prediction; weights must not change during prediction."""
        self._deterministic = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the factors out of pickles; they follow from the weights."""
        return {**self.__dict__, "_deterministic": None}

    def weight_matrices(self) -> list[Tensor]:
        """Return each layer's weights; the first joins the linear part and the first layer of all members."""
        joined = torch.cat([self.linear, self.weights[0]], dim=2)  # K I 2+H
        return [joined.transpose(0, 1).flatten(1), *self.weights[1:]]

    def first_layer(self, x: Tensor, product: Product) -> Tensor:
        """Return linear part and first layer together, without biases: (B, inputs) → (K, B, 2 + hidden)."""
        return product(x).view(len(x), len(self.linear), -1).transpose(0, 1)

    def remaining_layers(self, first: Tensor, products: Sequence[Product]) -> Tensor:
        """Continue from :meth:`first_layer`: (K, B, 2 + hidden) → log clicks and log spend per click (K, B, 2)."""
        linear, x = first[..., :2], first[..., 2:] + self.biases[0]
        for layer, bias in zip(products, self.biases[1:], strict=True):
            x = layer(torch.relu(x)) + bias
        return linear + x

    def forward(self, x: Tensor) -> Tensor:
        """Return both outputs: (B, inputs) → (K, B, 2); in prediction mode with deterministic products."""
        if not self.training and self._deterministic is None:
            self._deterministic = [DeterministicFactor(w) for w in self.weight_matrices()]
        products = self.library_products() if self._deterministic is None else self._deterministic
        return self.remaining_layers(self.first_layer(x, products[0]), products[1:])

    def library_products(self) -> list[Product]:
        """Return each layer's product with torch's faster matmul; its last bits depend on the batch."""
        return [partial(torch.matmul, other=w) for w in self.weight_matrices()]

    def revenue(self, parts: Tensor) -> Tensor:
        """Return expected revenue in currency from the two outputs: (K, B, 2) → (K, B)."""
        return self.mean * torch.exp(parts.sum(dim=2))


class RevenueModel:
    """Q(s, a), the expected revenue of a request in currency; build it with :meth:`fit` or :meth:`load`.

    Attributes:
        scenario: system that the model was fitted to.
        members: number of networks in the ensemble.
    """

    def __init__(self, scenario: Scenario, net: TwoPartEnsemble, device: str) -> None:
        self.scenario, self.device = scenario, device
        self._encoder = InputEncoder(scenario)
        self._net = net.to(device).eval()
        self.members = len(net.linear)

    @classmethod
    @checked_arguments
    def fit(
        cls,
        scenario: Scenario | str | Path,
        request_log: pd.DataFrame,
        *,
        members: int = 5,
        epochs: int = 10,
        seed: int = 0,
        device: str = "cpu",
        progress: ProgressCallback | None = None,
    ) -> RevenueModel:
        """Fit the ensemble to features, decisions, revenue and, if present, clicks of a request log.

        Args:
            scenario: the system.
            request_log: one row per request.
            members: networks of the ensemble.
            epochs: passes over the requests.
            seed: seed of weights, bootstrap and shuffling.
            device: torch device.
            progress: called after each training step.

        Raises:
            InputError: the log lacks a column, a row is invalid, or all revenue is zero.
        """
        scenario, device = Scenario.load(scenario), check_device(device)
        if members < 1:
            raise InputError(f"members is {members}; pass at least 1")
        log = check_table(request_log, _columns(scenario, request_log), "request log")
        clicks, revenue = _clicks_and_revenue(log)
        encoder = InputEncoder(scenario)
        states, actions = state_table(scenario, log), log[list(scenario.decision_names)].to_numpy()
        x = torch.from_numpy(encoder.inputs(states, actions)).to(device)
        net = _network(encoder, members, seed).to(device)
        net.mean.fill_(float(revenue.mean()))
        earned = np.stack([clicks / clicks.mean(), revenue / revenue.mean()])
        clicked, spent = torch.from_numpy(earned).to(device)  # M each
        generator = torch.Generator().manual_seed(seed)
        weights = torch.empty(members, len(x)).exponential_(generator=generator).to(device)  # Bayesian bootstrap

        def loss(rows: Tensor) -> Tensor:
            log_clicks, log_spend = net(x[rows]).unbind(dim=2)  # K B
            poisson = torch.exp(log_clicks) - clicked[rows] * log_clicks
            gamma = spent[rows] * torch.exp(-log_spend) + clicked[rows] * log_spend
            return (weights[:, rows] * (poisson + gamma)).mean(dim=1).sum()

        minimise(
            net,
            loss,
            len(x),
            epochs=epochs,
            batch_size=_BATCH_SIZE,
            learning_rate=_LEARNING_RATE,
            seed=seed,
            weight_decay=_WEIGHT_DECAY,
            progress=progress,
        )
        return cls(scenario, net, device)

    # -- use -----------------------------------------------------------------------------------------------
    def predict_members(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict each member's expected revenue: ``states`` (B, W), ``actions`` (B, D) → float32 (K, B)."""
        codes, numbers = self._encoder.codes(states, actions), self._encoder.numbers(states)
        out = np.empty((self.members, len(codes)), dtype=np.float32)
        for part in chunks(len(codes), self.device):
            x = torch.from_numpy(self._encoder.encode(codes[part], numbers[part])).to(self.device)
            with torch.inference_mode():
                out[:, part] = self._net.revenue(self._net(x)).cpu().numpy()
        return out

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict expected revenue, currency per request: ``states`` (B, W), ``actions`` (B, D) → float32 (B,)."""
        members = self.predict_members(states, actions)
        return sum(members[1:], members[0]) / np.float32(self.members)  # added in one order for every B

    def table(self, states: np.ndarray) -> np.ndarray:
        """Predict the expected revenue of every joint action: ``states`` (B, W) → float32 (B, J)."""
        states = self.scenario.check_states(states)
        encoder, distinct = self._encoder, self._encoder.distinct
        filler = np.zeros((len(states), len(self.scenario.decisions)), np.int64)
        codes, numbers = encoder.codes(states, filler)[:, : encoder.n_features], encoder.numbers(states)
        table = np.empty((len(states), len(distinct)), dtype=np.float32)
        with torch.inference_mode():
            first, *products = self._net.library_products()
            without_states = np.zeros((len(distinct), encoder.n_features), np.int64)
            action_half = self._half(np.concatenate([without_states, distinct], axis=1), None, True, first)
            step = max(1, _CHUNK // len(distinct))
            for k in range(0, len(states), step):
                part = slice(k, k + step)
                coded = np.concatenate([codes[part], filler[part]], axis=1)
                state_half = self._half(coded, numbers[part], False, first)
                both = state_half[:, :, None] + action_half[:, None]  # K B J' 2+H
                out = self._net.revenue(self._net.remaining_layers(both.flatten(1, 2), products)).mean(dim=0)
                table[part] = out.view(len(coded), -1).cpu().numpy()
        return table[:, encoder.distinct_of]

    def _half(self, codes: np.ndarray, numbers: np.ndarray | None, of_actions: bool, product: Product) -> Tensor:
        """Return the part of the first layer that comes from the decisions, or from the features."""
        x = self._encoder.encode(codes, numbers)
        columns = self._encoder.of_actions if of_actions else ~self._encoder.of_actions
        return self._net.first_layer(torch.from_numpy(x * columns).to(self.device), product)

    # -- in and out ----------------------------------------------------------------------------------------
    @checked_arguments
    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``."""
        description: dict[str, Any] = {"scenario": self.scenario.to_dict(), "members": self.members}
        save_model(folder, "RevenueModel", self._net.state_dict(), description)

    @classmethod
    @checked_arguments
    def load(cls, folder: str | Path, device: str = "cpu") -> RevenueModel:
        """Read what :meth:`save` wrote; a folder with a law gives an :class:`AnalyticRevenueModel`.

        Raises:
            InputError: a file is missing, incomplete or of another model.
        """
        if is_analytic_model(folder):
            return AnalyticRevenueModel(*load_law(folder))
        tensors, description = load_model(folder, "RevenueModel", device)
        with explain_model_faults(folder):
            scenario = Scenario.from_dict(description["scenario"])
            net = _network(InputEncoder(scenario), int(description["members"]), 0)
            net.load_state_dict(tensors)
            return cls(scenario, net, device)


class AnalyticRevenueModel(RevenueModel):
    """Revenue model of a generated scenario: exact formulas instead of a fitted ensemble."""

    def __init__(self, scenario: Scenario, law: Law) -> None:
        self._formulas = LawFormulas(scenario, law)
        self.scenario, self.device, self.members = scenario, "cpu", 1
        self._encoder = InputEncoder(scenario)

    def predict_members(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the law's expected revenue: ``states`` (B, W), ``actions`` (B, D) → float32 (1, B)."""
        return self._formulas.revenue(*self._formulas.check(states, actions)).astype(np.float32)[None]

    def table(self, states: np.ndarray) -> np.ndarray:
        """Return the expected revenue of every joint action: ``states`` (B, W) → float32 (B, J)."""
        joint = self.scenario.joint_actions
        states = self.scenario.check_states(states)
        pairs = np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1))
        return self.predict(*pairs).reshape(len(states), len(joint))

    def save(self, folder: str | Path) -> None:
        """Write ``model.json`` into ``folder``."""
        self._formulas.save(folder)


def _columns(scenario: Scenario, log: pd.DataFrame) -> tuple[Column, ...]:
    """Return the columns of the log to check."""
    clicks = (Column("clicks"),) if "clicks" in log.columns else ()
    return (*feature_columns(scenario), *decision_columns(scenario), Column("revenue"), *clicks)


def _clicks_and_revenue(log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return clicks and revenue of each request, both (M,) float32, or raise an InputError if all revenue is zero."""
    revenue = log["revenue"].to_numpy(np.float32)
    if not revenue.any():
        raise InputError("request log: column 'revenue' is zero in every row; pass a log with revenue")
    clicks = log["clicks"].to_numpy(np.float32) if "clicks" in log else (revenue > 0).astype(np.float32)
    return np.where(revenue > 0, np.maximum(clicks, 1e-3), clicks), revenue


def _network(encoder: InputEncoder, members: int, seed: int) -> TwoPartEnsemble:
    """Build an ensemble with weights drawn from ``seed``; the global random state is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoPartEnsemble(members, encoder.width)
