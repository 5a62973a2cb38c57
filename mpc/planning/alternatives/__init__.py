"""Other methods to minimise Eq. 17 (arXiv 2512.24325), for comparison with sequential convex programming.

Start at :mod:`mpc.planning.alternatives.registry`, which makes a method by its name. All follow the protocol
:class:`mpc.planning.planning_method.PlanningMethod`; :mod:`mpc.planning.alternatives.search_method` holds what the
searches share.
"""
