"""Cuts a recording at silence into files small enough to be sent: `python -m engine.pieces FILE --folder DIR`.

For programs that must not decode what strangers sent within their own process: the file goes through the capped
decoder children (`engine.decode`), block by block, and pieces are cut in pauses by voice activity (`engine.vad`,
`engine.recording_cut`). Prints JSON lines: for each piece {path, start_s, end_s, bytes}, `path` within the folder, and
at last {duration_s, n_pieces, warnings}; with `--probe`, for each FILE, {duration_s, container, codec, warnings} alone.
What fails prints {error, code}.

Exit codes: 0 done, 1 the file is at fault, 2 wrong usage, 3 this machine is (no room, no decoder).

Pieces are FLAC, 16 bits, 16 kHz, mono: exactly what the model hears, so that no word changes by the way it was sent,
in about half the bytes of PCM. Opus would be a tenth of that, and costs words. A piece is so short that it would fit
as plain PCM too: no sound makes it too large. Invariants: every sample is in exactly one piece, in order; the same file
and limits give the same pieces; memory does not depend on how long the recording is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from engine.decode import BlockStream, DecodeLimits, MediaDecoder
from engine.decode_wire import LONGEST_S
from engine.errors import BadAudioError, StorageError, SttError
from engine.recording_cut import Cutter, Stretch
from engine.types import SAMPLE_RATE_HZ, FloatArray
from engine.vad import VAD_FRAME_SAMPLES, SileroDetector, SpeechDetector

__all__ = ["MAX_PIECE_S", "MIN_BYTES", "Piece", "cut", "main", "piece_frames"]

MAX_PIECE_S = 600.0
"""Longest piece, however many bytes it may have: several workers can share a recording."""
MIN_BYTES = 100_000
"""Smallest limit of a piece: about 3 s as PCM."""
MAX_BYTES = 1 << 30
HEADER_BYTES = 16_384
"""More than FLAC's header and libsndfile's padding take (8.3 KB)."""
FRAME_SHARE = 0.02
"""More than FLAC adds to sound that it cannot shrink (0.4 %)."""
MAX_INPUT_BYTES = 64 << 30
"""A day of film."""
NO_PAUSE = 0.31
"""Just above what `engine.recording_cut` takes for a pause: without one, it still cuts where speech is least likely."""
LOUD_SHARE = 0.3
"""Of the loudest frame of late (-10 dB): noise behind a speaker is further down."""
QUIETEST_LOUD = 0.003
"""-50 dBFS: below that nothing is loud."""
FADING = 0.5 ** (VAD_FRAME_SAMPLES / SAMPLE_RATE_HZ / 30.0)
"""The loudest frame is forgotten by half in 30 s."""
_PCM_BYTES = 2
_PCM_PEAK = 32_767.0
_FAULT_OF_FILE, _FAULT_OF_MACHINE = 1, 3

Found = tuple[Stretch, FloatArray]


@dataclass(frozen=True)
class Piece:
    """A file that was written: its name in the folder, its place in the recording, its size."""

    path: str
    start_s: float
    end_s: float
    n_bytes: int

    def document(self) -> dict[str, Any]:
        """As it is printed."""
        return {"path": self.path, "start_s": self.start_s, "end_s": self.end_s, "bytes": self.n_bytes}


def piece_frames(max_bytes: int) -> int:
    """How many frames of the detector a piece of `max_bytes` may hold, whatever its sound."""
    samples = int((max_bytes - HEADER_BYTES) * (1 - FRAME_SHARE)) // _PCM_BYTES
    return max(1, min(samples, int(MAX_PIECE_S * SAMPLE_RATE_HZ)) // VAD_FRAME_SAMPLES)


def cut(
    blocks: Iterator[FloatArray], max_frames: int, make_detector: Callable[[], SpeechDetector] = SileroDetector
) -> Iterator[Found]:
    """Stretches of at most `max_frames` frames with their samples, cut in pauses where there are any."""
    detector, cutter, level = make_detector(), Cutter(max_frames), _Level()
    pending: FloatArray = np.zeros(0, dtype=np.float32)
    at = 0
    for block in blocks:
        probabilities = detector.push(block)
        pending = np.concatenate([pending, block])
        n_whole = len(probabilities) * VAD_FRAME_SAMPLES
        if n_whole:
            cutter.add(at, pending[:n_whole], level.raised(pending[:n_whole], probabilities))
            at, pending = at + n_whole, pending[n_whole:]
        yield from iter(cutter.take, None)
    if len(pending):
        missing = np.zeros(VAD_FRAME_SAMPLES - len(pending), dtype=np.float32)
        cutter.add(at, pending, detector.push(missing))
        yield from iter(cutter.take, None)
    last = cutter.flush()
    if last is not None:
        yield last


class _Level:
    """Tells loud frames from pauses: the detector knows speech, and takes song and shouts for silence at times."""

    def __init__(self) -> None:
        self._peak = 0.0

    def raised(self, samples: FloatArray, probabilities: Sequence[float]) -> list[float]:
        """The probabilities of whole frames, those of loud ones too high for a pause."""
        levels = np.sqrt(np.mean(samples.reshape(-1, VAD_FRAME_SAMPLES) ** 2, axis=1)).tolist()
        raised = []
        for probability, level in zip(probabilities, levels, strict=True):
            self._peak = max(level, self._peak * FADING)
            is_loud = level > max(QUIETEST_LOUD, LOUD_SHARE * self._peak)
            raised.append(max(probability, NO_PAUSE) if is_loud else probability)
        return raised


def write_piece(folder: Path, number: int, found: Found, max_bytes: int) -> Piece:
    """Write one file in one step. Raises StorageError if there is no room."""
    stretch, samples = found
    name = f"{number:04d}.flac"
    temporary = folder / f".{name}.{os.getpid()}"
    pcm = np.rint(np.clip(samples, -1.0, 1.0) * _PCM_PEAK).astype(np.int16)
    try:
        with soundfile.SoundFile(
            temporary, "w", samplerate=SAMPLE_RATE_HZ, channels=1, format="FLAC", subtype="PCM_16"
        ) as file:
            file.write(pcm)
        n_bytes = temporary.stat().st_size
        temporary.replace(folder / name)
    except (OSError, soundfile.SoundFileError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"the piece {name} cannot be written: {error}") from None
    if n_bytes > max_bytes:
        raise StorageError(f"the piece {name} has {n_bytes} bytes; the limit is {max_bytes}")
    return Piece(name, round(stretch.start_s, 3), round(stretch.end_s, 3), n_bytes)


def _split(blocks: BlockStream, folder: Path, max_bytes: int) -> None:
    number = 0
    for number, found in enumerate(cut(iter(blocks), piece_frames(max_bytes)), start=1):
        _print(write_piece(folder, number, found, max_bytes).document())
    summary = blocks.summary
    if summary is None or number == 0:
        raise BadAudioError("there is no sound in the file")
    _print({"duration_s": round(summary.duration_s, 3), "n_pieces": number, "warnings": list(summary.warnings)})


def _probe_all(decoder: MediaDecoder, files: Sequence[Path]) -> int:
    """A line for each file, in their order."""
    code = 0
    for file in files:
        try:
            with decoder.iter_blocks(file) as blocks:
                _probe(blocks)
        except BadAudioError as error:
            _print({"error": str(error), "code": error.code})
            code = _FAULT_OF_FILE
    return code


def _probe(blocks: BlockStream) -> None:
    n_samples = sum(len(block) for block in blocks)
    summary = blocks.summary
    if summary is None or not n_samples:
        raise BadAudioError("there is no sound in the file")
    facts = {"container": summary.container, "codec": summary.codec, "warnings": list(summary.warnings)}
    _print({"duration_s": round(n_samples / SAMPLE_RATE_HZ, 3), **facts})


def _print(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pieces", description="Cut a recording at silence into FLAC files of a limited size."
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="any recording; several with --probe")
    parser.add_argument("--folder", type=Path, help="where pieces are written; made if it is not there")
    parser.add_argument("--max-bytes", type=int, default=7_000_000, help="most bytes of a piece (default: %(default)s)")
    parser.add_argument("--max-seconds", type=float, default=LONGEST_S, help="longest recording (default: a day)")
    parser.add_argument("--probe", action="store_true", help="tell how long it is, write nothing")
    return parser


def _checked(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.probe and (options.folder is None or len(options.files) != 1):
        parser.error("--folder and one FILE are needed")
    if not MIN_BYTES <= options.max_bytes <= MAX_BYTES:
        parser.error(f"--max-bytes: {options.max_bytes} is not allowed; legal: {MIN_BYTES} to {MAX_BYTES}")
    if not 0 < options.max_seconds <= LONGEST_S:
        parser.error(f"--max-seconds: {options.max_seconds:g} is not allowed; legal: more than 0, to {LONGEST_S:g}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Probe or cut one file; returns the exit code."""
    options = _checked(argv)
    limits = DecodeLimits(max_duration_s=options.max_seconds, max_input_bytes=MAX_INPUT_BYTES)
    try:
        if options.folder is not None:
            options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with MediaDecoder(limits) as decoder:
            if options.probe:
                return _probe_all(decoder, options.files)
            with decoder.iter_blocks(options.files[0]) as blocks:
                _split(blocks, options.folder, options.max_bytes)
    except BrokenPipeError:
        # Whoever asked is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAULT_OF_MACHINE
    except SttError as error:
        _print({"error": str(error), "code": error.code})
        return _FAULT_OF_FILE if isinstance(error, BadAudioError) else _FAULT_OF_MACHINE
    except OSError as error:
        _print({"error": f"{options.folder}: {error.strerror}", "code": StorageError.code})
        return _FAULT_OF_MACHINE
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
