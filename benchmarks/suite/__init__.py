"""Benchmark suite: experiments as data, their records on disk, and reports of them.

:mod:`benchmarks.suite.api` defines what an experiment is; :mod:`benchmarks.suite.registry` finds experiments by name;
:mod:`benchmarks.suite.runner` measures their cases; :mod:`benchmarks.suite.records` stores rows;
:mod:`benchmarks.suite.report` shows them. The commands are in :mod:`benchmarks.cli`, the experiments in
:mod:`benchmarks.experiments`.
"""
