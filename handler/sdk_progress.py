"""A job's progress: at most one post every two seconds, and none that could overtake the result.

The SDK's own progress posts itself from a thread, and one that arrives behind the result puts the job back to
"in progress" for ever. Here each post is awaited, the latest news replaces older ones that still wait, and
`close` returns when the platform may be given the result. Knows no HTTP and no job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["PROGRESS_EVERY_S", "QUIET_BEFORE_RESULT_S", "ProgressSender"]

PROGRESS_EVERY_S = 2.0
"""Between two posts, and before the first: a job that is done sooner has none, and waits for none."""
QUIET_BEFORE_RESULT_S = 1.0
"""Between the last post's answer and the result: the platform itself may take them up in another order."""

_log = logging.getLogger(__name__)


class ProgressSender:
    """Posts one job's progress from the loop that made it; `tell` may be called from anywhere."""

    def __init__(
        self,
        send: Callable[[Mapping[str, Any]], Awaitable[None]],
        is_hurried: Callable[[], bool] = lambda: False,
        *,
        every_s: float = PROGRESS_EVERY_S,
        quiet_s: float = QUIET_BEFORE_RESULT_S,
    ) -> None:
        """`is_hurried`: the process ends soon, and the result waits for nothing any more."""
        self._send = send
        self._is_hurried = is_hurried
        self._loop = asyncio.get_running_loop()
        self._every_s = every_s
        self._quiet_s = quiet_s
        self._next_s = self._loop.time() + every_s
        self._result_s = 0.0
        self._latest: Mapping[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_sending = False
        self._is_closed = False

    def tell(self, progress: Mapping[str, Any]) -> None:
        """Take news, from any thread; never blocks."""
        with contextlib.suppress(RuntimeError):  # the loop has ended before the job
            self._loop.call_soon_threadsafe(self._put, progress)

    def _put(self, progress: Mapping[str, Any]) -> None:
        if self._is_closed:
            return
        self._latest = progress
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._post_latest(), name="progress")

    async def _post_latest(self) -> None:
        while self._latest is not None and not self._is_closed:
            await asyncio.sleep(self._next_s - self._loop.time())
            progress, self._latest = self._latest, None
            self._next_s = self._loop.time() + self._every_s
            self._is_sending = True
            try:
                await self._send(progress)
            finally:
                self._is_sending = False
                self._result_s = self._loop.time() + self._quiet_s

    def drop(self) -> None:
        """Send nothing any more, and wait for nothing: the job has no result."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Send nothing any more; returns when the result may go."""
        self._is_closed = True
        if self._task is not None:
            if not self._is_sending:
                self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled() and self._task.exception():
                _log.error("progress failed: %s", type(self._task.exception()).__name__)
        wait_s = self._result_s - self._loop.time()
        if wait_s > 0 and not self._is_hurried():
            await asyncio.sleep(wait_s)
