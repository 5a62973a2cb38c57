"""Experiment ``tasks``: every method on every task of the suite.

Start with :mod:`~benchmarks.experiments.tasks.experiment`. ``settings`` holds the methods, their options and what is
searched, ``task_games`` builds a task's environment and its judge, ``references`` what scores are normalised by,
``configuration`` RLlib's configurations, ``search`` tunes and ``learner`` trains; ``leaderboard`` makes tables and
figures.
"""
