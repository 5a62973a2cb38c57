"""Networks as RLModules, RLlib's wrapper for networks.

- :mod:`agents.rllib.modules.team_module`: a team with its mixer and target networks.
- :mod:`agents.rllib.modules.masked_modules`: RLlib's own modules with action masks.
"""
