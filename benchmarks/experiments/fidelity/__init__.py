"""Experiment ``fidelity``: how true the fitted environment is to the live cascade.

Start with :mod:`~benchmarks.experiments.fidelity.experiment`. ``shipped_models`` tests costs and policies of the
shipped environment (with ``revenue_calibration`` and ``policy_ranking``); ``fitted_models`` fits its models and the
``baselines`` to the same rows and tests them; ``report_tables`` prints all of it.
"""
