"""Experiment ``price_sampling``: prices of computation from a sample of the requests.

Start with :mod:`~benchmarks.experiments.price_sampling.experiment`.
"""
