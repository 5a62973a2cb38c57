"""Random shooting as published (arXiv 2512.24325): 100 price sequences, each rolled out minute by minute, one after the
other, through a 256-256-256 network that maps load, conditions and prices to the next load (Eq. 18).

Our own random shooting (:mod:`mpc.planning.alternatives.sampling`) draws alike but evaluates a far smaller network in plain arrays, a whole
horizon at once; beside it the published form shows what of a comparison is the method's and what the evaluation's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mpc.model.conditions import time_features
from mpc.model.transitions import Transitions
from mpc.planning.alternatives.search_method import SearchMethod

if TYPE_CHECKING:
    import pandas as pd

    from mpc import SystemModel
    from mpc.planning.deadline import Deadline
    from mpc.planning.objective import Now
    from mpc.planning.predicted_loads import PredictedLoads
    from mpc.planning.scp import PlannerSettings

WIDTH, LAYERS = 256, 3
EPOCHS, BATCH, LEARNING_RATE = 30, 256, 1e-3
HELD_OUT = 0.15
_FLOOR = 1e-6


class WideNetwork(nn.Module):
    """log Ĉ_{t+1} of G clusters from log Ĉ_t, log traffic of both minutes, log prices and time of day.

    Args:
        log: a system log to fit on, all but its last 15 %.
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
        known, wanted = (torch.tensor(x, dtype=torch.float32) for x in (inputs, targets))
        self._fit(known, wanted, np.random.default_rng(seed))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B,I) → log Ĉ_{t+1} (B,G)."""
        return self.centre + self.size * self.layers((inputs - self.mean) / self.std)

    def _fit(self, inputs: Tensor, targets: Tensor, rng: np.random.Generator) -> None:
        optimiser, known = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE), int((1 - HELD_OUT) * len(inputs))
        for _ in range(EPOCHS):
            order = torch.as_tensor(rng.permutation(known))
            for start in range(0, known, BATCH):
                rows = order[start : start + BATCH]
                optimiser.zero_grad()
                (((self(inputs[rows]) - targets[rows]) / self.size) ** 2).mean().backward()
                optimiser.step()
        with torch.no_grad():
            self.error = ((self(inputs[known:]) - targets[known:]) ** 2).mean(0).sqrt().numpy()


class PublishedShooting(SearchMethod):
    """The best of random sequences by the wide network's own forecast; judged, like all others, by the system model."""

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
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        share = self._rng.random((self.samples, *self.shape))  # uniform in λ, u = log(1 + λ/s)
        drawn = self._allowed(np.log1p(share * np.expm1(self.top)), now)
        values = [float(self._objective_of(sequence, predicted, now)) for sequence in drawn]
        return drawn[int(np.argmin(values))], self.samples, False

    def _objective_of(self, sequence: np.ndarray, predicted: PredictedLoads, now: Now) -> np.ndarray:
        """J of log prices (N,G), a minute after the other."""
        conditions, budget = predicted.costs.conditions, predicted.budget
        times, qps = time_features(conditions.minute, self.network.windows), np.log(conditions.qps)
        load, before, loads = np.log(np.maximum(now.load * budget, _FLOOR)), qps[0], np.empty(self.shape)
        with torch.no_grad():
            for i, prices in enumerate(sequence):
                row = np.concatenate([load, [before, qps[i]], prices, times[i]])
                load = self.network(torch.tensor(row[None], dtype=torch.float32)).numpy()[0]
                loads[i], before = np.exp(load) / budget, qps[i]
        return self.objective(loads, now.load, now.target, now.emphasis)
