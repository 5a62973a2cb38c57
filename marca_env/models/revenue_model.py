"""Expected revenue of every joint action: an ensemble fitted to a log of sparse, sampled revenue.

Most requests earn nothing and the rest earn very different sums, so the mean is split in two that are each easier to
learn: expected clicks (Poisson deviance) and spend per click (gamma deviance, rows with clicks, weighted by clicks).
Where the log has no clicks, a request that earned anything counts as one. Each member has its own network and its own
bootstrap weights; all members are one batched tensor program.
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

from marca_env.logs.schema import Column, check_table, decision_columns, feature_columns
from marca_env.models.deterministic_linear import Factor
from marca_env.models.training_loop import Progress, minimise
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.files import is_law, load_model, rebuilding, save_model, usable_device
from marca_env.utils.validation import check_codes

if TYPE_CHECKING:
    import pandas as pd

HIDDEN = (48, 32)
_CHUNK = 8_192
_ROWS = 1024
_BATCH = 2048
_RATE = 2e-3
_DECAY = 1e-1
Times = Callable[[Tensor], Tensor]
"""x → x @ weights."""


class TwoPartEnsemble(nn.Module):
    """K members: log of expected clicks and of spend per click (relative to the log's means), each a linear part
    plus a small MLP.

    The first layer is kept in two halves, states and actions, so that a table of every action of every state
    computes each half once.
    """

    _exact: list[Times] | None = None
    mean: Tensor
    """Mean revenue of the log, currency per request: both outputs are relative to it."""

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
        """Learn or predict; weights must not change while it predicts."""
        self._exact = None
        return super().train(mode)

    def factors(self) -> list[Tensor]:
        """Right-hand side of each layer's product; the first is linear part and first layer of all members together."""
        joined = torch.cat([self.linear, self.weights[0]], dim=2)  # K I 2+H
        return [joined.transpose(0, 1).flatten(1), *self.weights[1:]]

    def first(self, x: Tensor, times: Times) -> Tensor:
        """Linear part and first layer together, without biases: (B, inputs) → (K, B, 2 + hidden)."""
        return times(x).view(len(x), len(self.linear), -1).transpose(0, 1)

    def rest(self, first: Tensor, times: Sequence[Times]) -> Tensor:
        """From :meth:`first` on: (K, B, 2 + hidden) → log clicks and log spend per click, (K, B, 2)."""
        linear, x = first[..., :2], first[..., 2:] + self.biases[0]
        for layer, bias in zip(times, self.biases[1:], strict=True):
            x = layer(torch.relu(x)) + bias
        return linear + x

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) → (K, B, 2); when predicting, with exact products."""
        if not self.training and self._exact is None:
            self._exact = [Factor(f) for f in self.factors()]
        times = self.products() if self._exact is None else self._exact
        return self.rest(self.first(x, times[0]), times[1:])

    def products(self) -> list[Times]:
        """Each layer's product as the library has it."""
        return [partial(torch.matmul, other=f) for f in self.factors()]

    def revenue(self, parts: Tensor) -> Tensor:
        """Expected revenue in currency from the two outputs: (K, B, 2) → (K, B)."""
        return self.mean * torch.exp(parts.sum(dim=2))


