"""Experiment ``throughput``: speed of updates and decisions of AWRQ-Mixer as a share of the machine's peak.

Start with :mod:`~benchmarks.experiments.throughput.experiment`. ``peak_share`` times work between large matrix
products, ``updates`` measures the learner and ``decisions`` the policy.
"""
