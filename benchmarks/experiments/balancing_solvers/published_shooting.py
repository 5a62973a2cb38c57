"""Random shooting as published (arXiv 2512.24325).

100 price sequences are rolled out minute by minute, one after the other, through a 256-256-256 network that maps load,
conditions and prices to the next load (Eq. 18). Our own random shooting (:mod:`mpc.planning.alternatives.sampling`)
draws the same sequences but evaluates a far smaller network in plain arrays, a whole horizon at once. Both together
show how much of a difference comes from the method and how much from its evaluation.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mpc import SystemModel
from mpc.model.conditions import time_features
from mpc.model.transitions import Transitions
from mpc.planning.alternatives.search_method import SearchMethod
from mpc.planning.deadline import Deadline
from mpc.planning.objective import PlanStart
from mpc.planning.planning_method import PlannerSettings
from mpc.planning.predicted_loads import PredictedLoads

WIDTH, LAYERS = 256, 3
EPOCHS, BATCH, LEARNING_RATE = 30, 256, 1e-3
HELD_OUT = 0.15
_FLOOR = 1e-6


class WideNetwork(nn.Module):
    """Network that predicts log Ĉ_{t+1}, the log load of G clusters in the next minute.

    Its inputs are log Ĉ_t, the log traffic of both minutes, log prices and the time of day.

    Args:
        log: a system log; all but its last 15 % is fitted.
        model: gives clusters, price scale and windows of the day.
        seed: of the weights and the order of the batches.

    Attributes:
        error: (G,) root mean square error of log Ĉ_{t+1} on the held-out end of the log.
    """

    def __init__(self, log: pd.DataFrame, model: SystemModel, seed: int) -> None:
        super().__init__()
        table = Transitions(log, model.clusters)
        self.windows, self.prices = model.windows, model.prices
        rows, conditions = table.starts, table.conditions
        inputs = np.column_stack(
            [
                np.log(np.maximum(table.load[rows], _FLOOR)),
                np.log(conditions.qps[rows]),
                np.log(conditions.qps[rows + 1]),
                self.prices.to_log(table.prices[rows + 1]),
                time_features(conditions.minute[rows + 1], self.windows),
            ]
        )
        targets = np.log(np.maximum(table.load[rows + 1], _FLOOR))
        self.mean, self.std = (torch.tensor(x, dtype=torch.float32) for x in (inputs.mean(0), inputs.std(0) + 1e-3))
        self.centre, self.size = (torch.tensor(x, dtype=torch.float32) for x in (targets.mean(0), targets.std(0)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [inputs.shape[1], *[WIDTH] * LAYERS]
            hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
            self.layers = nn.Sequential(*hidden, nn.Linear(WIDTH, targets.shape[1]))
        tensors = [torch.tensor(x, dtype=torch.float32) for x in (inputs, targets)]
        self._fit(tensors[0], tensors[1], np.random.default_rng(seed))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, I) to log Ĉ_{t+1} (B, G)."""
        return self.centre + self.size * self.layers((inputs - self.mean) / self.std)

    def _fit(self, inputs: Tensor, targets: Tensor, rng: np.random.Generator) -> None:
        optimiser, fitted = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE), int((1 - HELD_OUT) * len(inputs))
        for _ in range(EPOCHS):
            order = torch.as_tensor(rng.permutation(fitted))
            for start in range(0, fitted, BATCH):
                rows = order[start : start + BATCH]
                optimiser.zero_grad()
                (((self(inputs[rows]) - targets[rows]) / self.size) ** 2).mean().backward()
                optimiser.step()
        with torch.no_grad():
            self.error = ((self(inputs[fitted:]) - targets[fitted:]) ** 2).mean(0).sqrt().numpy()


class PublishedShooting(SearchMethod):
    """Method that plans the best of random price sequences by the wide network's forecast.

    Its plan is then evaluated with the system model, like those of all other methods.
    """

    def __init__(
        self,
        network: WideNetwork,
        n_clusters: int,
        settings: PlannerSettings,
        top: np.ndarray,
        *,
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, settings, top)
        self.network, self.samples = network, samples
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        shares = self._rng.random((self.samples, *self.shape))  # uniform in λ, u = log(1 + λ/s)
        drawn = self._project(np.log1p(shares * np.expm1(self.top)), start)
        values = [float(self._objective_of(sequence, predicted, start)) for sequence in drawn]
        return drawn[int(np.argmin(values))], self.samples, False

    def _objective_of(self, sequence: np.ndarray, predicted: PredictedLoads, start: PlanStart) -> np.ndarray:
        """Return J of log prices (N, G), computed minute by minute."""
        conditions, budget = predicted.costs.conditions, predicted.budget
        clock_features, log_qps = time_features(conditions.minute, self.network.windows), np.log(conditions.qps)
        load, last_qps, loads = np.log(np.maximum(start.load * budget, _FLOOR)), log_qps[0], np.empty(self.shape)
        with torch.no_grad():
            for i, prices in enumerate(sequence):
                row = np.concatenate([load, [last_qps, log_qps[i]], prices, clock_features[i]])
                load = self.network(torch.tensor(row[None], dtype=torch.float32)).numpy()[0]
                loads[i], last_qps = np.exp(load) / budget, log_qps[i]
        return self.objective(loads, start.load, start.target, start.emphasis)
