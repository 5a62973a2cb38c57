"""Environments for the algorithms.

- :mod:`agents.rllib.envs.make_env`: any supported environment behind the batched protocol; start here.
- :mod:`agents.rllib.envs.sequential_env`: PettingZoo and RLlib environments, stepped one after the other.
- :mod:`agents.rllib.envs.team_env`: cooperative environments for RLlib's own algorithms.
"""
