"""One stream in virtual time: what is said, what the peer wishes, what a stall does."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from engine.types import JobClass, Word
from realtime.events import Close, Decode
from realtime.intake import INGEST_S
from realtime.protocol import Handshake, VadParameters
from realtime.session import FRAME_EDGE_SAMPLES, MAX_OPEN_WINDOW_SAMPLES, Session, SessionLimits
from realtime.timers import STARVATION_S
from tests.fakes.driver import Plan, drive
from tests.fakes.engine import EnergyDetector, Habits, Hearing
from tests.fakes.streams import BOTH, GATED, OPEN, UNGATED, S, closed, heard, new_session, raw, say, talk
from tests.fakes.tones import silence, speak

# Speech


@BOTH
def test_what_is_said_is_completed(handshake: Handshake) -> None:
    run = say([1, 2, 3, 4, 5], handshake=handshake)
    assert run.said == [1, 2, 3, 4, 5]
    assert closed(run) == Close(1000, "")
    assert run.session.ledger.refused == 0
    assert run.warnings == []
    assert run.session.is_closed
    assert run.session.next_deadline_s() is None


@BOTH
def test_a_minute_of_silence_and_a_word(handshake: Handshake) -> None:
    run = say([7], handshake=handshake, lead_s=60.0)
    assert run.said == [7]
    assert run.completed[0].start_ms == pytest.approx(60_000, abs=20)
    ledger = run.session.ledger
    if handshake.use_vad:
        assert ledger.silent / S == pytest.approx(60.0, abs=1.5)
        assert len(run.windows_s) <= 3
    else:
        assert ledger.silent == 0
        assert ledger.decoded == ledger.received


@BOTH
@pytest.mark.parametrize("n_words", [1, 2, 9])
def test_words_right_at_both_ends(handshake: Handshake, n_words: int) -> None:
    run = say(list(range(n_words)), handshake=handshake, lead_s=0.0, tail_s=0.0)
    assert run.said == list(range(n_words))
    assert run.completed[0].start_ms <= 20


@BOTH
def test_two_minutes_without_a_pause(handshake: Handshake) -> None:
    numbers = [random.Random(3).randrange(1_000) for _ in range(316)]
    audio, spoken = talk(numbers, 0.08)
    run = drive(audio, handshake=handshake, hearing=Hearing(Habits(cost_s=0.1)))
    assert len(audio) / 4 / S > 120
    assert run.said == numbers
    longest_s = (MAX_OPEN_WINDOW_SAMPLES + FRAME_EDGE_SAMPLES) / S + 1
    assert max(run.windows_s) <= longest_s
    assert run.max_buffered_s <= longest_s
    assert run.max_buffer_bytes <= (longest_s + 5) * 100 * 80 * 4
    # A word is completed at a sentence end or 3 s after the first agreed one; here there are no sentences.
    ends_s = [segment.end_ms / 1_000 for segment in run.completed]
    assert max(at_s - end_s for at_s, end_s in zip(run.completed_at_s, ends_s, strict=True)) < 5.0
    assert max(run.seen_at_s(word.number) - word.end_s for word in spoken[:40]) < 1.5


def test_speech_on_which_the_hypotheses_never_agree_is_completed_all_the_same() -> None:
    numbers = [random.Random(4).randrange(1_000) for _ in range(100)]
    run = say(numbers, habits=Habits(garbage=1.0))
    assert run.said == numbers
    assert max(run.windows_s) <= MAX_OPEN_WINDOW_SAMPLES / S + 1
    late_s = [at_s - segment.end_ms / 1_000 for at_s, segment in zip(run.completed_at_s, run.completed, strict=True)]
    assert max(late_s) < MAX_OPEN_WINDOW_SAMPLES / S + 1


@BOTH
def test_a_long_utterance_that_comes_at_once(handshake: Handshake) -> None:
    """The window is closed before its first decode, and longer than the encoder takes."""
    numbers = [random.Random(5).randrange(1_000) for _ in range(120)]
    run = say(numbers, Plan((4_000_000,), pace=1_000.0), handshake=handshake, limits=SessionLimits(max_backlog_s=60.0))
    assert run.said == numbers
    assert max(run.windows_s) <= 28.02


@BOTH
def test_endless_silence(handshake: Handshake) -> None:
    run = drive(raw(silence(300.0)), handshake=handshake, hearing=Hearing(Habits(silence_says=" Thank you.")))
    assert run.completed == []
    assert run.of_kind("segments") == []
    assert run.max_backlog_s < 11.0
    assert run.max_buffer_bytes < 12 * 100 * 80 * 4
    # Ungated, one decode per 8 s, and none because the backlog is full.
    assert len(run.windows_s) == (0 if handshake.use_vad else 38)
    assert closed(run).code == 1000


@BOTH
@pytest.mark.parametrize("seconds", [11.0, 60.0])
def test_a_message_of_silence_longer_than_the_backlog(handshake: Handshake, seconds: float) -> None:
    run = drive(raw(silence(seconds)) + talk([7])[0], Plan((4_000_000,)), handshake=handshake)
    assert run.said == [7]


@BOTH
@pytest.mark.parametrize("chunk_s", [0.02, 0.256, 5.0])
def test_the_smallest_backlog_never_jams(handshake: Handshake, chunk_s: float) -> None:
    numbers = list(range(40))
    plan = Plan((int(chunk_s * S) * 4,), pace=20.0)
    limits = SessionLimits(max_backlog_s=1.0)
    run = say(numbers, plan, handshake=handshake, limits=limits, habits=Habits(cost_s=0.5), lead_s=5.0)
    assert run.said == numbers
    # A forced cut holds back two seconds, which count as not heard.
    assert run.max_backlog_s <= 2.0 + INGEST_S + FRAME_EDGE_SAMPLES / S


def test_reading_stops_at_the_limit_and_goes_on() -> None:
    session = new_session(UNGATED, SessionLimits(max_backlog_s=1.0))
    audio, _ = talk([1, 2, 3, 4])
    session.receive_audio(audio[: 4 * S - 4], 0.0)
    assert session.wants_audio
    session.receive_audio(audio[4 * S - 4 : 4 * S], 0.0)
    assert not session.wants_audio
    [decode] = session.take_events()
    assert isinstance(decode, Decode)
    session.result(decode.job_id, heard(), 0.1)
    assert session.wants_audio


# The peer's wishes


def test_jobs_carry_the_wishes_of_the_peer() -> None:
    wishes = replace(OPEN, initial_prompt="Names: Anna.", hotwords="Anna", task="translate", languages=("en", "es"))
    session = new_session(wishes)
    session.receive_audio(talk([1, 2, 3])[0], 0.0)
    [decode] = session.take_events()
    assert isinstance(decode, Decode)
    job = decode.job
    assert (job.stream, job.prompt, job.hotwords, job.task) == ("s1", "Names: Anna.", "Anna", "translate")
    assert (job.language, job.languages) == (None, ("en", "es"))
    assert job.job_class is JobClass.FINAL
    assert job.mel.dtype == np.float32


@pytest.mark.parametrize("pad_ms", [0, 60_000])
@pytest.mark.parametrize("silence_ms", [2_000, 10_000, 60_000])
@BOTH
def test_any_vad_wishes(handshake: Handshake, silence_ms: int, pad_ms: int) -> None:
    """Padding longer than the backlog, and windows that end long before the last forced decode."""
    vad = VadParameters(min_silence_duration_ms=silence_ms, speech_pad_ms=pad_ms)
    numbers = list(range(12))
    plan = Plan(pace=4.0)
    run = say(numbers, plan, handshake=replace(handshake, vad=vad), pauses_s=(0.1, 0.1, 3.0, 14.0), lead_s=12.0)
    assert run.said == numbers


def test_word_timestamps() -> None:
    run = say([1, 2], handshake=replace(GATED, word_timestamps=True))
    words = run.of_kind("segments")[-1].body["segments"][-1]["words"]
    assert [word["word"] for word in words] == [" babace", " babadi"]
    assert [float(word["start"]) for word in words] == pytest.approx([0.3, 0.7], abs=0.02)


def test_other_formats_and_rates() -> None:
    audio, _ = speak([1, 2, 3])
    as_int16 = (audio * 32_767).astype("<i2").tobytes()
    run = drive(as_int16, handshake=replace(GATED, audio_format="int16"))
    assert run.said == [1, 2, 3]
    assert run.session.ledger.received == len(audio)
    tripled = np.repeat(audio, 3)
    run = drive(raw(tripled), handshake=replace(GATED, sample_rate_hz=48_000))
    assert run.said == [1, 2, 3]
    assert run.session.ledger.received == pytest.approx(len(audio), abs=1)


def test_warnings_about_the_audio_arrive() -> None:
    audio, _ = speak([1, 2, 3])
    audio[5_000] = np.nan
    run = drive(raw(audio))
    assert run.said == [1, 2, 3]
    [warning] = run.warnings
    assert "bad_audio: sample 5000" in warning


# Starvation


@BOTH
def test_starvation_completes_once_and_then_all_is_quiet(handshake: Handshake) -> None:
    audio, _ = talk([1, 2, 3], tail_s=0.1)
    run = drive(audio, Plan(end_after_s=30.0), handshake=handshake)
    last_audio_s = len(audio) / 4 / S
    assert run.said == [1, 2, 3]
    late = [message for message in run.sent if message.at_s > last_audio_s + 0.1]
    assert [message.at_s for message in late] == pytest.approx([last_audio_s + STARVATION_S] * 2)
    # The same words, provisional and then completed.
    shown, completed = (message.body["segments"][-1] for message in late)
    assert not shown["completed"]
    assert {**shown, "completed": True} == completed
    assert closed(run) == Close(1000, "")


def test_text_messages_do_not_feed_a_starving_stream() -> None:
    audio, _ = talk([1, 2, 3], tail_s=0.1)
    pings = [(at_s, lambda session, at_s=at_s: session.receive_text(at_s)) for at_s in range(1, 20)]
    empty = [(at_s + 0.5, lambda session, at_s=at_s: session.receive_audio(b"", at_s + 0.5)) for at_s in range(1, 20)]
    run = drive(audio, Plan(end_after_s=None, acts=[*pings, *empty], stop_s=15.0))
    assert run.said == [1, 2, 3]
    assert len(run.warnings) == 1
    assert "END_OF_AUDIO" in run.warnings[0]


STALLS_S = [0.25 + 0.03 * step for step in range(34)]


@BOTH
def test_a_stall_in_mid_word_costs_nothing(handshake: Handshake) -> None:
    """Wherever the audio stops for five seconds: no word is lost, none comes twice.

    Of a word at the edge 80 % are needed, so that neither half of it alone is heard.
    """
    numbers = [5, 5, 6, 6, 6, 7, 8, 9]
    for at_s in STALLS_S:
        plan = Plan((640,), stalls={at_s: 5.0})
        run = say(numbers, plan, handshake=handshake, habits=Habits(needed=0.8), pauses_s=(0.05, 0.1, 0.4))
        assert run.said == numbers, at_s


@BOTH
def test_half_a_word_misheard_at_a_stall_costs_no_other(handshake: Handshake) -> None:
    """Less than half a word reads as some other text: that may stay, but all real words are there, once."""
    numbers = [15, 26, 37, 48, 59, 60]
    for at_s in STALLS_S[::3]:
        habits = Habits(cut="garble")
        run = say(numbers, Plan((640,), stalls={at_s: 5.0}), handshake=handshake, habits=habits)
        real = [number for number in run.said if number in numbers]
        assert real == numbers, at_s
        assert len(run.said) <= len(numbers) + 1


def test_a_stall_while_the_engine_is_behind() -> None:
    """The final of an older window is still under way when the stream stalls in mid-word."""
    numbers = list(range(10, 20))
    for at_s in np.arange(2.2, 3.8, 0.08):
        plan = Plan((640,), stalls={float(at_s): 12.0})
        run = say(numbers, plan, habits=Habits(cost_s=4.0, needed=0.8), pauses_s=(0.1, 0.1, 0.8, 0.1))
        assert run.said == numbers, at_s


def test_a_finished_sentence_needs_less_silence() -> None:
    def waited_s(text: str) -> float:
        audio, spoken = talk([1, 2], 0.1, tail_s=3.0)
        run = drive(audio, Plan((3_200,)), hearing=Hearing(Habits(text_of={2: text})))
        return run.completed_at_s[-1] - spoken[-1].end_s

    assert waited_s(" home.") < 0.5 < waited_s(" home")


def test_completed_text_goes_along_as_context_in_a_length_that_the_model_takes() -> None:
    session = Session(GATED, SessionLimits(), EnergyDetector(), 80, 0.0, "s1", (0, 2))
    audio, _ = talk([1, 2], 2.0)
    session.receive_audio(audio, 0.0)
    seen = []
    for _ in range(6):
        for event in session.take_events():
            if isinstance(event, Decode):
                seen.append(event.job.context)
                session.result(event.job_id, heard(Word(" so", 0.4, 0.7, 0.9, (5, 6, 7))), 0.0)
    assert seen[0] == ()
    assert seen[-1] == (6, 7)