class RevenueModel:
    """Q(s, a): expected revenue of a request, in currency; build it with :meth:`fit` or :meth:`load`.

    Attributes:
        scenario: the system that it was fitted to.
        members: number of networks in the ensemble.
    """

    def __init__(self, scenario: Scenario, net: TwoPartEnsemble, device: str) -> None:
        self.scenario, self.device = scenario, device
        self._encoder = InputEncoder(scenario)
        self._net = net.to(device).eval()
        self.members = len(net.linear)

    @classmethod
    def fit(
        cls,
        scenario: Scenario | str,
        request_log: pd.DataFrame,
        *,
        members: int = 5,
        epochs: int = 10,
        seed: int = 0,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> RevenueModel:
        """Fit the ensemble to features, decisions and revenue (and clicks, where there are any) of a request log.

        Raises:
            InputError: the log lacks a column, a row is wrong, or nothing was earned.
        """
        scenario, device = Scenario.load(scenario), usable_device(device)
        if members < 1:
            raise InputError(f"members is {members}; an ensemble needs at least one")
        log = check_table(request_log, _columns(scenario, request_log), "request log")
        revenue = log["revenue"].to_numpy(np.float32)
        if not revenue.any():
            raise InputError("request log: column 'revenue' is zero in every row; give a log that earned something")
        clicks = log["clicks"].to_numpy(np.float32) if "clicks" in log else (revenue > 0).astype(np.float32)
        clicks = np.where(revenue > 0, np.maximum(clicks, 1e-3), clicks)
        encoder = InputEncoder(scenario)
        states, actions = log[list(scenario.feature_names)].to_numpy(), log[list(scenario.decision_names)].to_numpy()
        x = torch.from_numpy(encoder.encode(encoder.codes(states, actions))).to(device)
        net = _network(encoder, members, seed).to(device)
        net.mean.fill_(float(revenue.mean()))
        earned = np.stack([clicks / clicks.mean(), revenue / revenue.mean()])
        seen, spent = torch.from_numpy(earned).to(device)  # M each
        generator = torch.Generator().manual_seed(seed)
        weights = torch.empty(members, len(x)).exponential_(generator=generator).to(device)  # Bayesian bootstrap

        def loss(rows: Tensor) -> Tensor:
            log_clicks, log_spend = net(x[rows]).unbind(dim=2)  # K B
            poisson = torch.exp(log_clicks) - seen[rows] * log_clicks
            gamma = spent[rows] * torch.exp(-log_spend) + seen[rows] * log_spend
            return (weights[:, rows] * (poisson + gamma)).mean(dim=1).sum()

        minimise(net, loss, len(x), epochs=epochs, batch=_BATCH, rate=_RATE, seed=seed, decay=_DECAY, progress=progress)
        return cls(scenario, net, device)

    # -- use -----------------------------------------------------------------------------------------------
    def predict_members(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Each member's expected revenue: ``states`` (B, F), ``actions`` (B, D) → float32 (K, B)."""
        codes = self._encoder.codes(states, actions)
        out = np.empty((self.members, len(codes)), dtype=np.float32)
        for k in range(0, len(codes), _ROWS):
            x = torch.from_numpy(self._encoder.encode(codes[k : k + _ROWS])).to(self.device)
            with torch.inference_mode():
                out[:, k : k + _ROWS] = self._net.revenue(self._net(x)).cpu().numpy()
        return out

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Expected revenue, currency per request: ``states`` (B, F), ``actions`` (B, D) → float32 (B,)."""
        members = self.predict_members(states, actions)
        return sum(members[1:], members[0]) / np.float32(self.members)  # in one order, whatever B is

    def table(self, states: np.ndarray) -> np.ndarray:
        """Expected revenue of every joint action: ``states`` (B, F) → float32 (B, J)."""
        states = check_codes("state", states, self.scenario.feature_names, self.scenario.feature_sizes)
        features, distinct = self._encoder.n_features, self._encoder.distinct
        table = np.empty((len(states), len(distinct)), dtype=np.float32)
        with torch.inference_mode():
            first, *times = self._net.products()
            without_states = np.concatenate([np.zeros((len(distinct), features), np.int64), distinct], axis=1)
            of_actions = self._half(without_states, True, first)
            step = max(1, _CHUNK // len(distinct))
            for k in range(0, len(states), step):
                part = states[k : k + step]
                filler = np.zeros((len(part), distinct.shape[1]), np.int64)
                of_states = self._half(np.concatenate([part, filler], axis=1), False, first)
                both = of_states[:, :, None] + of_actions[:, None]  # K B J' 2+H
                out = self._net.revenue(self._net.rest(both.flatten(1, 2), times)).mean(dim=0)
                table[k : k + step] = out.view(len(part), -1).cpu().numpy()
        return table[:, self._encoder.distinct_of]

    def _half(self, codes: np.ndarray, of_actions: bool, times: Times) -> Tensor:
        """What the decisions, or the features, add to the first layer."""
        x = self._encoder.encode(codes)
        keep = self._encoder.of_actions if of_actions else ~self._encoder.of_actions
        return self._net.first(torch.from_numpy(x * keep).to(self.device), times)

    # -- in and out ----------------------------------------------------------------------------------------
    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``."""
        description: dict[str, Any] = {"scenario": self.scenario.to_dict(), "members": self.members}
        save_model(folder, "RevenueModel", self._net.state_dict(), description)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> RevenueModel:
        """Read what :meth:`save` wrote, or a stated law (:class:`marca_env.models.analytic.LawRevenue`).

        Raises:
            InputError: a file is missing, cut short or of another model.
        """
        if is_law(folder):
            from marca_env.models.analytic import LawRevenue, load_law

            return LawRevenue(*load_law(folder))
        tensors, description = load_model(folder, "RevenueModel", device)
        with rebuilding(folder):
            scenario = Scenario.from_dict(description["scenario"])
            net = _network(InputEncoder(scenario), int(description["members"]), 0)
            net.load_state_dict(tensors)
            return cls(scenario, net, device)


def _columns(scenario: Scenario, log: pd.DataFrame) -> tuple[Column, ...]:
    clicks = (Column("clicks"),) if "clicks" in log.columns else ()
    return (*feature_columns(scenario), *decision_columns(scenario), Column("revenue"), *clicks)


def _network(encoder: InputEncoder, members: int, seed: int) -> TwoPartEnsemble:
    """Weights drawn from ``seed``; global state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoPartEnsemble(members, encoder.width)
