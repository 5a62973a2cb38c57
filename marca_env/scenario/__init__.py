"""Scenarios: plain descriptions of a recommender system, and the presets that come with the package.

Start with :class:`marca_env.scenario.scenario.Scenario`; :mod:`marca_env.scenario.parts` explains each field, and
:mod:`marca_env.scenario.encoding` turns states and joint actions into model inputs.
"""
