"""How the worker ends on SIGTERM: no further job, open ones out, exit status 0 within 8 s.

The SDK's own end waits for the open long poll (up to 90 s), and a job that this poll brings is lost. So the
signal comes here first. Three moments follow, each an event for whoever needs it:

1. `is_draining`, at once: no job is begun any more. The open poll gets TAKE_GRACE_S, since its answer may be on
   the way; a job that it brings, and one that the SDK holds unbegun, ends with a retryable error, because a
   fresh worker will do it sooner than this one could.
2. `is_told`: the poll is over, and only now the SDK's handler is called: all it has to do is run out.
3. `is_cut`, CUT_S after the signal: a job that still runs ends with a retryable error.

EXIT_S after the signal the process ends, whatever is stuck. Knows no job and no HTTP; lives on the SDK's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

__all__ = ["CUT_S", "EXIT_S", "TAKE_GRACE_S", "Shutdown", "first_of", "leave"]

TAKE_GRACE_S = 1.0
"""An answer that the platform has sent already is here within this; longer only delays an idle worker's end."""
CUT_S = 7.0
"""Docker sends SIGKILL 10 s after SIGTERM; the last errors need a moment to be handed over."""
EXIT_S = 7.6
"""With the interpreter's own end, less than 8 s."""
HAND_OVER_S = 0.05
"""Between the end of a poll and the SDK's queue lie a few turns of the loop."""

_log = logging.getLogger(__name__)


def leave(exit_code: int) -> None:
    """End the process now: a thread stuck in native code would keep the interpreter from ending."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # an edge: a closed stream must not keep us
            stream.flush()
    os._exit(exit_code)


class Shutdown:
    """The end of a worker, step by step; make it anywhere, `arm` it inside the SDK's loop."""

    def __init__(self, settle: Callable[[], Awaitable[None]]) -> None:
        """`settle` ends the open poll within TAKE_GRACE_S."""
        self._settle = settle
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began_s: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._tell_sdk: Callable[[], object] = lambda: None
        self.is_draining = asyncio.Event()
        self.is_told = asyncio.Event()
        self.is_cut = asyncio.Event()
        self.exit_code = 0

    def arm(self) -> None:
        """Take SIGTERM and SIGINT over from the SDK, whose handlers are called later; needs the running loop."""
        self._loop = loop = asyncio.get_running_loop()
        theirs = signal.getsignal(signal.SIGTERM)
        if callable(theirs):
            self._tell_sdk = lambda: theirs(signal.SIGTERM, None)

        def on_signal(signum: int, _frame: FrameType | None) -> None:
            # The loop may have ended already: then so does the process.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self.begin, f"signal {signal.Signals(signum).name}")

        # Not loop.add_signal_handler: that gives the signal back, deadly, as the loop closes.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, on_signal)

    @property
    def left_s(self) -> float:
        """Seconds until the process ends; infinite while nobody has asked for that."""
        if self._began_s is None or self._loop is None:
            return float("inf")
        return max(0.0, self._began_s + EXIT_S - self._loop.time())

    def begin(self, reason: str, exit_code: int = 0) -> None:
        """Begin the end; on the loop. The second time it does nothing."""
        if self.is_draining.is_set():
            return
        assert self._loop is not None
        _log.info("worker ends: %s", reason)
        self.exit_code = exit_code
        self._began_s = self._loop.time()
        self.is_draining.set()
        watchdog = threading.Timer(EXIT_S, leave, (exit_code,))
        watchdog.daemon = True
        watchdog.start()
        self._loop.call_later(CUT_S, self.is_cut.set)
        self._tasks.append(self._loop.create_task(self._wind_down(), name="worker-wind-down"))

    async def _wind_down(self) -> None:
        try:
            await self._settle()
            await asyncio.sleep(HAND_OVER_S)
        finally:
            self._tell_sdk()
            self.is_told.set()


async def first_of(future: asyncio.Future[Any], *events: asyncio.Event, limit_s: float | None = None) -> None:
    """Wait until `future` is done, one of `events` is set or `limit_s` is over; `future` is never cancelled."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait({future, *waiters}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
