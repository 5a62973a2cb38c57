"""Experiment ``sampling``: environment steps per second of our runner and of RLlib's own multi-agent runner.

Start with :mod:`~benchmarks.experiments.sampling.experiment`; ``runners`` builds the runners and measures their rates.
"""
