"""The system model: how prices, traffic and time of day determine the load of the clusters (Eq. 18, arXiv 2512.24325).

Start at :class:`mpc.model.system_model.SystemModel` (fit, save, load). :mod:`mpc.model.load_dynamics` holds its
equations, :mod:`mpc.model.response` its network, :mod:`mpc.model.array_response` a fast copy of the network for
planning, :mod:`mpc.model.refit` the refit on recent telemetry.
"""
