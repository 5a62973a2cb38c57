"""Experiment ``sensitivity``: settings of AWRQ-Mixer and of the model-predictive controller, varied one at a time.

All of it is :mod:`~benchmarks.experiments.sensitivity.experiment`; it trains as ``ranking`` does and controls as
``balancing`` does.
"""
