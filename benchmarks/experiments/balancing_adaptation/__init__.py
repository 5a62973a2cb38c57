"""Experiment ``balancing_adaptation``: balancers on a system that changes while it runs.

Start with :mod:`~benchmarks.experiments.balancing_adaptation.experiment`. ``changing_system`` simulates the change,
``adaptation_run`` runs a balancer through it, ``report_tables`` and ``figure`` show the results.
"""
