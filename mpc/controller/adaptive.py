"""The model-predictive balancer with a system model that is refitted when the system drifts."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from marca_env.utils.argument_types import checked_arguments, checked_fields
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.controller.fallback import readable
from mpc.controller.mpc_balancer import MPCBalancer
from mpc.controller.telemetry import CheckedObservation, Event, FaultError, check_observation, minute_of_day
from mpc.model.forecast_errors import response_errors
from mpc.model.refit import MIN_TRANSITIONS, Refit
from mpc.model.system_model import SystemModel
from mpc.model.transitions import Transitions
from mpc.planning.deadline import Deadline
from mpc.validation import (
    ABOVE_ONE,
    FINITE_POSITIVE,
    FRACTION_BELOW_ONE,
    OPEN_FRACTION,
    POSITIVE_OR_INFINITE,
    check_fields,
    whole_number,
)

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

log = logging.getLogger(__name__)
AdaptationKind = Literal["noticed", "adopted", "dropped", "failed"]
"""``noticed``: the errors of the model have grown; ``adopted``: a refit is in use; ``dropped``: a refit was not better
on the newest minutes; ``failed``: a refit, or the bookkeeping of the telemetry, raised an error."""
_MAX_ADAPTATIONS = 1_000


@dataclass(frozen=True)
@checked_fields
class AdaptationSettings:
    """Settings of :class:`AdaptiveBalancer`: when it refits, and how."""

    window: int = 240
    """Number of minutes of telemetry that are stored."""
    notice: int = 5
    """Number of minutes over which the size of the model's error, without corrections, is averaged to notice drift."""
    threshold: float = 3.0
    """Drift is noticed when this mean exceeds ``threshold`` times the usual error. The usual error is that on the
    held-out part of the log, or that of an adopted refit on the newest minutes if it is larger."""
    least: int = 20
    """Number of minutes of the changed system before the first refit."""
    growth: float = 2.0
    """The next refit starts when the number of changed minutes has grown by this factor, until they fill the window."""
    epochs: int = 40
    """Gradient steps of a refit, each on all of its minutes."""
    steps: int = 10
    """Gradient steps in a minute: a refit is spread over several minutes so that no price is late."""
    seconds: float = 2.0
    """Time after which the gradient steps of a minute end. Runs are reproducible if it is never reached; infinity: no
    limit."""
    learning_rate: float = 0.003
    held_out: float = 0.25
    """Share of the newest minutes that are only used to evaluate a refit."""
    gain: float = 0.05
    """Share by which a refit must lower the error on the newest minutes, because adopting one drops all corrections."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "notice": whole_number(1),
                "steps": whole_number(1),
                "epochs": whole_number(1),
                "threshold": FINITE_POSITIVE,
                "seconds": POSITIVE_OR_INFINITE,
                "learning_rate": FINITE_POSITIVE,
                "growth": ABOVE_ONE,
                "held_out": OPEN_FRACTION,
                "gain": FRACTION_BELOW_ONE,
            },
        )
        if not (MIN_TRANSITIONS < self.least <= self.window):
            raise InputError(
                f"least is {self.least} and window {self.window}; {MIN_TRANSITIONS} < least ≤ window is needed"
            )


@dataclass(frozen=True)
class Adaptation:
    """An event in the life of the model."""

    minute: int
    """Minute of the day."""
    kind: AdaptationKind
    message: str


def _is_complete(checked: CheckedObservation) -> bool:
    """Return whether the prices in force are known and every cluster was used."""
    return bool(np.all(np.isfinite(checked.prices)) and np.all(checked.load > 0))


def _digest(model: SystemModel) -> str:
    """Return a sum of the weights of a model, by which it is recognised after a restart."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.response.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class AdaptiveBalancer:
    """An :class:`mpc.MPCBalancer` whose system model is refitted to a rolling window of telemetry when it drifts.

    A change of the budgets needs no refit: every observation carries them, so lost machines are known in the minute in
    which they are reported. The corrections of the controller follow a change of the cost level within minutes. A refit
    brings this level into the model, with the slopes and the range of costs in which the model is trusted.

    The price is set first and depends on a refit only from the minute after its adoption. A refit takes a limited
    number of gradient steps in each minute.

    Args:
        balancer: the controller; its model must come from :meth:`mpc.SystemModel.fit`, whose report holds the size of
            its errors.
        settings: see :class:`AdaptationSettings`.
        seed: seed of the refits.

    Attributes:
        adaptations: the events of the model, oldest first (the last 1,000).
        adopted: number of refits that were adopted since the model that was given.

    Raises:
        InputError: a model without a report of its errors.
    """

    @checked_arguments
    def __init__(self, balancer: MPCBalancer, settings: AdaptationSettings | None = None, *, seed: int = 0) -> None:
        self.balancer, self.settings, self.seed = balancer, settings or AdaptationSettings(), seed
        try:
            steps = balancer.model.report["steps"]
            # many minutes ahead the innovation has faded, so the error is that of the response
            self._usual_error = np.maximum(np.array(steps[max(steps, key=int)]["rmse"], dtype=np.float64), 0.01)
        except (KeyError, TypeError, ValueError):
            raise InputError("the model has no report of its errors; fit it with SystemModel.fit") from None
        self.adaptations: deque[Adaptation] = deque(maxlen=_MAX_ADAPTATIONS)
        self._refits = self.adopted = 0
        self._given = _digest(balancer.model)
        self.reset()

    @property
    def events(self) -> deque[Event]:
        """The failures of the controller; see :class:`mpc.MPCBalancer`."""
        return self.balancer.events

    def reset(self) -> None:
        """Forget the telemetry and a refit in progress; the last adopted model stays."""
        self.balancer.reset()
        self._rows: deque[list[float]] = deque(maxlen=self.settings.window)
        self._errors: deque[np.ndarray] = deque(maxlen=self.settings.notice)  # in units of the usual error
        self._levels: np.ndarray | None = None
        self._n_minutes = self._stretch = 0  # usable minutes so far; stretches of minutes without a gap
        self._changed_from: int | None = None  # first minute of the changed system, counted like _n_minutes
        self._drift_noticed, self._next_refit, self._refit_started = False, 0, 0
        self._refit: Refit | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the controller; see :meth:`mpc.MPCBalancer.state_dict`.

        A refitted model is not in it: :meth:`save_model` writes that. The stored telemetry is not saved.
        """
        refit = {"adopted": self.adopted, "of": self._given, "usual_error": self._usual_error.tolist()}
        return {"balancer": self.balancer.state_dict(), "refit": refit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, after :meth:`load_model` where a refit was in use.

        Corrections of a refit that was not loaded are dropped, because they do not fit another model.

        Raises:
            InputError: see :meth:`mpc.MPCBalancer.load_state_dict`.
        """
        self.reset()
        state = state if isinstance(state, Mapping) else {}
        memory = dict(state.get("balancer") or {})
        refit = state.get("refit")
        if isinstance(refit, Mapping) and refit.get("adopted") != self.adopted:
            memory["correction"] = self.balancer.state_dict()["correction"]  # that of a controller without a past
        self.balancer.load_state_dict(memory)

    def save_model(self, folder: str | Path) -> None:
        """Write the model in use, such as a refit, into a folder."""
        self.balancer.model.save(folder)

    def load_model(self, folder: str | Path, state: Mapping[str, Any]) -> bool:
        """Adopt the refit of an earlier process, unless this one was given another model to begin with.

        Args:
            folder: what :meth:`save_model` wrote.
            state: :meth:`state_dict` of that time.

        Returns:
            Whether it is in use.

        Raises:
            InputError: the folder or the state is damaged, or the model is of other clusters.
        """
        refit = state.get("refit")
        if not isinstance(refit, Mapping) or not refit.get("adopted") or refit.get("of") != self._given:
            return False
        usual = np.array(refit.get("usual_error"), dtype=np.float64)
        if usual.shape != self._usual_error.shape or not np.all(usual > 0):
            raise InputError(f"state of AdaptiveBalancer: usual_error is {refit.get('usual_error')}")
        self.balancer.adopt(SystemModel.load(folder))
        self.adopted, self._usual_error = int(refit["adopted"]), usual
        return True

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return prices (G,) for the coming minute; see :meth:`mpc.MPCBalancer.update`."""
        observation = readable(observation)
        prices = self.balancer.update(observation)
        minute = minute_of_day(observation)
        minute = -1 if minute is None else minute
        try:
            if self._store(observation):
                self._look_for_drift(minute)
            self._advance_refit(minute)
        except Exception as error:  # an error here must not change the price
            self._refit = None
            self._record(minute, "failed", f"{type(error).__name__}: {error}")
            self._schedule_refit()
        return prices

    # -- telemetry ---------------------------------------------------------------------------------------------------
    def _store(self, observation: ControlObservation) -> bool:
        """Store the last minute; return whether it is usable and follows the minute before."""
        levels, self._levels = self._levels, None
        try:
            checked = check_observation(observation, self.balancer.model.clusters, False)
        except FaultError:
            self._stretch += 1
            return False
        self._levels = checked.degradation
        period = self.balancer.settings.control_period
        minute = (checked.minute - period) % MINUTES_PER_DAY
        if levels is None or checked.state != "value" or not _is_complete(checked):
            self._stretch += 1
            return False
        row = [self._stretch, minute, checked.qps, *checked.load, *checked.prices, *levels.astype(float)]
        follows = bool(self._rows) and self._rows[-1][0] == self._stretch
        if follows and (minute - self._rows[-1][1]) % MINUTES_PER_DAY != period:
            self._stretch, follows = self._stretch + 1, False
            row[0] = self._stretch
        self._rows.append(row)
        self._n_minutes += 1
        return follows

    def _log(self, first: int) -> pd.DataFrame:
        """Return the system log of the stored minutes from ``first`` on."""
        names = [f"{k}_{c}" for k in ("load", "price", "degradation") for c in self.balancer.model.clusters]
        rows = list(self._rows)[-(self._n_minutes - first) :] if self._n_minutes > first else []
        return pd.DataFrame(rows, columns=["day", "minute", "qps", *names])

    def _look_for_drift(self, minute: int) -> None:
        """Add the model's error of the last minute, and notice drift if the mean of several is large."""
        s, model = self.settings, self.balancer.model
        error = response_errors(model, Transitions(self._log(self._n_minutes - 1), model.clusters), np.array([0]))[0]
        noise = 2.0 / np.sqrt(max(self._rows[-1][2] * self.balancer.forecaster.period, 1.0))
        self._errors.append(np.abs(error) / np.hypot(self._usual_error, noise))
        sizes = np.array(self._errors)
        if self._drift_noticed or len(sizes) < s.notice or not (sizes.mean(0) > s.threshold).any():
            return
        is_large = (sizes > s.threshold).any(1)
        self._changed_from = self._n_minutes - len(sizes) + (int(is_large.argmax()) if is_large.any() else 0)
        self._drift_noticed, self._refit, self._next_refit = True, None, s.least
        worst = int(sizes.mean(0).argmax())
        message = (
            f"{model.clusters[worst]}: errors of {sizes.mean(0)[worst]:.1f} times the usual for {len(sizes)} minutes"
        )
        self._record(minute, "noticed", message)

    # -- refits ------------------------------------------------------------------------------------------------------
    def _advance_refit(self, minute: int) -> None:
        """Start a refit when it is due, take its next steps, and evaluate it at the end."""
        s = self.settings
        if self._refit is None:
            if self._changed_from is None or self._changed_minutes < self._next_refit:
                return
            self._refits += 1
            self._refit = Refit(
                self.balancer.model,
                self._log(self._changed_from),
                seed=self.seed + self._refits,
                epochs=s.epochs,
                learning_rate=s.learning_rate,
                held_out=s.held_out,
            )
            self._refit_started = self._n_minutes
        clock = Deadline(s.seconds)
        for _ in range(s.steps):
            self._refit.advance()
            if self._refit.done or clock.passed:
                break
        if self._refit.done:
            self._finish_refit(self._refit, minute)

    def _finish_refit(self, refit: Refit, minute: int) -> None:
        """Adopt the refit if it is better than the model in use."""
        new_errors, old_errors = refit.held_out_errors(self._log(self._refit_started))
        shown = (" / ".join(f"{x:.2%}" for x in errors) for errors in (new_errors, old_errors))
        message = "errors on the newest minutes {}, {} before".format(*shown)
        self._refit = None
        self._schedule_refit()
        if not (new_errors**2).sum() < (1 - self.settings.gain) ** 2 * (old_errors**2).sum():
            self._record(minute, "dropped", message)
            return
        self.balancer.adopt(refit.model)
        self.adopted += 1
        self._usual_error = np.maximum(self._usual_error, new_errors)
        self._errors.clear()
        self._drift_noticed = False
        self._record(minute, "adopted", message)

    @property
    def _changed_minutes(self) -> int:
        """Return the number of stored minutes of the changed system."""
        return 0 if self._changed_from is None else min(self._n_minutes - self._changed_from, len(self._rows))

    def _schedule_refit(self) -> None:
        """Set the number of changed minutes at which the next refit starts; no refit follows after a full window."""
        self._next_refit = int(np.ceil(self.settings.growth * max(self._changed_minutes, self.settings.least)))
        if self._changed_minutes >= self.settings.window:
            self._changed_from, self._drift_noticed = None, False
            self._errors.clear()
        self._next_refit = min(self._next_refit, self.settings.window)

    def _record(self, minute: int, kind: AdaptationKind, message: str) -> None:
        self.adaptations.append(Adaptation(minute, kind, message))
        log.info("minute %d: %s: %s", minute, kind, message)
