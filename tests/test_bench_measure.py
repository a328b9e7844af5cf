"""bench.measure and bench.playlist: figures that can be checked by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.measure import (
    LATE_S,
    MAX_OWN_LATENESS_S,
    SCHEMA,
    Spread,
    StreamFigures,
    as_json,
    failed_stream,
    measure_stream,
    spread,
    summarise,
)
from bench.playlist import GAP_S, make_playlists, play, start_times_s
from engine.wer import WordErrors
from realtime.client.latency import GoldWord, Recording
from realtime.client.measured import Streamed
from realtime.client.messages import Segment, Update

GOLD = tuple(GoldWord(word, n, n + 0.5) for n, word in enumerate(("good", "morning", "dear", "peter")))


def streamed(*updates: Update, own_lateness_s: float = 0.0, error: str | None = None) -> Streamed:
    return Streamed(
        updates=updates,
        text="",
        start_s=100.0,
        speed=1.0,
        sent_samples=64_000,
        blocked_s=0.1,
        own_lateness_s=own_lateness_s,
        finish_s=0.3,
        violations=0,
        error=error,
    )


def update(at_s: float, completed: str = "", provisional: str = "") -> Update:
    return Update(
        (Segment(0, 1, completed, True),) if completed else (),
        Segment(0, 1, provisional, False) if provisional else None,
        at_s,
    )


def measured(own_lateness_s: float = 0.0, error: str | None = None) -> StreamFigures:
    return measure_stream(
        "client 0",
        GOLD,
        streamed(
            update(101.0, provisional="good"),
            update(102.5, provisional="good morning"),
            update(103.0, "good mourning dear"),
            own_lateness_s=own_lateness_s,
            error=error,
        ),
        4.0,
    )


def test_a_stream_by_hand() -> None:
    figures = measured()
    assert figures.coverage == 0.5
    assert figures.errors == WordErrors(1, 1, 0, 4)
    assert figures.missing_tail == 1
    # good ends at 100.5, morning at 101.5, dear at 102.5.
    assert figures.shown_after_s == pytest.approx((0.5, 1.0, 0.5))
    assert figures.final_after_s == pytest.approx((2.5, 0.5))


@pytest.mark.parametrize(
    ("completed", "tail"),
    [("good morning dear peter", 0), ("morning dear", 1), ("good", 3), ("", 4), ("peter", 0), ("bad", 4)],
)
def test_missing_tail(completed: str, tail: int) -> None:
    assert measure_stream("c", GOLD, streamed(update(110, completed)), 4.0).missing_tail == tail


def test_a_stream_without_words_is_covered() -> None:
    figures = measure_stream("c", (), streamed(), 4.0)
    assert (figures.coverage, figures.missing_tail, figures.errors.rate) == (1.0, 0, 0.0)


def test_spread() -> None:
    assert spread([float(n) for n in range(1, 101)]) == Spread(100, 50.0, 95.0, 100.0)
    assert spread([]) == Spread(0, None, None, None)


def test_summary_pools_words_and_adds_errors() -> None:
    summary = summarise([measured(), failed_stream("client 1", GOLD, 4.0, "the server is full")])
    assert (summary.streams, summary.words, summary.audio_s) == (2, 8, 8.0)
    assert summary.coverage == 0.25
    assert summary.wer == 6 / 8
    assert summary.missing_tail == 5
    assert (summary.final.n, summary.final.p50_s, summary.final.max_s) == pytest.approx((2, 0.5, 2.5))
    assert summary.void_because == ("client 1: the server is full",)
    assert not summary.is_valid


def test_the_driver_may_be_late_by_its_limit_and_no_more() -> None:
    assert summarise([measured(MAX_OWN_LATENESS_S)]).is_valid
    late = summarise([measured(), measured(MAX_OWN_LATENESS_S + 0.001)])
    assert late.void_because == ("the driver itself was 51 ms late (limit 50 ms)",)


def test_a_broken_stream_or_none_voids_the_run() -> None:
    assert summarise([measured(error="broken")]).void_because == ("client 0: broken",)
    assert summarise([]).void_because == ("no stream was run",)


def test_json() -> None:
    figures = [measured()]
    document = as_json(summarise(figures), figures, {"clients": 1})
    json.dumps(document, allow_nan=False)
    assert (document["schema"], document["conditions"]) == (SCHEMA, {"clients": 1})
    assert document["summary"]["is_valid"] is True
    assert document["summary"]["final"]["n"] == 2
    assert document["streams"][0]["shown_after_s"]["n"] == 3
    assert document["streams"][0]["wer"] == 0.5


def recording(name: str, seconds: float) -> Recording:
    return Recording(Path(name), "en", seconds, name, (GoldWord(name, 0.25, 0.5),))


RECORDINGS = (recording("a", 1.0), recording("b", 2.0))


def test_playlists_are_long_enough_repeatable_and_move_the_words() -> None:
    lists = make_playlists(RECORDINGS, 3, 5.0, seed=7)
    assert lists == make_playlists(RECORDINGS, 3, 5.0, seed=7)
    assert lists != make_playlists(RECORDINGS, 3, 5.0, seed=8)
    for playlist in lists:
        durations = [item.duration_s for item in playlist.recordings]
        assert playlist.audio_s == sum(durations) + GAP_S * (len(durations) - 1)
        assert playlist.audio_s >= 5.0 > playlist.audio_s - durations[-1] - GAP_S
        begins = [sum(durations[:n]) + n * GAP_S for n in range(len(durations))]
        assert [word.start_s for word in playlist.words] == [begin + 0.25 for begin in begins]


def test_playing_joins_the_recordings_with_silence() -> None:
    audio = {item: np.full(int(item.duration_s * 16_000), n + 1, dtype=np.float32) for n, item in enumerate(RECORDINGS)}
    (playlist,) = make_playlists(RECORDINGS, 1, 2.5, seed=1)

    async def main() -> list[np.ndarray]:
        return [chunk async for chunk in play(playlist, audio, 7_000)]

    chunks = asyncio.run(main())
    joined = np.concatenate(chunks)
    assert joined.size == round(playlist.audio_s * 16_000)
    assert all(chunk.size == 7_000 for chunk in chunks[:-1])
    for item, word in zip(playlist.recordings, playlist.words, strict=True):
        begin = round((word.start_s - 0.25) * 16_000)
        assert np.array_equal(joined[begin : begin + audio[item].size], audio[item])


def test_starts_are_staggered_and_jittered() -> None:
    starts = start_times_s(4, 2.0, seed=1)
    assert starts == start_times_s(4, 2.0, seed=1)
    for number, start in enumerate(starts):
        assert number * 0.5 <= start < (number + 1) * 0.5
    assert start_times_s(3, 0.0, seed=1) == (0.0, 0.0, 0.0)


def test_a_word_is_late_after_three_seconds_and_not_at_them() -> None:
    stream = replace(measured(), shown_after_s=(0.5, LATE_S, LATE_S + 0.001), final_after_s=(LATE_S,))
    summary = summarise([stream])
    assert (summary.shown_late, summary.final_late) == (1, 0)
