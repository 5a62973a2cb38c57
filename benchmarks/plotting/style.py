"""An empty figure, where matplotlib is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank(**options: Any) -> Figure:
    """A figure outside pyplot, so that no state is global and no window opens.

    Args:
        options: of ``matplotlib.figure.Figure``, such as ``figsize`` in inches.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'marca-env[bench]'") from None
    return Figure(layout="constrained", **options)
