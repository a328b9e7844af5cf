"""The engine's event loop in its own thread, and how another loop awaits what runs there.

The queue's SDK owns the main thread's loop; model, downloads and decoding live on this one, so that neither
waits for the other and the model loads before the SDK is even imported. Knows no job and no SDK.

Invariants: a call that is cancelled on the one side is cancelled on the other within one turn of its loop; a task
that raises SystemExit or KeyboardInterrupt ends alone, and not the loop of all the others; no method blocks a
loop, except `run` and `close`, which are for threads that have none.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from engine.errors import DrainingError

__all__ = ["CLOSE_LIMIT_S", "EngineLoop"]

CLOSE_LIMIT_S = 3.0
"""What cancelled tasks get to clean up; what is stuck longer ends with the process."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class EngineLoop:
    """An event loop in a daemon thread; a context manager that starts and closes it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # The kernel ties a child's life to the thread that starts it: this one lives until `close`.
        self._thread = threading.Thread(target=self._serve, name="engine-loop", daemon=True)
        self._is_closed = False
        self._has_ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    def __enter__(self) -> EngineLoop:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread; call it once."""
        self._thread.start()

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have `call` called once the thread has ended, by `close` or by a defect; it must not block."""
        self._has_ended.add_done_callback(lambda _: call())

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run `work` on the loop; cancelling the future cancels it there. Raises DrainingError after `close`."""
        try:
            if self._is_closed:
                raise RuntimeError
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise DrainingError("the engine's loop has ended") from None

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which runs on the engine's loop, from another loop; raises what it raises."""
        return await asyncio.wrap_future(self.submit(work))

    def run(self, work: Coroutine[Any, Any, T], limit_s: float | None = None) -> T:
        """Block this thread until `work` is done.

        Raises what it raises, or concurrent.futures.TimeoutError after `limit_s`, with `work` cancelled.
        """
        future = self.submit(work)
        try:
            return future.result(limit_s)
        finally:
            future.cancel()

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> bool:
        """Cancel all tasks, let them clean up, end the thread; False if something was stuck for `limit_s`."""
        if not self._is_closed:
            self._is_closed = True
            if not self._thread.is_alive():
                self._loop.close()
                return True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            self._run_on()
            loop.run_until_complete(_cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            self._has_ended.set_result(None)

    def _run_on(self) -> None:
        while True:
            try:
                self._loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt) as error:
                # The task that raised it has it as its error; asyncio lets it out of the loop as well.
                _log.error("%s was raised on the engine's loop, which goes on", type(error).__name__)
                if self._is_closed:
                    self._loop.call_soon(self._loop.stop)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
