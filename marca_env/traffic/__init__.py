"""Simulated days: traffic, clusters and allocation under prices, minute by minute.

Start with :mod:`~marca_env.traffic.simulated_system`, the one simulator of a minute, and
:mod:`~marca_env.traffic.day_simulator`, which replays a day under a policy. :mod:`~marca_env.traffic.workload` and
:mod:`~marca_env.traffic.days` make the traffic; :mod:`~marca_env.traffic.clusters` holds the dynamics of the machines;
:mod:`~marca_env.traffic.allocation` chooses joint actions under prices; :mod:`~marca_env.traffic.dual_bound` bounds
what any allocation can earn; :mod:`~marca_env.traffic.control` defines what a balancer receives and returns.
"""
