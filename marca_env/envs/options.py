"""Options of the environments of requests, and the decorator that turns them into keyword arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import numpy as np

from marca_env.envs.request_window import RequestWindow
from marca_env.envs.rewards import REWARDS, RewardFunction
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_fields
from marca_env.utils.errors import InputError, UnknownArgumentError, shown, unknown_option
from marca_env.utils.validation import reject_unknown_options

ON_ILLEGAL = ("nearest", "error")
"""Ways to treat an action that the mask forbids."""

OBSERVATIONS = ("dict", "box")
"""Forms of an agent's observation in the PettingZoo environments."""

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R")
Options = TypeVar("Options")


@dataclass(frozen=True)
@checked_fields
class EnvOptions:
    """Options of every environment of requests. G clusters, B requests side by side.

    Raises:
        InputError: an option is invalid.
    """

    scenario: str | Path | Scenario = "default"
    """Preset name, YAML file, folder of ``marca fit``, or ``Scenario``. An ``engine`` brings its own scenario."""
    _: KW_ONLY
    reward: str | RewardFunction = "revenue"
    """``revenue``; ``lagrangian`` (revenue − Σ_g λ_g C_g); or a callable ``(outcome, prices) → (B,)``, in currency."""
    prices: Sequence[float] | np.ndarray | Mapping[str, float] | None = None
    """(G,) λ in currency per core-second, observed by the agents and used by the reward, or the price of each cluster
    by its name. ``None``: zeros, or with the reward ``lagrangian`` the scenario's own."""
    engine: Engine | None = None
    """Engine to run; ``None``: the engine of the scenario's fitted models."""
    on_illegal: str = "nearest"
    """Treatment of an action that the mask forbids. ``nearest``: take the nearest legal one, so that algorithms without
    masks run: the last option of the current decision, or ``wait`` if it is another agent's turn. ``error``: raise an
    ``IllegalActionError``, which finds learners that ignore the mask."""
    window: RequestWindow | int | dict | None = None
    """Episode of several requests whose computation affects the later ones: a ``RequestWindow``, a dict of its fields,
    or a number of requests. Revenue is then net of dropped requests, and costs are those of the degraded options that
    ran. ``None``: the scenario's own, or else one request per episode."""

    def __post_init__(self) -> None:
        if self.on_illegal not in ON_ILLEGAL:
            raise InputError(unknown_option("on_illegal", self.on_illegal, ON_ILLEGAL))
        if isinstance(self.reward, str) and self.reward not in REWARDS:
            raise InputError(unknown_option("reward", self.reward, REWARDS) + ", or pass a callable (outcome, prices)")
        if not isinstance(self.reward, str) and not callable(self.reward):
            names = ", ".join(REWARDS)
            raise InputError(f"reward is {shown(self.reward)}; pass one of {names}, or a callable (outcome, prices)")


@dataclass(frozen=True)
@checked_fields
class ViewOptions(EnvOptions):
    """Options of a view of one request, which can also be rendered."""

    _: KW_ONLY
    render_mode: str | None = None
    """``ansi`` (text), ``rgb_array`` (pixels) or ``human`` (a window); ``None``: no rendering."""


@dataclass(frozen=True)
@checked_fields
class TeamOptions(ViewOptions):
    """Options of a PettingZoo environment.

    Raises:
        InputError: an option is invalid.
    """

    _: KW_ONLY
    observations: str = "dict"
    """``dict``: a Dict of ``observation`` and ``action_mask``. ``box``: the observation alone, for libraries that take
    only Box spaces. Either way ``infos[agent]["action_mask"]`` holds the mask."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.observations not in OBSERVATIONS:
            raise InputError(unknown_option("observations", self.observations, OBSERVATIONS))


class _ArgumentsOf(Generic[P, Options]):
    """Decorator that :func:`arguments_of` returns."""

    def __init__(self, options: Callable[P, Options]) -> None:
        self.options = options

    @overload
    def __call__(self, function: Callable[[Options], R]) -> Callable[P, R]: ...

    @overload
    def __call__(self, function: Callable[[T, Options], R]) -> Callable[Concatenate[T, P], R]: ...

    @overload
    def __call__(self, function: Callable[[T, U, Options], R]) -> Callable[Concatenate[T, U, P], R]: ...

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Replace the last parameter of ``function``."""
        own = inspect.signature(function)
        leading = list(own.parameters.values())[:-1]
        fields = list(inspect.signature(self.options).parameters.values())
        signature = own.replace(parameters=[*leading, *fields])

        @functools.wraps(function)
        def with_arguments(*args: Any, **keywords: Any) -> Any:
            try:
                arguments = signature.bind(*args, **keywords).arguments
            except TypeError as error:  # too many, or a missing one
                raise UnknownArgumentError(f"{function.__name__}: {error}") from None
            first = [arguments.pop(parameter.name) for parameter in leading]
            return function(*first, self.options(**arguments))  # type: ignore[call-arg]

        with_arguments.__signature__ = signature  # type: ignore[attr-defined]
        return reject_unknown_options(with_arguments)


def arguments_of(options: Callable[P, Options]) -> _ArgumentsOf[P, Options]:
    """Return a decorator that replaces a function's last parameter by the fields of a dataclass of options.

    The decorated function has the fields as arguments, also in ``inspect.signature``, so that several functions share
    one definition of their options. An unknown option is an ``InputError`` that names the nearest valid one.
    """
    return _ArgumentsOf(options)
