"""Everything that can be set about the model-predictive balancer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.utils.errors import InputError
from mpc.planning.scp import PlannerSettings


@dataclass(frozen=True)
class MPCSettings(PlannerSettings):
    """Everything about :class:`mpc.MPCBalancer`: Eq. 17, how it is solved and corrected, and what guards it."""

    margin: float = 0.005
    release_margin: float = 0.04
    """While a cluster is degraded, the margin is at least this: overload protection lets go only below the budget."""
    margin_deviations: float = 0.0
    """Standard deviations of the ensemble's forecast that the load keeps below the budget as well; needs a model with
    several members. 1.64 keeps 95 % below, as far as the members' disagreement is all there is. 0: none."""
    bias_gain: float = 0.2
    """Share of the last prediction error of the cost per request that corrects the next predictions, in [0, 1].
    Summed up, it makes a biased model hold the budget all the same; 0: never."""
    bias_jump: float = 4.0
    """A prediction error of more than this over √(requests of the minute) is mostly believed at once."""
    tilt_gain: float = 0.5
    """Share of the slope that the last move of a price showed which corrects the model's near that price, in [0, 1];
    0: the model's slopes are kept, which overshoots where the load falls in steps."""
    price_reach: float = 4.0
    """Prices may exceed the highest in the model's training log by this factor; see ``price_max`` too."""
    price_max: float | tuple[float, ...] | None = None
    """Bound of the prices, currency per core-second; ``None``: ``price_reach`` times the training log's highest."""
    range_slack: float = 2.0
    """The model is trusted up to a cost per request of this factor beyond those that it was trained on."""
    hold_minutes: int = 3
    """Minutes in a row without a plan of their own that the last good plan serves."""
    hold_band: float = 0.2
    """Distance of the load from what that plan expected, in budgets, beyond which feedback takes over at once."""
    control_period: int = 1
    """Minutes from one update to the next; a horizon of N then reaches N such periods ahead."""
    deadline: float = 10.0
    """Seconds after which a price is returned whatever the planning does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bias_gain", "tilt_gain"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        for name in ("bias_jump", "price_reach", "hold_band", "deadline"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if not (np.isfinite(self.margin_deviations) and self.margin_deviations >= 0):
            raise InputError(f"margin_deviations is {self.margin_deviations}; it must be finite and not negative")
        if not (isinstance(self.control_period, int) and 1 <= self.control_period <= 720):
            raise InputError(
                f"control_period is {self.control_period!r}; it must be a whole number of minutes, 1 to 720"
            )
        if not self.range_slack >= 1:
            raise InputError(f"range_slack is {self.range_slack}; it must be at least 1")
        if not (isinstance(self.hold_minutes, int) and self.hold_minutes >= 0):
            raise InputError(f"hold_minutes is {self.hold_minutes!r}; it must be a whole number, not negative")
