"""Observations, action masks and spaces of sites that decide in the same step, each for a request of its own.

Shapes: B batch, N sites, D decisions, R results, G clusters, W columns of a state, O observation, A actions.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from marca_env.envs.observations import ObservationEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, unknown_option


class FleetEncoder:
    """Encoder of the requests of all sites as observations, masks and the state for centralised training.

    Attributes:
        agents: ``site_0`` to ``site_{N−1}``, in the order of the codes of the scenario's site feature.
        sizes: agent → O, equal for all. An observation is the state of a single request
            (:class:`~marca_env.envs.observations.ObservationEncoder`): features, turn, decisions so far, results,
            clusters, prices.
        n_actions: agent → A, the largest number of options of a decision. There is no ``wait``.
        state_size: length of the state: the requests of all sites, then clusters and prices once.
        n_turns: D, steps of a slice.

    Args:
        scenario: the recommender; it has sites.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._single = ObservationEncoder(scenario, window=True)
        self.agents = tuple(f"site_{k}" for k in range(scenario.n_sites))
        self.n_turns = self._single.n_turns
        self._own = self._single.request_size
        self._options = np.array([*scenario.action_shape, scenario.action_shape[0]])  # of the end: those of the next
        self.sizes = dict.fromkeys(self.agents, self._single.state_size)
        self.n_actions = dict.fromkeys(self.agents, max(scenario.action_shape))
        self.state_size = self._single.state_size + (len(self.agents) - 1) * self._own
        self.scale_prices, self.settled = self._single.scale_prices, self._single.settled
        self.has_settled_stage = self._single.has_settled_stage

    def observation_space(self, agent: str) -> spaces.Dict:
        """Return the Dict of ``observation`` (Box, (O,) float32) and ``action_mask`` (Box of 0 and 1, (A,) int8)."""
        mask = spaces.Box(0, 1, shape=(self.n_actions[self._checked(agent)],), dtype=np.int8)
        return spaces.Dict({"observation": self._single.state_space(), "action_mask": mask})

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return the space of the current decision's options."""
        return spaces.Discrete(self.n_actions[self._checked(agent)])

    def state_space(self) -> spaces.Box:
        """Return the Box of the state for centralised training, (state_size,) float32."""
        one = self._single.state_space()
        low, high = (np.tile(bound[: self._own], len(self.agents)) for bound in (one.low, one.high))
        low, high = (np.append(a, b[self._own :]) for a, b in ((low, one.low), (high, one.high)))
        return spaces.Box(low, high, dtype=np.float32)

    def legal(self, turn: int) -> int:
        """Return the number of options of every site at ``turn``; the first ones are legal."""
        return int(self._options[turn])

    def encode(
        self,
        states: np.ndarray,
        actions: np.ndarray,
        results: np.ndarray,
        turn: int,
        prices: np.ndarray | None,
        clusters: np.ndarray,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        """Encode a batch of slices that are all at the same turn.

        Args:
            states: (B,N,W) request of each site.
            actions: (B,N,D) int; only the decisions before ``turn`` are used.
            results: (B,N,R); only settled ones are used.
            turn: 0 … D.
            prices: (B,G) as :meth:`scale_prices` returns them; ``None``: zeros.
            clusters: (B, 3G+1) state of the clusters.

        Returns:
            ``{agent: (B,O) float32}``, ``{agent: (B,A) bool}`` and the state (B,state_size) float32.
        """
        n, sites = states.shape[:2]
        states, actions, results = (x.reshape(n * sites, x.shape[-1]) for x in (states, actions, results))
        prices = None if prices is None else np.repeat(prices, sites, axis=0)
        clusters = np.repeat(clusters, sites, axis=0)
        rows = self._single.encode_unchecked(states, actions, results, turn, prices, clusters)[2]
        rows = rows.reshape(n, sites, -1)
        state = np.concatenate([rows[:, :, : self._own].reshape(n, -1), rows[:, 0, self._own :]], axis=1)
        mask = np.tile(np.arange(max(self._options)) < self._options[turn], (n, 1))
        return {agent: rows[:, k] for k, agent in enumerate(self.agents)}, dict.fromkeys(self.agents, mask), state

    def _checked(self, agent: str) -> str:
        if agent not in self.sizes:
            raise InputError(unknown_option("agent", agent, self.agents))
        return agent
