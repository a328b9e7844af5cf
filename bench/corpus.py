"""The recordings of a load test, loaded before the clock runs.

Reads label files and media; knows no socket. Invariants: durations are those of the decoded samples; each
language has, where its recordings allow it, one stretch of speech of at least NONSTOP_S without a pause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.audio import SharedAudio
from bench.nopause import without_pauses
from bench.playlist import Pool
from engine.decode import MediaDecoder
from engine.errors import BadInputError
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.latency import Recording, load_labels

__all__ = ["BOTH", "LABELS", "NONSTOP_S", "Corpus", "choose", "load_corpus"]

LABELS = Path(__file__).parent.parent / "engine" / "demo_model" / "speech" / "speech.json"
NONSTOP_S = 20.0
"""Longer than the windows of any server that waits for a pause, but for those of the full 30 s."""
BOTH = "both"
"""As a language: all that the labels have."""


@dataclass(frozen=True)
class Corpus:
    """Recordings by language, and the sound of all of them (float32 [n], 16 kHz)."""

    pools: Mapping[str, Pool]
    audio: Mapping[Recording, FloatArray]
    shared: SharedAudio


def choose(labels: Path, language: str = BOTH, names: Sequence[str] = ()) -> tuple[Recording, ...]:
    """The labelled recordings in a language, or those of the given names.

    Raises BadInputError if the labels cannot be read or have no such language or name.
    """
    labelled = [item for item in load_labels(labels) if language in (BOTH, item.language)]
    if not labelled:
        raise BadInputError("--language", language, f"{BOTH}, or a language that the labels have")
    known = {item.path.stem for item in labelled} | {item.path.name for item in labelled}
    for name in names:
        if name not in known:
            raise BadInputError("--audio", name, ", ".join(item.path.stem for item in labelled))
    return tuple(item for item in labelled if not names or item.path.stem in names or item.path.name in names)


async def load_corpus(labels: Path = LABELS, language: str = BOTH, names: Sequence[str] = ()) -> Corpus:
    """Decode all audio. Raises BadInputError."""
    audio: dict[Recording, FloatArray] = {}
    with MediaDecoder() as decoder:
        for recording in choose(labels, language, names):
            samples = (await decoder.decode_async(recording.path)).samples
            audio[replace(recording, duration_s=samples.size / SAMPLE_RATE_HZ)] = samples
    pools = {}
    for code in sorted({recording.language for recording in audio}):
        recordings = tuple(recording for recording in audio if recording.language == code)
        nonstop = _nonstop({recording: audio[recording] for recording in recordings})
        pools[code] = Pool(recordings, nonstop[0] if nonstop else None)
        if nonstop:
            audio[nonstop[0]] = nonstop[1]
    return Corpus(pools, audio, SharedAudio(audio))


def _nonstop(audio: Mapping[Recording, FloatArray]) -> tuple[Recording, FloatArray] | None:
    """The shortest recording that is long enough without its pauses."""
    for recording in sorted(audio, key=lambda item: item.duration_s):
        made, samples = without_pauses(recording, audio[recording])
        if made.duration_s >= NONSTOP_S:
            return made, samples
    return None
