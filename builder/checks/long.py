"""`test long`: hours of speech over one address; what was lost, how far the text fell behind, what broke.

The rules are pure; `check_long` runs the client, and where a stream breaks goes on with the rest of the recording.
"""

from __future__ import annotations

import statistics
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.checks.checks import Check
from builder.checks.listen import EXIT_USAGE, Arrival, LiveResult, Piece, listen, samples
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.checks.targets import Target
    from builder.runtime import Runtime

__all__ = ["Gap", "LongRun", "check_long", "coverage", "drift_s", "gaps", "judge", "repeated_speech"]

GAP_S = 5.0
"""Longest time without text that a recording of speech explains."""
MAX_DRIFT_S = 10.0
"""The text comes this much later at the end than at the beginning: the server does not keep up."""
MAX_RECONNECTS = 20
EXTRA_S = 120.0
"""For the last words, on top of the length of the recording."""
BROKEN = 1
"""The client's exit code for a stream that broke off."""


@dataclass(frozen=True)
class Gap:
    """Seconds of the recording in which there is no text."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class LongRun:
    """All streams of one run together; times of `pieces` and `arrivals` count from the start of the recording."""

    audio_s: float
    speed: float
    pieces: tuple[Piece, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    reconnects: tuple[float, ...] = ()
    """Where in the recording, in seconds, a stream was taken up again."""
    complaint: str = ""
    """Why it was given up; empty if all was transcribed."""

    @property
    def text(self) -> str:
        """The transcript."""
        return " ".join(piece.text.strip() for piece in self.pieces)


def gaps(pieces: Sequence[Piece], audio_s: float, longest_s: float = GAP_S) -> list[Gap]:
    """Stretches longer than `longest_s` without text; before the first and after the last piece, too."""
    ends = [0.0, *(piece.end_s for piece in pieces)]
    starts = [*(piece.start_s for piece in pieces), audio_s]
    found = (Gap(end_s, start_s) for end_s, start_s in zip(ends, starts, strict=True))
    return [gap for gap in found if gap.length_s > longest_s]


def coverage(pieces: Sequence[Piece], audio_s: float) -> float:
    """The share, 0 to 1, of the recording that lies in no gap."""
    lost_s = sum(gap.length_s for gap in gaps(pieces, audio_s))
    return max(0.0, 1.0 - lost_s / audio_s) if audio_s > 0 else 0.0


def drift_s(arrivals: Sequence[Arrival], speed: float) -> float | None:
    """How many seconds later than at the beginning the text comes at the end; None: too little to tell.

    A text that ends at `end_s` could come `end_s / speed` after the start; the medians of the delays in the first
    and in the last quarter are compared.
    """
    if len(arrivals) < 8:
        return None
    delays_s = [arrival.at_s - arrival.end_s / speed for arrival in arrivals]
    quarter = len(delays_s) // 4
    return statistics.median(delays_s[-quarter:]) - statistics.median(delays_s[:quarter])


def judge(done: LongRun, min_coverage: float) -> tuple[list[Check], dict[str, Any]]:
    """The checks, and the figures behind them."""
    found, share, drift = gaps(done.pieces, done.audio_s), coverage(done.pieces, done.audio_s), None
    if not done.reconnects:
        drift = drift_s(done.arrivals, done.speed)
    behind = "too little text to tell" if drift is None else f"{drift:+.1f} s from the first to the last quarter"
    longest = max(found, key=lambda gap: gap.length_s, default=None)
    where = "" if longest is None else f", the longest {longest.length_s:.0f} s at {longest.start_s:.0f} s"
    covered = f"{share:.1%} of {done.audio_s:.0f} s (at least {min_coverage:.0%}); {len(found)} gaps{where}"
    checks = [
        Check("to the end", not done.complaint, done.complaint or f"{len(done.text.split())} words"),
        Check("coverage", share >= min_coverage, covered),
        Check("keeps up", drift is None or drift <= MAX_DRIFT_S, behind),
    ]
    figures = {
        "audio_s": round(done.audio_s, 1),
        "speed": done.speed,
        "coverage": round(share, 4),
        "drift_s": None if drift is None else round(drift, 2),
        "gaps": [{"start_s": round(gap.start_s, 1), "end_s": round(gap.end_s, 1)} for gap in found],
        "reconnects": [round(at_s, 1) for at_s in done.reconnects],
    }
    return checks, figures


def repeated_speech(path: Path, minutes: float) -> None:
    """Write the shipped English recordings, one after the other and again, as a WAV file of `minutes`.

    Raises UsageError if they are not there.
    """
    frames, parameters = [], None
    for source, _ in samples():
        with wave.open(str(source), "rb") as reader:
            parameters = reader.getparams()
            frames.append(reader.readframes(reader.getnframes()))
    if parameters is None:
        raise UsageError("there are no shipped recordings", hint="give --audio FILE")
    round_of_all = b"".join(frames)
    frame_bytes = parameters.sampwidth * parameters.nchannels
    left_bytes = int(minutes * 60 * parameters.framerate) * frame_bytes
    with wave.open(str(path), "wb") as writer:
        writer.setparams(parameters)
        while left_bytes > 0:
            writer.writeframesraw(round_of_all[:left_bytes])
            left_bytes -= len(round_of_all)


def check_long(run: Runtime, target: Target, audio: Path, *, speed: float, language: str | None = None) -> LongRun:
    """Stream it all; a WAV file is taken up again where a stream breaks, up to MAX_RECONNECTS times.

    Raises UsageError for a file that is no audio.
    """
    length_s = _wav_length_s(audio)
    done = LongRun(audio_s=length_s or 0.0, speed=speed)
    offset_s, part = 0.0, audio
    with tempfile.TemporaryDirectory(prefix="whisper-long-") as folder:
        while True:
            timeout_s = EXTRA_S + (length_s - offset_s if length_s is not None else 86_400.0) / speed
            heard = listen(
                run, target.ws_url, part, token=target.token, speed=speed, timeout_s=timeout_s, language=language
            )
            if heard.code == EXIT_USAGE:
                raise UsageError(heard.complaint)
            done = _joined(done, heard, offset_s)
            if heard.code == 0 or length_s is None or not _may_go_on(heard, done):
                return replace(done, complaint=heard.complaint)
            # Where the text ends; at least a little further, or a stream that dies at once would be repeated forever.
            offset_s = max(done.pieces[-1].end_s if done.pieces else 0.0, offset_s + 1.0)
            run.console.note(f"{heard.complaint}; going on at {offset_s:.0f} s")
            done = replace(done, reconnects=(*done.reconnects, offset_s))
            part = Path(folder) / "rest.wav"
            _write_rest(audio, part, offset_s)


def _may_go_on(heard: LiveResult, done: LongRun) -> bool:
    return heard.code == BROKEN and heard.audio_s > 0 and len(done.reconnects) < MAX_RECONNECTS


def _joined(done: LongRun, heard: LiveResult, offset_s: float) -> LongRun:
    pieces = tuple(Piece(piece.start_s + offset_s, piece.end_s + offset_s, piece.text) for piece in heard.pieces)
    arrivals = tuple(Arrival(each.at_s, each.end_s + offset_s) for each in heard.arrivals)
    audio_s = done.audio_s or heard.audio_s
    return replace(done, audio_s=audio_s, pieces=done.pieces + pieces, arrivals=done.arrivals + arrivals)


def _wav_length_s(path: Path) -> float | None:
    """Length of a WAV file; None for other formats, which only the client can read."""
    try:
        with wave.open(str(path), "rb") as reader:
            return reader.getnframes() / reader.getframerate()
    except (wave.Error, EOFError, OSError, ZeroDivisionError):
        return None


def _write_rest(audio: Path, part: Path, offset_s: float) -> None:
    with wave.open(str(audio), "rb") as reader, wave.open(str(part), "wb") as writer:
        writer.setparams(reader.getparams())
        reader.setpos(min(reader.getnframes(), int(offset_s * reader.getframerate())))
        while frames := reader.readframes(1 << 16):
            writer.writeframesraw(frames)
