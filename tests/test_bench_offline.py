"""bench.offline: texts count only for the sound and the weights that they were made from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import bench.offline
from bench.corpus import LABELS, choose, load_corpus
from bench.expect import OfflineWords
from bench.offline import judge_all, main, read_cache
from engine.errors import BadInputError
from engine.types import FloatArray
from realtime.client.latency import GoldWord, Recording
from realtime.demo import SAMPLES

SPOKEN = Recording(Path("r.wav"), "en", 1.0, "good morning", (GoldWord("good", 0, 0.4), GoldWord("morning", 0.5, 0.9)))


def test_the_command_writes_what_runs_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def transcribe(audio: Mapping[Recording, FloatArray], model: str) -> dict[Recording, str]:
        assert model == "demo"
        return {recording: recording.text.partition(" ")[0] for recording in audio}

    monkeypatch.setattr(bench.offline, "transcribe", transcribe)
    path = tmp_path / "offline.json"
    assert main(["--labels", str(SAMPLES), "--output", str(path)]) == 0
    assert "hello_en                   4 errors in 5 words" in capsys.readouterr().out
    audio = asyncio.run(load_corpus(SAMPLES)).audio
    assert read_cache(path, audio) == {recording: recording.text.partition(" ")[0] for recording in audio}


def write(path: Path, samples: FloatArray, **more: object) -> None:
    crc32 = bench.offline._crc32(samples)
    entry = {"audio_crc32": crc32, "text": "Good evening"}
    weights = bench.offline._weights_crc32()
    document = {"model": "demo", "weights_crc32": weights, "transcripts": {"r": entry}, **more}
    path.write_text(json.dumps(document))


def test_a_text_is_read_for_its_own_sound_only(tmp_path: Path) -> None:
    path, samples = tmp_path / "o.json", np.zeros(16_000, dtype=np.float32)
    write(path, samples)
    texts = read_cache(path, {SPOKEN: samples})
    assert judge_all(texts) == {"r": OfflineWords((True, True), (0, 1))}
    assert read_cache(path, {SPOKEN: samples + 1}) == {}


def test_other_weights_of_the_demo_model_void_the_file(tmp_path: Path) -> None:
    path, samples = tmp_path / "o.json", np.zeros(16_000, dtype=np.float32)
    write(path, samples, weights_crc32=1)
    assert read_cache(path, {SPOKEN: samples}) == {}
    write(path, samples, weights_crc32=None, model="small.en")
    assert len(read_cache(path, {SPOKEN: samples})) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "x", "transcripts": {"r": {}}}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "o.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match="offline"):
        read_cache(path, {SPOKEN: np.zeros(3, dtype=np.float32)})


def test_recordings_are_chosen_by_language_and_name() -> None:
    assert {item.language for item in choose(LABELS)} == {"en", "es"}
    assert {item.language for item in choose(LABELS, "es")} == {"es"}
    assert [item.path.name for item in choose(LABELS, "en", ["en_calm_0", "en_nonstop.flac"])] == [
        "en_calm_0.flac",
        "en_nonstop.flac",
    ]
    with pytest.raises(BadInputError, match="--audio"):
        choose(LABELS, "es", ["en_calm_0"])
