"""Evaluation of fitted models and learners: metrics, statistics over runs, allocation under quotas.

:mod:`~benchmarks.evaluation.offline_evaluation` is the paper's revenue simulation; start there. Metrics
(:mod:`~benchmarks.evaluation.metrics`) and statistics (:mod:`~benchmarks.evaluation.statistics`) are pure functions of
arrays.
"""
