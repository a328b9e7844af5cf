"""A media file as a sequence of prepared stretches, read in a worker thread.

One step in the thread takes a block from the decoder, analyses it and prepares what it completes, so that
nothing heavy runs on the event loop. Invariants: at most one step runs at a time; when the iteration ends,
however it ends, the decoder's child is let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, Protocol, TypeVar

from engine.clock import Clock
from engine.decode import MediaSource, MediaSummary
from engine.errors import DrainingError
from engine.recording_audio import Found
from engine.recording_cut import Stretch
from engine.types import FloatArray

__all__ = ["BlockDecoder", "Blocks", "Listener", "PreparedT", "Reader"]

PreparedT = TypeVar("PreparedT")


class Blocks(Protocol):
    """`engine.decode.BlockStream` as far as it is used here."""

    @property
    def summary(self) -> MediaSummary | None:
        """What was found in the file; None before its last block."""
        ...

    def __next__(self) -> FloatArray:
        """The next block, float32 mono 16 kHz."""
        ...

    def close(self) -> None:
        """Stop; from any thread."""
        ...


class BlockDecoder(Protocol):
    """`engine.decode.MediaDecoder` as far as it is used here."""

    def iter_blocks(self, data: MediaSource, *, max_duration_s: float | None = None) -> Blocks:
        """Begin to decode."""
        ...


class Listener(Protocol):
    """What makes stretches of blocks: `engine.recording_audio.Analysis` or `Rereading`."""

    def push(self, samples: FloatArray) -> list[Found]:
        """Take the next samples."""
        ...

    def finish(self) -> list[Found]:
        """The recording has ended."""
        ...


class Reader(Generic[PreparedT]):
    """Reads a recording once; the times are wall seconds spent in the thread."""

    def __init__(
        self, blocks: Blocks, listener: Listener, prepare: Callable[[Stretch, FloatArray], PreparedT], clock: Clock
    ) -> None:
        self.decode_s = 0.0
        self.listen_s = 0.0
        self._blocks = blocks
        self._listener = listener
        self._prepare = prepare
        self._clock = clock

    @property
    def summary(self) -> MediaSummary:
        """What was found in the file, once it has been read. Raises DrainingError if it never was."""
        found = self._blocks.summary
        if found is None:
            raise DrainingError("the media decoder is closed")
        return found

    async def stretches(self) -> AsyncGenerator[tuple[Stretch, PreparedT], None]:
        """Each stretch with what was made of its samples. Raises what the decoder raises."""
        try:
            is_over = False
            while not is_over:
                found, is_over = await asyncio.to_thread(self._step)
                for each in found:
                    yield each
        finally:
            # A step that still runs in its thread sees its block end.
            self._blocks.close()

    def _step(self) -> tuple[list[tuple[Stretch, PreparedT]], bool]:
        began_s = self._clock.now_s()
        block = next(self._blocks, None)
        decoded_s = self._clock.now_s()
        found = self._listener.finish() if block is None else self._listener.push(block)
        prepared = [(stretch, self._prepare(stretch, samples)) for stretch, samples in found]
        self.decode_s += decoded_s - began_s
        self.listen_s += self._clock.now_s() - decoded_s
        return prepared, block is None
