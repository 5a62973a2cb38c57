"""Agents that learn the revenue of each action; plain torch here, RLlib algorithms in :mod:`agents.rllib`.

Start with :class:`agents.AllocationPolicy`, which decides with a trained team, and :data:`agents.PRESETS`, the
algorithms by name. The public names are listed in ``__init__.pyi`` and imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
