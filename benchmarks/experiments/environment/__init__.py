"""Experiment ``environment``: steps and request outcomes per second, memory, and cost by size of the scenario.

Start with :mod:`~benchmarks.experiments.environment.experiment`. ``rates`` measures several kinds of work in turn,
``workloads`` is what is measured, ``sizes`` measures memory and scenarios of growing size.
"""
