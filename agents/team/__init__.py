"""A team of agents in plain torch: its networks, its losses, and a single controller in place of a team.

- :mod:`agents.team.team`: shapes of a team (``TeamSpec``) and its networks (``Team``); start here.
- :mod:`agents.team.td_losses`: the loss of a batch of episodes.
- :mod:`agents.team.parameter_sharing`: one Q network for each agent, or one for all agents with equal spaces.
- :mod:`agents.team.single_controller`: one controller that takes every decision.
"""
