"""Balancers: rules that set the price λ of computation for each cluster, minute by minute.

Start at :class:`mpc.balancers.base.Balancer`, the protocol that all of them follow. The rules here need neither a
system model nor a solver: constant prices, PID feedback, primal-dual steps, bisection on replayed requests (DCAF) and
a price per slice of the day. The model-predictive balancer is :class:`mpc.MPCBalancer`.
"""
