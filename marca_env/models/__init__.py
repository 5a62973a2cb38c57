"""Models of a recommender: revenue and computation of every request under every joint action.

Start with :mod:`~marca_env.models.engine`, which serves batches of requests from two fitted models:
:mod:`~marca_env.models.cost_model` (candidates of each stage, priced by :mod:`~marca_env.models.cost_map`) and
:mod:`~marca_env.models.revenue_model` (an ensemble). :mod:`~marca_env.models.population` holds the requests themselves,
:mod:`~marca_env.models.request_pool` a sample of them with all outcomes, and :mod:`~marca_env.models.analytic` the
formulas of generated scenarios.
"""
