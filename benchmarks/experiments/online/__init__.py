"""Experiment ``online``: allocation policies on days of traffic.

Start with :mod:`~benchmarks.experiments.online.experiment`. ``calibrated_policies`` trains and calibrates the policies,
``report_tables`` and ``report_figures`` compare them.
"""
