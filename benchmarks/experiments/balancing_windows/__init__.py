"""Experiment ``balancing_windows``: loads at the changes of the time window under model-predictive control.

Start with :mod:`~benchmarks.experiments.balancing_windows.experiment`.
"""
