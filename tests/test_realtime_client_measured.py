"""realtime.client.measured against a scripted server: times that add up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from engine.types import FloatArray
from realtime.client import ClientOptions, Event, ServerFullError
from realtime.client.latency import GoldWord, word_times
from realtime.client.measured import Streamed, stream_measured
from tests.fakes.wl_server import Script, Step, fake_server, segments

HELLO = (0.0, 0.5, " Hello", True)
GOLD = (GoldWord("hello", 0.1, 0.5),)


async def chunks(count: int) -> AsyncGenerator[FloatArray, None]:
    for _ in range(count):
        yield np.zeros(1_600, dtype=np.float32)


def stream(script: Script, count: int = 10, speed: float = 1.0) -> tuple[Streamed, list[Event], list[float]]:
    async def main() -> tuple[Streamed, list[Event], list[float]]:
        events, sent = list[Event](), list[float]()
        async with fake_server(script) as url:
            made = await stream_measured(
                url, ClientOptions(), chunks(count), speed=speed, on_event=events.append, on_sent=sent.append
            )
        return made, events, sent

    return asyncio.run(main())


def test_a_word_is_late_by_what_the_server_takes() -> None:
    # The server shows the word once 0.6 s have come, which ends 0.1 s after the word.
    script = Script(steps=(Step(9_600, (segments((0.0, 0.5, " Hello", False)),)),), finals=(segments(HELLO),))
    made, events, sent = stream(script)
    assert made.error is None
    assert made.text == "Hello"
    assert made.sent_samples == script.samples == 16_000
    assert len(events) == 4
    assert sent == pytest.approx([0.1 * n for n in range(1, 11)])
    words = word_times(GOLD, made.updates, made.due_s)
    assert 0.1 <= words.shown_after_s[0] < 0.3
    assert 0.5 <= words.final_after_s[0] < 0.7
    assert 0 <= made.own_lateness_s < 0.1
    assert 0 <= made.finish_s < 0.2


def test_speed_shortens_everything() -> None:
    made, _, _ = stream(Script(finals=(segments(HELLO),)), speed=10.0)
    words = word_times(GOLD, made.updates, made.due_s)
    assert 0.05 <= words.final_after_s[0] < 0.2


def test_a_drop_is_told_and_what_came_is_kept() -> None:
    script = Script(steps=(Step(1_600, (segments(HELLO),), close=(1011, "internal")),))
    made, _, _ = stream(script, count=100)
    assert made.error is not None
    assert "1011" in made.error
    assert made.text == "Hello"
    assert len(made.updates) == 1


def test_a_stream_that_never_begins_raises() -> None:
    with pytest.raises(ServerFullError):
        stream(Script(greeting=({"status": "WAIT", "message": 1},), greeting_close=(1013, "full")))


def test_no_audio_at_all() -> None:
    made, _, _ = stream(Script(), count=0)
    assert (made.error, made.updates, made.sent_samples) == (None, (), 0)
