"""Experiments of the benchmark suite, one package each: ``marca bench run NAME`` runs ``NAME/experiment.py``.

An experiment defines ``cases``, ``measure`` and ``tables``, as :mod:`benchmarks.suite.api` describes; what only it
needs lies beside it. Start with ``games``, the smallest one. Experiments that train from the request log share
:mod:`benchmarks.offline`; those with days of traffic share :mod:`benchmarks.days`.
"""
