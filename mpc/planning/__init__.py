"""Planning of prices over a horizon: the objective of Eq. 17 (arXiv 2512.24325) and the ways to minimise it.

Start at :mod:`mpc.planning.objective` (the objective) and :mod:`mpc.planning.scp` (the default method, sequential
convex programming). Each of its convex programs is a :class:`mpc.planning.load_qp.LoadQP`. Other methods, for
comparison, are in :mod:`mpc.planning.alternatives`.
"""
