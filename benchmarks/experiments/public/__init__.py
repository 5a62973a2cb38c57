"""Experiment ``public``: cooperative tasks published by others.

Start with :mod:`~benchmarks.experiments.public.experiment`; :mod:`agents.tasks.registry` names the tasks.
"""
