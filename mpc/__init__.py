"""Balancers: what sets the price λ of computation, minute by minute, so that the load stays at the budget.

The public names are listed in ``__init__.pyi`` and imported when they are first used: the simple balancers need
neither torch nor cvxpy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
