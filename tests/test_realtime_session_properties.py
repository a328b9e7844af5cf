"""What holds of every stream: any audio, any chunks, any pace, any engine."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import EngineFailedError
from engine.types import JobClass
from realtime.frames import EVIDENCE_S
from realtime.intake import INGEST_S
from realtime.protocol import Handshake, VadParameters
from realtime.session import (
    HOLD_BACK_SAMPLES,
    MAX_OPEN_WINDOW_SAMPLES,
    Session,
    SessionLimits,
)
from tests.fakes.driver import Act, Drive, Plan, drive
from tests.fakes.engine import EnergyDetector, Habits, Hearing
from tests.fakes.tones import speak

S = 16_000
BASE = Handshake("u1", language="en", wants_language=False)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Talk:
    """What is said; few different words, so that neighbours are often equal."""

    numbers: tuple[int, ...]
    pauses_s: tuple[float, ...]
    lead_s: float
    tail_s: float


def _numbers(length: int, vocabulary: int, source: random.Random) -> tuple[int, ...]:
    return tuple(source.randrange(vocabulary) for _ in range(length))


talks = st.builds(
    Talk,
    # Lengths are chosen and not grown: long talks are where things go wrong.
    st.builds(
        _numbers,
        st.sampled_from([1, 2, 5, 12, 30, 50]),
        st.sampled_from([2, 5, 1_000]),
        st.randoms(use_true_random=False),
    ),
    st.lists(st.sampled_from([0.05, 0.08, 0.2, 0.4, 0.7, 1.2, 3.0]), min_size=1, max_size=5).map(tuple),
    st.sampled_from([0.0, 0.02, 0.3, 3.0, 12.0]),
    st.sampled_from([0.0, 0.1, 0.4, 1.5]),
)
chunks = st.lists(
    st.sampled_from([100, 1_024, 3_201, 4_096, 16_384, 32_000, 64_000, 300_000, 1_000_000]), min_size=1, max_size=3
).map(lambda sizes: (*sizes, 16_384))
plans = st.builds(
    Plan,
    chunks,
    st.sampled_from([0.5, 1.0, 1.5, 5.0, 100.0]),
    st.dictionaries(st.floats(0.0, 10.0), st.sampled_from([1.0, 3.0, 30.0]), max_size=2),
    st.sampled_from([0.0, 1.0, 5.0, 20.0]),
)
handshakes = st.builds(
    lambda gated, known, silence_ms, pad_ms: replace(
        BASE,
        use_vad=gated,
        language="en" if known else None,
        wants_language=not known,
        vad=VadParameters(min_silence_duration_ms=silence_ms, speech_pad_ms=pad_ms),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, None, 100, 2_000, 10_000]),
    st.sampled_from([None, None, 150, 60_000]),
)
honest_habits = st.builds(
    Habits,
    cost_s=st.sampled_from([0.0, 0.05, 0.3, 1.0, 3.0]),
    cost_per_s=st.sampled_from([0.0, 0.02, 0.2]),
    flicker=st.booleans(),
    needed=st.sampled_from([0.5, 0.8]),
    jitter_s=st.sampled_from([0.0, 0.03, 0.06]),
    seed=st.integers(0, 9),
)
backlogs_s = st.sampled_from([1.0, 2.0, 10.0, 60.0])


def run(
    talk: Talk, plan: Plan, handshake: Handshake, habits: Habits, max_backlog_s: float, lag_frames: int = 0
) -> Drive:
    audio, _ = speak(talk.numbers, talk.pauses_s, lead_s=talk.lead_s, tail_s=talk.tail_s)
    return drive(
        audio.astype("<f4").tobytes(),
        plan,
        handshake=handshake,
        hearing=Hearing(habits),
        limits=SessionLimits(max_backlog_s=max_backlog_s, idle_timeout_s=1_000.0),
        detector=EnergyDetector(lag_frames),
    )


def check(done: Drive, max_backlog_s: float) -> None:
    """What must be true whatever the engine heard; `Drive` itself checks the ledger and the segments."""
    assert done.close is not None
    assert done.session.ledger.buffered == 0
    # Words near a forced cut are heard twice, so they wait again.
    held_back_s = HOLD_BACK_SAMPLES / S if max([0.0, *done.windows_s]) >= MAX_OPEN_WINDOW_SAMPLES / S else 0.0
    assert done.max_backlog_s <= max_backlog_s + INGEST_S + EVIDENCE_S + held_back_s
    assert max([0.0, *done.windows_s]) <= 28.02
    languages = done.of_kind("language")
    assert len(languages) <= 1
    if done.session.handshake.wants_language and done.of_kind("segments"):
        assert "language" in next(message.body for message in done.sent if "status" not in message.body)
    segments_by_start: dict[str, dict[str, object]] = {}
    for message in done.of_kind("segments"):
        entries = message.body["segments"]
        assert entries
        for entry in entries:
            if entry["completed"]:
                assert segments_by_start.setdefault(entry["start"], entry) == entry
    assert list(segments_by_start) == [
        f"{segment.start_ms // 1000}.{segment.start_ms % 1000:03d}" for segment in done.completed
    ]


@SLOW
@given(talks, plans, handshakes, honest_habits, backlogs_s, st.sampled_from([0, 0, 2]))
def test_what_is_said_is_what_is_completed(
    talk: Talk, plan: Plan, handshake: Handshake, habits: Habits, max_backlog_s: float, lag_frames: int
) -> None:
    """Any chunks, any pace, any stalls, any decode time, any backlog: the words spoken, each once, in order."""
    done = run(talk, plan, handshake, habits, max_backlog_s, lag_frames)
    check(done, max_backlog_s)
    assert done.said == list(talk.numbers)
    assert done.session.ledger.refused == 0
    assert done.warnings == []


@SLOW
@given(talks, plans, handshakes, honest_habits, backlogs_s, st.sampled_from([0.1, 0.5, 1.0]), st.data())
def test_partials_may_be_nonsense(
    talk: Talk,
    plan: Plan,
    handshake: Handshake,
    habits: Habits,
    max_backlog_s: float,
    garbage: float,
    data: st.DataObject,
) -> None:
    """Wrong, looping or failed partials delay text, but neither change nor lose any."""
    calls = data.draw(st.lists(st.sampled_from(["", "loop", "fail"]), min_size=1, max_size=7))
    is_a = {name: lambda call, job, name=name: calls[call % len(calls)] == name for name in ("loop", "fail")}
    habits = replace(
        habits,
        garbage=garbage,
        loops=is_a["loop"],
        fails=lambda call, job: (
            EngineFailedError("x") if job.job_class is JobClass.PARTIAL and is_a["fail"](call, job) else None
        ),
    )
    done = run(talk, plan, handshake, habits, max_backlog_s)
    check(done, max_backlog_s)
    assert done.said == list(talk.numbers)
    assert done.warnings == []


@SLOW
@given(talks, plans, handshakes, honest_habits, backlogs_s, st.lists(st.booleans(), min_size=2, max_size=9))
def test_windows_that_fail_cost_their_own_words_only(
    talk: Talk, plan: Plan, handshake: Handshake, habits: Habits, max_backlog_s: float, pattern: list[bool]
) -> None:
    habits = replace(habits, fails=lambda call, job: EngineFailedError("x") if pattern[call % len(pattern)] else None)
    done = run(talk, plan, handshake, habits, max_backlog_s)
    check(done, max_backlog_s)
    # What is there is in order, and no word comes twice.
    numbers = iter([*talk.numbers])
    assert all(any(number == said for said in numbers) for number in done.said)
    if not done.warnings:
        assert done.said == list(talk.numbers)
    assert (done.session.ledger.refused > 0) <= bool(done.warnings)


actions = st.sampled_from([Session.drain, Session.abort, Session.disconnected, Session.end_of_audio])


@SLOW
@given(
    talks,
    plans,
    handshakes,
    honest_habits,
    backlogs_s,
    st.lists(st.tuples(st.floats(0.0, 15.0), actions), min_size=1, max_size=3),
    st.sampled_from([None, 1.0, 4.0]),
    st.sampled_from([None, 2.0, 6.0]),
)
def test_however_a_stream_ends_the_books_are_balanced(
    talk: Talk,
    plan: Plan,
    handshake: Handshake,
    habits: Habits,
    max_backlog_s: float,
    acts: list[tuple[float, Act]],
    idle_s: float | None,
    limit_s: float | None,
) -> None:
    audio, _ = speak(talk.numbers, talk.pauses_s, lead_s=talk.lead_s, tail_s=talk.tail_s)
    done = drive(
        audio.astype("<f4").tobytes(),
        replace(plan, acts=acts),
        handshake=handshake,
        hearing=Hearing(habits),
        limits=SessionLimits(max_backlog_s, idle_s or 1_000.0, limit_s),
    )
    assert done.session.is_closed
    ledger = done.session.ledger
    assert ledger.buffered == 0
    assert ledger.received <= len(audio)
    disconnected = done.close is None
    assert not disconnected or any(act is Session.disconnected for _, act in acts)
    if not disconnected and ledger.refused:
        # Whoever is refused anything is told so, and is not told that all is done.
        assert done.close is not None
        assert done.close.code in (1001, 4000, 4002)
        assert "of audio were refused" in done.warnings[-1]
    # In order, none twice; the very last may be half a word.
    numbers = iter([*talk.numbers])
    assert all(any(number == said for said in numbers) for number in done.said)
    if done.close is not None and done.close.code == 1000 and ledger.received == len(audio):
        assert done.said == list(talk.numbers)


@pytest.mark.parametrize("gated", [True, False])
def test_the_same_audio_gives_the_same_text_in_any_chunks_at_any_cadence(gated: bool) -> None:
    audio, _ = speak(range(20), (0.1, 0.2, 0.8), lead_s=1.0)
    for size, pace, interval_s in (
        (1_000, 1.0, 0.3),
        (1_280, 1.0, 1.1),
        (4_096, 3.0, 0.5),
        (50_000, 1.0, 3.0),
        (4_000_000, 1_000.0, 0.3),
    ):
        plan = Plan((size,), pace=pace, interval_s=interval_s)
        handshake = replace(BASE, use_vad=gated)
        done = drive(audio.astype("<f4").tobytes(), plan, handshake=handshake, limits=SessionLimits(max_backlog_s=60.0))
        assert done.said == list(range(20)), (size, pace, interval_s)


@SLOW
@given(st.binary(max_size=60_000), handshakes, st.sampled_from([1, 7, 1_000, 60_000]))
def test_any_bytes_are_survived(data: bytes, handshake: Handshake, chunk: int) -> None:
    done = drive(data, Plan((max(chunk, len(data) // 500 + 1),), pace=10.0), handshake=handshake)
    assert done.close is not None
    assert done.close.code == 1000
