"""Checks of a configuration's settings, apart from the preset's options (:mod:`agents.algorithms.options`)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from agents.algorithms.presets import Preset
from agents.rllib.core.arithmetic import AMP_DTYPES, COMPILE_MODES, MATMUL_PRECISIONS
from agents.rllib.envs.team_reward import check_team_reward
from agents.team.parameter_sharing import sharing_groups
from agents.team.reward_statistics import NORMALIZATIONS
from agents.team.team import TeamSpec
from marca_env.utils.errors import InputError, unknown_option

CLIPPING = ("global_norm", "norm", "value")
SAMPLING = ("arrays", "tensors")
"""Ways to play episodes: NumPy arrays, or tensors on the learner's device."""


def check_settings(config: Any) -> None:
    """Refuse invalid settings of a :class:`agents.rllib.TeamConfig`.

    Raises:
        InputError: an invalid value; the message names the setting, its value and the rule.
    """
    for name in ("buffer_capacity", "learning_starts", "updates_per_iteration", "train_batch_size_per_learner"):
        _check_count(config, name, 1)
    if config.max_skipped_updates is not None:
        _check_count(config, "max_skipped_updates", 1)
    for name in ("num_env_runners", "num_learners"):
        _check_count(config, name, 0)
    _check_count(config, "num_envs_per_env_runner", 1)
    for name, valid in (("matmul_precision", MATMUL_PRECISIONS), ("compile", COMPILE_MODES)):
        if getattr(config, name) not in valid:
            raise InputError(unknown_option(name, getattr(config, name), valid))
    if config.amp is not None and config.amp not in AMP_DTYPES:
        raise InputError(unknown_option("amp", config.amp, AMP_DTYPES))
    _check_epsilon(config.epsilon)
    _check_lr(config.lr)
    for name in ("reward_scale", "grad_clip"):
        value = getattr(config, name)
        if value is not None and not (_is_number(value) and 0 < value < float("inf")):
            raise InputError(f"{name} is {value!r}; use a positive number, or None")
    check_clipping(config.grad_clip_by)
    if config.team_reward is not None:
        check_team_reward(config.team_reward)
    if config.env is None and config.team_reward not in (None, "mean"):
        raise InputError(f"team_reward is {config.team_reward!r}, but a log has one reward per request; remove it")
    if config.sampling not in SAMPLING:
        raise InputError(unknown_option("sampling", config.sampling, SAMPLING))
    if config.reward_normalization not in NORMALIZATIONS:
        raise InputError(unknown_option("reward_normalization", config.reward_normalization, NORMALIZATIONS))


def check_clipping(kind: Any) -> None:
    """Refuse a ``grad_clip_by`` that RLlib does not have.

    Raises:
        InputError: an unknown name; the message names the nearest valid one.
    """
    if kind not in CLIPPING:
        raise InputError(unknown_option("grad_clip_by", kind, CLIPPING))


def check_sharing(preset: Preset, team: Mapping[str, Any]) -> None:
    """Refuse ``share_parameters`` for a team (a TeamSpec as a dict) in which no two agents have the same spaces.

    Raises:
        InputError: no two agents have the same spaces; the message contains their sizes.
    """
    if preset.network.share_parameters:
        sharing_groups(TeamSpec.from_dict(team).spaces)


def refuse_unset(name: str, value: Any) -> None:
    """Refuse −1 when it is set: RLlib treats −1 as "not set" and would silently use the default.

    Raises:
        InputError: the value is −1.
    """
    if _is_number(value) and value == -1:
        raise InputError(f"{name} is {value!r}; use a value that is not negative")


def _check_count(config: Any, name: str, least: int) -> None:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value!r}; use a whole number of at least {least}")


def _check_lr(lr: Any) -> None:
    """Refuse rates that are negative or not finite; RLlib only checks the form of a schedule."""
    constant = _is_number(lr) and 0 <= lr < float("inf")
    if not constant and not _is_schedule(lr, float("inf")):
        raise InputError(
            f"lr is {lr!r}; use a finite number that is not negative, or [[step, rate], …] with rising steps from 0"
        )


def _is_schedule(points: Any, high: float) -> bool:
    """Return whether ``points`` are [[step, value], …] with rising whole steps and finite values in [0, ``high``]."""
    if not isinstance(points, (list, tuple)) or not points:
        return False
    pairs = all(isinstance(p, (list, tuple)) and len(p) == 2 and all(map(_is_number, p)) for p in points)
    if not pairs or not all(step >= 0 and step % 1 == 0 and 0 <= value <= high for step, value in points):
        return False
    return all(a[0] < b[0] for a, b in pairwise(points)) and all(value < float("inf") for _, value in points)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_epsilon(epsilon: Any) -> None:
    constant = _is_number(epsilon) and 0 <= epsilon <= 1
    if not constant and not _is_schedule(epsilon, 1.0):
        raise InputError(
            f"epsilon is {epsilon!r}; use a probability in [0, 1], or [[environment step, probability], …] with rising "
            "steps"
        )
