"""``marca_env/Fleet-v0``: a Gymnasium environment in which one agent decides for all sites of a fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from marca_env.envs.batched_env import make_core
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.envs.gym_env import ControllerEnv
from marca_env.envs.options import ViewOptions, arguments_of
from marca_env.envs.single_episode import as_int_action
from marca_env.utils.errors import InputError, shown
from marca_env.utils.validation import as_array


class FleetEnv(ControllerEnv):
    """Eight data centres that share one cluster, each with a request of its own in every minute of a window.

    ## Description
    The id is `marca_env/Fleet-v0`, the preset and the task `fleet-v0`. In each of twelve minutes every site has one
    request of its own, which stands for its traffic of the minute. All sites decide in the same step how many
    candidates to rank. The shared cluster gets the sum of their loads. A load over its budget raises the degradation
    level, which caps the options of all sites until they ask for less than the budget again. Work beyond the cores
    waits, at most two minutes; what does not fit is dropped, with its revenue, at all sites. The traffic has two rush
    hours, the same in every window. The sites have equal traffic; requests at a site of a higher code are worth more.

    This is the view of a central controller, who sees the requests of all sites and has 6⁸ = 1,679,616 joint actions.
    As a multi-agent environment (`marca_env.parallel_env("fleet-v0")`) it has the agents `site_0` to `site_7`: each
    sees its own request and the state of the cluster, all act in every step, and none can tell the others what it
    sees. `marca_env.env` lets them act one after the other within a step. The scenario is generated; nothing was
    measured.

    Any scenario with `agent_kind: site` makes such a fleet, with any number of sites, decisions and clusters: a cluster
    that one site uses gets the load of that site alone. Other views of the scenario take single requests of one site.

    ## Action Space
    `MultiDiscrete([6] * 8)`, the option of each site for the current decision. As a multi-agent environment
    `Discrete(6)` per agent, without `wait`.

    | decision | options |
    |---|---|
    | `queue` | 20, 60, 150, 350, 800, 1,800 candidates |

    ## Observation Space
    `Box` float32: for each site the one-hots of its request's features, of the turn and of its decisions so far, and
    the results of the stages; then the state of the clusters (load over budget, degradation level over the deepest,
    backlog over the time-out), the share of the window that has passed, and the prices. An agent `site_k` sees only its
    own part and the state of the clusters.

    | feature | codes | meaning |
    |---|---|---|
    | `uv` | 6 | bucket of user value; the last is worth twenty times the first |
    | `taste` | 3 | how many candidates it takes to satisfy the user |
    | `i` | 8 | site |

    ## Rewards
    At the end of a slice the sum over the sites of the revenue of their requests, net of dropped ones. Every agent gets
    all of it; it is not divided by their number. A site counts by its traffic over the mean traffic of a site. `info`
    of that step holds the sums `revenue`, `expected_revenue`, `computation` and `cost`, the share `dropped`, and by
    cluster `load`, `degradation`, `backlog` and `prices`; of a single agent also `site_revenue` and `results` of its
    own request.

    ## Starting State
    Idle clusters, and a request of each site drawn from its part of the population.

    ## Episode End
    Terminates after 12 steps, one for each slice (a scenario with D decisions: D steps for each). Never truncated.

    ## Arguments
    As in `marca_env/Recommender-v0`; `scenario` (default `"fleet-v0"`) takes any scenario with `agent_kind: site`.

    ## Version History
    - v0: initial release
    """

    @arguments_of(ViewOptions)
    def __init__(self, options: ViewOptions) -> None:
        self._set_up(options)
        self.observation_space: spaces.Box = self._core.encoder.state_space()
        self.action_space: spaces.MultiDiscrete = spaces.MultiDiscrete([*self._core.action_sizes.values()])

    def _make_core(self, options: ViewOptions) -> BatchedFleet:
        """Return the batch of one."""
        if options.engine is None and options.scenario == "default":
            options = replace(options, scenario="fleet-v0")
        core = make_core(1, options)
        if not isinstance(core, BatchedFleet):
            raise InputError(
                f"marca_env/Fleet-v0: the agents of scenario {core.scenario.name!r} are its stages; use one with "
                "agent_kind 'site', or marca_env/Recommender-v0"
            )
        return core

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Make the current decision of all sites.

        Raises:
            IllegalActionError: an option does not exist and ``on_illegal`` is ``error``.
            InputError: the action is not one integer for each site.
        """
        agents, options = self._core.agents, as_array(action)
        if options.shape != (len(agents),):
            raise InputError(f"action is {shown(action)}; pass {len(agents)} options, one of each site")
        taken = {agent: np.array([as_int_action(agent, options[k])]) for k, agent in enumerate(agents)}
        self._step = step = self._core.step(taken)
        return self._shown(step)

    def action_masks(self) -> np.ndarray:
        """Return (N·A,) bool: the options of every site that exist now, as sb3-contrib's MaskablePPO expects."""
        return np.concatenate([self._latest.masks[agent][0] for agent in self._core.agents])
