"""Threads in which the audio of streams is analysed: voice activity and log-mel frames.

Both are native code that lets go of Python's lock, so that the serving loop goes on meanwhile. All
streams share the threads; that a stream has at most one piece in them is the business of `realtime.lane`.

Knows nothing of sessions. Invariants: whoever submits work is called back, once; the threads exist from
the start, so that a container without room for them fails there and not in the middle of a stream; they are
daemons, so that native code that hangs cannot keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from engine.clock import Clock
from engine.errors import ConfigError

__all__ = ["CLOSE_S", "MAX_AUTO_THREADS", "FeaturePool", "feature_threads"]

logger = logging.getLogger("realtime.features")

MAX_AUTO_THREADS = 4
"""One analyses well over 100 streams; more than four wait for Python's lock rather than for a core."""
CORES_FOR_OTHERS = 2
"""The serving loop and the engine child need one each; with no more than these a thread is but a detour."""
CLOSE_S = 0.5
"""What threads get to end: a piece takes 10 ms. One that hangs is left behind and ends with the process."""


def feature_threads(asked: int | None, cores: int) -> int:
    """How many threads to start; `asked` None: as many as are of use on so many cores."""
    return asked if asked is not None else max(0, min(MAX_AUTO_THREADS, cores - CORES_FOR_OTHERS))


@dataclass(frozen=True)
class _Piece:
    work: Callable[[], None]
    done: Callable[[BaseException | None], None]
    loop: asyncio.AbstractEventLoop


class FeaturePool:
    """Threads shared by all streams, or none; use it on one event loop."""

    def __init__(self, n_threads: int, clock: Clock) -> None:
        """Starts the threads. Raises ConfigError if the system has no room for them."""
        self.n_threads = n_threads
        self._clock = clock
        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        # One figure per thread, since two threads that add to the same one lose sums.
        self._busy_s = [0.0] * n_threads
        self._threads = [
            threading.Thread(target=self._serve, args=(index,), name=f"features-{index}", daemon=True)
            for index in range(n_threads)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self.close()
            raise ConfigError(f"--feature-threads: {n_threads} threads cannot be started: {error}") from None

    @property
    def busy_s(self) -> float:
        """Seconds a thread has spent on pieces, on average over the threads; waiting for a core counts."""
        return sum(self._busy_s) / max(1, self.n_threads)

    def submit(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run `work` in the next free thread, then `done` on the event loop, with what `work` raised.

        Call on the event loop, and only if there are threads.
        """
        self._pieces.put(_Piece(work, done, asyncio.get_running_loop()))

    def close(self) -> None:
        """End the threads, behind what they have been given; blocks up to CLOSE_S. Idempotent."""
        for _ in self._threads:
            self._pieces.put(None)
        deadline_s = self._clock.now_s() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - self._clock.now_s()))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if self._threads:
            logger.error("%d feature threads hang and are left behind", len(self._threads))

    def _serve(self, index: int) -> None:
        while (piece := self._pieces.get()) is not None:
            began_s = self._clock.now_s()
            failure: BaseException | None = None
            try:
                piece.work()
            except BaseException as error:  # An edge: it goes to the stream whose piece it was.
                failure = error
            self._busy_s[index] += self._clock.now_s() - began_s
            # A loop that is closed has no stream any more.
            with contextlib.suppress(RuntimeError):
                piece.loop.call_soon_threadsafe(piece.done, failure)
            # Or an idle thread would keep a stream that is long gone.
            del piece, failure
