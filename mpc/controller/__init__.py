"""The model-predictive controller of the price λ: telemetry in, prices out, whatever fails in between.

Start at :class:`mpc.controller.mpc_balancer.MPCBalancer`. It checks the telemetry (:mod:`mpc.controller.telemetry`),
forecasts traffic (:mod:`mpc.controller.traffic_forecast`), corrects the model (:mod:`mpc.controller.bias_correction`)
and has prices for failed plans (:mod:`mpc.controller.fallback`). :mod:`mpc.controller.adaptive` refits the model when
the system drifts.
"""
