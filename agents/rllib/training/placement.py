"""Where a resumed run continues: other numbers of environment runners or learners, another device."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from agents.rllib.core.team_config import TeamConfig
from marca_env.utils.errors import InputError, one_line, unknown_option
from marca_env.utils.model_files import check_device

logger = logging.getLogger(__name__)

PLACEMENT = ("num_env_runners", "num_learners", "num_gpus_per_learner")
"""Settings that a resumed run may change; all others stay as in the checkpoint."""


def place(config: Any, placement: Mapping[str, Any]) -> Any:
    """Change where a restored configuration runs and return it; a warning tells what the change means.

    One remote process does what the main process would do, to the bit. Two of them do not, and neither does another
    device.

    Args:
        config: configuration of a checkpoint, not frozen; it is changed in place.
        placement: settings of :data:`PLACEMENT` with their new values.

    Raises:
        InputError: another setting, an invalid number, or a GPU that this machine does not have.
    """
    before = {name: getattr(config, name) or 0 for name in PLACEMENT}
    for name, value in placement.items():
        if name not in PLACEMENT:
            raise InputError(f"{unknown_option('setting to change on resume', name, PLACEMENT)}; others stay as saved")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise InputError(f"{name} is {value!r}; use a number of at least 0")
        setattr(config, name, value)
    if config.num_gpus_per_learner and not config.num_learners:  # remote learners may be on another machine
        try:
            check_device("cuda")
        except InputError as error:
            if before["num_gpus_per_learner"] and "num_gpus_per_learner" not in placement:
                raise InputError(
                    f"the run learnt on a GPU, and this machine has none ({one_line(error)[:160]}); "
                    "to continue on the CPU, pass --device cpu (in Python: placement={'num_gpus_per_learner': 0})"
                ) from None
            raise
    _warn(config, before)
    return config


def _warn(config: Any, before: Mapping[str, Any]) -> None:
    """Say that a changed run is no longer equal to one that was not changed."""
    changes = [f"{n} {before[n]:g} → {getattr(config, n):g}" for n in PLACEMENT if getattr(config, n) != before[n]]
    if not changes:
        return
    processes = any(max(before[n], 1) != max(getattr(config, n), 1) for n in ("num_env_runners", "num_learners"))
    device = bool(before["num_gpus_per_learner"]) != bool(config.num_gpus_per_learner)
    if not isinstance(config, TeamConfig):
        logger.warning("resumed with %s", ", ".join(changes))
    elif processes or device:
        logger.warning(
            "resumed with %s: the continuation is no longer equal to the bit to a run without this change%s",
            ", ".join(changes),
            _sizes(config, before),
        )


def _sizes(config: Any, before: Mapping[str, Any]) -> str:
    """Return how the sizes of an iteration and of a minibatch change with the numbers of processes."""
    words = []
    for name, size, what in (
        ("num_env_runners", config.num_envs_per_env_runner, "iteration plays {} episodes instead of {}"),
        ("num_learners", config.train_batch_size_per_learner, "update learns from {} episodes instead of {}"),
    ):
        old, new = (max(n, 1) * size for n in (before[name], getattr(config, name)))
        if old != new and not (name == "num_env_runners" and config.is_offline):
            words.append("an " + what.format(new, old))
    return f"; {', and '.join(words)}" if words else ""
