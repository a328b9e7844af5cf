"""Media bytes or files -> 16 kHz mono float32, decoded in capped child processes.

Whatever a stranger's file does to the native decoders (crash, hang, fill memory, ask for a URL)
happens to a child that is thrown away: the sender gets BadAudioError, the next file a new child.
What can be decoded of a cut or damaged file is returned with a warning, never dropped.

Imports no media library; knows no model and no session. Invariant: a child is reused only after a
job that it ended by itself within all limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np

from engine.clock import Clock, MonotonicClock
from engine.decode_input import MediaSource, open_source
from engine.decode_process import BUSY_WAIT_S, ChildPool, ChildProcess, DecodeTimeoutError
from engine.decode_wire import BLOCK, END, FAILED, MAX_WARNINGS, DecodeLimitError, DecodeLimits
from engine.errors import BadAudioError, DrainingError, EngineFailedError, SttError
from engine.types import SAMPLE_RATE_HZ, FloatArray

__all__ = [
    "BlockStream",
    "DecodeLimitError",
    "DecodeLimits",
    "DecodedAudio",
    "MediaDecoder",
    "MediaSource",
    "MediaSummary",
]

_SLACK_SAMPLES = SAMPLE_RATE_HZ
"""The child counts exactly; this is what its resampler may round, should the rate change many times."""
_MAX_MESSAGE_CHARS = 300
"""Longest refusal that is believed to be the child's own words."""
_BAD_ANSWER = (ValueError, TypeError, KeyError, ArithmeticError, RecursionError)
"""What JSON from a child that a file has taken over can raise."""


@dataclass(frozen=True)
class MediaSummary:
    """What was found in a file; `warnings` is empty if all of it could be decoded."""

    duration_s: float
    container: str
    codec: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedAudio:
    """A whole decoded file: float32 mono 16 kHz samples in [-1, 1], and what was found in it."""

    samples: FloatArray
    duration_s: float
    container: str
    codec: str
    warnings: tuple[str, ...] = ()


