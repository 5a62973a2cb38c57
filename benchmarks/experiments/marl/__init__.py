"""Experiment ``marl``: the leaderboard of learners on the recommender environment.

Start with :mod:`~benchmarks.experiments.marl.experiment`. ``settings`` holds the methods and their options,
``configuration`` builds RLlib's configurations from them and ``training`` trains them, ``population_engine`` evaluates
on the whole population, and ``leaderboard`` turns learning curves into tables and figures.
"""
