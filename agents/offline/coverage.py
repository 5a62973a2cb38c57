"""Coverage of a request log: which options and joint actions it tried, and a warning about those it hardly did.

A learner cannot know the value of an action that no row shows. Its network extrapolates one, and a greedy policy then
prefers whatever is overestimated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario

RARE = 0.01
"""An option is rare if it has less than this part of the rows that it would have if all options were tried equally."""
FEWEST = 10
"""An option with fewer rows is rare, too."""
THIN = 0.1
"""Joint actions are hardly covered below this part of the number that equally random actions would cover."""
LONGEST = 20
"""Most lines of the table."""
_COUNTED = 10_000_000


@dataclass(frozen=True)
class LogCoverage:
    """How often each option of each decision, and how many joint actions, occur in a log."""

    scenario: Scenario
    counts: tuple[np.ndarray, ...]
    """Per decision, the number of rows of each option, (A,)."""
    joint: int
    """Number of different joint actions."""
    rows: int

    @classmethod
    def of(cls, actions: np.ndarray, scenario: Scenario) -> LogCoverage:
        """Count the actions (M, D) of a log in one pass."""
        shape = scenario.action_shape
        counts = tuple(np.bincount(actions[:, k], minlength=n) for k, n in enumerate(shape))
        if scenario.n_joint_actions <= _COUNTED:
            codes = np.ravel_multi_index(tuple(actions.T), shape)
            joint = int(np.count_nonzero(np.bincount(codes, minlength=1)))
        else:
            joint = len(np.unique(actions, axis=0))
        return cls(scenario, counts, joint, len(actions))

    def rare(self) -> list[tuple[int, int, int]]:
        """Return (decision, option, rows) of the options that were never or hardly tried."""
        return [
            (k, option, int(n))
            for k, counts in enumerate(self.counts)
            for option, n in enumerate(counts)
            if n < max(FEWEST, RARE * self.rows / len(counts))
        ]

    def is_thin(self) -> bool:
        """Tell whether hardly any joint actions were tried, for a log of this length."""
        possible = float(np.prod([float(n) for n in self.scenario.action_shape]))
        return self.joint < THIN * possible * -math.expm1(-self.rows / possible)

    def warning(self, name: str, agents: Sequence[str], total: int | None = None) -> str | None:
        """Return a table of what the log hardly covers; ``None`` if it covers everything.

        Args:
            name: of the log.
            agents: agent of each decision.
            total: number of rows of the log, if only some were counted.
        """
        rare = self.rare()
        if not rare and not self.is_thin():
            return None
        counted = f" (counted in {self.rows:,} of {total:,} rows)" if total not in (None, self.rows) else ""
        lines = [
            f"{name}: some actions were never or hardly tried{counted}; their learnt values are guesses. "
            "Log more random actions, or remove these options from the scenario."
        ]
        if rare:
            table = [("agent", "decision", "option", "rows", "share")]
            for k, option, n in rare[:LONGEST]:
                decision = self.scenario.decisions[k]
                label = f"{option} ({decision.options[option]})"
                table.append((agents[k], decision.name, label, f"{n:,}", f"{100 * n / max(self.rows, 1):.2g} %"))
            widths = [max(len(row[k]) for row in table) for k in range(5)]
            lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
            if len(rare) > LONGEST:
                lines.append(f"… and {len(rare) - LONGEST:,} more options")
        lines.append(f"joint actions tried: {self.joint:,} of {self.scenario.n_joint_actions:,} possible")
        return "\n".join(lines)
