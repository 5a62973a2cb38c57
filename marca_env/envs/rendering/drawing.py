"""Frames as pictures, drawn with Pillow, and a pygame window to show them."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from marca_env.envs.rendering.views import ClusterView, StageView, View

WIDTH = 720
_MARGIN, _TITLE, _STAGE, _CLUSTER, _HISTORY, _LEGEND = 20, 44, 74, 46, 64, 22
_LEFT, _RIGHT = 230, 560
"""Left and right edge of the middle column, which holds funnel and loads."""
_PAPER, _INK, _QUIET, _LINE = (252, 252, 250), (35, 38, 43), (120, 125, 132), (214, 216, 220)
_FUNNEL, _OPEN, _LOAD, _OVER, _PRICE = (70, 122, 180), (232, 234, 238), (84, 150, 110), (205, 78, 62), (176, 122, 30)
_LIMIT = 1.5
"""Loads over budget are drawn up to this value."""


def as_pixels(view: View) -> np.ndarray:
    """Return the frame as a picture, uint8 (height, 720, 3); its height depends only on the scenario."""
    history = any(c.history for c in view.clusters)
    row = _CLUSTER + (_HISTORY if history else 0)
    caption = _TITLE + len(view.stages) * _STAGE
    height = caption + 34 + len(view.clusters) * row + (_LEGEND if history else 0) + _MARGIN // 2
    image = Image.new("RGB", (WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 14), view.title, _INK, _font(19))
    for k, stage in enumerate(view.stages):
        _draw_stage(draw, view, k, stage, _TITLE + k * _STAGE)
    draw.text((_MARGIN, caption + 10), "clusters", _QUIET, _font(13))
    draw.text((_LEFT, caption + 10), f"load, {view.load_caption}", _QUIET, _font(13))
    draw.text((_RIGHT + 20, caption + 10), "price of computation", _QUIET, _font(13))
    for k, cluster in enumerate(view.clusters):
        _draw_cluster(draw, cluster, caption + 34 + k * row)
    if history:
        _draw_legend(draw, caption + 34 + len(view.clusters) * row)
    return np.asarray(image)


def _draw_stage(draw: ImageDraw.ImageDraw, view: View, k: int, stage: StageView, top: int) -> None:
    """Draw one storey of the funnel: its top is as wide as its queue, its bottom as wide as the next queue."""
    draw.text((_MARGIN, top + 2), stage.name, _INK, _font(16))
    text = _wrapped(draw, [f"{name} {_short(option)}" for name, option in stage.settings], _LEFT - _MARGIN - 8)
    draw.multiline_text((_MARGIN, top + 20), text, _QUIET, _font(11), spacing=1)
    middle, bottom = (_LEFT + _RIGHT) / 2, top + _STAGE - 8
    after = view.stages[k + 1] if k + 1 < len(view.stages) else stage
    upper, lower = _half_width(view, stage), _half_width(view, after if after.candidates is not None else stage)
    corners = [(middle - upper, top), (middle + upper, top), (middle + lower, bottom), (middle - lower, bottom)]
    if stage.candidates is None:
        draw.rectangle((_LEFT + 60, top, _RIGHT - 60, bottom), _OPEN)
        draw.text((middle, (top + bottom) / 2), "?", _QUIET, _font(18), anchor="mm")
    else:
        draw.polygon(corners, _FUNNEL)
        inside = min(upper, lower) > 26
        at = (middle if inside else middle + max(upper, lower) + 8, (top + bottom) / 2)
        draw.text(
            at, f"{stage.candidates:,.0f}", _PAPER if inside else _INK, _font(18), anchor="mm" if inside else "lm"
        )
    if stage.cost is not None:
        total = sum(s.cost or 0.0 for s in view.stages) or 1.0
        left, right = _RIGHT + 20, WIDTH - _MARGIN
        draw.text((left, top + 8), f"{1e3 * stage.cost:.3g} core-ms", _INK, _font(15))
        draw.rectangle((left, top + 32, right, top + 38), _OPEN)
        draw.rectangle((left, top + 32, left + (right - left) * stage.cost / total, top + 38), _PRICE)


def _half_width(view: View, stage: StageView) -> float:
    """Return half the width of a queue in pixels, by the root of its length, so that short queues stay visible."""
    share = (float(stage.candidates or 0.0) / view.widest) ** 0.5
    return max(3.0, min(share, 1.0) * (_RIGHT - _LEFT - 10) / 2)


def _draw_cluster(draw: ImageDraw.ImageDraw, cluster: ClusterView, top: int) -> None:
    """Draw name, state, load against budget, price and history of a cluster."""
    draw.text((_MARGIN, top), cluster.name, _INK, _font(16))
    state = []
    if cluster.degradation:
        state.append(f"degraded, level {cluster.degradation}")
    if cluster.backlog:
        state.append(f"backlog {cluster.backlog:.1f} s")
    draw.text((_MARGIN, top + 20), ", ".join(state), _OVER, _font(12))
    draw.rectangle((_LEFT, top, _RIGHT, top + 20), _OPEN)
    mark = _LEFT + (_RIGHT - _LEFT) / _LIMIT
    if cluster.load is not None:
        share = cluster.load / cluster.budget
        colour = _OVER if share > 1 else _LOAD
        draw.rectangle((_LEFT, top, _LEFT + (_RIGHT - _LEFT) * min(share / _LIMIT, 1.0), top + 20), colour)
        text = f"{cluster.load:.3g} of {cluster.budget:.3g} cores ({share:.0%})"
        draw.text((_LEFT, top + 24), text, colour, _font(13))
    draw.line((mark, top - 3, mark, top + 23), _INK, 2)
    draw.text((mark + 4, top + 24), "budget", _QUIET, _font(12))
    _draw_lambda(draw, _RIGHT + 22, top + 2, 17)
    draw.text((_RIGHT + 42, top - 1), f"{cluster.price:.3g}", _PRICE, _font(18))
    draw.text((_RIGHT + 22, top + 23), "currency per core-second", _QUIET, _font(11))
    if cluster.history:
        _draw_history(draw, cluster, top + _CLUSTER)


def _draw_history(draw: ImageDraw.ImageDraw, cluster: ClusterView, top: int) -> None:
    """Draw load over budget and price of each period so far, and a line at the budget."""
    left, right, height = _MARGIN, WIDTH - _MARGIN, _HISTORY - 18
    bottom = top + height
    draw.rectangle((left, top, right, bottom), _OPEN)
    budget = bottom - height / _LIMIT
    periods = max(len(cluster.history) - 1, 1)
    x = [left + (right - left) * k / periods for k in range(len(cluster.history))]
    highest_price = max(price for _, price in cluster.history) or 1.0
    prices = [(a, bottom - height * p / highest_price) for a, (_, p) in zip(x, cluster.history, strict=True)]
    loads = [(a, bottom - height * min(s / _LIMIT, 1.0)) for a, (s, _) in zip(x, cluster.history, strict=True)]
    draw.line((left, budget, right, budget), _QUIET, 1)
    if len(x) > 1:
        draw.line(prices, _PRICE, 1)
        draw.line(loads, _LOAD, 2)


def _draw_legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    """Explain the lines of the histories."""
    x, middle = float(_MARGIN), top + _LEGEND // 2
    for colour, width, symbol, text in (
        (_LOAD, 2, False, f"load, up to {_LIMIT:g} budgets"),
        (_QUIET, 1, False, "budget"),
        (_PRICE, 1, True, "price of computation, up to its highest so far"),
    ):
        draw.line((x, middle, x + 22, middle), colour, width)
        x += 28
        if symbol:
            _draw_lambda(draw, x, middle - 5, 12)
            x += 14
        draw.text((x, middle), text, _QUIET, _font(12), anchor="lm")
        x += draw.textlength(text, _font(12)) + 24
    draw.text((WIDTH - _MARGIN, middle), "time", _QUIET, _font(12), anchor="rm")


def _draw_lambda(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    """Draw the letter λ, which the built-in font lacks."""
    pen = max(2, round(size / 8))
    draw.line((x, y, x + 0.14 * size, y, x + 0.62 * size, y + 0.85 * size), _PRICE, pen, joint="curve")
    draw.line((x + 0.3 * size, y + 0.36 * size, x, y + 0.85 * size), _PRICE, pen)


def _short(option: str) -> str:
    """Return an option as short text: a set of three or more channels by their number."""
    return option if option.count("+") < 2 else f"{option.count('+') + 1} of them"


def _wrapped(draw: ImageDraw.ImageDraw, words: list[str], width: float) -> str:
    """Return settings side by side on at most four lines of the given width."""
    lines: list[str] = []
    for word in words:
        joined = f"{lines[-1]} · {word}" if lines else word
        if lines and draw.textlength(joined, _font(11)) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return "\n".join(lines[:3] + ([lines[3] + " ..."] if len(lines) > 4 else lines[3:4]))


@functools.cache
def _font(size: int) -> Any:
    """Return the built-in font; cached."""
    return ImageFont.load_default(size=size)


class PygameWindow:
    """A window that shows pictures one after the other, at most ``fps`` per second.

    Raises:
        ImportError: pygame is not installed; the message names the command to install it.
    """

    def __init__(self, title: str, fps: float) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError:
            raise ImportError("render_mode 'human' needs pygame: pip install 'marca-env[render]'") from None
        self._pygame, self._fps, self._title = pygame, fps, title
        self._surface: Any = None
        self._clock = pygame.time.Clock()

    def show(self, pixels: np.ndarray) -> None:
        """Show a picture, uint8 (height, width, 3), and wait until the next one is due."""
        pygame, size = self._pygame, (pixels.shape[1], pixels.shape[0])
        if self._surface is None or self._surface.get_size() != size:
            pygame.display.init()
            self._surface = pygame.display.set_mode(size)
            pygame.display.set_caption(self._title)
        pygame.event.pump()
        self._surface.blit(pygame.surfarray.make_surface(pixels.transpose(1, 0, 2)), (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window; the next picture opens a new one."""
        if self._surface is not None:
            self._pygame.display.quit()
            self._surface = None
