"""A backend with behaviour and no model: deterministic words, scripted delays, crashes, failures.

It "hears" one word per WORD_FRAMES mel frames of an encoded window: " w0", " w1", ... Token ids
are the numbers of the words, offset by FIRST_TOKEN, so any text can be told from its tokens.

Scripts count calls of all methods but `release`, from 1:

    backend.crash_at(3)            call 3 raises EngineRestartError, voids all handles, counts a restart
    backend.fail_at(3)             call 3 raises EngineFailedError; others are not concerned
    backend.script.append(...)     results of the next `decode` requests, in order, instead of words
    with backend.hold("decode"):   calls of that method wait until the block ends
    await backend.entered("decode")  until such a call has begun and waits

Handles of before a crash raise EngineRestartError, unknown ones EngineFailedError, as the real one's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from engine.errors import EngineFailedError, EngineRestartError
from engine.types import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    AlignRequest,
    DecodeRequest,
    DecodeResult,
    DetectResult,
    FileOptions,
    FileSegment,
    FloatArray,
    Handle,
    ModelInfo,
    Word,
)

__all__ = ["FAKE_INFO", "FILE_WINDOW_S", "FIRST_TOKEN", "WORD_FRAMES", "FakeBackend", "decoded"]

WORD_FRAMES = 50
"""A word every half second."""
FIRST_TOKEN = 1_000
FILE_WINDOW_S = 2.0
"""`next_segments` goes through a recording in windows of this length, one segment each."""
_GENERATION_BITS = 32

FAKE_INFO = ModelInfo(
    name="fake",
    n_mels=80,
    languages=("en", "es", "de"),
    device="cpu",
    compute_type="float32",
    pad_frames=0,
)


def decoded(
    n_words: int,
    *,
    avg_logprob: float = -0.1,
    no_speech_prob: float = 0.01,
    compression_ratio: float = 1.0,
) -> DecodeResult:
    """A result of `n_words` words " w0", " w1", ..."""
    return DecodeResult(
        tokens=tuple(FIRST_TOKEN + number for number in range(n_words)),
        text="".join(f" w{number}" for number in range(n_words)),
        avg_logprob=avg_logprob,
        no_speech_prob=no_speech_prob,
        compression_ratio=compression_ratio,
    )


class _File:
    def __init__(self, n_samples: int, options: FileOptions) -> None:
        self.n_samples = n_samples
        self.options = options
        self.position = 0


class FakeBackend:
    """`engine.service.SupervisedBackend` without a model."""

    def __init__(self, info: ModelInfo = FAKE_INFO, language_probs: DetectResult | None = None) -> None:
        self.info = info
        self.is_ready = True
        self.restarts = 0
        self.language_probs = language_probs or (("en", 0.6), ("de", 0.3), ("es", 0.1))
        self.calls: list[tuple[str, object]] = []
        self.script: deque[DecodeResult] = deque()
        self.open_files: dict[Handle, _File] = {}
        self._windows: dict[Handle, int] = {}
        self._counter = 0
        self._crashes: set[int] = set()
        self._failures: set[int] = set()
        self._gates: dict[str, asyncio.Event] = {}
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    # Scripts

    def crash_at(self, *numbers: int) -> None:
        """Let the child die under these calls."""
        self._crashes.update(numbers)

    def fail_at(self, *numbers: int) -> None:
        """Let these calls fail alone."""
        self._failures.update(numbers)

    @contextlib.contextmanager
    def hold(self, method: str) -> Iterator[None]:
        """Let calls of a method wait until the block ends."""
        gate = self._gates[method] = asyncio.Event()
        self._arrivals[method].clear()
        try:
            yield
        finally:
            del self._gates[method]
            gate.set()

    async def entered(self, method: str) -> None:
        """Wait until a held call of the method has begun."""
        await self._arrivals[method].wait()

    def crash(self) -> None:
        """Let the child die between two calls: all handles are void."""
        self.restarts += 1
        self._counter = 0
        self._windows.clear()
        self.open_files.clear()

    # What tests look at

    @property
    def held(self) -> int:
        """Encoder outputs and recordings not released."""
        return len(self._windows) + len(self.open_files)

    def methods(self) -> list[str]:
        """Names of the calls so far, in order, without `release`."""
        return [method for method, _ in self.calls]

    def requests(self, method: str) -> list[object]:
        """Arguments of all calls of a method."""
        return [argument for name, argument in self.calls if name == method]

    # The backend

    async def _enter(self, method: str, argument: object, handles: Sequence[Handle] = ()) -> None:
        self.calls.append((method, argument))
        number = len(self.calls)
        restarts = self.restarts
        gate = self._gates.get(method)
        if gate is not None:
            self._arrivals[method].set()
            await gate.wait()
        if number in self._crashes:
            self.crash()
        if self.restarts != restarts or any(handle >> _GENERATION_BITS != self.restarts for handle in handles):
            raise EngineRestartError("the engine process is gone (fake)")
        if number in self._failures:
            raise EngineFailedError("the call failed (fake)")
        for handle in handles:
            if handle not in self._windows and handle not in self.open_files:
                raise EngineFailedError("unknown handle (fake)")

    def _new_handle(self) -> Handle:
        self._counter += 1
        return (self.restarts << _GENERATION_BITS) + self._counter

    async def encode(self, mels: Sequence[FloatArray]) -> list[Handle]:
        """Remember how many frames each window has."""
        await self._enter("encode", [mel.shape for mel in mels])
        handles = [self._new_handle() for _ in mels]
        self._windows.update({handle: mel.shape[1] for handle, mel in zip(handles, mels, strict=True)})
        return handles

    async def decode(self, requests: Sequence[DecodeRequest]) -> list[DecodeResult]:
        """Scripted results first, then a word per WORD_FRAMES."""
        await self._enter("decode", list(requests), [request.handle for request in requests])
        return [
            self.script.popleft() if self.script else decoded(self._windows[request.handle] // WORD_FRAMES)
            for request in requests
        ]

    async def align(self, requests: Sequence[AlignRequest]) -> list[tuple[Word, ...]]:
        """Spread the words evenly."""
        await self._enter("align", list(requests), [request.handle for request in requests])
        return [_spread(request.tokens, request.n_frames / FRAMES_PER_SECOND) for request in requests]

    async def detect(self, handles: Sequence[Handle]) -> list[DetectResult]:
        """The probabilities this fake was made with."""
        await self._enter("detect", list(handles), handles)
        return [self.language_probs for _ in handles]

    async def release(self, handles: Sequence[Handle]) -> None:
        """Forget; not counted as a call."""
        if any(handle >> _GENERATION_BITS != self.restarts for handle in handles):
            raise EngineRestartError("the engine process is gone (fake)")
        for handle in handles:
            self._windows.pop(handle, None)
            self.open_files.pop(handle, None)

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Begin a recording."""
        await self._enter("open_file", options)
        handle = self._new_handle()
        self.open_files[handle] = _File(len(samples), options)
        return handle

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """One segment per FILE_WINDOW_S, " s0", " s1", ...; None behind the last."""
        await self._enter("next_segments", handle, [handle])
        file = self.open_files[handle]
        start_s, length_s = file.position * FILE_WINDOW_S, file.n_samples / SAMPLE_RATE_HZ
        if start_s >= length_s:
            return None
        end_s = min(start_s + FILE_WINDOW_S, length_s)
        text = f" s{file.position}"
        file.position += 1
        words = (Word(text, start_s, end_s, 0.9),) if file.options.word_timestamps else ()
        return [FileSegment(start_s, end_s, text, file.options.language or "en", words)]


def _spread(tokens: Sequence[int], length_s: float) -> tuple[Word, ...]:
    step_s = length_s / max(1, len(tokens))
    return tuple(
        Word(f" w{token - FIRST_TOKEN}", index * step_s, (index + 1) * step_s, 0.9, (token,))
        for index, token in enumerate(tokens)
    )
