"""faster-whisper's own pipeline on one recording, one model call at a time.

Its generator does as much as it likes between two segments: an hour of silence is one `next()`.
So it runs on a thread of its own, and the model it is given (`GatedModel`) lets it through to
one call per `step`. Live windows are decoded between the steps; mel and voice detection of a
long file, which are no model calls, hold up nobody.

Imports no model library: the model comes from `engine.whisper`. Runs in the engine child only.
Invariants: at most one model call per `step`; after `close` the thread makes no further call and
ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from engine.errors import EngineFailedError
from engine.prompts import MAX_HINT_CHARS, MAX_HINT_TOKENS
from engine.types import SAMPLE_RATE_HZ, FileOptions, FileSegment, FloatArray, Word

__all__ = ["MAX_IDLE_WAITS", "STEP_WAIT_S", "FileRun", "GatedModel", "transcribe_samples"]

STEP_WAIT_S = 0.05
"""How long a step waits for work that is no model call; live windows wait no longer than this."""
MAX_IDLE_WAITS = 12_000
"""Such waits in a row before a recording is given up: 10 minutes, when 2 hours take one."""
MIN_FILE_SAMPLES = SAMPLE_RATE_HZ // 10
"""Shorter recordings hold no word, and the pipeline's spectrogram needs 25 ms."""


def transcribe_samples(whisper: Any, samples: FloatArray, options: FileOptions) -> Iterator[FileSegment]:
    """Run a faster-whisper model over float32 mono 16 kHz samples."""
    if len(samples) < MIN_FILE_SAMPLES:
        return
    search, tokenizer = options.search, whisper.hf_tokenizer
    segments, info = whisper.transcribe(
        samples,
        language=options.language,
        task=options.task,
        beam_size=search.beam_size,
        best_of=search.best_of,
        patience=search.patience,
        length_penalty=search.length_penalty,
        temperature=list(search.temperatures),
        compression_ratio_threshold=search.compression_ratio_threshold,
        log_prob_threshold=search.logprob_threshold,
        no_speech_threshold=search.no_speech_threshold,
        suppress_tokens=list(search.suppress_tokens),
        condition_on_previous_text=options.condition_on_previous_text,
        initial_prompt=_plain(options.prompt[-MAX_HINT_CHARS:]) or None,
        hotwords=_head(_plain(options.hotwords[:MAX_HINT_CHARS]), tokenizer) or None,
        word_timestamps=options.word_timestamps,
        vad_filter=options.vad_filter,
    )
    end_of_text: int = tokenizer.token_to_id("<|endoftext|>")
    for segment in segments:
        words = tuple(Word(word.word, word.start, word.end, word.probability) for word in segment.words or ())
        yield FileSegment(
            start_s=segment.start,
            end_s=segment.end,
            text=segment.text,
            language=info.language,
            words=words,
            # The ids of special tokens and of times lie behind those of text.
            tokens=tuple(token for token in segment.tokens if token < end_of_text),
            temperature=segment.temperature,
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
        )


def _plain(hint: str) -> str:
    """A hint in which the tokenizer finds no special token: no client may send one."""
    return hint.replace("<|", "< |").strip()


def _head(hotwords: str, tokenizer: Any) -> str:
    """The first MAX_HINT_TOKENS tokens: the pipeline's own limit, together with its previous text, leaves no room."""
    found = tokenizer.encode(" " + hotwords, add_special_tokens=False).ids
    return hotwords if len(found) <= MAX_HINT_TOKENS else _plain(tokenizer.decode(found[:MAX_HINT_TOKENS]))


class _ClosedError(Exception):
    """Unwinds the generator of a recording that nobody wants any more."""


class _Gate:
    """Meeting place of the recording's thread and the message loop; one condition, no queue."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_waiting = False
        self.is_in_call = False
        self.is_closed = False
        self.is_done = False
        self.error: Exception | None = None
        self.segments: list[FileSegment] = []

    def pass_through(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """On the recording's thread: wait for the next step, then make one model call."""
        with self.changed:
            self.is_waiting = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.is_in_call or self.is_closed)
            self.is_waiting = False
            if self.is_closed:
                raise _ClosedError
        try:
            return call(*args, **kwargs)
        finally:
            with self.changed:
                self.is_in_call = False
                self.changed.notify_all()


class GatedModel:
    """A CTranslate2 Whisper model whose calls wait for their turn; all else passes unchanged."""

    def __init__(self, model: Any, gate: _Gate) -> None:
        self._model = model
        self._gate = gate

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own, when a step allows it."""
        return self._gate.pass_through(self._model.encode, *args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own, when a step allows it."""
        return self._gate.pass_through(self._model.generate, *args, **kwargs)

    def align(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own, when a step allows it."""
        return self._gate.pass_through(self._model.align, *args, **kwargs)

    def detect_language(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own, when a step allows it."""
        return self._gate.pass_through(self._model.detect_language, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class FileRun:
    """One recording on its way through the pipeline."""

    def __init__(
        self,
        model: Any,
        transcribe: Callable[[GatedModel], Iterator[FileSegment]],
        max_idle_waits: int = MAX_IDLE_WAITS,
    ) -> None:
        """Begin: `transcribe` gets the gated `model` and yields the segments, on a new thread."""
        self._gate = _Gate()
        self._max_idle_waits = max_idle_waits
        self._idle_waits = 0
        gated = GatedModel(model, self._gate)
        self._thread = threading.Thread(target=self._run, args=(transcribe, gated), name="file", daemon=True)
        self._thread.start()

    def _run(self, transcribe: Callable[[GatedModel], Iterator[FileSegment]], gated: GatedModel) -> None:
        gate = self._gate
        error: Exception | None = None
        try:
            for segment in transcribe(gated):
                with gate.changed:
                    gate.segments.append(segment)
        except _ClosedError:
            pass
        except Exception as failure:  # an edge: it goes to whoever takes the next step
            error = failure
        with gate.changed:
            gate.is_done, gate.error = True, error
            gate.changed.notify_all()

    def step(self) -> list[FileSegment] | None:
        """Allow at most one model call; return what is finished since the last step, None at the end.

        Raises what the pipeline raised, and EngineFailedError if it stands still.
        """
        gate = self._gate
        with gate.changed:
            if gate.is_waiting:
                gate.is_waiting, gate.is_in_call = False, True
                gate.changed.notify_all()
                # Without a limit of its own: a call that hangs is the watchdog's business.
                gate.changed.wait_for(lambda: not gate.is_in_call)
            is_settled = gate.changed.wait_for(lambda: gate.is_waiting or gate.is_done, STEP_WAIT_S)
            self._count_idle(is_settled)
            segments, gate.segments = gate.segments, []
            if gate.error is not None and not segments:
                raise gate.error
            return None if gate.is_done and not segments else segments

    def _count_idle(self, is_settled: bool) -> None:
        self._idle_waits = 0 if is_settled else self._idle_waits + 1
        if self._idle_waits > self._max_idle_waits:
            raise EngineFailedError(f"the recording made no progress in {self._max_idle_waits * STEP_WAIT_S:g} s")

    def close(self) -> None:
        """Give the recording up; its thread ends at its next model call, and is not waited for."""
        with self._gate.changed:
            self._gate.is_closed = True
            self._gate.changed.notify_all()

    @property
    def is_alive(self) -> bool:
        """True while the recording's thread runs."""
        return self._thread.is_alive()
