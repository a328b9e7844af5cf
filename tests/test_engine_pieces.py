from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from engine.pieces import MAX_PIECE_S, MIN_BYTES, cut, main, piece_frames
from engine.types import SAMPLE_RATE_HZ, FloatArray
from engine.vad import VAD_FRAME_SAMPLES

ROOT = Path(__file__).parent.parent
SPEECH = sorted((ROOT / "engine/demo_model/speech").glob("*.flac"))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(argv)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def noise(seconds: float, seed: int = 1) -> FloatArray:
    values = np.random.default_rng(seed).uniform(-1, 1, int(seconds * SAMPLE_RATE_HZ))
    return values.astype(np.float32)


def write(path: Path, samples: FloatArray, rate: int = SAMPLE_RATE_HZ) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def test_all_sound_is_in_the_pieces_once_and_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "noise.wav", noise(20.5))
    code, lines = run(capsys, str(source), "--folder", str(tmp_path / "out"), "--max-bytes", "150000")
    *pieces, last = lines
    assert code == 0
    assert last == {"duration_s": 20.5, "n_pieces": len(pieces), "warnings": []}
    assert len(pieces) > 4
    assert [each["start_s"] for each in pieces] == [0.0, *(each["end_s"] for each in pieces[:-1])]
    read = [soundfile.read(tmp_path / "out" / each["path"], dtype="int16")[0] for each in pieces]
    whole = soundfile.read(source, dtype="int16")[0]
    # One step of 16 bits: from PCM to float and back.
    assert np.abs(np.concatenate(read).astype(int) - whole).max() <= 1
    for each in pieces:
        # Noise is what FLAC cannot shrink.
        assert each["bytes"] == (tmp_path / "out" / each["path"]).stat().st_size <= 150_000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [each["path"] for each in pieces]


def test_the_same_file_gives_the_same_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.flac", noise(9))
    first = run(capsys, str(source), "--folder", str(tmp_path / "1"), "--max-bytes", str(MIN_BYTES))
    assert first == run(capsys, str(source), "--folder", str(tmp_path / "2"), "--max-bytes", str(MIN_BYTES))


def test_speech_is_cut_in_its_pauses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Sentences with pauses of 0.7 s: each cut lies in one of them.
    pause = np.zeros(int(0.7 * SAMPLE_RATE_HZ), dtype=np.float32)
    parts: list[FloatArray] = []
    pauses: list[tuple[float, float]] = []
    at = 0
    for path in SPEECH[:4]:
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == SAMPLE_RATE_HZ
        samples = samples[: 6 * SAMPLE_RATE_HZ]
        parts += [samples, pause]
        at += len(samples) + len(pause)
        pauses.append(((at - len(pause)) / SAMPLE_RATE_HZ, at / SAMPLE_RATE_HZ))
    source = write(tmp_path / "talk.wav", np.concatenate(parts))
    _, lines = run(capsys, str(source), "--folder", str(tmp_path / "out"), "--max-bytes", "320000")
    for each in lines[:-2]:
        edge = int(each["end_s"] * SAMPLE_RATE_HZ)
        around = np.concatenate(parts)[edge - 400 : edge + 400]
        assert np.sqrt(np.mean(around**2)) < 0.02, each
    assert len(lines) > 2


