"""Experiment ``balancing_solvers``: ways to minimise the objective of the model-predictive balancer (Eq. 17).

Start with :mod:`~benchmarks.experiments.balancing_solvers.experiment`. ``comparison`` runs all methods on the same
states (``solver_states``), ``growth`` on generated systems of any size; ``step_parts`` times the parts of a control
step; ``published_shooting`` is random shooting as the paper has it; ``report_tables`` prints the results.
"""
