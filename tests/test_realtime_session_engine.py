"""One stream in virtual time: an engine that is slow, wrong or dead; the language; warnings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import EngineFailedError, EngineKilledError, EngineRestartError
from engine.types import DetectResult, JobClass, WindowJob, Word
from realtime.events import Cancel, Close, Decode, SendDisconnect, SendLanguage, SendSegments, SendWarning
from realtime.intake import INGEST_S
from realtime.protocol import Handshake
from realtime.session import SessionLimits
from tests.fakes.driver import Plan, drive
from tests.fakes.engine import Habits, Hearing
from tests.fakes.streams import BOTH, GATED, OPEN, UNGATED, S, closed, heard, kinds, new_session, raw, say, talk
from tests.fakes.tones import read_words, silence, word_text

# The engine


def test_partials_give_way_to_the_final_and_late_results_are_ignored() -> None:
    session = new_session()
    audio, _ = talk([1, 2, 3, 4])
    session.receive_audio(audio[: 5 * S], 0.0)
    [partial] = session.take_events()
    assert isinstance(partial, Decode)
    assert partial.job.job_class is JobClass.PARTIAL
    session.end_of_audio()
    cancel, final = session.take_events()
    assert cancel == Cancel(partial.job_id)
    assert isinstance(final, Decode)
    assert final.job.job_class is JobClass.FINAL
    session.result(partial.job_id, heard(Word(" wrong", 0.0, 0.3, 0.9)), 1.0)
    assert session.take_events() == []
    session.result(final.job_id, heard(Word(" right", 0.0, 0.3, 0.9)), 1.0)
    events = session.take_events()
    assert kinds(events) == ["SendSegments", "Close"]
    session.result(final.job_id, heard(), 1.0)
    assert session.take_events() == []


def test_at_most_one_partial_and_one_final_are_under_way() -> None:
    numbers = list(range(30))
    under_way: dict[int, JobClass] = {}
    session = new_session()
    for at in range(0, len(audio := talk(numbers, 0.1, 0.1, 0.9)[0]), 4_096):
        session.receive_audio(audio[at : at + 4_096], at / 4 / S)
        for event in session.take_events():
            if isinstance(event, Decode):
                under_way[event.job_id] = event.job.job_class
            elif isinstance(event, Cancel):
                del under_way[event.job_id]
        assert len(set(under_way.values())) == len(under_way) <= 2
        if not session.wants_audio:
            break
    assert JobClass.FINAL in under_way.values()


@BOTH
def test_one_window_that_cannot_be_decoded(handshake: Handshake) -> None:
    """It is named; the words before and after it are there; its audio is booked as refused."""

    def fails(call: int, job: WindowJob) -> EngineFailedError | None:
        return EngineFailedError("x") if job.job_class is JobClass.FINAL and finals.pop(0) else None

    finals = [False, True, False, False]
    audio, spoken = talk([1, 2, 3], 2.0, lead_s=1.0)
    run = drive(audio, handshake=handshake, hearing=Hearing(Habits(fails=fails)))
    # What a partial had shown of the failed window is better than nothing.
    assert run.said in ([1, 3], [1, 2, 3])
    [warning] = run.warnings
    assert warning.startswith("engine_failed: the audio from ")
    start_s, end_s = (float(text) for text in warning.split() if text.replace(".", "").isdigit())
    assert start_s < spoken[1].start_s < spoken[1].end_s < end_s
    assert run.session.ledger.refused == pytest.approx((end_s - start_s) * S, abs=16)
    assert closed(run) == Close(1000, "")


def test_partials_that_fail_cost_nothing() -> None:
    habits = Habits(fails=lambda call, job: EngineFailedError("x") if job.job_class is JobClass.PARTIAL else None)
    run = say(list(range(20)), habits=habits)
    assert run.said == list(range(20))
    assert run.warnings == []
    assert run.session.ledger.refused == 0
    # They are tried again with more audio, not at once.
    assert len(run.windows_s) < 25


def test_audio_that_kills_the_engine_is_never_decoded_again_and_ends_the_stream() -> None:
    """Every further try would cost a process that others share; what was decoded before is delivered."""
    deadly: list[WindowJob] = []

    def kills(call: int, job: WindowJob) -> EngineKilledError | None:
        if not deadly and not any(word.text == word_text(13) for word in read_words(job.mel)):
            return None
        deadly.append(job)
        return EngineKilledError("the engine died of it")

    run = say([1, 2, 3, 4, 13, 5, 6, 7], habits=Habits(fails=kills), pauses_s=(0.1, 0.1, 0.1, 0.9, 0.9))
    assert len([job for job in deadly if job.job_class is JobClass.PARTIAL]) == 1
    assert run.said == [1, 2, 3, 4]
    assert closed(run) == Close(1011, "the engine died of it")
    assert run.warnings
    assert run.session.ledger.refused > 0


def test_a_partial_in_which_the_model_repeats_itself_is_not_shown() -> None:
    session = new_session()
    audio, _ = talk([1, 2, 3, 4])
    session.receive_audio(audio[: 5 * S], 0.0)
    [partial] = session.take_events()
    assert isinstance(partial, Decode)
    loop = [Word(" no", 0.1 * n, 0.1 * n + 0.09, 0.99) for n in range(8)]
    session.result(partial.job_id, heard(*loop, compression_ratio=2.5), 1.0)
    assert session.take_events() == []


@BOTH
def test_an_engine_that_fails_always(handshake: Handshake) -> None:
    run = say(
        list(range(60)), Plan((65_536,), pace=50.0), handshake=handshake, pauses_s=(0.1,) * 40 + (1.0,),
        habits=Habits(fails=lambda call, job: EngineRestartError("x")),
    )  # fmt: skip
    assert run.said == []
    ledger = run.session.ledger
    assert ledger.decoded == 0
    assert ledger.refused + ledger.silent == ledger.received
    assert len(run.warnings) >= 2
    assert closed(run).code == 1000


def test_a_forced_decode_that_fails_as_the_window_ends() -> None:
    """Speech stops before the failed decode ended, but the window's end was not known yet: nothing is left of it."""
    numbers = list(range(36))
    n_failed = 0
    for lead_s in np.arange(0.0, 0.4, 0.04):
        habits = Habits(
            garbage=1.0, fails=lambda call, job: EngineFailedError("x") if job.mel.shape[1] >= 1_500 else None
        )
        run = say([*numbers, 77], Plan((2_560,)), habits=habits, lead_s=float(lead_s), pauses_s=(0.1,) * 35 + (3.0,))
        assert closed(run).code == 1000
        assert run.said[-1] == 77
        n_failed += len(run.warnings)
    assert n_failed >= 5


