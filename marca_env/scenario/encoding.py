"""Encoding of states and joint actions as inputs of the fitted models."""

from __future__ import annotations

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.utils.validation import check_codes

NUMBER_LIMIT = 10.0
"""Agents observe numbers and signals, which are standardised, clipped to ±10; models get the numbers so, too."""


class InputEncoder:
    """Encoder of features and decisions: one-hot codes, each code's position in its range, 0 … 1, then the numbers.

    Hidden features are no inputs. C of the features are categories, and V columns of a state are numbers.

    A recall length whose channel is off has no effect, so it gets an extra code "off". Joint actions with the same
    effect thus have the same inputs, and tables are computed for distinct joint actions only.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        categories = [f for f in scenario.features if f.kind == "category" and not f.hidden]
        self.n_features = len(categories)
        """C, categories among the inputs; the columns after them are the decisions'."""
        self.sizes = [f.size for f in categories]
        observable = set(scenario.observable_columns.tolist())
        self._categories = np.array([k for k in scenario.category_columns if k in observable], dtype=np.int64)
        self._numbers = np.array([k for k in scenario.number_columns if k in observable], dtype=np.int64)
        self._is_plain = len(self._categories) == len(scenario.state_columns)
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
        """Number of inputs: the one-hot codes, one position per column of codes, and the numbers."""
        return sum(self.sizes) + len(self.sizes) + len(self._numbers)

    @property
    def of_actions(self) -> np.ndarray:
        """Mask of the inputs that belong to decisions, bool (width,)."""
        column = np.concatenate([np.repeat(np.arange(len(self.sizes)), self.sizes), np.arange(len(self.sizes))])
        return np.append(column >= self.n_features, np.zeros(len(self._numbers), dtype=bool))

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
        """Return the codes of all categories and decisions: ``states`` (B, W), ``actions`` (B, D) → int64 (B, C + D).

        Raises:
            InputError: a code is out of range, or a number is not finite.
        """
        scenario = self.scenario
        states = scenario.check_states(states)
        actions = check_codes("action", actions, scenario.decision_names, scenario.action_shape)
        categories = states if self._is_plain else states[:, self._categories]
        return np.concatenate([categories.astype(np.int64), self.code_actions(actions)], axis=1)

    def numbers(self, states: np.ndarray) -> np.ndarray:
        """Return the columns that are numbers and inputs, at most ±10: ``states`` (B, W) → float32 (B, V)."""
        return np.asarray(states)[:, self._numbers].clip(-NUMBER_LIMIT, NUMBER_LIMIT).astype(np.float32)

    def inputs(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the model inputs: ``states`` (B, W), ``actions`` (B, D) → float32 (B, width).

        Raises:
            InputError: a code is out of range, or a number is not finite.
        """
        return self.encode(self.codes(states, actions), self.numbers(states))

    def encode(self, codes: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        """Return the model inputs of coded columns (B, C + D) and numbers (B, V): float32 (B, width).

        Args:
            codes: what :meth:`codes` returned.
            numbers: what :meth:`numbers` returned; ``None``: zeros.
        """
        x = np.zeros((len(codes), self.width), dtype=np.float32)
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        np.put_along_axis(x, codes + offsets[:-1], 1.0, axis=1)
        position = codes / np.maximum(np.array(self.sizes) - 1, 1)
        for d, _, _ in self._off:  # "off" comes below the shortest length, not above the longest
            column = self.n_features + d
            options = self.sizes[column] - 1
            position[:, column] = np.where(codes[:, column] == options, 0.0, (codes[:, column] + 1) / options)
        ends = offsets[-1] + len(self.sizes)
        x[:, offsets[-1] : ends] = position
        if numbers is not None:
            x[:, ends:] = numbers
        return x
