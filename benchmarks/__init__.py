"""The ``marca`` command, the simulated days, the experiments with their records, and the report.

Start at :func:`benchmarks.simulate_day` and :func:`benchmarks.balance_day` (a day under several policies or balancers,
your own among them), :mod:`benchmarks.cli.main` (the command) or :mod:`benchmarks.suite.api` (what an experiment is).
The public names are listed in ``__init__.pyi`` and imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