def test_a_slow_engine_means_fewer_partials_and_the_same_text() -> None:
    numbers = list(range(50))
    quick, slow = say(numbers), say(numbers, habits=Habits(cost_s=3.0))
    assert quick.said == slow.said == numbers
    assert len(slow.windows_s) < len(quick.windows_s) / 3
    assert slow.max_backlog_s <= 10.0 + INGEST_S


def test_hallucinations_about_silence_are_dropped() -> None:
    habits = Habits(silence_says=" Thanks for watching.")
    run = say([1, 2], handshake=UNGATED, habits=habits, pauses_s=(15.0,), lead_s=11.0)
    assert run.said == [1, 2]
    assert "Thanks" not in str(run.sent)


@pytest.mark.parametrize(
    ("logprob", "no_speech", "dropped"),
    [(-1.001, 0.451, True), (-1.0, 0.451, False), (-1.001, 0.45, False), (-0.2, 1.0, False), (-9.0, 0.0, False)],
)
def test_the_limits_of_the_hallucination_filter(logprob: float, no_speech: float, dropped: bool) -> None:
    session = new_session()
    session.receive_audio(talk([1], tail_s=0.1)[0], 0.0)
    session.end_of_audio()
    [decode] = session.take_events()
    assert isinstance(decode, Decode)
    word = Word(" Thanks.", 0.3, 0.6, 0.5)
    session.result(decode.job_id, heard(word, avg_logprob=logprob, no_speech_prob=no_speech), 0.0)
    assert ("SendSegments" not in kinds(session.take_events())) is dropped


