"""bench.playlist, clients, audio, nopause, expect: what clients say, to the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.audio import SharedAudio
from bench.clients import MIXED_CHUNKS_MS, make_plans
from bench.expect import Expected, OfflineWords, expected, judge
from bench.nopause import without_pauses
from bench.playlist import (
    MAX_OVERRUN_S,
    MAX_PAUSE_S,
    MIN_PAUSE_S,
    Playlist,
    Pool,
    make_playlists,
    start_times_s,
)
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.latency import GoldWord, Recording


def recording(name: str, seconds: int, language: str = "en") -> Recording:
    """One word a second, from .25 to .75, so a pause of half a second between any two."""
    words = tuple(GoldWord(f"{name}{n}", n + 0.25, n + 0.75) for n in range(seconds))
    return Recording(Path(f"{name}.wav"), language, float(seconds), " ".join(word.text for word in words), words)


def sound(item: Recording, value: int) -> FloatArray:
    """Samples that tell which recording and which second they are from."""
    return np.repeat(np.arange(item.duration_s, dtype=np.float32) + 100 * value, SAMPLE_RATE_HZ)


EN = (recording("a", 7), recording("b", 9), recording("c", 5))
ES = (recording("x", 6, "es"), recording("y", 8, "es"))
NONSTOP = recording("n", 20)
POOLS = {"en": Pool(EN, NONSTOP), "es": Pool(ES)}
AUDIO = {item: sound(item, place) for place, item in enumerate((*EN, *ES, NONSTOP))}


def test_playlists_are_repeatable_and_do_not_depend_on_the_number_of_clients() -> None:
    lists = make_playlists(POOLS, 6, 12.0, seed=7)
    assert lists == make_playlists(POOLS, 6, 12.0, seed=7)
    assert lists[:3] == make_playlists(POOLS, 3, 12.0, seed=7)
    assert lists != make_playlists(POOLS, 6, 12.0, seed=8)
    assert len({item.words for item in lists}) == len(lists)


def test_languages_take_turns() -> None:
    lists = make_playlists(POOLS, 4, 12.0, seed=1)
    assert [item.language for item in lists] == ["en", "es", "en", "es"]
    assert {piece.recording.language for piece in lists[1].pieces} == {"es"}


@pytest.mark.parametrize("seed", range(20))
def test_every_playlist_is_long_enough_and_hardly_longer(seed: int) -> None:
    for item in make_playlists({"en": Pool(EN)}, 4, 12.0, seed):
        # The last pause may be what is too long.
        assert 12.0 <= item.audio_s <= 12.0 + MAX_OVERRUN_S + MAX_PAUSE_S
        silences = [piece.silence_samples for piece in item.pieces]
        assert silences[0] == 0
        assert all(MIN_PAUSE_S <= silence / SAMPLE_RATE_HZ <= MAX_PAUSE_S for silence in silences[1:])


def test_a_recording_that_would_overrun_waits_for_one_that_does_not() -> None:
    no_pauses = Recording(Path("long.wav"), "en", 30.0, "w", (GoldWord("w", 1.0, 29.0),))
    for item in make_playlists({"en": Pool((no_pauses, *EN))}, 4, 8.0, seed=3):
        assert item.audio_s <= 8.0 + MAX_OVERRUN_S


def test_one_client_in_five_begins_without_a_pause() -> None:
    lists = make_playlists({"en": Pool(EN, NONSTOP)}, 9, 12.0, seed=1)
    assert [n for n, item in enumerate(lists) if item.pieces[0].recording is NONSTOP] == [3, 8]
    assert lists[3].pieces[0].samples == 20 * SAMPLE_RATE_HZ
    assert not any(piece.recording is NONSTOP for item in lists for piece in item.pieces[1:])


def joined(item: Playlist, chunk_samples: int) -> FloatArray:
    return np.frombuffer(b"".join(SharedAudio(AUDIO).chunks(item, chunk_samples)), dtype="<f4")


def test_words_stand_where_their_sound_is() -> None:
    for item in make_playlists(POOLS, 6, 25.0, seed=2):
        samples = joined(item, 1_000)
        assert samples.size == item.samples
        for word, (stem, place) in zip(item.words, item.sources, strict=True):
            source = next(number for number, each in enumerate(AUDIO) if each.path.stem == stem)
            stretch = samples[round(word.start_s * SAMPLE_RATE_HZ) : round(word.end_s * SAMPLE_RATE_HZ)]
            assert set(stretch) == {100.0 * source + place}
        assert [word.text for word in item.words] == [f"{stem}{place}" for stem, place in item.sources]


@settings(max_examples=25)
@given(chunk=st.integers(1, 40_000), seed=st.integers(0, 50))
def test_chunks_of_any_size_are_the_same_sound(chunk: int, seed: int) -> None:
    (item,) = make_playlists({"en": Pool(EN)}, 1, 9.0, seed)
    chunks = list(SharedAudio(AUDIO).chunks(item, chunk))
    assert {len(each) for each in chunks[:-1]} <= {4 * chunk}
    assert 0 < len(chunks[-1]) <= 4 * chunk
    assert np.array_equal(np.frombuffer(b"".join(chunks), dtype="<f4"), joined(item, 3_333))


def test_a_chunk_inside_one_recording_is_not_copied() -> None:
    (item,) = make_playlists({"en": Pool(EN)}, 1, 9.0, 1)
    assert isinstance(next(SharedAudio(AUDIO).chunks(item, 320)), memoryview)


def test_mixed_chunks_are_all_used_in_turn() -> None:
    plans = make_plans(POOLS, 8, seconds=5.0, seed=1, spread_s=2.0, linger_s=3.0, options={"use_vad": False})
    sizes = [plan.chunk_samples * 1_000 // SAMPLE_RATE_HZ for plan in plans]
    assert sorted(sizes[:4]) == sorted(MIXED_CHUNKS_MS)
    assert sizes[4:] == sizes[:4]
    assert {plan.linger_s for plan in plans} == {3.0}
    assert plans[0].options == {"use_vad": False}
    assert [plan.delay_s for plan in plans] == list(start_times_s(8, 2.0, 1))
    assert {plan.chunk_samples for plan in make_plans(POOLS, 3, seconds=5.0, seed=1, chunk_ms=50)} == {800}


def test_starts_are_staggered_and_jittered() -> None:
    starts = start_times_s(4, 2.0, seed=1)
    assert starts == start_times_s(4, 2.0, seed=1)
    for number, start in enumerate(starts):
        assert number * 0.5 <= start < (number + 1) * 0.5
    assert start_times_s(3, 0.0, seed=1) == (0.0, 0.0, 0.0)


def test_pauses_are_cut_to_the_longest_allowed_and_no_word_is_touched() -> None:
    item = Recording(
        Path("p.flac"),
        "en",
        6.0,
        "a b c d",
        (GoldWord("a", 1.0, 1.5), GoldWord("b", 1.6, 2.0), GoldWord("c", 3.0, 3.5), GoldWord("d", 3.7, 4.0)),
    )
    samples = np.zeros(6 * SAMPLE_RATE_HZ, dtype=np.float32)
    for number, word in enumerate(item.words, 1):
        samples[round(word.start_s * SAMPLE_RATE_HZ) : round(word.end_s * SAMPLE_RATE_HZ)] = number
    made, cut = without_pauses(item, samples, longest_s=0.2)
    gaps = [after.start_s - before.end_s for before, after in zip(made.words, made.words[1:], strict=False)]
    assert gaps == pytest.approx([0.1, 0.2, 0.2])
    assert (made.words[0].start_s, made.duration_s - made.words[-1].end_s) == pytest.approx((0.2, 0.2))
    assert made.duration_s == cut.size / SAMPLE_RATE_HZ
    assert made.path.name == "p_nopause.flac"
    for number, word in enumerate(made.words, 1):
        assert set(cut[round(word.start_s * SAMPLE_RATE_HZ) : round(word.end_s * SAMPLE_RATE_HZ)]) == {number}
        assert (cut == number).sum() == (samples == number).sum()


def test_a_recording_without_pauses_stays_as_it_is() -> None:
    item = Recording(Path("p.wav"), "en", 1.0, "a b", (GoldWord("a", 0.1, 0.5), GoldWord("b", 0.55, 0.9)))
    samples = np.arange(SAMPLE_RATE_HZ, dtype=np.float32)
    made, cut = without_pauses(item, samples)
    assert made.words == item.words
    assert np.array_equal(cut, samples)


def test_offline_errors_stand_at_words() -> None:
    item = recording("w", 4)
    assert judge(item, "w0 oh w1 w3") == OfflineWords((True, True, False, True), (1, 0, 1, 0))
    assert judge(item, "oh w0 w9 w2 w3") == OfflineWords((True, True, True, True), (1, 1, 0, 0))
    assert judge(item, "") == OfflineWords((False,) * 4, (1,) * 4)
    assert judge(Recording(Path("s.wav"), "en", 1.0, "", ()), "noise") == OfflineWords((), ())


def test_a_playlist_expects_what_its_stretches_expect() -> None:
    (item,) = make_playlists({"en": Pool(EN)}, 1, 12.0, seed=5)
    offline = {each.path.stem: judge(each, each.text.replace(f"{each.path.stem}2 ", "")) for each in EN}
    wrong = sum(place == 2 for _, place in item.sources)
    assert expected(item, offline) == Expected(tuple(place != 2 for _, place in item.sources), wrong)
    used = item.pieces[0].recording.path.stem
    assert expected(item, {stem: words for stem, words in offline.items() if stem != used}) is None
