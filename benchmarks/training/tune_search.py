"""Searches of Ray Tune after which Ctrl-C works as before."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.tune import ResultGrid, Tuner


def fit(tuner: Tuner) -> ResultGrid:
    """Run a search; after Ctrl-C, Tune saves the state of its trials first.

    Alone, Tune returns the trials that had finished as if the search were whole, and its handler of Ctrl-C remains:
    the next Ctrl-C, of a training in the same process, would be lost.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        return tuner.fit()  # Tune sets no handlers there
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        results = tuner.fit()
        # Tune's handler puts the former one back when it is called.
        interrupted = _has_handler() and signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
    return results


def _has_handler() -> bool:
    """Return whether Tune handles SIGINT, which its users may turn off."""
    return not int(os.environ.get("TUNE_DISABLE_SIGINT_HANDLER", "0"))
