"""Speed of the learner's updates, and their floating-point operations by hand."""

from __future__ import annotations

import itertools
from typing import Any

from ray.rllib.core.learner.training_data import TrainingData

from agents.rllib import AWRQMixerConfig
from agents.rllib.core.cluster import start_ray
from agents.team.team import TeamSpec
from benchmarks.experiments.throughput.peak_share import share_of_peak


def measure_updates(seed: int, batch: int, repeats: int) -> dict[str, Any]:
    """Measure gradient updates of AWRQ-Mixer on ``batch`` episodes of the default scenario."""
    start_ray(num_cpus=1)
    config = AWRQMixerConfig().environment("marca_env/parallel-v0").debugging(seed=seed)
    config.training(train_batch_size_per_learner=batch, target_update=1).env_runners(num_envs_per_env_runner=batch)
    algorithm = config.build_algo()
    try:
        (episodes,) = algorithm.env_runner.sample(num_episodes=batch, random_actions=True)
        row = share_of_peak(
            "updates", lambda: algorithm.learner_group.update(training_data=TrainingData(batch=episodes)), 1, repeats
        )
        row["network_flops"] = network_flops(config, batch)
        return {**row, "batch": batch}
    finally:
        algorithm.stop()


def network_flops(config: Any, batch: int) -> int:
    """Return the operations of the Q networks in an update on the default scenario, computed by hand.

    The heads see each decision once in the online network (three products of a layer: forward, and backward for
    weights and for inputs). In the target network they see every decision that another one bootstraps from: all but the
    first of an episode. The GRU's recurrent product is left out at an agent's first turn, where all rows share the zero
    state.
    """
    spec, network = TeamSpec.from_dict(config.team()), config.preset().network
    turns = {"retrieval": 4, "pre_ranking": 1}
    total = 0
    for agent, observed, actions in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        sizes = [network.gru, *network.hidden, actions]
        head = 2 * network.heads * sum(a * b for a, b in itertools.pairwise(sizes))
        online = turns[agent]
        target = online - (agent == spec.agents[0])
        inputs, recurrent = 6 * network.gru * observed, 6 * network.gru**2
        total += batch * (head * (3 * online + target) + online * 3 * inputs + (online - 1) * 4 * recurrent)
    return total
