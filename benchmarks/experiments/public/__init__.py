"""Experiment ``public``: cooperative tasks published by others.

Start with :mod:`~benchmarks.experiments.public.experiment`; ``environments`` wraps the tasks as PettingZoo
environments.
"""
