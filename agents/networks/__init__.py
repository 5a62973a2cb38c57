"""Neural networks in plain torch: the agents' Q networks and the mixers that combine their values.

- :mod:`agents.networks.q_network`: the Q network of one agent; start here.
- :mod:`agents.networks.mixers`: mixers of VDN, QMIX and AWRQ-Mixer, and user-defined ones.
- :mod:`agents.networks.fused_mlp`: fast ensembles of ReLU networks, used by the Q networks.
"""
