"""Experiment ``ablation``: AWRQ-Mixer without each of its parts.

All of it is :mod:`~benchmarks.experiments.ablation.experiment`; training and tables are in :mod:`benchmarks.offline`.
"""
