"""Decisions for live traffic: prices with a version and an age, telemetry, and the loop of the controller.

:mod:`~benchmarks.serving.controller_loop` runs a balancer of :mod:`mpc` against readings of
:mod:`~benchmarks.serving.telemetry` and publishes its prices on the board of :mod:`~benchmarks.serving.prices`, where
decision servers read them.
"""
