"""Control of the price λ of computation, so that the load of each cluster stays at its budget.

Start with :class:`MPCBalancer` and :class:`SystemModel`; the simple balancers, such as :class:`FeedbackBalancer`, need
neither torch nor cvxpy. ``balancers`` holds the simple rules, ``model`` the learned system model, ``planning`` the
optimisation of prices, ``controller`` the model-predictive balancer. The public names are listed in ``__init__.pyi``
and imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
