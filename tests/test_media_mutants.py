"""A hundred damaged files: each ends as audio or a refusal in its time, and the next good file as ever."""

from __future__ import annotations

import asyncio
import base64
import collections
from pathlib import Path

import numpy as np
import pytest

from bench.fuzz_media import MAX_FAILURES, fuzz, main
from engine.decode import DecodedAudio, MediaDecoder, MediaSource
from engine.errors import BadAudioError
from handler.fetch import Fetcher
from handler.sources import Source
from tests.fakes.media import HELLO
from tests.fakes.media_mutants import FUZZ_LIMITS, judge, mutant, seeds

SEED = 2026
COUNT = 100


def test_seeds_are_honest() -> None:
    with MediaDecoder(FUZZ_LIMITS) as decoder:
        for name, data in seeds().items():
            assert judge(decoder, data).outcome == "audio", name
            assert decoder.decode(data).duration_s == pytest.approx(1.2, abs=0.1), name


def test_mutants_are_the_same_for_the_same_seed_and_differ() -> None:
    first = [mutant(SEED, number) for number in range(COUNT)]
    assert first == [mutant(SEED, number) for number in range(COUNT)]
    assert first != [mutant(SEED + 1, number) for number in range(COUNT)]
    assert len({one.data for one in first} | set(seeds().values())) > 0.95 * COUNT + len(seeds())


def descriptors() -> int:
    """How many are open in this process; 0 where that cannot be seen."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_hundred_mutants_and_a_good_file_after_each() -> None:
    """As on a worker: the same decoder serves the next job, whose text must not depend on the one before."""
    outcomes: collections.Counter[str | None] = collections.Counter()
    good = HELLO.read_bytes()
    with MediaDecoder(FUZZ_LIMITS) as decoder:
        expected = decoder.decode(good)
        before = descriptors()
        for number in range(COUNT):
            one = mutant(SEED, number)
            judged = judge(decoder, one.data)
            assert judged.problem is None, (one.name, judged)
            outcomes[judged.outcome] += 1
            after = decoder.decode(good)
            assert np.array_equal(after.samples, expected.samples), one.name
            assert (after.container, after.codec, after.warnings) == (expected.container, expected.codec, ())
        assert descriptors() == before
    assert outcomes["audio"] + outcomes["damaged audio"] >= 20, outcomes
    assert outcomes["refused"] >= 10, outcomes


def test_mutants_as_jobs_leave_no_file(tmp_path: Path) -> None:
    async def act() -> int:
        refused = 0
        fetcher = Fetcher(folder=tmp_path)
        with MediaDecoder(FUZZ_LIMITS) as decoder:
            for number in range(24):
                value = base64.b64encode(mutant(SEED + 1, number).data).decode()
                try:
                    async with fetcher.open(Source("base64", value, "audio_base64")) as found:
                        await decoder.decode_async(found.path)
                except BadAudioError:
                    refused += 1
        return refused

    assert asyncio.run(act()) > 0
    assert list(tmp_path.iterdir()) == []


def test_fuzz_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "12", "--seed", "7", "--save", str(tmp_path / "found")]) == 0
    shown = capsys.readouterr()
    assert "12 files" in shown.out
    assert "audio" in shown.out
    assert "slowest" in shown.out
    assert not (tmp_path / "found").exists()
    with pytest.raises(SystemExit):
        main(["--count", "0"])


class Broken(MediaDecoder):
    """Falls over one file, and cannot forget another."""

    fatal = mutant(7, 3).data
    lasting = mutant(7, 5).data
    offset = 0.0

    def decode(self, data: MediaSource, *, max_duration_s: float | None = None) -> DecodedAudio:
        if data == self.fatal:
            raise KeyError("canary")
        if data == self.lasting:
            self.offset = 1.0
        samples = np.full(16, self.offset, dtype=np.float32)
        return DecodedAudio(samples, 0.001, "wav", "pcm")


def test_fuzzing_finds_and_keeps_what_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Broken(FUZZ_LIMITS) as decoder:
        found = fuzz(decoder, 6, 7, tmp_path / "found")
        assert [name for name, _ in found.failures] == [mutant(7, 3).name, mutant(7, 5).name]
        assert "KeyError" in found.failures[0][1]
        assert "the good file after it decodes to something else" in found.failures[1][1]
        assert {path.name: path.read_bytes() for path in (tmp_path / "found").iterdir()} == {
            mutant(7, number).name: mutant(7, number).data for number in (3, 5)
        }
    assert "6 of 6 files" in capsys.readouterr().err


def test_fuzzing_ends_when_nothing_works(tmp_path: Path) -> None:
    with Broken(FUZZ_LIMITS) as decoder:
        assert len(fuzz(decoder, 1_000, 7, tmp_path / "found").failures) == MAX_FAILURES
