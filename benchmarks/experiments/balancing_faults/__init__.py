"""Experiment ``balancing_faults``: the model-predictive balancer under random faults.

Start with :mod:`~benchmarks.experiments.balancing_faults.experiment`. ``closed_loop`` runs a balancer against the
simulated system and counts violations, ``faults`` injects the faults.
"""
