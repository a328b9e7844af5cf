"""realtime.client.sources: files through the real decoder, microphones through a scripted input."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import types
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decode import MediaDecoder
from engine.errors import BadAudioError
from engine.types import FloatArray
from realtime.client.errors import SourceError
from realtime.client.sources import (
    FILE_LIMITS,
    MIC_QUEUE_S,
    OpenInput,
    check_file,
    count_samples,
    file_chunks,
    microphone_chunks,
    open_portaudio,
    primed,
    rechunk,
)

SAMPLE = Path(__file__).parent.parent / "engine" / "demo_model" / "samples" / "hello_en.wav"


def ignore(text: str) -> None:
    """A listener for warnings that are of no interest here."""


async def as_stream(blocks: list[FloatArray]) -> AsyncGenerator[FloatArray, None]:
    for block in blocks:
        yield block


@given(st.lists(st.integers(1, 50), max_size=8), st.integers(1, 40))
def test_rechunking_keeps_every_sample(sizes: list[int], chunk: int) -> None:
    audio = np.arange(sum(sizes), dtype=np.float32)
    blocks = np.split(audio, np.cumsum(sizes)[:-1]) if sizes else []

    async def main() -> list[FloatArray]:
        return [piece async for piece in rechunk(as_stream(list(blocks)), chunk)]

    pieces = asyncio.run(main())
    assert np.array_equal(np.concatenate(pieces) if pieces else np.zeros(0), audio)
    assert all(piece.size == chunk for piece in pieces[:-1])
    assert all(0 < piece.size <= chunk for piece in pieces)


def test_a_file_is_read_to_its_last_sample(tmp_path: Path) -> None:
    async def main() -> None:
        with MediaDecoder(FILE_LIMITS) as decoder:
            chunks = [chunk async for chunk in file_chunks(decoder, SAMPLE, 1_600, ignore)]
            assert [chunk.size for chunk in chunks[:-1]] == [1_600] * 29
            assert sum(chunk.size for chunk in chunks) == await count_samples(decoder, SAMPLE) == 46_753
            assert all(chunk.dtype == np.float32 for chunk in chunks)
            warnings = list[str]()
            cut = tmp_path / "cut.wav"
            cut.write_bytes(SAMPLE.read_bytes()[:40_000])
            assert len([chunk async for chunk in file_chunks(decoder, cut, 1_600, warnings.append)]) == 13
            assert len(warnings) == 1
            assert warnings[0].startswith(f"{cut}: truncated")
            text = tmp_path / "text.wav"
            text.write_text("no audio at all")
            with pytest.raises(BadAudioError):
                await primed(file_chunks(decoder, text, 1_600, ignore))

    asyncio.run(main())


def test_check_file(tmp_path: Path) -> None:
    check_file(SAMPLE)
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / ("x" * 300)):
        with pytest.raises(SourceError, match=r"no such file|too long"):
            check_file(path)


def test_primed_gives_the_same_chunks() -> None:
    async def main() -> None:
        for count in range(3):
            blocks = [np.full(2, number, dtype=np.float32) for number in range(count)]
            again = [block async for block in await primed(as_stream(blocks))]
            assert len(again) == count
            assert all(one is other for one, other in zip(blocks, again, strict=True))

    asyncio.run(main())


def scripted(play: Callable[[Callable[[FloatArray], None]], None]) -> OpenInput:
    """An input device whose own thread runs `play`."""

    @contextlib.contextmanager
    def open_input(on_block: Callable[[FloatArray], None], block_samples: int) -> Iterator[None]:
        thread = threading.Thread(target=play, args=(on_block,))
        thread.start()
        try:
            yield
        finally:
            thread.join()

    return open_input


def test_a_microphone_gives_what_it_hears_until_it_is_stopped() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        blocks = [np.full(160, number, dtype=np.float32) for number in range(5)]
        seen = []
        has_played = threading.Event()

        def play(on_block: Callable[[FloatArray], None]) -> None:
            for block in blocks:
                on_block(block)
            has_played.set()

        async for chunk in microphone_chunks(160, stop, ignore, scripted(play)):
            seen.append(int(chunk[0]))
            if len(seen) == 2:
                assert has_played.wait(5)
                stop.set()
        assert seen == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_a_stopped_microphone_that_hears_nothing_ends() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, stop.set)
        assert [c async for c in microphone_chunks(160, stop, ignore, scripted(lambda on_block: None))] == []

    asyncio.run(main())


@pytest.mark.parametrize("excess", [0, 1, 3])
def test_a_stalled_microphone_is_bounded_and_says_what_was_lost(excess: int) -> None:
    limit = int(MIC_QUEUE_S * 16_000 / 1_600) + 1

    async def main() -> None:
        stop, warnings = asyncio.Event(), list[str]()

        @contextlib.contextmanager
        def open_input(on_block: Callable[[FloatArray], None], size: int) -> Iterator[None]:
            for number in range(limit + excess):
                on_block(np.full(size, number, dtype=np.float32))
            asyncio.get_running_loop().call_soon(stop.set)
            yield

        source = microphone_chunks(1_600, stop, warnings.append, open_input)
        assert [int(chunk[0]) async for chunk in source] == list(range(limit))
        lost = f"microphone: {excess * 0.1:.1f} s lost, the connection was too slow"
        assert warnings == ([lost] if excess else [])

    asyncio.run(main())


class FakePortAudioError(Exception):
    """What the package raises when there is no device."""


def fake_package(error: Exception | None = None) -> types.ModuleType:
    """A stand-in for the optional third-party package."""
    module = types.ModuleType("sounddevice")

    def open_stream(**options: object) -> contextlib.AbstractContextManager[None]:
        if error is not None:
            raise error
        callback = options["callback"]
        assert callable(callback)
        callback(np.ones((4, 1), dtype=np.float32), 4, None, None)
        return contextlib.nullcontext()

    vars(module).update(InputStream=open_stream, PortAudioError=FakePortAudioError)
    return module


def test_the_optional_package_is_asked_for_mono(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_package())
    seen: list[FloatArray] = []
    with open_portaudio(seen.append, 4):
        assert np.array_equal(seen[0], np.ones(4))


def test_no_device_and_no_package_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_package(FakePortAudioError("no default input")))
    with pytest.raises(SourceError, match="microphone: no default input"):
        open_portaudio(lambda block: None, 4)
    # None in sys.modules is Python's own way to say that a module is not there.
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SourceError, match="extra"):
        open_portaudio(lambda block: None, 4)
