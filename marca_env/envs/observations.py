"""Observations, action masks and spaces of the agents: one encoder for every view of an episode.

An episode is one request. Turn t makes decision t of the scenario, in pipeline order; turn ``n_turns`` is the end. The
results of a stage are the number of candidates that it processes, and its signals. They are settled, and visible to
later stages, once all decisions of the stage and of the stages before it are made. Shapes: B batch, D decisions,
S stages, N signals, R = S + N results, G clusters, W columns of a state, O observation, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from marca_env.envs.observation_layout import Layout, as_indexed_columns, join_layouts
from marca_env.envs.request_window import LOAD_LIMIT
from marca_env.models.engine import load_latency_map
from marca_env.models.latency_map import LatencyMap
from marca_env.scenario.encoding import NUMBER_LIMIT
from marca_env.scenario.scenario import Scenario, Stage
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.validation import check_codes

RESULT_LIMIT = 4.0
"""Observed results over the stage's queue are clipped here."""
TIME_LIMIT = 4.0
"""Observed times over the latency limit are clipped here."""
PRICE_LIMIT = 8.0
"""Observed prices log(1 + λ·budget/peak_qps) are clipped here."""


class ObservationEncoder:
    """Encoder of states, actions and results as observations, masks and the state for centralised training.

    Attributes:
        agents: stages that decide, in pipeline order.
        sizes: agent → O. An observation holds, in this order: features that the agent sees (one-hots of
            categories, numbers as they are), one-hot of the turn, one-hots of its own decisions so far, counts of
            candidates of earlier stages, their signals, with a latency limit the mean service time of the earlier
            stages over the limit, in windows the state of the clusters
            (:meth:`marca_env.envs.request_window.WindowClusters.observe`), prices.
        n_actions: agent → A, the largest number of options of its decisions plus one: action A − 1 is ``wait``.
        state_size: length of the state, which holds the same parts for all features that are not hidden, all decisions
            and all stages.
        request_size: columns of the state before those of the clusters and the prices.
        n_turns: D, decisions of an episode.
        turn_agent: agent that decides at each turn.

    Args:
        scenario: the recommender.
        window: whether observations include the state of the clusters.
        latency_map: service times, in a scenario with a latency limit; ``None``: those of the scenario's artefacts.
    """

    def __init__(self, scenario: Scenario, *, window: bool = False, latency_map: LatencyMap | None = None) -> None:
        self.scenario = scenario
        self.latency_map = None if scenario.latency is None else latency_map or load_latency_map(scenario)
        self._cluster_width = 3 * len(scenario.clusters) + 1 if window else 0
        self.agents: tuple[str, ...] = tuple(stage.name for stage in scenario.agents)
        self.n_turns = len(scenario.decisions)
        self.turn_agent: tuple[str, ...] = tuple(scenario.stage_names[k] for k in scenario.decision_stage)
        self.n_actions = {stage.name: 1 + max(len(d.options) for d in stage.decisions) for stage in scenario.agents}
        # (R,) turn from which on each result is settled
        self._settled = (scenario.decision_stage[:, None] <= scenario.result_stages).sum(axis=0)
        self._first_settled = int(self._settled.min())
        limits = _result_limits(scenario)
        self._result_scale, self._least_result, self._most_result = (x.astype(np.float32) for x in limits)  # (R,) each
        self._price_scale = scenario.budgets / scenario.peak_qps
        self._layouts = {stage.name: self._agent_layout(stage) for stage in scenario.agents}
        visible = [k for k, feature in enumerate(scenario.features) if not feature.hidden]
        self._state_layout = self._layout(visible, range(self.n_turns), range(len(scenario.stages)))
        self.sizes = {agent: layout.size for agent, layout in self._layouts.items()}
        self.state_size, self.request_size = self._state_layout.size, self._state_layout.clusters
        self._total, self._one_hots = join_layouts([*self._layouts.values(), self._state_layout])
        self._masks = {agent: self._mask_table(agent) for agent in self.agents}  # agent → (D+1,A)
        self._legal = {agent: [np.flatnonzero(row) for row in table] for agent, table in self._masks.items()}

    # -- spaces --------------------------------------------------------------------------------------------
    def observation_space(self, agent: str) -> spaces.Dict:
        """Return the Dict of ``observation`` (Box, (O,) float32) and ``action_mask`` (Box of 0 and 1, (A,) int8)."""
        n = self.n_actions[self._checked_agent(agent)]
        return spaces.Dict(
            {
                "observation": self._box(self._layouts[agent]),
                "action_mask": spaces.Box(0, 1, shape=(n,), dtype=np.int8),
            }
        )

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return the space of the current decision's options and ``wait``, the last action."""
        return spaces.Discrete(self.n_actions[self._checked_agent(agent)])

    def state_space(self) -> spaces.Box:
        """Return the Box of the state for centralised training, (state_size,) float32."""
        return self._box(self._state_layout)

    @property
    def layouts(self) -> dict[str, Layout]:
        """Agent → positions of the parts of its observation."""
        return self._layouts

    @property
    def state_layout(self) -> Layout:
        """Positions of the parts of the state."""
        return self._state_layout

    @property
    def result_limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is scaled to 1, and the least and the most that is observed after it, of every result; (R,) each."""
        return self._result_scale, self._least_result, self._most_result

    @property
    def has_clusters(self) -> bool:
        """Whether observations hold the state of the clusters, as in windows."""
        return self._cluster_width > 0

    def settled(self, turn: int) -> np.ndarray:
        """Return (R,) bool: whether each result is settled at ``turn``."""
        return turn >= self._settled

    def has_settled_stage(self, turn: int) -> bool:
        """Return whether the result of any stage is settled at ``turn``."""
        return turn >= self._first_settled

    def legal(self, agent: str, turn: int) -> np.ndarray:
        """Return the agent's legal actions at ``turn``, int64."""
        return self._legal[self._checked_agent(agent)][turn]

    # -- encoding ------------------------------------------------------------------------------------------
    def encode(
        self,
        states: np.ndarray,
        actions: np.ndarray,
        results: np.ndarray,
        turn: int,
        prices: np.ndarray | None = None,
        clusters: np.ndarray | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        """Encode a batch of requests that are all at the same turn.

        Args:
            states: (B,W), see :meth:`Scenario.check_states`.
            actions: (B,D) int; only the decisions before ``turn`` are used.
            results: (B,R) counts of candidates, then signals; only settled ones are used.
            turn: 0 … D; at D, the end, every agent waits.
            prices: (G,) or (B,G) currency per core-second; ``None``: zeros.
            clusters: (B, 3G+1) state of the clusters, in windows; ``None``: zeros.

        Returns:
            ``{agent: (B,O) float32}``, ``{agent: (B,A) bool}`` and the state (B,state_size) float32.

        Raises:
            InputError: the turn, a code or the prices do not fit the scenario.
        """
        if not 0 <= turn <= self.n_turns:
            raise InputError(f"turn is {turn}; pass 0 to {self.n_turns}")
        scenario, actions = self.scenario, np.asarray(actions)
        states = scenario.check_states(states)
        check_codes("action", actions[:, :turn], scenario.decision_names[:turn], scenario.action_shape[:turn])
        return self.encode_unchecked(states, actions, results, turn, self.scale_prices(prices), clusters)

    def encode_unchecked(
        self,
        states: np.ndarray,
        actions: np.ndarray,
        results: np.ndarray,
        turn: int,
        prices: np.ndarray | None,
        clusters: np.ndarray | None,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        """Encode without the checks of :meth:`encode`; ``prices`` are the output of :meth:`scale_prices`."""
        n = len(states)
        flat = np.zeros(n * self._total, dtype=np.float32)  # all vectors of one layout, then those of the next
        is_categorical = self.scenario.is_categorical
        whole = states if is_categorical else states.astype(np.int64)  # columns of numbers are not used as codes
        codes = np.concatenate([whole, actions, np.zeros((n, 1), dtype=np.int64)], axis=1)  # (B, W+D+1)
        index, start, size, before = self._one_hots[turn]
        flat[codes[:, index] + (start + n * before) + np.arange(n)[:, None] * size] = 1.0
        scaled = np.asarray(results, dtype=np.float32) / self._result_scale
        scaled = scaled.clip(self._least_result, self._most_result)  # (B,R)
        numbers = None if is_categorical else states.clip(-NUMBER_LIMIT, NUMBER_LIMIT).astype(np.float32)
        times = self._stage_times(actions, results, turn)
        parts, end = [], 0
        for layout in (*self._layouts.values(), self._state_layout):
            begin, end = end, end + n * layout.size
            out = flat[begin:end].reshape(n, layout.size)
            parts.append(out)
            if numbers is not None:
                out[:, layout.numbers[1]] = numbers[:, layout.numbers[0]]
            stages, columns = layout.settled_results[turn]
            if len(stages):
                out[:, columns] = scaled[:, stages]
                if times is not None and layout.time is not None:
                    out[:, layout.time] = times[:, stages[stages < times.shape[1]]].sum(axis=1).clip(0.0, TIME_LIMIT)
            if clusters is not None:
                out[:, layout.clusters : layout.prices] = clusters
            if prices is not None:
                out[:, layout.prices :] = prices
        *observations, state = parts
        return dict(zip(self.agents, observations, strict=True)), self.masks(turn, n), state

    def _stage_times(self, actions: np.ndarray, results: np.ndarray, turn: int) -> np.ndarray | None:
        """Return (B,S) the mean service time of each settled stage over the limit; ``None`` without a limit."""
        if self.latency_map is None or self.scenario.latency is None or not self.has_settled_stage(turn):
            return None
        times = np.zeros((len(actions), len(self.scenario.stages)))
        for k in np.flatnonzero(self.settled(turn)[: times.shape[1]]):
            times[:, k] = self.latency_map.stage(int(k), actions, results[:, k]).mean / self.scenario.latency.limit
        return times

    def masks(self, turn: int, batch: int) -> dict[str, np.ndarray]:
        """Return the legal actions of every agent at ``turn``: ``{agent: (B,A) bool}``."""
        return {agent: table[turn : turn + 1].repeat(batch, axis=0) for agent, table in self._masks.items()}

    def episodes(
        self, states: np.ndarray, actions: np.ndarray, results: np.ndarray, prices: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Encode complete episodes of a log, for offline training; T = n_turns.

        Args:
            states: (B,W).
            actions: (B,D) int.
            results: (B,R) counts of candidates, then signals.
            prices: (G,) or (B,G) currency per core-second; ``None``: zeros.

        Returns:
            ``obs`` {agent: (B,T+1,O) float32}, ``mask`` {agent: (B,T+1,A) bool}, ``state`` (B,T+1,state_size)
            float32 and ``actions`` {agent: (B,T) int64}, ``wait`` where another agent decides.
        """
        turns = [self.encode(states, actions, results, t, prices) for t in range(self.n_turns + 1)]
        return {
            "obs": {agent: np.stack([obs[agent] for obs, _, _ in turns], axis=1) for agent in self.agents},
            "mask": {agent: np.stack([mask[agent] for _, mask, _ in turns], axis=1) for agent in self.agents},
            "state": np.stack([state for _, _, state in turns], axis=1),
            "actions": self.agent_actions(actions),
        }

    def agent_actions(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Split joint actions (B,D) into ``{agent: (B,D) int64}``, with ``wait`` where another agent decides."""
        turn = np.array(self.turn_agent)
        return {agent: np.where(turn == agent, actions, n - 1).astype(np.int64) for agent, n in self.n_actions.items()}

    # -- parts ---------------------------------------------------------------------------------------------
    def scale_prices(self, prices: np.ndarray | None) -> np.ndarray | None:
        """Scale prices (G,) or (B,G) as observations show them, float32; ``None`` if all are zero.

        Raises:
            InputError: the prices have another shape or are negative.
        """
        if prices is None:
            return None
        prices = np.asarray(prices, dtype=np.float64)
        if prices.shape[-1:] != self._price_scale.shape:
            raise InputError(f"prices have shape {prices.shape}; pass one per cluster, {self._price_scale.shape}")
        if not np.all(prices >= 0):  # catches nan, too
            raise InputError(f"prices go down to {prices.min()}; pass prices of at least 0")
        if not prices.any():
            return None
        return np.minimum(np.log1p(prices * self._price_scale), PRICE_LIMIT).astype(np.float32)

    def _agent_layout(self, stage: Stage) -> Layout:
        """Lay out the observation of a stage."""
        index = self.scenario.stage_names.index(stage.name)
        features = [
            k
            for k, f in enumerate(self.scenario.features)
            if not f.hidden and (not f.seen_by or stage.name in f.seen_by)
        ]
        own = [d for d in range(self.n_turns) if self.scenario.decision_stage[d] == index]
        return self._layout(features, own, range(index))

    def _layout(self, features: Sequence[int], decisions: Sequence[int], stages: Sequence[int]) -> Layout:
        """Lay out a vector of these features, decisions and stages."""
        at = 0

        def place(indices: Sequence[int], widths: Sequence[int]) -> tuple[tuple[int, int], ...]:
            nonlocal at
            starts = []
            for index, width in zip(indices, widths, strict=True):
                starts.append((int(index), at))
                at += int(width)
            return tuple(starts)

        scenario, turns = self.scenario, range(self.n_turns + 1)
        width = len(scenario.state_columns)
        feature_starts = place(features, [scenario.features[k].size for k in features])
        turn_start = place([0], [self.n_turns + 1])[0][1]
        decision_starts = place(decisions, [scenario.action_shape[d] for d in decisions])
        count_columns = place(stages, [1] * len(stages))
        signals = [len(scenario.stages) + n for n, (stage, _) in enumerate(scenario.signals) if stage in stages]
        signal_columns = place(signals, [1] * len(signals))
        numbers = [
            (column, start + k)
            for f, start in feature_starts
            if scenario.features[f].kind == "number"
            for k, column in enumerate(range(scenario.feature_slices[f].start, scenario.feature_slices[f].stop))
        ]
        # codes of [states, actions, 0] that are one-hot at each turn, and the column where each one-hot starts
        categories = [
            (scenario.feature_slices[f].start, start)
            for f, start in feature_starts
            if scenario.features[f].kind == "category"
        ]
        one_hots = [
            [*categories, (-1, turn_start + t), *((width + d, start) for d, start in decision_starts if d < t)]
            for t in turns
        ]
        results = [*count_columns, *signal_columns]
        return Layout(
            one_hots=tuple(tuple(pairs) for pairs in one_hots),
            settled_results=tuple(
                as_indexed_columns([(r, c) for r, c in results if t >= self._settled[r]]) for t in turns
            ),
            results=tuple(column for _, column in count_columns),
            unbounded=tuple(column for _, column in [*signal_columns, *numbers]),
            numbers=as_indexed_columns(numbers),
            time=None if scenario.latency is None else place([0], [1])[0][1],
            clusters=place([0], [self._cluster_width])[0][1],
            prices=place([0], [len(scenario.clusters)])[0][1],
            size=at,
        )

    def _mask_table(self, agent: str) -> np.ndarray:
        """Return (D+1,A) bool: the agent's legal actions at each turn."""
        table = np.zeros((self.n_turns + 1, self.n_actions[agent]), dtype=bool)
        table[:, -1] = True
        for d, on_turn in enumerate(self.turn_agent):
            if on_turn == agent:
                table[d, -1] = False
                table[d, : self.scenario.action_shape[d]] = True
        return table

    def _box(self, layout: Layout) -> spaces.Box:
        """Return the space of the vectors of a layout."""
        high = np.ones(layout.size, dtype=np.float32)
        high[list(layout.results)] = RESULT_LIMIT
        if layout.time is not None:
            high[layout.time] = TIME_LIMIT
        if self._cluster_width:
            high[layout.clusters : layout.clusters + len(self.scenario.clusters)] = LOAD_LIMIT
        high[layout.prices :] = PRICE_LIMIT
        low = np.zeros_like(high)
        high[list(layout.unbounded)], low[list(layout.unbounded)] = NUMBER_LIMIT, -NUMBER_LIMIT
        return spaces.Box(low, high, dtype=np.float32)

    def _checked_agent(self, agent: str) -> str:
        """Return the agent's name, or raise an InputError if it is unknown."""
        if agent not in self.agents:
            raise InputError(unknown_option("agent", agent, self.agents))
        return agent


def _result_limits(scenario: Scenario) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is scaled to 1, and the least and the most that is observed after it, of every result; (R,) each."""
    n, scale = len(scenario.signals), _count_scale(scenario)
    return (
        np.append(scale, np.ones(n)),
        np.append(np.zeros(len(scale)), np.full(n, -NUMBER_LIMIT)),
        np.append(np.full(len(scale), RESULT_LIMIT), np.full(n, NUMBER_LIMIT)),
    )


def _count_scale(scenario: Scenario) -> np.ndarray:
    """Return (S,) the candidates that are scaled to 1: the stage's queue limit, or the most that can arrive."""
    scale = np.ones(len(scenario.stages))
    arriving = 1.0
    for k, stage in enumerate(scenario.stages):
        queues = [d for d in stage.decisions if d.kind == "queue"]
        recalled = float(sum(max(d.options) for d in queues if d.channel is not None))
        scale[k] = stage.queue_limit or max(arriving, recalled)
        passed_on = [float(max(d.options)) for d in queues if d.channel is None]
        arriving = min([scale[k], *passed_on])
    return scale
