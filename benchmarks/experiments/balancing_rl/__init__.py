"""Experiment ``balancing_rl``: prices λ set by reinforcement learning and by balancers, on the same days.

Start with :mod:`~benchmarks.experiments.balancing_rl.experiment`. ``priced_day`` adapts the environment for learning,
``rl_price_control`` trains PPO and SAC on it, ``judged_days`` evaluates a policy or a balancer on a day.
"""
