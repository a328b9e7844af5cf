"""The pool of children, and the threads and tasks that use it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.clock import MonotonicClock
from engine.decode import DecodedAudio, DecodeLimits, MediaDecoder
from engine.decode_media import SOURCE_FRAMES
from engine.decode_process import ChildPool
from engine.decode_wire import BLOCK_SAMPLES
from engine.errors import AtCapacityError, DrainingError
from tests.fakes.decoding import LONG, LONG_SAMPLES, SHORT, is_running, started, wait_gone
from tests.fakes.media import HELLO, encoded


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder(DecodeLimits(wall_s=30.0)) as fresh:
        yield fresh


def children() -> set[int]:
    """Processes that this one has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def test_the_first_file_finds_a_child_that_was_warmed_up() -> None:
    with MediaDecoder(max_children=1) as decoder:
        decoder.warm_up()
        warming = next(thread for thread in threading.enumerate() if thread.name == "decode-warm-up")
        warming.join(10)
        before = children()
        _, pid = started(decoder)
        assert pid in before


def test_a_decoder_that_is_closed_while_it_warms_up_leaves_nothing() -> None:
    decoder = MediaDecoder()
    decoder.warm_up()
    decoder.close()
    for thread in threading.enumerate():
        if thread.name == "decode-warm-up":
            thread.join(10)
            assert not thread.is_alive()


def test_busy_pool_says_so_and_recovers() -> None:
    with MediaDecoder(max_children=2, busy_wait_s=0.05) as decoder:
        (one, first), (two, second) = started(decoder), started(decoder)
        assert first != second
        with pytest.raises(AtCapacityError, match="have been busy for"):
            decoder.decode(SHORT)
        one.close()
        assert decoder.decode(SHORT).duration_s == pytest.approx(0.1)
        assert sum(map(len, two)) == LONG_SAMPLES - SOURCE_FRAMES


def test_waiting_file_gets_the_child_when_it_is_free() -> None:
    with MediaDecoder(max_children=1, busy_wait_s=30.0) as decoder:
        blocks, _ = started(decoder)
        found: list[DecodedAudio] = []
        waiting = threading.Thread(target=lambda: found.append(decoder.decode(SHORT)))
        waiting.start()
        list(blocks)
        waiting.join(10.0)
        assert found[0].duration_s == pytest.approx(0.1)


@pytest.mark.parametrize("closed", ["stream", "decoder"])
def test_close_wakes_who_waits_for_a_child(closed: str) -> None:
    with MediaDecoder(max_children=1, busy_wait_s=30.0) as decoder:
        holder, _ = started(decoder)
        waiting = decoder.iter_blocks(SHORT)
        errors: list[BaseException] = []

        def read() -> None:
            try:
                next(waiting)
            except (DrainingError, StopIteration) as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        (waiting if closed == "stream" else decoder).close()
        thread.join(10.0)
        assert len(errors) == 1
        holder.close()


def test_stream_left_by_break_frees_its_child() -> None:
    with MediaDecoder(max_children=1, busy_wait_s=1.0) as decoder:
        for _ in decoder.iter_blocks(LONG):
            break
        gc.collect()
        assert decoder.decode(SHORT).duration_s == pytest.approx(0.1)


def test_closed_stream_ends_without_a_summary(decoder: MediaDecoder) -> None:
    blocks, pid = started(decoder)
    with blocks:
        pass
    assert list(blocks) == []
    assert blocks.summary is None and blocks.child_pid is None
    assert not is_running(pid)
    blocks.close()


def test_close_ends_running_jobs_and_leaves_nothing(decoder: MediaDecoder) -> None:
    blocks, pid = started(decoder)
    decoder.close()
    with pytest.raises(DrainingError):
        list(blocks)
    assert not is_running(pid)
    for _ in range(2):
        decoder.close()
        with pytest.raises(DrainingError):
            decoder.decode(SHORT)


def test_close_wakes_a_thread_that_waits_for_a_block(decoder: MediaDecoder) -> None:
    blocks, pid = started(decoder)
    os.kill(pid, signal.SIGSTOP)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            list(blocks)
        except DrainingError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    blocks.close()
    reader.join(10.0)
    assert not reader.is_alive()
    assert not is_running(pid)
    assert decoder.decode(SHORT).duration_s == pytest.approx(0.1)


def test_close_during_the_start_of_a_child() -> None:
    pool = ChildPool(DecodeLimits(), 1, 1.0, MonotonicClock())
    errors: list[BaseException] = []

    def lease() -> None:
        try:
            pool.give_back(pool.lease(), is_good=True)
        except DrainingError as error:
            errors.append(error)

    thread = threading.Thread(target=lease)
    thread.start()
    pool.close()
    thread.join(10.0)
    assert not thread.is_alive()
    with pytest.raises(DrainingError):
        pool.lease()


def test_async_decode_and_async_blocks(decoder: MediaDecoder) -> None:
    async def both() -> tuple[DecodedAudio, list[int]]:
        whole = await decoder.decode_async(HELLO)
        blocks = decoder.iter_blocks(LONG)
        sizes = [len(block) async for block in blocks]
        assert blocks.summary is not None and blocks.summary.duration_s == 60.0
        return whole, sizes

    whole, sizes = asyncio.run(both())
    np.testing.assert_array_equal(whole.samples, decoder.decode(HELLO).samples)
    assert sum(sizes) == LONG_SAMPLES
    assert max(sizes) <= BLOCK_SAMPLES


def test_cancelled_async_blocks_free_their_child(decoder: MediaDecoder) -> None:
    async def cancel() -> None:
        blocks, pid = await asyncio.to_thread(started, decoder)
        os.kill(pid, signal.SIGSTOP)

        async def read() -> None:
            async for _ in blocks:
                pass

        await cancelled_soon(read())
        assert await asyncio.to_thread(wait_gone, pid)

    asyncio.run(cancel())
    assert decoder.decode(SHORT).duration_s == pytest.approx(0.1)


def test_cancelled_async_decode_frees_its_child() -> None:
    hour = encoded(np.zeros((3_600 * 8_000, 1), dtype=np.float32), 8_000, "FLAC")

    async def cancel(decoder: MediaDecoder) -> None:
        await cancelled_soon(decoder.decode_async(hour))
        assert (await decoder.decode_async(SHORT)).duration_s == pytest.approx(0.1)

    with MediaDecoder(max_children=1, busy_wait_s=10.0) as decoder:
        decoder.decode(SHORT)
        asyncio.run(cancel(decoder))


async def cancelled_soon(work: Coroutine[object, object, object]) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
