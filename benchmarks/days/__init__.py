"""Simulated days behind `marca simulate`, `marca balance` and `marca headroom`.

:mod:`~benchmarks.days.compare_policies` and :mod:`~benchmarks.days.compare_balancers` are the two commands; start
there. :mod:`~benchmarks.days.calibration` tunes and fits everything that a day compares, before the day and without
seeing it. :mod:`~benchmarks.days.policies` and :mod:`~benchmarks.days.balancers` build it by name.
"""
