"""Updates that a learner skips because something is not finite: how many, and what it is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from marca_env.utils.errors import InputError

logger = logging.getLogger(__name__)

LOSSES = ("mixer_loss", "agent_loss", "central_loss", "loss")
REMEDY = "start again with a lower lr"
DATA_REMEDY = "correct the log or the environment"
_COLUMNS = {"obs": "observations of agent {!r}", "mask": "action mask of agent {!r}"}


class SkippedUpdatesError(InputError):
    """Too many updates in a row were skipped; the message names what was not finite, and the remedy."""


@dataclass
class SkippedUpdates:
    """Count of the updates that were skipped."""

    total: int = 0
    in_a_row: int = 0
    longest: int = 0
    """Largest number of updates that were skipped in a row."""
    fault: str = ""
    """What was not finite in the latest skipped update, and the remedy."""

    def note(self, fault: str | None) -> None:
        """Count an update; ``fault`` says what was not finite, ``None``: the update was applied."""
        if fault is None:
            self.in_a_row = 0
            return
        self.note_many(1, self.in_a_row + 1, self.in_a_row + 1, fault)

    def note_many(self, count: int, row: int, most: int, fault: str) -> None:
        """Count skipped updates.

        Args:
            count: number of them.
            row: number of updates skipped in a row up to now.
            most: largest number in a row.
            fault: what was not finite in the latest, and the remedy.
        """
        before, self.total = self.total, self.total + count
        self.in_a_row, self.longest, self.fault = row, max(self.longest, most), fault
        if any(before < limit <= self.total for limit in (1, 10, 100, 1000)):
            logger.warning("updates skipped so far: %d; latest: %s", self.total, fault)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return asdict(self)

    def error(self, limit: int, steps: int) -> SkippedUpdatesError:
        """Return the error that stops a run.

        Args:
            limit: the option ``max_skipped_updates``.
            steps: gradient steps so far, including skipped ones.
        """
        return SkippedUpdatesError(
            f"{self.longest} updates in a row were skipped (max_skipped_updates = {limit}; {self.total:,} of {steps:,} "
            f"in all): {self.fault}"
        )


def find_fault(
    batch: Mapping[str, Any],
    losses: Mapping[str, Any],
    gradients: Iterable[tuple[str, Tensor, Tensor | None]],
    agents: tuple[str, ...],
) -> str:
    """Return what is not finite in an update, the earliest cause first, and the remedy.

    Args:
        batch: columns of the minibatch.
        losses: name → loss.
        gradients: name, parameter and gradient of each parameter.
        agents: names of the agents that have a network of their own; empty if networks are shared.
    """
    for name, values in batch.items():
        if isinstance(values, Tensor) and values.is_floating_point() and not torch.isfinite(values).all():
            return f"the minibatch has {_first_fault(name, values)}; {DATA_REMEDY}"
    parameters = [(_describe(name, agents), parameter, gradient) for name, parameter, gradient in gradients]
    for name, parameter, _ in parameters:
        if not torch.isfinite(parameter).all():
            return f"the parameters {name} are not finite; {REMEDY}"
    for name in LOSSES:
        loss = losses.get(name)
        if loss is not None and not torch.isfinite(torch.as_tensor(loss)).all():
            return f"{name.replace('_', ' ')} is {float(loss):g}; {REMEDY}"
    for name, _, gradient in parameters:
        if gradient is not None and not torch.isfinite(gradient).all():
            return f"the gradient of {name} is not finite; {REMEDY}"
    return f"the norm of the gradient overflows; {REMEDY}"


def _first_fault(name: str, values: Tensor) -> str:
    kind, _, agent = name.partition(":")
    place = tuple(int(i) for i in torch.nonzero(~torch.isfinite(values))[0])
    where = _COLUMNS.get(kind, name).format(agent.replace("%2F", "/").replace("%25", "%"))
    column = f", column {place[2]}" if len(place) > 2 else ""
    return f"{float(values[place]):g} in {where} (step {place[1] if len(place) > 1 else 0}{column})"


def _describe(name: str, agents: tuple[str, ...]) -> str:
    """Return the name of a parameter without the wrappers of RLlib, and the agent whose network has it."""
    name = name.removeprefix("module.").removeprefix("online.")
    match = re.match(r"agents\.(?:networks\.)?(\d+)\.", name)
    return f"{name} (agent {agents[int(match[1])]!r})" if match and int(match[1]) < len(agents) else name
