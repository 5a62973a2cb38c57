"""Rendering of the environments.

:mod:`~marca_env.envs.rendering.views` collects the content of a frame, :mod:`~marca_env.envs.rendering.text` and
:mod:`~marca_env.envs.rendering.drawing` turn it into text and pixels, and :mod:`~marca_env.envs.rendering.screen`
selects between them by render mode.
"""
