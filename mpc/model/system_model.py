"""The system model that users fit, save and load; its equations are in :mod:`mpc.model.load_dynamics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError
from marca_env.utils.model_files import load_model, save_model
from mpc.model.fitting import Trainer, level_shift, read_transitions, split_by_time, training_scales
from mpc.model.forecast_errors import forecast_errors
from mpc.model.load_dynamics import LoadDynamics

if TYPE_CHECKING:
    import pandas as pd

KIND = "system_model"


class SystemModel(LoadDynamics):
    """The load of the clusters as a function of traffic, prices and time: Ĉ_{t+1} = g(Ĉ_t, s_t, λ_t) (Eq. 18).

    Make one with :meth:`fit` or :meth:`load`. Loads are in core-seconds per second, prices in currency per
    core-second. The equation is Eq. 18 of arXiv 2512.24325.
    """

    @classmethod
    @checked_arguments
    def fit(
        cls,
        system_log: pd.DataFrame,
        *,
        clusters: Sequence[str] | None = None,
        seed: int = 0,
        epochs: int = 150,
        hidden: int = 24,
        windows: int = 6,
        members: int = 1,
        batch: int = 256,
        learning_rate: float = 0.02,
        patience: int = 30,
        horizons: Sequence[int] = (1, 5, 10),
        device: str = "cpu",
        progress: Callable[[int, float], None] | None = None,
    ) -> SystemModel:
        """Fit Ĉ_{t+1} = g(Ĉ_t, s_t, λ_t) (Eq. 18, arXiv 2512.24325) to a system log.

        The transitions are split by time: the first 70 % train (the scales of the features come from them alone), the
        next 15 % decide when to stop, the last 15 % are held out for ``report``. Minutes under degradation only teach
        a constant per level, unless most minutes are degraded. The prices must vary for their effect to be learned:
        log with a balancer wrapped in :class:`mpc.DitheredBalancer`.

        Args:
            system_log: columns day, minute, qps and, for each cluster, load, price and degradation. Consecutive rows
                of a day are one control period apart.
            clusters: names of the clusters in order; ``None``: in the order of the ``load_<cluster>`` columns.
            seed: seed of the initial weights and of the order of the batches.
            epochs: largest number of passes over the training transitions.
            hidden: units of each of the two hidden layers, per cluster.
            windows: number of equal windows of a day between which the mix of requests may change.
            members: K, the number of models that are trained side by side and averaged. Their disagreement is the
                uncertainty of the forecast.
            batch: transitions per update.
            learning_rate: step size of Adam.
            patience: epochs without a better validation loss of any member before training stops.
            horizons: numbers of steps whose errors are reported.
            device: where to train, "cpu" or "cuda".
            progress: called with (epoch, validation loss).

        Returns:
            The model. Its ``report["steps"][n]`` is described in :func:`mpc.model.forecast_errors.forecast_errors`.

        Raises:
            InputError: a missing column, a value that is not a finite number, or too few transitions.
        """
        table, clusters = read_transitions(system_log, clusters)
        training, validation, held_out = split_by_time(table.starts)
        scales = training_scales(table, training)
        model = cls(clusters, **scales, windows=windows, hidden=hidden, members=members, seed=seed, device=device)
        best_epoch = Trainer(model, table, learning_rate).run(
            table.prefer_undegraded(training),
            table.prefer_undegraded(validation),
            epochs,
            batch,
            patience,
            np.random.default_rng(seed),
            progress,
        )
        model.level_shift = level_shift(model, table, training)
        model.report = {
            "transitions": {"training": len(training), "validation": len(validation), "held_out": len(held_out)},
            "epochs": best_epoch,
            "persistence_gain": torch.sigmoid(model.persistence).mean(0).tolist(),
            "steps": forecast_errors(model, table, training, held_out, horizons),
        }
        return model

    @checked_arguments
    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors) and description (JSON) into ``folder``; each file is complete or absent."""
        tensors = {**self.response.state_dict(), "persistence": self.persistence.data}
        tensors["level_shift"] = torch.as_tensor(self.level_shift)
        description = {
            "clusters": list(self.clusters),
            "price_scale": self.prices.scale.tolist(),
            "price_limit": self.price_limit.tolist(),
            "scaling": self.scaling,
            "windows": self.windows,
            "hidden": self.hidden,
            "members": self.members,
            "seen": {name: values.tolist() for name, values in self.coverage.items()},
            "report": self.report,
        }
        save_model(folder, KIND, tensors, description)

    @classmethod
    @checked_arguments
    def load(cls, folder: str | Path, device: str = "cpu") -> SystemModel:
        """Read a model that :meth:`save` wrote.

        Args:
            folder: the folder of the model.
            device: "cpu" or "cuda".

        Raises:
            InputError: a file is missing, truncated or of another kind, or the two files do not match.
        """
        tensors, description = load_model(folder, KIND, device)
        description.pop("kind")
        try:
            model = cls(coverage=description.pop("seen", None), **description, device=device)
            model.persistence.data = tensors.pop("persistence").reshape(model.persistence.shape)
            model.level_shift = tensors.pop("level_shift").cpu().numpy()
            model.response.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: weights and description do not fit ({error}); save the model again") from None
        return model
