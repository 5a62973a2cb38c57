"""Experiment ``tuning``: random search for the settings of the ranking's methods.

Start with :mod:`~benchmarks.experiments.tuning.experiment`. ``search`` runs the trials and the finals through Ray Tune,
``search_spaces.yaml`` holds budgets and search spaces.
"""
