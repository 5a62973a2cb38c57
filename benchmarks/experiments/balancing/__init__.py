"""Experiment ``balancing``: balancers that set the price λ on days of traffic.

Start with :mod:`~benchmarks.experiments.balancing.experiment`; ``report_tables`` prints the results.
"""
