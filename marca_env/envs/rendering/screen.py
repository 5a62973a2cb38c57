"""Screen of an environment: shows frames in its render mode."""

from __future__ import annotations

import numpy as np

from marca_env.envs.rendering.drawing import PygameWindow, as_pixels
from marca_env.envs.rendering.text import as_text
from marca_env.envs.rendering.views import View
from marca_env.utils.errors import InputError, unknown_option

RENDER_MODES = ("ansi", "rgb_array", "human")


class Screen:
    """Screen for one render mode; in ``human`` mode a window, which :meth:`close` closes.

    Args:
        mode: one of :data:`RENDER_MODES`; ``None``: show nothing.
        fps: largest number of frames per second in a window.

    Raises:
        InputError: the mode is unknown.
    """

    def __init__(self, mode: str | None, fps: float) -> None:
        if mode is not None and mode not in RENDER_MODES:
            raise InputError(unknown_option("render_mode", mode, RENDER_MODES))
        self.mode, self.fps = mode, fps
        self._window: PygameWindow | None = None

    def show(self, view: View) -> str | np.ndarray | None:
        """Return text (``ansi``) or pixels (``rgb_array``, uint8 (height, width, 3)), or show a window."""
        if self.mode is None:
            return None
        if self.mode == "ansi":
            return as_text(view)
        pixels = as_pixels(view)
        if self.mode == "rgb_array":
            return pixels
        if self._window is None:
            self._window = PygameWindow(f"marca-env {view.title.partition(':')[0]}", self.fps)
        self._window.show(pixels)
        return None

    def close(self) -> None:
        """Close the window if one is open."""
        if self._window is not None:
            self._window.close()
            self._window = None
