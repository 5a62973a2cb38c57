"""Training runs: start, stop, resume, record and evaluate them.

- :mod:`agents.rllib.training.training`: run an algorithm and save checkpoints; start here.
- :mod:`agents.rllib.training.any_algorithm`: RLlib's own algorithms and user-defined ones.
- :mod:`agents.rllib.training.algorithm_checkpoints`: write and restore checkpoints.
- :mod:`agents.rllib.training.run_settings`: what a resumed run remembers.
- :mod:`agents.rllib.training.placement`: where a resumed run continues.
- :mod:`agents.rllib.training.evaluation`: greedy episodes of a checkpoint.
- :mod:`agents.rllib.training.metrics`, :mod:`agents.rllib.training.stopping`: metrics and stopping criteria.
- :mod:`agents.rllib.training.team_return`: whether a return is a mean or a sum over agents.
"""
