"""Environments of a cascade recommender.

Start with :mod:`~marca_env.envs.pettingzoo_env` (the stages as agents, one request per episode) and
:mod:`~marca_env.envs.options` (their options). All environments of requests are views of
:mod:`~marca_env.envs.batched_env`, which runs many requests side by side. In :mod:`~marca_env.envs.gym_env` one agent
makes all decisions; :mod:`~marca_env.envs.vector_env` is its vector, and :mod:`~marca_env.envs.preset_envs` has such
environments for the generated scenarios. In :mod:`~marca_env.envs.price_env` the action is the price of computation,
and an episode is a day.
"""
