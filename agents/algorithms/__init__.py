"""The algorithms as data, and the pure functions that they minimise.

- :mod:`agents.algorithms.presets`: the published algorithms by name (VDN, QMIX, AWRQ-Mixer, …); start here.
- :mod:`agents.algorithms.options`: every option, its default and its meaning.
- :mod:`agents.algorithms.td_targets`: temporal-difference (TD) targets, losses and head weights.
- :mod:`agents.algorithms.credit`: variance-guided credit assignment (VGCA).
"""
