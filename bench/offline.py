"""What the same model makes of the same recordings offline: the yardstick of live text.

`python -m bench.offline` transcribes the shipped recordings with faster-whisper's own pipeline (beam 5, no
streaming) and writes the texts to a file, from which runs read them. Knows the engine as the server uses
it. Invariant: a text counts only for exactly the sound and, for the demo model, exactly the weights that it was
made from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.corpus import LABELS, Corpus, load_corpus
from bench.expect import OfflineWords, judge
from engine.clock import MonotonicClock
from engine.errors import BadInputError, SttError
from engine.owner import EngineOwner
from engine.service import EngineService
from engine.settings import load_settings
from engine.types import FileOptions, FloatArray
from realtime.client.errors import exit_code
from realtime.client.latency import Recording

__all__ = ["CACHE", "judge_all", "main", "read_cache", "transcribe"]

CACHE = Path(__file__).parent / "results" / "offline-demo.json"
WEIGHTS = Path(__file__).parent.parent / "engine" / "demo_model" / "model" / "model.bin"
DEMO = "demo"


def judge_all(texts: Mapping[Recording, str]) -> dict[str, OfflineWords]:
    """Judgements of the recordings that have a text, by stem."""
    return {recording.path.stem: judge(recording, text) for recording, text in texts.items()}


def read_cache(path: Path, audio: Mapping[Recording, FloatArray]) -> dict[Recording, str]:
    """The texts that a file has of these recordings; none if it was made with other weights.

    Raises BadInputError if it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["model"] == DEMO and document["weights_crc32"] != _weights_crc32():
            return {}
        texts = document["transcripts"]
        return {
            recording: texts[recording.path.stem]["text"]
            for recording, samples in audio.items()
            if recording.path.stem in texts and texts[recording.path.stem]["audio_crc32"] == _crc32(samples)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError("offline", str(path), f"a readable file of transcripts ({type(error).__name__})") from None


async def transcribe(audio: Mapping[Recording, FloatArray], model: str = DEMO) -> dict[Recording, str]:
    """The offline text of each recording. Raises SttError if the engine cannot."""
    clock = MonotonicClock()
    owner = EngineOwner(load_settings({"model": model}, env_file=None), clock)
    service = EngineService(owner, clock)
    owner.start()
    service.start()
    try:
        await owner.wait_ready()
        texts = {}
        for recording, samples in audio.items():
            segments = service.transcribe_file(samples, FileOptions(language=recording.language))
            texts[recording] = "".join([segment.text async for segment in segments]).strip()
        return texts
    finally:
        await service.stop()
        await owner.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Transcribe and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.offline", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=DEMO, help="as the server's WHISPER_MODEL (default %(default)s)")
    parser.add_argument("--labels", type=Path, default=LABELS, metavar="FILE", help="recordings (default: shipped)")
    parser.add_argument("--output", type=Path, default=CACHE, metavar="FILE", help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        corpus = asyncio.run(load_corpus(args.labels))
        texts = asyncio.run(transcribe(corpus.audio, args.model))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    args.output.write_text(json.dumps(_document(args.model, corpus, texts), indent=1, ensure_ascii=False) + "\n")
    for stem, words in judge_all(texts).items():
        print(f"{stem:24} {sum(words.errors):3} errors in {len(words.heard)} words")
    return 0


def _document(model: str, corpus: Corpus, texts: Mapping[Recording, str]) -> dict[str, object]:
    return {
        "model": model,
        "weights_crc32": _weights_crc32() if model == DEMO else None,
        "transcripts": {
            recording.path.stem: {"audio_crc32": _crc32(samples), "text": texts[recording]}
            for recording, samples in corpus.audio.items()
        },
    }


def _crc32(samples: FloatArray) -> int:
    return zlib.crc32(samples.tobytes())


def _weights_crc32() -> int:
    return zlib.crc32(WEIGHTS.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