class MediaDecoder:
    """Decodes files, each in a child process; usable from any thread, and as a context manager."""

    def __init__(
        self,
        limits: DecodeLimits | None = None,
        *,
        max_children: int = 1,
        busy_wait_s: float = BUSY_WAIT_S,
        clock: Clock | None = None,
    ) -> None:
        """`max_children` files are decoded at the same time; the next one waits `busy_wait_s`."""
        self.limits = limits or DecodeLimits()
        self._pool = ChildPool(self.limits, max_children, busy_wait_s, clock or MonotonicClock())

    def decode(self, data: MediaSource, *, max_duration_s: float | None = None) -> DecodedAudio:
        """Decode a whole file; blocks the calling thread.

        Raises BadAudioError (DecodeLimitError at a cap), AtCapacityError if all children stay busy,
        DrainingError if the decoder is closed, EngineFailedError if no child can be started.
        """
        return self.iter_blocks(data, max_duration_s=max_duration_s).collect()

    async def decode_async(self, data: MediaSource, *, max_duration_s: float | None = None) -> DecodedAudio:
        """Like `decode`, in a worker thread; cancelling it ends the child that it holds."""
        with self.iter_blocks(data, max_duration_s=max_duration_s) as blocks:
            return await asyncio.to_thread(blocks.collect)

    def iter_blocks(self, data: MediaSource, *, max_duration_s: float | None = None) -> BlockStream:
        """Decode piece by piece in constant memory; nothing is started before the first block is asked for."""
        limits = self.limits if max_duration_s is None else replace(self.limits, max_duration_s=max_duration_s)
        return BlockStream(self._pool, data, limits)

    def warm_up(self) -> None:
        """Start one child ahead of the first file, without waiting for it; if that fails, the first file tells."""
        threading.Thread(target=self._warm_up, name="decode-warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        with contextlib.suppress(SttError):
            self._pool.give_back(self._pool.lease(), is_good=True)

    def close(self) -> None:
        """End all children; what they are decoding fails with DrainingError. May be called again."""
        self._pool.close()

    def __enter__(self) -> MediaDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockStream:
    """The blocks of one file, for `for` and `async for`: float32 mono 16 kHz, 1 to BLOCK_SAMPLES samples.

    After the last block `summary` is set. A child is held from the first block to the last, or to
    `close`; the consumer may take as long as it likes between two. Errors: see `MediaDecoder.decode`.
    """

    def __init__(self, pool: ChildPool, data: MediaSource, limits: DecodeLimits) -> None:
        self.summary: MediaSummary | None = None
        self._pool = pool
        self._data = data
        self._limits = limits
        self._child: ChildProcess | None = None
        self._lock = threading.Lock()
        self._is_running = False
        self._is_over = False
        self._is_reusable = False
        self._samples = 0
        self._waited_s = 0.0

    @property
    def child_pid(self) -> int | None:
        """Process id of the child that decodes now; None before the first block and after the last."""
        child = self._child
        return child.pid if child is not None else None

    def collect(self) -> DecodedAudio:
        """Decode all that is left into one array."""
        data = bytearray()
        for block in self:
            data += block.data.cast("B")
        if self.summary is None:
            raise DrainingError("the media decoder is closed")
        found = self.summary
        samples = np.frombuffer(data, dtype=np.float32)
        return DecodedAudio(samples, found.duration_s, found.container, found.codec, found.warnings)

    def close(self) -> None:
        """Stop decoding; from any thread, and as often as wanted."""
        with self._lock:
            self._is_over = True
            if self._is_running and self._child is not None:
                self._child.kill()  # the thread that waits for a block sees it end, and cleans up
            is_waiting = self._is_running
        if is_waiting:
            self._pool.wake()
        else:
            self._release()

    def __next__(self) -> FloatArray:
        with self._lock:
            if self._is_over:
                raise StopIteration
            self._is_running = True
        block = None
        try:
            block = self._next_block(self._child or self._begin())
        finally:
            with self._lock:
                self._is_running = False
                self._is_over = self._is_over or block is None
                is_over = self._is_over
            if is_over:
                self._release()
        if block is None:
            raise StopIteration
        return block

    async def __anext__(self) -> FloatArray:
        try:
            block = await asyncio.to_thread(next, self, None)
        except asyncio.CancelledError:
            self.close()
            raise
        if block is None:
            raise StopAsyncIteration
        return block

    def __iter__(self) -> Iterator[FloatArray]:
        return self

    def __aiter__(self) -> AsyncIterator[FloatArray]:
        return self

    def __enter__(self) -> BlockStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left by `break` must not keep a child for ever.
        self.close()

    def _begin(self) -> ChildProcess:
        fd = open_source(self._data, self._limits)
        try:
            for _ in range(2):  # an idle child may have died unseen; a fresh one has not
                child = self._pool.lease(lambda: not self._is_over)
                with self._lock:
                    self._child = child
                    if self._is_over:
                        raise DrainingError("decoding was stopped")
                with contextlib.suppress(OSError):
                    child.send_job(fd, self._limits)
                    return child
                self._release()
        finally:
            os.close(fd)
        raise EngineFailedError("the media decoder takes no jobs")

    def _release(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            self._pool.give_back(child, is_good=self._is_reusable)

    def _next_block(self, child: ChildProcess) -> FloatArray | None:
        allowed_s = self._limits.work_s(self._samples / SAMPLE_RATE_HZ)
        try:
            kind, payload, waited_s = child.receive(allowed_s - self._waited_s, self._pool.clock)
            self._waited_s += waited_s
            if kind == BLOCK and payload and len(payload) % 4 == 0:
                return self._checked(np.frombuffer(payload, dtype=np.float32))
            if kind == END:
                self.summary = _parse_summary(payload)
                self._is_reusable = True
                return None
            if kind == FAILED:
                raise self._refusal(payload)
            raise EOFError
        except DecodeTimeoutError:
            raise DecodeLimitError(f"decoding takes longer than the limit of {allowed_s:g} s for this file") from None
        except EOFError:
            raise self._death(child) from None

    def _checked(self, block: FloatArray) -> FloatArray:
        self._samples += len(block)
        if self._samples > self._limits.max_duration_s * SAMPLE_RATE_HZ + _SLACK_SAMPLES:
            raise DecodeLimitError(f"the audio is longer than the limit of {self._limits.max_duration_s:g} s")
        return block

    def _refusal(self, payload: bytes | bytearray) -> BadAudioError:
        try:
            answer = json.loads(payload)
            message, is_limit = str(answer["message"])[:_MAX_MESSAGE_CHARS], bool(answer["is_limit"])
        except _BAD_ANSWER:
            raise EOFError from None
        self._is_reusable = not is_limit
        return DecodeLimitError(message) if is_limit else BadAudioError(message)

    def _death(self, child: ChildProcess) -> BadAudioError | DrainingError:
        if self._pool.is_closed or self._is_over:
            return DrainingError("the media decoder is closed")
        reason = child.death()
        if reason == "signal SIGXCPU":
            limit_s = self._limits.work_s(self._limits.max_duration_s)
            return DecodeLimitError(f"decoding takes more processor time than the limit of {limit_s:g} s")
        return BadAudioError(f"the file ended its decoder process ({reason})")


def _parse_summary(payload: bytes | bytearray) -> MediaSummary:
    try:
        found = json.loads(payload)
        return MediaSummary(
            float(found["duration_s"]),
            str(found["container"]),
            str(found["codec"]),
            tuple(str(warning)[:_MAX_MESSAGE_CHARS] for warning in found["warnings"][:MAX_WARNINGS]),
        )
    except _BAD_ANSWER:
        raise EOFError from None
