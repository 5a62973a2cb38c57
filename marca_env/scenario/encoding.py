"""Encoding of states and joint actions as inputs of the fitted models."""

from __future__ import annotations

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.utils.validation import check_codes


class InputEncoder:
    """Encoder of features and decisions: one-hot codes, then each code's position in its range, 0 … 1.

    A recall length whose channel is off has no effect, so it gets an extra code "off". Joint actions with the same
    effect thus have the same inputs, and tables are computed for distinct joint actions only.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.n_features = len(scenario.features)
        self.sizes = [int(n) for n in scenario.feature_sizes]
        self._off: list[tuple[int, int, np.ndarray]] = []
        for d, decision in enumerate(scenario.decisions):
            self.sizes.append(len(decision.options))
            for c, switch in enumerate(scenario.decisions):
                if decision.channel is not None and switch.kind == "channel":
                    off = np.array([decision.channel not in option for option in switch.options])
                    if off.any():
                        self._off.append((d, c, off))
                        self.sizes[-1] = len(decision.options) + 1
        coded = self.code_actions(scenario.joint_actions)
        self.distinct, self.distinct_actions, self.distinct_of = np.unique(
            coded, axis=0, return_index=True, return_inverse=True
        )
        """Distinct coded actions (J', D), the first joint action of each (J',), the row of each joint action (J,)."""
        self.distinct_of = self.distinct_of.reshape(-1)

    def __reduce__(self) -> tuple[type[InputEncoder], tuple[Scenario]]:
        """Pickle the scenario alone; everything else follows from it."""
        return type(self), (self.scenario,)

    @property
    def width(self) -> int:
        """Number of inputs: the one-hot codes, then one position per column."""
        return sum(self.sizes) + len(self.sizes)

    @property
    def of_actions(self) -> np.ndarray:
        """Mask of the inputs that belong to decisions, bool (width,)."""
        column = np.concatenate([np.repeat(np.arange(len(self.sizes)), self.sizes), np.arange(len(self.sizes))])
        return column >= self.n_features

    def code_actions(self, actions: np.ndarray) -> np.ndarray:
        """Replace recall lengths of channels that are off by the code "off": option indices (B, D) → int64 (B, D).

        The code "off" is one past the last option.
        """
        actions = np.asarray(actions)
        coded = actions.astype(np.int64)
        for d, switch, off in self._off:
            coded[:, d] = np.where(off[actions[:, switch]], len(self.scenario.decisions[d].options), coded[:, d])
        return coded

    def codes(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the codes of all columns: ``states`` (B, F), ``actions`` (B, D) → int64 (B, F + D).

        Raises:
            InputError: a code is out of range.
        """
        scenario = self.scenario
        states = check_codes("state", states, scenario.feature_names, scenario.feature_sizes)
        actions = check_codes("action", actions, scenario.decision_names, scenario.action_shape)
        return np.concatenate([states.astype(np.int64), self.code_actions(actions)], axis=1)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        """Return the model inputs of coded columns: (B, F + D) → float32 (B, width)."""
        x = np.zeros((len(codes), self.width), dtype=np.float32)
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        np.put_along_axis(x, codes + offsets[:-1], 1.0, axis=1)
        position = codes / np.maximum(np.array(self.sizes) - 1, 1)
        for d, _, _ in self._off:  # "off" comes below the shortest length, not above the longest
            column = self.n_features + d
            options = self.sizes[column] - 1
            position[:, column] = np.where(codes[:, column] == options, 0.0, (codes[:, column] + 1) / options)
        x[:, offsets[-1] :] = position
        return x
