"""Experiment ``ranking``: methods that learn from the same request log, evaluated offline.

All of it is :mod:`~benchmarks.experiments.ranking.experiment`; training and tables are in :mod:`benchmarks.offline`.
"""
