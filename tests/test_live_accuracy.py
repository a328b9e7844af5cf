"""Live against offline, over a real socket: same model, same recordings, every frame size and pacing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from engine.clock import MonotonicClock
from engine.owner import EngineOwner
from engine.service import EngineService
from engine.settings import load_settings
from engine.types import SAMPLE_RATE_HZ, FileOptions
from engine.wer import WordErrors, word_errors
from tests.serving import Peer, Server, label, labels, recording, streaming

FRAME_SIZES_S = (0.02, 0.064, 0.256, 1.0)
FAST = 30.0
TOGETHER = len(FRAME_SIZES_S)
"""So many streams are let in whatever was measured."""
MARGIN = 0.02
"""Live may be worse than offline by two points of word error rate."""


async def _offline(names: list[str]) -> dict[str, str]:
    owner = EngineOwner(load_settings({"model": "demo"}, env_file=None), MonotonicClock())
    service = EngineService(owner, MonotonicClock())
    owner.start()
    service.start()
    try:
        await owner.wait_ready()
        texts = {}
        for name in names:
            segments: AsyncIterator[object] = service.transcribe_file(
                recording(name), FileOptions(language=label(name)["language"])
            )
            texts[name] = "".join([segment.text async for segment in segments])  # type: ignore[attr-defined]
        return texts
    finally:
        await service.stop()
        await owner.stop()


@lru_cache(maxsize=1)
def offline_errors() -> dict[str, WordErrors]:
    texts = asyncio.run(_offline([entry["file"] for entry in labels()]))
    return {name: word_errors(label(name)["text"], text) for name, text in texts.items()}


async def _live(server: Server, name: str, frame_s: float, speed: float, **keys: Any) -> Peer:
    async with streaming(server, language=None, **keys) as peer:
        receiving = asyncio.create_task(peer.receive_all())
        await peer.send_audio(recording(name), frame_s, speed)
        await peer.socket.send(b"END_OF_AUDIO")
        await receiving
        assert peer.socket.close_code == 1000
        assert peer.violations == []
        return peer


async def _live_together(server: Server, names: list[str]) -> list[Peer]:
    """As many streams as there are names, each with another frame size; their windows share batches."""
    streams = (_live(server, name, frame_s, FAST) for name, frame_s in zip(names, FRAME_SIZES_S, strict=False))
    return await asyncio.gather(*streams)


def _missing_tail(name: str, text: str) -> bool:
    """True if the last word that was said is not the last one that arrived."""
    heard = word_errors(label(name)["text"].split()[-1], text.split()[-1] if text.split() else "")
    return heard.errors > 0


def test_all_recordings_live_and_offline(server: Server) -> None:
    """Every recording at 30 times real time, four at once; both error rates are printed."""
    offline = offline_errors()
    live: dict[str, WordErrors] = {}
    tails = []
    names = list(offline)
    for first in range(0, len(names), TOGETHER):
        together = names[first : first + TOGETHER]
        for name, peer in zip(together, asyncio.run(_live_together(server, together)), strict=True):
            live[name] = word_errors(label(name)["text"], peer.text)
            if _missing_tail(name, peer.text):
                tails.append(name)
    n_words = sum(result.reference_words for result in live.values())
    live_rate = sum(result.errors for result in live.values()) / n_words
    offline_rate = sum(result.errors for result in offline.values()) / n_words
    print(f"\n{n_words} words: live {100 * live_rate:.2f} % wrong, offline {100 * offline_rate:.2f} %")
    for name, result in live.items():
        print(f"  {name:20} live {result.errors:3} offline {offline[name].errors:3} of {result.reference_words}")
    assert n_words > 800
    assert live_rate <= offline_rate + MARGIN
    assert tails == []


@pytest.mark.parametrize("frame_s", FRAME_SIZES_S)
@pytest.mark.parametrize("name", ["en_nonstop.flac", "meeting_en.wav"])
def test_every_frame_size(server: Server, name: str, frame_s: float) -> None:
    peer = asyncio.run(_live(server, name, frame_s, FAST))
    result = word_errors(label(name)["text"], peer.text)
    assert result.errors <= offline_errors()[name].errors + MARGIN * result.reference_words + 1
    assert not _missing_tail(name, peer.text)


def test_real_time(server: Server) -> None:
    """Paced as a microphone does, with the client that sends 64 ms frames."""
    peer = asyncio.run(_live(server, "numbers_en.wav", 0.064, 1.0))
    assert word_errors(label("numbers_en.wav")["text"], peer.text).errors == 0
    assert any(not message["segments"][-1]["completed"] for message in peer.messages if "segments" in message)


@pytest.mark.parametrize("use_vad", [True, False])
def test_the_detector_may_be_off(server: Server, use_vad: bool) -> None:
    peer = asyncio.run(_live(server, "viaje_es.wav", 0.1, FAST, use_vad=use_vad))
    assert word_errors(label("viaje_es.wav")["text"], peer.text).errors == 0


@pytest.mark.parametrize("gap_s", [0.3, 1.0])
def test_a_sentence_said_again_is_another_sentence(server: Server, gap_s: float) -> None:
    """Completed words are skipped when they are decoded again, but not when they are said again."""
    entry = label("hello_en.wav")
    first, last = entry["segments"][0]["start"] - 0.05, entry["segments"][-1]["end"] + 0.05
    once = recording("hello_en.wav")[int(first * SAMPLE_RATE_HZ) : int(last * SAMPLE_RATE_HZ)]
    audio = np.concatenate([part for _ in range(4) for part in (once, np.zeros(int(gap_s * SAMPLE_RATE_HZ)))])

    async def run() -> Peer:
        async with streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            await peer.send_audio(audio.astype(np.float32), 0.02, 5.0)
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            return peer

    errors = word_errors(" ".join([entry["text"]] * 4), asyncio.run(run()).text)
    assert errors.deletions == errors.substitutions == 0
    assert errors.insertions <= 1, "the model may make a word of the silence at the very end"
