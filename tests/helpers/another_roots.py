"""The experiment of :mod:`tests.helpers.roots_experiment` under another name."""

from tests.helpers.roots_experiment import cases, measure, tables

__all__ = ["cases", "measure", "tables"]
