"""The ``marca`` command, the simulated days, the experiments with their records, and the report.

Start at :mod:`benchmarks.cli.main` (the command) or :mod:`benchmarks.suite.api` (what an experiment is).
"""
