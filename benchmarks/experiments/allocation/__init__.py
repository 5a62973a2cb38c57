"""Experiment ``allocation``: speed and value of the greedy allocation under quotas.

Start with :mod:`~benchmarks.experiments.allocation.experiment`; ``report_tables`` prints the results. The allocation
rules themselves are in :mod:`benchmarks.evaluation.quota_allocation`.
"""
