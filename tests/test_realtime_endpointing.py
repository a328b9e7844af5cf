"""From speech probabilities to windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.vad import VAD_FRAME_SAMPLES
from realtime.endpointing import UNGATED_SILENCE_SAMPLES, Endpointer, EndpointOptions, Window

FRAME = VAD_FRAME_SAMPLES
GATED = EndpointOptions(threshold=0.5, neg_threshold=0.35, min_silence_ms=160, speech_pad_ms=64)
"""Five frames of silence end a window; two frames of padding (rounded to samples: 1024)."""
UNGATED = replace(GATED, gated=False)


def run(endpointer: Endpointer, probabilities: str | list[float]) -> list[Window]:
    """`s`: speech, `.`: silence, `?`: between the thresholds; return the windows so far."""
    values = {"s": 0.9, ".": 0.1, "?": 0.4}
    for probability in probabilities:
        endpointer.push(values[probability] if isinstance(probability, str) else probability)
    return list(endpointer.windows)


def test_a_word_between_silences() -> None:
    [window] = run(Endpointer(GATED), "....." + "sss" + ".....")
    assert window == Window(3 * FRAME, 10 * FRAME, last_speech=8 * FRAME, speech=3 * FRAME)


def test_a_window_opens_at_the_first_frame_of_speech() -> None:
    endpointer = Endpointer(GATED)
    assert run(endpointer, ".....") == []
    assert run(endpointer, "s") == [Window(3 * FRAME, None, last_speech=6 * FRAME, speech=FRAME)]


def test_silence_one_frame_too_short_ends_nothing() -> None:
    [window] = run(Endpointer(GATED), "s....s....s....")
    assert window.end is None
    [window] = run(Endpointer(GATED), "s.....")
    assert window.end == 3 * FRAME


def test_after_a_sentence_less_silence_is_enough_until_speech_goes_on() -> None:
    short = replace(GATED, sentence_silence_ms=GATED.min_silence_ms * 2 // 5)
    endpointer = Endpointer(short)
    run(endpointer, "s.")
    endpointer.sentence_ends(FRAME)
    [window] = run(endpointer, ".")
    assert window.end is not None
    endpointer = Endpointer(short)
    run(endpointer, "s.")
    endpointer.sentence_ends(FRAME)
    [window] = run(endpointer, "s....")
    assert window.end is None, "speech behind the sentence makes it void"


def test_padding_stays_within_the_audio_and_between_windows() -> None:
    wide = replace(GATED, speech_pad_ms=960)
    first, second = run(Endpointer(wide), "s" + "....." + "s" + ".....")
    assert (first.start, first.end) == (0, 6 * FRAME)
    assert (second.start, second.end) == (6 * FRAME, 12 * FRAME)


def test_hysteresis() -> None:
    # Between the thresholds, speech goes on, and so does silence.
    [window] = run(Endpointer(GATED), "s" + "?" * 20)
    assert window == Window(0, None, last_speech=21 * FRAME, speech=21 * FRAME)
    [window] = run(Endpointer(GATED), "s.????.")
    assert window.end == 3 * FRAME
    assert run(Endpointer(GATED), "?" * 20) == []


@pytest.mark.parametrize(("probability", "opens"), [(0.5, True), (0.499, False)])
def test_the_threshold(probability: float, opens: bool) -> None:
    assert bool(run(Endpointer(GATED), [probability])) is opens


def test_silence_is_known_up_to_the_padding() -> None:
    endpointer = Endpointer(GATED)
    run(endpointer, "." * 10)
    assert endpointer.silent_until == 8 * FRAME
    run(endpointer, "s")
    assert endpointer.silent_until == 8 * FRAME
    run(endpointer, ".....")
    assert endpointer.silent_until == 8 * FRAME
    endpointer.windows.popleft()
    assert endpointer.silent_until == 14 * FRAME


def test_finish_cuts_an_open_window_and_goes_on_behind_it() -> None:
    endpointer = Endpointer(GATED)
    run(endpointer, "..ss")
    endpointer.finish(4 * FRAME + 100)
    assert list(endpointer.windows) == [
        Window(0, 4 * FRAME + 100, last_speech=4 * FRAME, speech=2 * FRAME, is_cut=True)
    ]
    endpointer.finish(4 * FRAME + 200)
    assert len(endpointer.windows) == 1
    windows = run(endpointer, "s.....")
    assert (windows[1].start, windows[1].end, windows[1].is_cut) == (4 * FRAME + 100, 7 * FRAME, False)


def test_finish_in_silence_does_nothing() -> None:
    endpointer = Endpointer(GATED)
    run(endpointer, "...")
    endpointer.finish(3 * FRAME)
    assert list(endpointer.windows) == []


def test_ungated_windows_touch() -> None:
    windows = run(Endpointer(UNGATED), "....ss.....ss.....")
    assert [(window.start, window.end) for window in windows] == [
        (0, 8 * FRAME),
        (8 * FRAME, 15 * FRAME),
        (15 * FRAME, None),
    ]


def test_ungated_silence_is_decoded_in_pieces() -> None:
    endpointer = Endpointer(UNGATED)
    pad = 2 * FRAME
    n_frames = -(-(UNGATED_SILENCE_SAMPLES + pad) // FRAME)
    assert len(run(endpointer, "." * (n_frames - 1))) == 1
    first, second = run(endpointer, ".")
    # The last frames may hold speech that the detector has not recognised yet.
    assert first.end == second.start == n_frames * FRAME - pad


def test_ungated_finish_leaves_an_empty_window_only() -> None:
    endpointer = Endpointer(UNGATED)
    endpointer.finish(0)
    assert list(endpointer.windows) == [Window(0)]
    run(endpointer, ".")
    endpointer.finish(600)
    endpointer.finish(600)
    assert list(endpointer.windows) == [Window(0, 600, is_cut=True), Window(600)]


@given(
    st.lists(st.sampled_from("s.?") | st.just("....."), max_size=80).map("".join),
    st.sampled_from([0, 30, 160, 600]),
    st.sampled_from([0, 64, 300, 5_000]),
    st.booleans(),
    st.sets(st.integers(0, 200), max_size=3),
)
def test_windows_are_in_order_and_hold_all_speech(
    frames: str, min_silence_ms: int, pad_ms: int, gated: bool, cuts: set[int]
) -> None:
    endpointer = Endpointer(EndpointOptions(min_silence_ms=min_silence_ms, speech_pad_ms=pad_ms, gated=gated))
    known = 0
    for index, frame in enumerate(frames):
        run(endpointer, frame)
        if index in cuts:
            endpointer.finish((index + 1) * FRAME)
        assert endpointer.silent_until >= known
        known = endpointer.silent_until
    endpointer.finish(len(frames) * FRAME)
    windows = list(endpointer.windows)
    ends = [window.end if window.end is not None else window.start for window in windows]
    for window, end in zip(windows, ends, strict=True):
        assert 0 <= window.start <= end <= len(frames) * FRAME
    for end, following in zip(ends, windows[1:], strict=False):
        assert following.start == end if not gated else following.start >= end
    for index, frame in enumerate(frames):
        if frame == "s" or not gated:
            covered = any(
                window.start <= index * FRAME and (index + 1) * FRAME <= end
                for window, end in zip(windows, ends, strict=True)
            )
            assert covered or not gated
