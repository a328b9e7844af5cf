"""Our engine in a process: `python -m bench.files_own --mode fast ...`, started by benchmarks.

The path of a job without its network: media decoding in its child, `engine.recording` over the service, and the
model in the engine's child. The search options are those of worker-faster_whisper's defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.files_corpus import MAX_FILE_S
from bench.files_wire import FileAnswer, FileTask, Transcribe, serve
from engine.clock import MonotonicClock
from engine.decode import MediaDecoder
from engine.owner import EngineOwner
from engine.recording import transcribe_recording
from engine.recording_types import RecordingOptions
from engine.service import EngineService
from engine.settings import load_settings
from engine.types import SearchOptions

__all__ = ["MODES", "main"]

MODES = ("fast", "accurate")
SEARCH = SearchOptions(length_penalty=0.0)
"""worker-faster_whisper's defaults: those of the library but for this one."""


class _Own:
    """The engine on an event loop that runs while there is something to do."""

    def __init__(self, args: argparse.Namespace, loop: asyncio.AbstractEventLoop) -> None:
        names = ("model", "device", "compute_type", "cpu_threads")
        settings = load_settings({name: getattr(args, name) for name in names}, env_file=None)
        self._options = RecordingOptions(
            mode=args.mode, search=SEARCH, condition_on_previous_text=not args.no_previous_text
        )
        self._loop = loop
        self._owner = EngineOwner(settings, MonotonicClock())
        self._service = EngineService(self._owner, MonotonicClock())
        self._decoder = MediaDecoder()

    def load(self) -> tuple[Transcribe, Mapping[str, Any]]:
        """Start, and wait for the model."""
        self._loop.run_until_complete(self._start())
        return self._transcribe, {"compute_type": self._service.info.compute_type}

    def stop(self) -> None:
        """End all processes."""
        self._decoder.close()
        self._loop.run_until_complete(self._stop())

    async def _start(self) -> None:
        self._owner.start()
        self._service.start()
        await self._owner.wait_ready()

    async def _stop(self) -> None:
        await self._service.stop()
        await self._owner.stop()

    def _transcribe(self, task: FileTask, on_progress: Callable[[float], None]) -> FileAnswer:
        recording = self._loop.run_until_complete(
            transcribe_recording(
                self._service,
                self._decoder,
                Path(task.path),
                replace(self._options, language=task.language),
                max_audio_s=MAX_FILE_S,
                on_progress=on_progress,
            )
        )
        segments = recording.segments["transcribe"]
        return FileAnswer(" ".join(each.text for each in segments), len(segments), recording.timings_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one mode."""
    parser = argparse.ArgumentParser(prog="python -m bench.files_own")
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--no-previous-text", action="store_true", help="in mode accurate, as faster-whisper's option")
    for name in ("--model", "--device", "--compute-type"):
        parser.add_argument(name, required=True)
    parser.add_argument("--cpu-threads", type=int, required=True)
    loop = asyncio.new_event_loop()
    own = _Own(parser.parse_args(argv), loop)
    try:
        serve(own.load)
    finally:
        own.stop()
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
