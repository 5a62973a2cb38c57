"""Agents that learn what each knob earns: plain torch here, their RLlib algorithms in :mod:`agents.rllib`."""
