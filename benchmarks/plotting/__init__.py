"""Figures of the commands and experiments, drawn with matplotlib into PNG files.

:mod:`~benchmarks.plotting.style` makes empty figures, sets their style and saves them; every other module draws one
kind of figure.
"""
