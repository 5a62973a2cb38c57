"""The model-predictive balancer with a model that follows the system: drift is noticed, the model refitted, adopted."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.controller.mpc_balancer import MPCBalancer
from mpc.controller.telemetry import Event, FaultError, minute_of, read
from mpc.model.forecast_errors import response_errors
from mpc.model.refit import MIN_TRANSITIONS, Refit
from mpc.model.transitions import Transitions
from mpc.planning.deadline import Deadline

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

log = logging.getLogger(__name__)
_KEPT = 1_000


@dataclass(frozen=True)
class AdaptationSettings:
    """When :class:`AdaptiveBalancer` refits, and how."""

    window: int = 240
    """Minutes of telemetry that are kept."""
    notice: int = 5
    """Drift: the mean size of the model's error, before any correction, over so many minutes ..."""
    threshold: float = 3.0
    """... exceeds this many times what is usual: its error on the held-out part of its log, or the error that an
    adopted refit had on the newest minutes if that is larger."""
    least: int = 20
    """Minutes of the changed system before the first refit."""
    growth: float = 2.0
    """The next refit comes when the changed minutes have grown by this factor, until they fill the window."""
    epochs: int = 40
    """Gradient steps of a refit, each on all of its minutes."""
    steps: int = 10
    """Gradient steps a minute: a refit is spread over the minutes so that no price is late."""
    seconds: float = 2.0
    """Time after which the steps of a minute end whatever is left of them. Runs repeat exactly where it is not reached;
    infinite: never."""
    learning_rate: float = 0.003
    held_out: float = 0.25
    """Share of the newest minutes that only judge a refit."""
    gain: float = 0.05
    """A refit must lower the error on the newest minutes by this share; adopting one forgets the corrections so far."""

    def __post_init__(self) -> None:
        for name in ("notice", "steps"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a whole number, at least 1")
        for name in ("threshold", "seconds", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if not (MIN_TRANSITIONS < self.least <= self.window):
            raise InputError(
                f"least is {self.least} and window {self.window}; {MIN_TRANSITIONS} < least ≤ window is needed"
            )
        if not (self.growth > 1 and 0 < self.held_out < 1 and 0 <= self.gain < 1):
            raise InputError(
                f"growth {self.growth} must exceed 1, held_out {self.held_out} be in (0, 1), gain {self.gain} in [0, 1)"
            )


@dataclass(frozen=True)
class Adaptation:
    """Something that happened to the model."""

    minute: int
    """Minute of the day."""
    kind: Literal["noticed", "adopted", "dropped", "failed"]
    """``noticed``: the model's errors have grown; ``adopted``: a refit is in use; ``dropped``: it was no better on the
    newest minutes; ``failed``: it, or the bookkeeping of telemetry, broke."""
    message: str


class AdaptiveBalancer:
    """:class:`mpc.MPCBalancer` whose system model is refitted on a rolling window of telemetry when it drifts.

    Budgets need no refit: every observation carries them, so that lost machines are known the minute they are reported.
    The controller's own correction follows a change of level within minutes; a refit brings that level into the model,
    with the slopes and the range of costs that it may be trusted in. The price is set first and depends on a refit only
    from the minute after its adoption; a refit takes a bounded number of steps a minute.

    Args:
        balancer: the controller; its model must come from :meth:`mpc.SystemModel.fit`, whose report says how large its
            errors are.
        settings: see :class:`AdaptationSettings`.
        seed: of the refits.

    Attributes:
        adaptations: what happened to the model, oldest first (the last 1,000).

    Raises:
        InputError: the model has no report of its one-step error.
    """

    def __init__(self, balancer: MPCBalancer, settings: AdaptationSettings | None = None, *, seed: int = 0) -> None:
        self.balancer, self.settings, self.seed = balancer, settings or AdaptationSettings(), seed
        try:
            steps = balancer.model.report["steps"]
            # many minutes ahead nothing is left of the innovation, and the error is the response's
            self._usual = np.maximum(np.array(steps[max(steps, key=int)]["rmse"], dtype=np.float64), 0.01)
        except (KeyError, TypeError, ValueError):
            raise InputError("the model has no report of its errors; fit it with SystemModel.fit") from None
        self.adaptations: deque[Adaptation] = deque(maxlen=_KEPT)
        self._refits = 0
        self.reset()

    @property
    def events(self) -> deque[Event]:
        """Faults of the controller; see :class:`mpc.MPCBalancer`."""
        return self.balancer.events

    def reset(self) -> None:
        """Forget telemetry and any refit under way; the model stays as it was last adopted."""
        self.balancer.reset()
        self._rows: deque[list[float]] = deque(maxlen=self.settings.window)
        self._errors: deque[np.ndarray] = deque(maxlen=self.settings.notice)  # in units of what is usual
        self._levels: np.ndarray | None = None
        self._seen = self._run = 0  # minutes so far; stretches without a gap
        self._since: int | None = None  # first minute of the changed system, counted like _seen
        self._waiting, self._next, self._started = False, 0, 0
        self._refit: Refit | None = None

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Prices (G,) for the coming minute; see :meth:`mpc.MPCBalancer.update`."""
        prices = self.balancer.update(observation)
        minute = minute_of(observation)
        minute = -1 if minute is None else minute
        try:
            if self._take(observation):
                self._look_for_drift(minute)
            self._learn(minute)
        except Exception as error:  # whatever breaks here, the price stands
            self._refit = None
            self._record(minute, "failed", f"{type(error).__name__}: {error}")
            self._plan_next()
        return prices

    # -- telemetry ---------------------------------------------------------------------------------------------------
    def _take(self, observation: ControlObservation) -> bool:
        """Keep the minute that just ran; whether it is usable and follows on the one before."""
        levels, self._levels = self._levels, None
        try:
            reading = read(observation, self.balancer.model.clusters, False)
        except FaultError:
            self._run += 1
            return False
        self._levels = reading.degradation
        period = self.balancer.settings.control_period
        minute = (reading.minute - period) % MINUTES_PER_DAY
        if levels is None or not np.all(np.isfinite(reading.prices)) or np.any(reading.load <= 0):
            self._run += 1
            return False
        row = [self._run, minute, reading.qps, *reading.load, *reading.prices, *levels.astype(float)]
        follows = bool(self._rows) and self._rows[-1][0] == self._run
        if follows and (minute - self._rows[-1][1]) % MINUTES_PER_DAY != period:
            self._run, follows = self._run + 1, False
            row[0] = self._run
        self._rows.append(row)
        self._seen += 1
        return follows

    def _log(self, first: int) -> pd.DataFrame:
        """The system log of the minutes from ``first`` on, as far as they are kept."""
        names = [f"{k}_{c}" for k in ("load", "price", "degradation") for c in self.balancer.model.clusters]
        kept = list(self._rows)[-(self._seen - first) :] if self._seen > first else []
        return pd.DataFrame(kept, columns=["day", "minute", "qps", *names])

    def _look_for_drift(self, minute: int) -> None:
        """Note how far the model was off in the last minute; a run of large errors is the beginning of a change."""
        s, model = self.settings, self.balancer.model
        error = response_errors(model, Transitions(self._log(self._seen - 1), model.clusters), np.array([0]))[0]
        noise = 2.0 / np.sqrt(max(self._rows[-1][2] * self.balancer.forecaster.period, 1.0))
        self._errors.append(np.abs(error) / np.hypot(self._usual, noise))
        sizes = np.array(self._errors)
        if self._waiting or len(sizes) < s.notice or not (sizes.mean(0) > s.threshold).any():
            return
        off = (sizes > s.threshold).any(1)
        self._since = self._seen - len(sizes) + (int(off.argmax()) if off.any() else 0)
        self._waiting, self._refit, self._next = True, None, s.least
        worst = int(sizes.mean(0).argmax())
        told = f"{model.clusters[worst]}: errors of {sizes.mean(0)[worst]:.1f} times the usual for {len(sizes)} minutes"
        self._record(minute, "noticed", told)

    # -- refits ------------------------------------------------------------------------------------------------------
    def _learn(self, minute: int) -> None:
        """Start a refit when it is due, take its next steps, and put it to the test at the end."""
        s = self.settings
        if self._refit is None:
            if self._since is None or self._changed < self._next:
                return
            self._refits += 1
            self._refit = Refit(
                self.balancer.model,
                self._log(self._since),
                seed=self.seed + self._refits,
                epochs=s.epochs,
                learning_rate=s.learning_rate,
                held_out=s.held_out,
            )
            self._started = self._seen
        clock = Deadline(s.seconds)
        for _ in range(s.steps):
            self._refit.advance()
            if self._refit.done or clock.passed:
                break
        if self._refit.done:
            self._conclude(self._refit, minute)

    def _conclude(self, refit: Refit, minute: int) -> None:
        ours, theirs = refit.held_out_errors(self._log(self._started))
        shown = (" / ".join(f"{x:.2%}" for x in errors) for errors in (ours, theirs))
        told = "errors on the newest minutes {}, {} before".format(*shown)
        self._refit = None
        self._plan_next()
        if not (ours**2).sum() < (1 - self.settings.gain) ** 2 * (theirs**2).sum():
            self._record(minute, "dropped", told)
            return
        self.balancer.adopt(refit.model)
        self._usual = np.maximum(self._usual, ours)
        self._errors.clear()
        self._waiting = False
        self._record(minute, "adopted", told)

    @property
    def _changed(self) -> int:
        """Minutes of the changed system that are kept."""
        return 0 if self._since is None else min(self._seen - self._since, len(self._rows))

    def _plan_next(self) -> None:
        """The changed minutes that the next refit waits for; none once they have filled the window."""
        self._next = int(np.ceil(self.settings.growth * max(self._changed, self.settings.least)))
        if self._changed >= self.settings.window:
            self._since, self._waiting = None, False
            self._errors.clear()
        self._next = min(self._next, self.settings.window)

    def _record(self, minute: int, kind: Literal["noticed", "adopted", "dropped", "failed"], message: str) -> None:
        self.adaptations.append(Adaptation(minute, kind, message))
        log.info("minute %d: %s: %s", minute, kind, message)
