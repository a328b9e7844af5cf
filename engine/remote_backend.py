"""The backend's calls as messages: what goes out, which handles it names, what comes back.

Knows the types of `engine.types.Backend` and nothing of processes, pipes or deadlines; a subclass
carries the messages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from engine.types import BatchResult, FileOptions, FileSegment, FloatArray, Handle, WindowJob

__all__ = ["RemoteBackend"]


class RemoteBackend(ABC):
    """`engine.types.Backend` over a carrier of messages."""

    @abstractmethod
    async def call(self, method: str, argument: object, handles: Sequence[Handle] = ()) -> Any:
        """Carry one call to the model's process and bring back its result.

        `handles` are those that the argument names. Raises EngineRestartError if the process that
        gave them is gone, or goes before it has answered; EngineFailedError if the call failed, or its
        subclass EngineMemoryError if it did not fit.
        """

    async def transcribe(self, jobs: Sequence[WindowJob]) -> BatchResult:
        """As `engine.types.Backend`; waits while a child is loading."""
        result: BatchResult = await self.call("transcribe", list(jobs))
        return result

    async def release(self, handles: Sequence[Handle]) -> None:
        """As `engine.types.Backend`; raises EngineRestartError for handles of a dead child, which are void."""
        await self.call("release", list(handles), handles)

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """As `engine.types.Backend`; waits while a child is loading."""
        handle: Handle = await self.call("open_file", (samples, options))
        return handle

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """As `engine.types.Backend`; makes at most one model call, and may return an empty list."""
        segments: list[FileSegment] | None = await self.call("next_segments", handle, [handle])
        return segments