def test_blank_words_and_words_beyond_the_window() -> None:
    session = new_session()
    audio, _ = talk([1], tail_s=0.1)
    session.receive_audio(audio, 0.0)
    session.end_of_audio()
    [decode] = session.take_events()
    assert isinstance(decode, Decode)
    words = (Word("  ", 0.0, 0.1, 0.5), Word(" late", 5.0, 6.0, 0.5))
    session.result(decode.job_id, heard(*words), 0.0)
    segments, _close = session.take_events()
    assert isinstance(segments, SendSegments)
    [segment] = segments.completed
    assert (segment.text, segment.end_ms) == (" late", len(audio) * 1_000 // 4 // S)


def loops_in(*classes: JobClass) -> Callable[[int, WindowJob], bool]:
    return lambda call, job: job.job_class in classes


@pytest.mark.parametrize("classes", [(JobClass.PARTIAL,), (JobClass.FINAL,), (JobClass.PARTIAL, JobClass.FINAL)])
@BOTH
def test_loops_complete_nothing_wrong(handshake: Handshake, classes: tuple[JobClass, ...]) -> None:
    numbers = [1, 1, 2, 3, 3, 4, 5, 6, 7, 7]
    run = say(numbers, handshake=handshake, habits=Habits(loops=loops_in(*classes)), pauses_s=(0.1, 0.2, 0.8))
    assert run.said == numbers
    longest = max(len(entry["text"]) for message in run.of_kind("segments") for entry in message.body["segments"])
    assert longest <= 8 * len(numbers)


def test_flickering_case_and_punctuation_hold_nothing_back() -> None:
    numbers = list(range(30))
    steady = say(numbers, habits=Habits(cost_s=0.1))
    flickering = say(numbers, habits=Habits(cost_s=0.1, flicker=True))
    assert flickering.said == steady.said == numbers
    assert flickering.completed_at_s == steady.completed_at_s


def test_garbage_partials_are_never_completed() -> None:
    numbers = list(range(40))
    for seed in range(5):
        run = say(numbers, habits=Habits(garbage=0.5, seed=seed), pauses_s=(0.1,) * 9 + (0.9,))
        assert run.said == numbers


# Language


def unsure_until(seconds: float, probability: float = 0.9) -> Callable[[float], DetectResult]:
    return lambda window_s: (("es", probability if window_s >= seconds else 0.3), ("en", 0.05))


@BOTH
def test_the_language_comes_once_and_before_the_text(handshake: Handshake) -> None:
    handshake = replace(handshake, language=None, wants_language=True)
    run = say([1, 2, 3, 4, 5, 6], handshake=handshake, pauses_s=(0.1, 0.1, 0.9))
    assert "language" in run.sent[0].body
    assert run.sent[0].body == {"uid": "u1", "language": "en", "language_prob": 0.97}
    assert len(run.of_kind("language")) == 1
    assert len(run.sent) > 3
    assert run.said == [1, 2, 3, 4, 5, 6]


def test_audio_before_the_language_is_known_is_not_lost() -> None:
    numbers = list(range(12))
    habits = Habits(detect=unsure_until(3.0))
    run = say(numbers, handshake=OPEN, habits=habits)
    assert run.said == numbers
    assert run.sent[0].body["language"] == "es"
    assert run.sent[0].at_s > 3.0
    detections = [job.language for job in run.hearing.jobs]
    assert detections == sorted(detections, key=lambda language: language is not None)
    assert set(detections[detections.index("es") :]) == {"es"}


def test_the_first_utterance_decides_in_any_case() -> None:
    run = say([1, 2], handshake=OPEN, habits=Habits(detect=unsure_until(99.0)), tail_s=1.0)
    assert [type(event) for _, event in run.events if not isinstance(event, (Decode, Cancel))][:2] == [
        SendLanguage,
        SendSegments,
    ]
    assert run.said == [1, 2]


def test_a_forced_decode_decides_too() -> None:
    """Endless speech in an unclear language: text must not be withheld for ever."""
    numbers = [random.Random(6).randrange(1_000) for _ in range(80)]
    run = say(numbers, handshake=OPEN, habits=Habits(detect=lambda window_s: (("en", 0.3),)))
    assert run.said == numbers
    assert run.sent[0].body["language"] == "en"
    assert run.sent[0].at_s < 17.0


def test_silence_and_noise_decide_no_language() -> None:
    handshake = replace(OPEN, use_vad=False)
    habits = Habits(silence_says=" Amara.org", detect=unsure_until(0.0))
    run = say([1, 2, 3], handshake=handshake, habits=habits, lead_s=25.0)
    assert len(run.of_kind("language")) == 1
    assert run.sent[0].at_s > 25.0
    silent = drive(raw(silence(25.0)), handshake=handshake, hearing=Hearing(habits))
    assert silent.sent == []


def test_the_language_of_a_model_that_knows_one_is_told_at_once() -> None:
    session = new_session(replace(GATED, wants_language=True))
    assert session.take_events() == [SendLanguage("en", 1.0)]
    assert new_session(GATED).take_events() == []


def test_only_languages_the_peer_allows() -> None:
    habits = Habits(detect=lambda window_s: (("en", 0.9), ("es", 0.08)))
    run = say([1, 2, 3], handshake=replace(OPEN, languages=("es",)), habits=habits)
    assert run.sent[0].body["language"] == "es"


# Warnings


def test_warnings_wait_for_the_first_text_if_the_language_is_open() -> None:
    """WhisperLive's Chrome extension takes its second message for the language, whatever it is."""
    run = say([1, 2, 3], handshake=replace(OPEN, warnings=("task: no", "model: no")))
    order = ["language", "segments", "status", "status"]
    assert [next(key for key in order if key in message.body) for message in run.sent][:4] == order
    assert run.warnings == ["task: no", "model: no"]


def test_warnings_come_at_once_if_the_language_is_given() -> None:
    session = new_session(replace(GATED, warnings=("task: no",)))
    assert session.take_events() == [SendWarning("task: no")]
    session.receive_text(0.0)
    session.receive_text(0.0)
    assert kinds(session.take_events()) == ["SendWarning"]


def test_held_warnings_come_before_the_close_if_there_is_no_text() -> None:
    run = drive(raw(silence(2.0)), handshake=replace(OPEN, warnings=("task: no",)))
    assert kinds([event for _, event in run.events]) == ["SendWarning", "Close"]


def test_disconnect_follows_the_warnings() -> None:
    limits = SessionLimits(max_connection_time_s=1.0)
    run = drive(raw(silence(2.0)), handshake=replace(OPEN, warnings=("task: no",)), limits=limits)
    events = [event for _, event in run.events]
    assert events[0] == SendWarning("task: no")
    assert events[-2:] == [SendDisconnect(), closed(run)]
