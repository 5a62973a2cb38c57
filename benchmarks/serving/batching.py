"""Merge waiting calls into one batch and decide it in a thread, so that the event loop never blocks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.serving.decider import Decision

MOST_ROWS = 512
"""Requests of a batch; a single call may have more."""
FEW_ROWS = 32
"""Requests of a call that may be decided at once."""
_Call = tuple[Sequence[Any], "asyncio.Future[list[Decision]]"]


class BusyError(RuntimeError):
    """More requests wait than the limit allows."""


class Batcher:
    """Decides for calls that arrive while others are decided together with each other.

    Args:
        decide: decides for requests; one thread calls it.
        most_waiting: requests that may wait; further calls are refused.
        is_quick: whether :meth:`decide` may decide a small call at once, in the event loop, because it only looks up
            what is remembered; ``None``: never.
    """

    def __init__(
        self,
        decide: Callable[[Sequence[Any]], list[Decision]],
        most_waiting: int = 20_000,
        is_quick: Callable[[], bool] | None = None,
    ) -> None:
        self._decide, self._most_waiting = decide, most_waiting
        self._is_quick = is_quick or (lambda: False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decide")
        self._calls: deque[_Call] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0

    def start(self) -> None:
        """Begin to decide; call it in the event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End after the batch that is decided now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def decide(self, requests: Sequence[Any], seconds: float) -> list[Decision]:
        """Return the decisions of a call.

        Args:
            requests: requests of the call.
            seconds: longest time to wait.

        Raises:
            BusyError: too many requests wait.
            TimeoutError: there was no decision in time; the call is dropped.
        """
        if len(requests) <= FEW_ROWS and self._is_quick():
            return self._decide(requests)
        if self._waiting + len(requests) > self._most_waiting:
            raise BusyError(f"{self._waiting} requests wait")
        future: asyncio.Future[list[Decision]] = asyncio.get_running_loop().create_future()
        self._waiting += len(requests)
        self._calls.append((requests, future))
        self._arrived.set()
        try:
            return await asyncio.wait_for(future, seconds)
        finally:
            self._waiting -= len(requests)

    def _take(self) -> list[_Call]:
        """Return the next calls, at least one and up to :data:`MOST_ROWS` requests, without those that gave up."""
        taken: list[_Call] = []
        rows = 0
        while self._calls and (not taken or rows + len(self._calls[0][0]) <= MOST_ROWS):
            call = self._calls.popleft()
            if not call[1].done():
                taken.append(call)
                rows += len(call[0])
        return taken

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            calls = self._take()
            if not self._calls:
                self._arrived.clear()
            if not calls:
                continue
            requests = [request for call, _ in calls for request in call]
            try:
                decisions = await loop.run_in_executor(self._thread, self._decide, requests)
            except Exception as error:  # the call must be answered, whatever failed
                for _, future in calls:
                    if not future.done():
                        future.set_exception(error)
                continue
            start = 0
            for call, future in calls:
                if not future.done():
                    future.set_result(decisions[start : start + len(call)])
                start += len(call)
