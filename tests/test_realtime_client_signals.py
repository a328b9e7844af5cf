"""realtime.client.signals: a signal becomes a call, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from realtime.client.signals import cancelled_by_signals, on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_clean_up_still_runs(number: int) -> None:
    ended = []

    async def main() -> None:
        with cancelled_by_signals():
            try:
                os.kill(os.getpid(), number)
                await asyncio.Event().wait()
            finally:
                ended.append(True)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert ended == [True]


def test_every_signal_is_a_call_until_the_context_is_left() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> int:
        calls: asyncio.Queue[None] = asyncio.Queue()
        with on_signals(lambda: calls.put_nowait(None)):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                await calls.get()
        return calls.qsize()

    assert asyncio.run(main()) == 0
    assert signal.getsignal(signal.SIGTERM) == before