def test_probe_tells_how_long_it_is_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.ogg.wav", noise(2.25), 16_000)
    code, lines = run(capsys, str(source), "--probe")
    assert (code, len(lines)) == (0, 1)
    assert lines[0]["duration_s"] == 2.25
    assert lines[0]["warnings"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.ogg.wav"]


@pytest.mark.parametrize("content", [b"", b"this is no audio at all" * 10, bytes(2_000)])
def test_what_is_no_audio_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    source = tmp_path / "bad.mp3"
    source.write_bytes(content)
    code, lines = run(capsys, str(source), "--folder", str(tmp_path / "out"))
    assert code == 1
    assert [set(each) for each in lines] == [{"error", "code"}]
    assert lines[0]["code"] == "bad_audio"


def test_a_file_that_is_not_there_and_one_over_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = run(capsys, str(tmp_path / "no.wav"), "--probe")
    assert (code, lines[-1]["code"]) == (1, "bad_audio")
    source = write(tmp_path / "a.wav", noise(4))
    assert run(capsys, str(source), "--probe", "--max-seconds", "4")[0] == 0
    code, lines = run(capsys, str(source), "--probe", "--max-seconds", "2")
    assert (code, lines[-1]["code"]) == (1, "bad_audio")


def test_a_folder_that_cannot_be_made_is_the_machines_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.wav", noise(1))
    code, lines = run(capsys, str(source), "--folder", str(source / "out"))
    assert (code, lines[-1]["code"]) == (3, "no_space")


@pytest.mark.parametrize(
    "argv",
    [["--max-bytes", str(MIN_BYTES - 1)], ["--max-seconds", "0"], ["--max-seconds", "nan"], ["--max-bytes", "x"]],
)
def test_wrong_limits(tmp_path: Path, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["a.wav", "--folder", str(tmp_path), *argv])
    assert ended.value.code == 2


@pytest.mark.parametrize("argv", [[], ["a.wav"], ["a.wav", "b.wav", "--folder", "x"]])
def test_no_folder_and_too_many_files(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


def test_many_files_are_probed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    files = [write(tmp_path / "a.wav", noise(1)), bad, write(tmp_path / "b.wav", noise(2))]
    code, lines = run(capsys, "--probe", *map(str, files))
    assert code == 1
    assert [each.get("duration_s") for each in lines] == [1.0, None, 2.0]
    assert lines[1]["code"] == "bad_audio"


def test_music_is_cut_where_it_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    sound = np.concatenate([0.3 * np.sin(2 * np.pi * 440 * times), np.zeros(SAMPLE_RATE_HZ // 2)]).astype(np.float32)
    source = write(tmp_path / "tune.wav", np.tile(sound, 4))
    _, lines = run(capsys, str(source), "--folder", str(tmp_path / "out"), "--max-bytes", "200000")
    assert len(lines) == 5
    for number, each in enumerate(lines[:3]):
        assert 4.5 * number + 4.0 <= each["end_s"] <= 4.5 * number + 4.5


def test_how_long_pieces_may_be() -> None:
    most = int(MAX_PIECE_S * SAMPLE_RATE_HZ) // VAD_FRAME_SAMPLES
    assert piece_frames(1 << 30) == most
    assert piece_frames(MIN_BYTES) * VAD_FRAME_SAMPLES * 2 < MIN_BYTES
    assert 200 < piece_frames(7_400_000) * VAD_FRAME_SAMPLES / SAMPLE_RATE_HZ < 231


class Loud:
    def __init__(self) -> None:
        self.n_samples = 0

    def push(self, samples: FloatArray) -> list[float]:
        before, self.n_samples = self.n_samples // VAD_FRAME_SAMPLES, self.n_samples + len(samples)
        return [1.0] * (self.n_samples // VAD_FRAME_SAMPLES - before)


@pytest.mark.parametrize("n_samples", [1, 511, 512, 513, 5_120, 5_121, 40_000])
def test_any_length_comes_out_whole(n_samples: int) -> None:
    blocks = [np.full(n_samples, 0.5, dtype=np.float32)]
    found = list(cut(iter(blocks), 10, Loud))
    assert sum(len(samples) for _, samples in found) == n_samples
    assert all(stretch.n_samples <= 10 * VAD_FRAME_SAMPLES for stretch, _ in found)
    assert all(stretch.n_samples == len(samples) for stretch, samples in found)


def test_as_a_process(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", noise(1))
    command = [sys.executable, "-m", "engine.pieces", str(source), "--probe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["duration_s"] == 1.0
    assert done.stderr == ""
