"""The algorithms on RLlib's new API stack: configuration, algorithm, learner, sampling and replay.

- :mod:`agents.rllib.core.algorithms`: every algorithm with its configuration (``QMIXConfig``, …); start here.
- :mod:`agents.rllib.core.team_config`, :mod:`agents.rllib.core.team_algorithm`: their base classes.
- :mod:`agents.rllib.core.learner`: gradient steps and target networks.
- :mod:`agents.rllib.core.runner`, :mod:`agents.rllib.core.runner_pool`, :mod:`agents.rllib.core.rollout`: sampling.
- :mod:`agents.rllib.core.replay`: the replay buffer.
- :mod:`agents.rllib.core.offline_log`, :mod:`agents.rllib.core.streamed_log`: learning from a request log.
"""
