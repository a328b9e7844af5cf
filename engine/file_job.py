"""A whole recording on its way through the backend, step by step, across restarts of the child.

Knows the backend's calls and nothing of queues or clocks. Invariants: every segment is handed
out once, in order; after a restart decoding goes on behind the last segment that was handed out.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from engine.errors import EngineFailedError, EngineRestartError
from engine.types import SAMPLE_RATE_HZ, Backend, FileOptions, FileSegment, FloatArray, Handle, Word

__all__ = ["MAX_DEATHS", "FileJob"]

MAX_DEATHS = 2
"""A job under which the engine process dies this often is taken for the cause."""


class FileJob:
    """One recording, float32 mono 16 kHz."""

    def __init__(self, backend: Backend, samples: FloatArray, options: FileOptions) -> None:
        self._backend = backend
        self._samples = samples
        self._options = options
        self._handle: Handle | None = None
        self._opened_at = 0
        self._resume_at = 0
        self._deaths = 0
        self._is_closed = False

    async def step(self) -> list[FileSegment] | None:
        """Make one call; returns the segments it brought, None after the last.

        Raises EngineFailedError if the recording cannot be decoded.
        """
        try:
            return await self._step()
        except EngineRestartError:
            self._handle = None
            self._deaths += 1
            if self._deaths >= MAX_DEATHS:
                place_s = self._resume_at / SAMPLE_RATE_HZ
                raise EngineFailedError(
                    f"the engine died {MAX_DEATHS} times over the recording at {place_s:.1f} s"
                ) from None
            return []

    async def _step(self) -> list[FileSegment] | None:
        if self._handle is None:
            if self._resume_at >= len(self._samples):
                return None
            self._opened_at = self._resume_at
            self._handle = await self._backend.open_file(self._samples[self._opened_at :], self._options)
            if self._is_closed:
                await self.close()  # whoever wanted it has left meanwhile
            return []
        segments = await self._backend.next_segments(self._handle)
        if not segments:
            return segments
        placed = [_shifted(segment, self._opened_at / SAMPLE_RATE_HZ) for segment in segments]
        self._deaths = 0
        self._resume_at = max(self._resume_at, int(placed[-1].end_s * SAMPLE_RATE_HZ))
        # A later part of the recording must not be detected as another language.
        self._options = replace(self._options, language=placed[-1].language)
        return placed

    async def close(self) -> None:
        """Let the child forget the recording."""
        self._is_closed = True
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(EngineRestartError, EngineFailedError):
                await self._backend.release([handle])


def _shifted(segment: FileSegment, by_s: float) -> FileSegment:
    words = tuple(_shifted_word(word, by_s) for word in segment.words)
    return replace(segment, start_s=segment.start_s + by_s, end_s=segment.end_s + by_s, words=words)


def _shifted_word(word: Word, by_s: float) -> Word:
    return replace(word, start_s=word.start_s + by_s, end_s=word.end_s + by_s)
