"""Ctrl-C during a run: finish the iteration, so that the saved state is that of an uninterrupted run."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Defer Ctrl-C to the next call of the yielded function, which raises KeyboardInterrupt; a second one acts at once.

    A checkpoint written in the middle of an iteration would contain some of its episodes and gradient steps, and a
    resumed run would repeat them. Outside of the main thread, and where SIGINT is ignored, nothing is changed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield lambda: None
        return
    pending = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pending
        if pending:
            logger.warning("stopped within an iteration: a resumed run is no longer equal to the bit to this one")
            signal.default_int_handler(number, frame)
        pending = True
        logger.warning("finishing this iteration; Ctrl-C again stops at once")

    def check() -> None:
        if pending:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
