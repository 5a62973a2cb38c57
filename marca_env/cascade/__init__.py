"""The live cascade: a generated recommender whose stages are really computed.

:class:`~marca_env.cascade.cascade.LiveCascade` serves one request with one joint action;
:func:`~marca_env.cascade.outcomes.outcome_table` computes all joint actions of many requests;
:func:`~marca_env.cascade.behaviour_policy.behaviour_log` makes request logs.
"""
