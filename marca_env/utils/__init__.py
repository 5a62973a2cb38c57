"""Helpers that every package shares: errors, checks of input, strict YAML, model files, progress, random streams.

Start with :mod:`marca_env.utils.errors`: every fault of a user's input is one ``InputError``, one line with place,
fault and remedy.
"""
