"""Trained teams as policies; nothing here imports ray.

- :mod:`agents.policy.allocation_policy`: load a policy and decide at given prices; start here.
- :mod:`agents.policy.joint_action_values`, :mod:`agents.policy.action_tree`: values of all joint actions.
- :mod:`agents.policy.checkpoints`: folders of a training run: write, verify, list and delete checkpoints.
"""
