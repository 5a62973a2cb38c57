"""Draining before the end: load balancers are told first, then the listener closes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Drain:
    """Whether a server drains: it still takes calls, and /readyz asks load balancers to send no more.

    Attributes:
        is_draining: whether it does.
    """

    is_draining = False

    @contextmanager
    def before_sigterm(self, seconds: float) -> Iterator[None]:
        """Delay what SIGTERM does by a time in which the server drains; a second SIGTERM ends the wait.

        Use it in the event loop of the server, once the server has set its own handlers. In another thread than the
        main one there are no signals, and nothing is delayed.

        Args:
            seconds: the time; 0: none.
        """
        if threading.current_thread() is not threading.main_thread() or seconds <= 0:
            yield
            self.is_draining = True
            return
        loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        def stop() -> None:
            if callable(before):
                before(signal.SIGTERM, None)

        def handle(*_: Any) -> None:
            is_second, self.is_draining = self.is_draining, True
            loop.call_soon_threadsafe(loop.call_later, 0.0 if is_second else seconds, stop)

        signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            self.is_draining = True
            signal.signal(signal.SIGTERM, before)
