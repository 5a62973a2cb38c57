"""Experiment ``games``: small cooperative games with known optima.

Start with :mod:`~benchmarks.experiments.games.experiment`; ``matrix_games`` defines the games.
"""
