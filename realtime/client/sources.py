"""Where audio comes from: media files of any format, or a microphone; float32 mono 16 kHz chunks.

Knows nothing of sockets and pacing. Invariants: memory is bounded at any length of recording; chunks
have the size asked for, but for the last. A microphone cannot wait, so what a stalled connection leaves in
its bounded queue for too long is lost, counted and reported.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from engine.decode import DecodeLimits, MediaDecoder
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.errors import SourceError

__all__ = [
    "FILE_LIMITS",
    "MIC_QUEUE_S",
    "OpenInput",
    "check_file",
    "count_samples",
    "file_chunks",
    "microphone_chunks",
    "open_portaudio",
    "primed",
    "rechunk",
]

FILE_LIMITS = DecodeLimits(max_duration_s=24 * 3_600.0)
"""The file is the user's own, so a whole day of recording is allowed; the other caps stay."""
MIC_QUEUE_S = 60.0
"""Audio kept while the connection stalls (3.8 MB); a ping that long unanswered ends the stream anyway."""

OpenInput: TypeAlias = Callable[[Callable[[FloatArray], None], int], "contextlib.AbstractContextManager[Any]"]
"""Opens an input that calls back with float32 [n] blocks, from any thread, until it is left."""


def check_file(path: Path) -> None:
    """Raise SourceError unless `path` is a file that can be opened."""
    try:
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None


async def file_chunks(
    decoder: MediaDecoder, path: Path, chunk_samples: int, on_warning: Callable[[str], None]
) -> AsyncGenerator[FloatArray, None]:
    """The audio of a file in chunks of `chunk_samples`; `on_warning` hears of damage at the end.

    Raises BadAudioError for a file that is no audio.
    """
    with contextlib.closing(decoder.iter_blocks(path)) as blocks:
        async with contextlib.aclosing(rechunk(blocks, chunk_samples)) as chunks:
            async for chunk in chunks:
                yield chunk
        for warning in blocks.summary.warnings if blocks.summary else ():
            on_warning(f"{path}: {warning}")


async def count_samples(decoder: MediaDecoder, path: Path) -> int:
    """The length of a file, by decoding it: what files declare about themselves is often wrong."""
    total = 0
    with contextlib.closing(decoder.iter_blocks(path)) as blocks:
        async for block in blocks:
            total += block.size
    return total


async def rechunk(blocks: AsyncIterable[FloatArray], chunk_samples: int) -> AsyncGenerator[FloatArray, None]:
    """The same samples in chunks of `chunk_samples`; the last may be shorter."""
    rest = np.zeros(0, dtype=np.float32)
    async for block in blocks:
        rest = np.concatenate((rest, block)) if rest.size else block
        whole = rest.size - rest.size % chunk_samples
        for begin in range(0, whole, chunk_samples):
            yield rest[begin : begin + chunk_samples]
        rest = rest[whole:]
    if rest.size:
        yield rest


async def primed(chunks: AsyncGenerator[FloatArray, None]) -> AsyncGenerator[FloatArray, None]:
    """The same chunks, the first of which is there already: what cannot be read fails here."""
    try:
        first = await anext(chunks)
    except StopAsyncIteration:
        return chunks

    async def again() -> AsyncGenerator[FloatArray, None]:
        async with contextlib.aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return again()


async def microphone_chunks(
    chunk_samples: int, stop: asyncio.Event, on_warning: Callable[[str], None], open_input: OpenInput | None = None
) -> AsyncGenerator[FloatArray, None]:
    """Chunks of the default input device until `stop` is set. Raises SourceError if there is none."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[FloatArray] = asyncio.Queue(int(MIC_QUEUE_S * SAMPLE_RATE_HZ / chunk_samples) + 1)
    lost_samples = 0

    def take(block: FloatArray) -> None:
        nonlocal lost_samples
        try:
            queue.put_nowait(block)
        except asyncio.QueueFull:
            lost_samples += block.size

    def from_device(block: FloatArray) -> None:
        # The device's thread may call once more while the loop is going down.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(take, block)

    with (open_input or open_portaudio)(from_device, chunk_samples):
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                block = asyncio.ensure_future(queue.get())
                await asyncio.wait({block, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if block.done():
                    yield block.result()
                block.cancel()
        finally:
            stopped.cancel()
    while not queue.empty():
        yield queue.get_nowait()
    if lost_samples:
        on_warning(f"microphone: {lost_samples / SAMPLE_RATE_HZ:.1f} s lost, the connection was too slow")


def open_portaudio(
    on_block: Callable[[FloatArray], None], block_samples: int
) -> contextlib.AbstractContextManager[Any]:
    """The default microphone through the optional `sounddevice` package.

    Raises SourceError if the package, PortAudio or a device is missing.
    """
    try:
        import sounddevice
    except ImportError:
        raise SourceError("--mic needs the package sounddevice; install the extra [mic]") from None
    except OSError as error:
        raise SourceError(f"--mic needs PortAudio, e.g. the Debian package libportaudio2 ({error})") from None

    def callback(data: Any, frames: int, time: Any, status: Any) -> None:
        on_block(np.array(data[:, 0], dtype=np.float32))

    try:
        stream: contextlib.AbstractContextManager[Any] = sounddevice.InputStream(
            samplerate=SAMPLE_RATE_HZ, channels=1, dtype="float32", blocksize=block_samples, callback=callback
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SourceError(f"microphone: {error}") from None
    return stream
