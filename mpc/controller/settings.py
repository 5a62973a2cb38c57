"""Settings of the model-predictive balancer."""

from __future__ import annotations

from dataclasses import dataclass

from marca_env.utils.argument_types import checked_fields
from mpc.planning.planning_method import PlannerSettings
from mpc.validation import (
    FINITE_NOT_NEGATIVE,
    FINITE_POSITIVE,
    FRACTION,
    MARGIN,
    POSITIVE_OR_INFINITE,
    at_least,
    check_fields,
    whole_number,
)


@dataclass(frozen=True)
@checked_fields
class MPCSettings(PlannerSettings):
    """Settings of :class:`mpc.MPCBalancer`: Eq. 17, its minimisation, the corrections, and the safeguards."""

    margin: float = 0.005
    load_error: float = 0.004
    release_margin: float = 0.04
    """Least margin while a cluster is degraded: overload protection is released only below the budget."""
    margin_deviations: float = 0.0
    """Additional margin, in standard deviations of the ensemble's forecast; needs a model with several members. 1.64
    keeps the load below the budget in 95 % of cases, as far as the members' disagreement is the only uncertainty."""
    bias_gain: float = 0.2
    """Share of the last prediction error of the cost per request that corrects the next predictions, in [0, 1]. The
    corrections add up, so that a biased model holds the budget as well. 0: no correction."""
    bias_jump: float = 4.0
    """A prediction error of more than this over √(requests of the minute) is mostly corrected at once."""
    tilt_gain: float = 0.5
    """Share of the slope observed at the last price change that corrects the model's slope near that price, in [0, 1].
    0: no correction, which overshoots where the load falls in steps."""
    price_reach: float = 4.0
    """Factor by which prices may exceed the highest of the training log; see ``price_max``."""
    price_max: float | tuple[float, ...] | None = None
    """Upper bound of the prices, currency per core-second; ``None``: ``price_reach`` times the highest of the training
    log."""
    range_slack: float = 2.0
    """Factor beyond the costs per request of the training log up to which the model is trusted."""
    hold_minutes: int = 3
    """Number of consecutive minutes without a new plan for which the last good plan is used."""
    hold_band: float = 0.2
    """Distance of the load from the prediction of that plan, as a fraction of the budget, above which feedback takes
    over at once."""
    control_period: int = 1
    """Minutes from one update to the next; the horizon counts these periods."""
    deadline: float = 10.0
    """Seconds after which a price is returned in any case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            {
                "bias_gain": FRACTION,
                "tilt_gain": FRACTION,
                "bias_jump": FINITE_POSITIVE,
                "price_reach": FINITE_POSITIVE,
                "release_margin": MARGIN,
                "hold_band": FINITE_POSITIVE,
                "deadline": POSITIVE_OR_INFINITE,
                "margin_deviations": FINITE_NOT_NEGATIVE,
                "control_period": whole_number(1, 720, unit="minutes"),
                "range_slack": at_least(1),
                "hold_minutes": whole_number(0),
            },
        )
