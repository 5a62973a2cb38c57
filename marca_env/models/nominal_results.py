"""Candidates of each stage when every queue is full, worked out from the decisions alone."""

from __future__ import annotations

import numpy as np

from marca_env.scenario.scenario import Scenario


def nominal_results(scenario: Scenario, actions: np.ndarray) -> np.ndarray:
    """Return (B,S) candidates that each stage processes if every queue is full.

    Use it for logs that lack the results. The first stage processes the recall lengths of the channels that are on, or
    its own queue option; every later stage processes the queue that the one before passes on, cut at ``queue_limit``.
    A stage without any such information processes one candidate.

    Args:
        scenario: the system.
        actions: (B,D) option indices.
    """
    actions = np.asarray(actions)
    results = np.ones((len(actions), len(scenario.stages)))
    arriving: np.ndarray | None = None
    for s, stage in enumerate(scenario.stages):
        recalled = np.zeros(len(actions))
        for d, decision in enumerate(scenario.decisions):
            if scenario.decision_stage[d] == s and decision.channel is not None:
                recalled += (
                    channel_is_on(scenario, decision.channel, actions) * np.array(decision.options)[actions[:, d]]
                )
        if recalled.any():
            arriving = recalled
        if arriving is not None:
            results[:, s] = arriving
        for d, decision in enumerate(scenario.decisions):
            if scenario.decision_stage[d] == s and decision.kind == "queue" and decision.channel is None:
                passed_on = np.array(decision.options, dtype=float)[actions[:, d]]
                arriving = passed_on if arriving is None else np.minimum(arriving, passed_on)
                if s == 0 and not recalled.any():
                    results[:, s] = passed_on
        if stage.queue_limit is not None and arriving is not None:
            arriving = np.minimum(arriving, stage.queue_limit)
    return results


def channel_is_on(scenario: Scenario, name: str, actions: np.ndarray) -> np.ndarray:
    """Return (B,) 1.0 where the decisions (B,D) switch the channel on, else 0.0; without a switch it is always on."""
    on = np.ones(len(actions))
    for d, decision in enumerate(scenario.decisions):
        if decision.kind == "channel":
            on = on * np.array([float(name in option) for option in decision.options])[actions[:, d]]
    return on
