"""Outcomes that were recorded for every joint action, and held-out requests: read and checked for a fitted folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marca_env.integration.logged_system import LoggedSystem
from marca_env.logs.log_files import read_table
from marca_env.logs.schema import check_table, feature_columns
from marca_env.models.population import Population
from marca_env.models.recorded_outcomes import FILE, REQUEST, RecordedOutcomes
from marca_env.utils.errors import InputError

HELDOUT_FILE = "heldout.parquet"


@dataclass(frozen=True)
class Records:
    """Recorded outcomes, and the requests among them that no learner may see."""

    outcomes: RecordedOutcomes
    heldout: Population | None

    def save(self, folder: Path) -> None:
        """Write both into a fitted folder, where :meth:`marca_env.Engine.load` finds them."""
        self.outcomes.save(folder / FILE)
        if self.heldout is not None:
            self.heldout.save(folder / HELDOUT_FILE, self.outcomes.scenario)


def read_records(system: LoggedSystem, outcomes: Path, heldout: Path | None) -> Records:
    """Read the outcomes of every joint action and the held-out requests of a system.

    Args:
        system: the logs; its scenario has a hidden category ``request``, the row of a request in ``outcomes``.
        outcomes: a row for every request and joint action (:meth:`RecordedOutcomes.from_table`).
        heldout: features of the held-out requests, a row each; ``None``: nothing is held out.

    Raises:
        InputError: a fault of a table, or a held-out request that the request log has, too.
    """
    scenario = system.scenario
    recorded = RecordedOutcomes.from_table(read_table(outcomes), scenario, outcomes)
    if heldout is None:
        return Records(recorded, None)
    frame = check_table(read_table(heldout), feature_columns(scenario), heldout)
    both = np.intersect1d(frame[REQUEST], system.requests[REQUEST])
    if len(both):
        raise InputError(f"{heldout}: request {both[0]} is held out and in the request log; remove it from one of them")
    return Records(recorded, Population.from_log(scenario, frame))
