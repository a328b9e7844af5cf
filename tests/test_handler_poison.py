"""Poisoned files on a job's whole way, from a URL to samples, with a legal job before and after each.

What single files do to the decoder is tried in `test_engine_decode_hostile`; here: that nothing on the way follows
what a file says, and that no job can tell what came before it.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.decode import DecodedAudio, DecodeLimitError, DecodeLimits, MediaDecoder
from engine.errors import BadAudioError, FetchError
from engine.types import FloatArray
from handler.fetch import Fetcher, FetchLimits
from handler.sources import Source
from tests.fakes.files_server import FakeResolver, answer, serving_files
from tests.fakes.media import HELLO, encoded, muxed, tricks, wav_header

CAP_S = 20.0


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder(DecodeLimits(max_duration_s=CAP_S)) as shared:
        yield shared


def fingerprint(found: DecodedAudio) -> tuple[str, float, str, str, tuple[str, ...]]:
    digest = hashlib.sha256(found.samples.tobytes()).hexdigest()
    return digest, found.duration_s, found.container, found.codec, found.warnings


def overlapping_mp4() -> bytes:
    """An MP4 whose index leads to the same speech again and again."""
    speech = np.asarray(soundfile.read(HELLO, dtype="float32")[0], dtype=np.float32)
    data = muxed(speech, "mp4", "aac", 16_000)
    movie_at = data.index(b"moov") - 4
    before, movie = data[:movie_at], data[movie_at:]
    assert struct.unpack(">I", movie[:4])[0] == len(movie)  # it is the last one: nothing else moves
    return before + _repeat(movie, times=100)


_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def _repeat(box: bytes, times: int) -> bytes:
    """The box with the tables of its samples repeated."""
    size, name, body = struct.unpack(">I", box[:4])[0], box[4:8], box[8:]
    assert size == len(box)
    if name in _CONTAINERS:
        body = b"".join(_repeat(child, times) for child in _children(body))
    elif name == b"stsz":
        uniform, count = struct.unpack(">II", body[4:12])
        body = body[:4] + struct.pack(">II", uniform, count * times) + body[12:] * times
    elif name == b"stco":
        count = struct.unpack(">I", body[4:8])[0]
        body = body[:4] + struct.pack(">I", count * times) + body[8:] * times
    elif name == b"stts":
        body = body[:4] + struct.pack(">III", 1, 1 << 20, 1_024)
    elif name == b"edts":
        name = b"free"  # the list that says how much of it is to be played
    return struct.pack(">I", 8 + len(body)) + name + body


def _children(body: bytes) -> Iterator[bytes]:
    while body:
        size = struct.unpack(">I", body[:4])[0]
        yield body[:size]
        body = body[size:]


def silence(seconds: int, rate_hz: int) -> FloatArray:
    return np.zeros(seconds * rate_hz, dtype=np.float32)


BOMBS: dict[str, Callable[[], bytes]] = {
    "mp3": lambda: muxed(silence(21, 16_000), "mp3", "libmp3lame", 24_000),
    "webm": lambda: muxed(silence(21, 16_000), "webm", "libopus", 48_000),
    "mu-law": lambda: encoded(silence(21, 8_000), 8_000, "WAV", "ULAW"),
    "adpcm": lambda: encoded(silence(21, 8_000), 8_000, "WAV", "IMA_ADPCM"),
    "mp4 that overlaps": overlapping_mp4,
}
"""Small files of more than CAP_S seconds, of the kinds that the decoder's own tests do not have."""


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_decode_bombs_of_more_kinds(decoder: MediaDecoder, name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < 200_000
    began_s = time.monotonic()
    with pytest.raises(DecodeLimitError, match="longer than the limit of 20 s"):
        decoder.decode(data)
    assert time.monotonic() - began_s < 5.0


def test_poisoned_urls_reach_nobody_else_and_the_next_job_is_as_ever(decoder: MediaDecoder, tmp_path: Path) -> None:
    """A, poison, A: playlists are fetched as the one file that they are, and what they name is not asked for."""
    good = HELLO.read_bytes()

    async def job(fetcher: Fetcher, url: str) -> DecodedAudio:
        async with fetcher.open(Source("url", url, "audio")) as found:
            return await decoder.decode_async(found.path)

    async def act(udp: socket.socket) -> None:
        fetcher = Fetcher(
            FetchLimits(max_bytes=1 << 20, deadline_s=5.0, allow_private=True),
            folder=tmp_path,
            resolver=FakeResolver(["127.0.0.1"]),
        )
        async with serving_files({"/good.wav": answer(good)}) as server:
            poisons = {
                **tricks(server.port),
                "sdp to udp": tricks(udp.getsockname()[1])["sdp"],
                "1000 channels": wav_header(1_000, 16_000, bytes(4_000)),
                "1 Hz": wav_header(1, 1, bytes(4_000)),
                "nothing": wav_header(1, 16_000, b""),
            }
            expected = fingerprint(await job(fetcher, server.url("/good.wav")))
            for name, data in poisons.items():
                server.replies["/poison"] = answer(data, "200 OK", "Content-Type: audio/mpeg")
                before = server.connections
                began_s = time.monotonic()
                with pytest.raises((BadAudioError, FetchError)):
                    await job(fetcher, server.url("/poison"))
                assert time.monotonic() - began_s < 5.0, name
                assert server.connections == before + 1, name  # the file itself, and nothing that it names
                assert fingerprint(await job(fetcher, server.url("/good.wav"))) == expected, name
            assert set(server.paths) == {"/good.wav", "/poison"}
            assert len(poisons) >= 12
        with pytest.raises(BlockingIOError):
            udp.recv(1)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        asyncio.run(act(udp))
    assert list(tmp_path.iterdir()) == []


def test_names_of_files_and_fields_are_never_paths(tmp_path: Path) -> None:
    """Whatever a job calls things: one folder with one file, named by us."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    names = ["../../outside/x", "/etc/passwd", "x" * 4_096, "a\0b", "..", "~root", "CON", "a/../../b", "%2e%2e%2fx"]

    async def act() -> None:
        fetcher = Fetcher(FetchLimits(allow_private=True), folder=inside, resolver=FakeResolver(["127.0.0.1"]))
        async with serving_files() as server:
            for name in names:
                path = "/" + name.replace("\0", "%00")
                header = f'Content-Disposition: attachment; filename="{path[1:]}"'
                server.replies[path] = answer(HELLO.read_bytes(), "200 OK", header)
                for source in (Source("url", server.url(path), name), Source("base64", "AAAA", name)):
                    async with fetcher.open(source) as found:
                        assert [entry.parent for entry in inside.rglob("*") if entry.is_file()] == [found.path.parent]
                        assert found.path.name == "audio"
                        assert found.path.parent.parent == inside
                    assert list(inside.iterdir()) == []

    asyncio.run(act())
    assert list(outside.iterdir()) == []
