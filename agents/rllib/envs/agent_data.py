"""Observations, masks and rewards of single agents: flat, checked, and with faults in words.

The functions raise an InputError that names the fault alone; the caller adds agent, step and environment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from marca_env.utils.errors import InputError, one_line

MASK = "action_mask"
ON_TURN = "on_turn"
"""Key of ``infos[agent]``: whether the agent acts in the next step; it may only wait if this is False."""
NO_ACTION = f"{MASK} allows no action: allow one, or set infos[agent]['on_turn'] to False"
"""Fault of an agent on turn whose mask is empty."""
BARE_KEYS = ("observation", "observations", "obs")
"""Keys of the bare observation in environments whose observations contain an action mask."""
OTHER_MASKS = (
    "action_masks",
    "avail_action",
    "avail_actions",
    "available_actions",
    "legal_action_mask",
    "legal_actions",
    "legal_moves",
    "mask",
    "valid_action_mask",
    "valid_actions",
)
"""Names under which other libraries look for action masks."""


class Flattener:
    """Function ``(value, row)`` that writes a value of a space into a flat row.

    Rows are float32. An image, a ``Box`` of uint8 from 0 to 255, stays uint8; the networks scale it to [0, 1]. An image
    inside a Dict or Tuple is scaled here.

    Args:
        space: any space that can be flattened.
        what: ``observation`` or ``state``, for messages.

    Raises:
        InputError: the space cannot be flattened.
    """

    def __init__(self, space: gym.Space, what: str) -> None:
        self.space, self.what = space, what
        try:
            self.size = int(gym.spaces.flatdim(space))
        except (NotImplementedError, ValueError) as error:
            raise InputError(
                f"{what} space {space} has no fixed size ({one_line(error)}); use Box, Discrete, MultiDiscrete, "
                "MultiBinary, or a Dict or Tuple of these"
            ) from None
        self.dtype: Any = np.uint8 if is_image(space) else np.float32
        self._scale = None if isinstance(space, gym.spaces.Box) else _scales(space)
        self._is_index = isinstance(space, gym.spaces.Discrete)
        self._read = self._checked_box if isinstance(space, gym.spaces.Box) else self._flatten
        self._shape = tuple(space.shape or ())

    def __call__(self, value: Any, row: np.ndarray) -> None:
        """Write ``value`` into ``row``.

        Raises:
            InputError: the value does not fit the space.
        """
        if self._is_index:
            index = self._checked_index(value)
            row[:] = 0.0
            row[index] = 1.0
        else:
            row[:] = self._read(value)

    def _checked_box(self, value: Any) -> np.ndarray:
        array = as_array(value, self.what)
        if array.shape != self._shape and np.squeeze(array).shape != tuple(n for n in self._shape if n != 1):
            raise InputError(f"{self.what} has shape {array.shape}, but its space says {self._shape}")
        if self.dtype == np.uint8 and array.dtype != np.uint8:
            if array.dtype.kind not in "iu":
                raise InputError(f"{self.what} is {array.dtype}, but its space says uint8 (an image)")
            if array.size and (array.min() < 0 or array.max() > 255):
                raise InputError(f"{self.what} goes from {array.min()} to {array.max()}, but its space says 0 to 255")
        return array.reshape(-1)

    def _checked_index(self, value: Any) -> int:
        array = as_array(value, self.what)
        start, n = int(self.space.start), int(self.space.n)  # type: ignore[attr-defined]
        if array.size != 1 or array.dtype.kind not in "iub":
            raise InputError(f"{self.what} is {_short(value)}, but its space is {self.space}: one integer")
        index = int(array.item()) - start
        if not 0 <= index < n:
            raise InputError(f"{self.what} is {array.item()}, but its space says {start} to {start + n - 1}")
        return index

    def _flatten(self, value: Any) -> np.ndarray:
        try:
            flat = np.ravel(np.asarray(gym.spaces.flatten(self.space, value), dtype=np.float32))
        except Exception as error:
            keys = f" with the keys {_names(value)}" if isinstance(value, Mapping) else ""
            raise InputError(
                f"{self.what}, a {type(value).__name__}{keys}, does not fit its space {_short(self.space)} "
                f"({type(error).__name__}: {one_line(error)})"
            ) from error
        if flat.size != self.size:
            raise InputError(f"{self.what} has {flat.size} numbers, but its space says {self.size}")
        return flat if self._scale is None else flat * self._scale


def is_image(space: gym.Space) -> bool:
    """Return whether a space is a Box of uint8 from 0 to 255."""
    return (
        isinstance(space, gym.spaces.Box)
        and space.dtype == np.uint8
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


def _scales(space: gym.Space) -> np.ndarray | None:
    """Return the factors of a flat value, 1/255 for images; ``None`` if the space has no image."""

    def parts(part: gym.Space) -> list[np.ndarray]:
        if isinstance(part, gym.spaces.Dict):
            return [x for inner in part.spaces.values() for x in parts(inner)]
        if isinstance(part, gym.spaces.Tuple):
            return [x for inner in part.spaces for x in parts(inner)]
        return [np.full(gym.spaces.flatdim(part), 1 / 255 if is_image(part) else 1.0, np.float32)]

    scales = np.concatenate([np.ones(0, np.float32), *parts(space)])
    return None if (scales == 1.0).all() else scales


def bare_space(space: gym.Space) -> gym.Space:
    """Return the space of an observation without its mask."""
    if not isinstance(space, gym.spaces.Dict):
        return space
    name = next((n for n in BARE_KEYS if n in space.spaces), None)
    if name is not None:
        return space[name]
    return gym.spaces.Dict({k: v for k, v in space.spaces.items() if k != MASK}) if MASK in space.spaces else space


def bare(observation: Any, space: gym.Space) -> Any:
    """Return an observation without its mask; ``space`` is that of the whole observation.

    Raises:
        InputError: the observation lacks the key that the space has.
    """
    if not is_mapping(observation):
        if isinstance(space, gym.spaces.Dict):
            raise InputError(f"observation is a {type(observation).__name__}, but its space has keys {_names(space)}")
        return observation
    if not isinstance(space, gym.spaces.Dict):
        name = next((n for n in BARE_KEYS if n in observation), None)
        if name is None:
            raise InputError(f"observation has the keys {_names(observation)}, but its space is {_short(space)}")
        return observation[name]
    name = next((n for n in BARE_KEYS if n in space.spaces), None)
    if name is None:
        return observation
    if name not in observation:
        raise InputError(f"observation has the keys {_names(observation)}, but its space says {name!r}")
    return observation[name]


def has_mask(space: Any) -> bool:
    """Return whether observations of a space have an action mask beside them."""
    return isinstance(space, gym.spaces.Dict) and MASK in space.spaces


def bare_key(space: Any) -> str | None:
    """Return the key of the bare observation in a masked observation space; ``None`` if the space has no mask.

    Raises:
        InputError: a mask without an observation of a known name.
    """
    if not isinstance(space, gym.spaces.Dict) or MASK not in space.spaces:
        return None
    key = next((key for key in BARE_KEYS if key in space.spaces), None)
    if key is None:
        raise InputError(f"observations are {space}; use the key 'observation' for the entry beside {MASK!r}")
    return key


def stated_mask(observation: Any, info: Any, n_actions: int) -> np.ndarray | None:
    """Return the mask in the observation or in the info, (A,) bool; ``None`` if all actions are legal.

    Raises:
        InputError: a mask that has not one entry per action.
    """
    for source in (observation, info):
        if is_mapping(source) and source.get(MASK) is not None:
            mask = as_array(source[MASK], MASK)
            if mask.size != n_actions:
                raise InputError(f"{MASK} has {mask.size} entries for {n_actions} actions")
            return mask.reshape(-1).astype(bool)
    return None


def check_mask_name(source: Any, n_actions: int, where: str) -> None:
    """Refuse what looks like a mask under another name, which would be ignored.

    Args:
        source: a Dict space, or an info.
        n_actions: number of actions of the agent.
        where: ``observations`` or ``infos``, for the message.

    Raises:
        InputError: an entry with a mask's name and one number per action.
    """
    entries = source.spaces if isinstance(source, gym.spaces.Dict) else source
    if not isinstance(entries, Mapping) or MASK in entries:
        return
    for name in OTHER_MASKS:
        if name in entries and _width(entries[name]) == n_actions:
            raise InputError(
                f"{where} have the keys {_names(entries)}; {name!r} looks like a mask of the {n_actions} actions: "
                f"rename it to {MASK!r}"
            )


def may_act(info: Any) -> bool:
    """Return whether an info leaves the agent on turn."""
    return not is_mapping(info) or bool(info.get(ON_TURN, True))


def is_mapping(value: Any) -> bool:
    """Return whether a value is a mapping; faster than ``isinstance`` alone for a dict and for an array."""
    return type(value) is dict or (type(value) is not np.ndarray and isinstance(value, Mapping))


def as_reward(value: Any) -> float:
    """Return a reward as a number.

    Raises:
        InputError: it is not one finite number.
    """
    if type(value) is not float:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise InputError(f"reward is {_short(value)}; return one number per agent")
        value = float(array.item())
    if not math.isfinite(value):
        raise InputError(f"reward is {value}; return finite numbers")
    return value


def as_box(value: Any, space: gym.Space) -> np.ndarray:
    """Return an observation as an array of the shape and type of its Box.

    Raises:
        InputError: it has another shape.
    """
    array = as_array(value, "observation")
    if array.shape != space.shape:
        raise InputError(f"observation has shape {array.shape}, but its space says {space.shape}")
    return array.astype(space.dtype, copy=False)


def as_array(value: Any, what: str) -> np.ndarray:
    """Return a value as an array of numbers.

    Raises:
        InputError: it has no such form.
    """
    if isinstance(value, np.ndarray):
        array = value
    else:
        try:
            array = np.asarray(value)
        except Exception as error:
            raise InputError(f"{what} is a {type(value).__name__} that is not an array ({one_line(error)})") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} is {_short(value)} ({array.dtype}), not an array of numbers")
    return array


def _width(entry: Any) -> int | None:
    """Return the number of entries of an array or a space; ``None`` if it has no length."""
    try:
        return int(gym.spaces.flatdim(entry)) if isinstance(entry, gym.Space) else int(np.asarray(entry).size)
    except Exception:
        return None


def _names(mapping: Any) -> str:
    return ", ".join(map(repr, getattr(mapping, "spaces", mapping)))


def _short(value: Any) -> str:
    line = " ".join(repr(value).split())
    return line if len(line) <= 100 else f"{line[:97]}…"
