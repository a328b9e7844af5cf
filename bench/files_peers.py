"""faster-whisper's own pipelines in a process: `python -m bench.files_peers --way NAME ...`, started by benchmarks.

The one import of faster_whisper in the benchmarks. `sequential` makes exactly the call that worker-faster_whisper
makes for a job with nothing but defaults; `alone` the same without the text before a window; `batched` the
library's batched pipeline with the same search. Knows nothing of our engine but how models are found.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from bench.files_wire import FileAnswer, FileTask, Transcribe, serve
from bench.worker_options import WORKER_OPTIONS
from engine.hub import HuggingFaceHub
from engine.models import resolve_model

__all__ = ["BATCH_SIZE", "WAYS", "main"]

WAYS = ("sequential", "alone", "batched")
BATCH_SIZE = 8
"""The library's own default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one way."""
    parser = argparse.ArgumentParser(prog="python -m bench.files_peers")
    parser.add_argument("--way", choices=WAYS, required=True)
    for name in ("--model", "--device", "--compute-type"):
        parser.add_argument(name, required=True)
    parser.add_argument("--cpu-threads", type=int, required=True)
    args = parser.parse_args(argv)
    serve(lambda: _load(args))
    return 0


def _load(args: argparse.Namespace) -> tuple[Transcribe, Mapping[str, Any]]:
    path = resolve_model(args.model, environ=os.environ, hub=HuggingFaceHub()).path
    model = WhisperModel(str(path), device=args.device, compute_type=args.compute_type, cpu_threads=args.cpu_threads)
    facts = {"faster-whisper": version("faster-whisper"), "compute_type": model.model.compute_type}
    return _way(model, args.way), facts


def _way(model: WhisperModel, name: str) -> Transcribe:
    options = dict(WORKER_OPTIONS)
    call: Callable[..., Any] = model.transcribe
    if name == "alone":
        options["condition_on_previous_text"] = False
    elif name == "batched":
        # This pipeline needs its voice detector, to cut, and ignores the text before a window.
        call = BatchedInferencePipeline(model).transcribe
        options |= {"batch_size": BATCH_SIZE, "vad_filter": True, "without_timestamps": True}

    def transcribe(task: FileTask, on_progress: Callable[[float], None]) -> FileAnswer:
        segments, _ = call(task.path, language=task.language, **options)
        texts = []
        for segment in segments:
            texts.append(segment.text)
            on_progress(segment.end)
        return FileAnswer(" ".join(texts), len(texts))

    return transcribe


if __name__ == "__main__":
    sys.exit(main())
