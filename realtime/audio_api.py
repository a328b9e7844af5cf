"""OpenAI's HTTP interface for files: /v1/audio/transcriptions, /v1/audio/translations, /v1/models.

An ASGI application beside the WebSockets. It lets in whom they let in, reads a body only when there is
a place for it, and gives every error in OpenAI's shape. Knows no engine: `AudioHost` transcribes.

Invariants: at most `max_uploads` requests have a body that comes in or waits for its turn, and at most
`max_files` further ones a recording in work; when a peer leaves, or the server's time is up, its work is
cancelled and its file is gone; whatever goes wrong ends as one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from engine.clock import Clock
from engine.errors import AtCapacityError, DrainingError, SttError
from engine.recording_types import OnSegment, Recording, RecordingOptions, Task
from engine.types import FileSegment
from realtime import audio_answers
from realtime.audio_errors import DefectError, EntryError, MethodError, NotFoundError
from realtime.audio_fields import AudioRequest, AudioRules, check_model, parse_fields
from realtime.audio_form import Form, FormLimits, PeerGoneError, check_head, received_form
from realtime.audio_places import Places
from realtime.audio_reply import Reply
from realtime.auth import Gate

__all__ = ["KEEP_ALIVE_S", "MAX_FILES", "MAX_UPLOADS", "TURN_WAIT_S", "AudioApi", "AudioHost"]

logger = logging.getLogger("realtime.audio_api")

MAX_FILES = 4
"""Recordings in work at once: each holds a decoder process, and its file."""
MAX_UPLOADS = 16
"""Uploads at once, those that wait for a recording to end included: slow lines take no place from recordings. With
MAX_FILES this bounds the disk: 20 times MAX_UPLOAD_BYTES."""
TURN_WAIT_S = 60.0
"""How long a finished upload waits; public proxies cut answers that are silent for 100 s."""
KEEP_ALIVE_S = 15.0
"""Between two signs of life of a stream; public proxies cut answers that are silent for 100 s, others after 30."""
PREFIXES = ("/v1/", "/t/")
"""What is ours; the second form shows the secret in the path, as for WebSockets."""
FILE_PATHS: dict[str, Task] = {"/v1/audio/transcriptions": "transcribe", "/v1/audio/translations": "translate"}
MODELS_PATH = "/v1/models"
READING = ("GET", "HEAD")


class AudioHost(Protocol):
    """The server, as far as file requests need it."""

    clock: Clock

    def unready(self) -> SttError | None:
        """Why no file would be taken now, if so: loading, restarting or draining."""
        ...

    def audio_rules(self) -> AudioRules:
        """What is offered; asked only while `unready` is None."""
        ...

    def transcribe(self, path: Path, options: RecordingOptions, on_segment: OnSegment) -> Awaitable[Recording]:
        """Transcribe a file; cancelling ends it at once. Raises SttErrors."""
        ...


class AudioApi:
    """The application; `drain` and `abort` end it."""

    def __init__(
        self,
        host: AudioHost,
        gate: Gate,
        limits: FormLimits,
        *,
        max_files: int = MAX_FILES,
        max_uploads: int = MAX_UPLOADS,
        turn_wait_s: float = TURN_WAIT_S,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._host = host
        self._gate = gate
        self._limits = limits
        self._created_unix_s = int(time.time())
        self._max_uploads = max_uploads
        self._turn_wait_s = turn_wait_s
        self._keep_alive_s = keep_alive_s
        self._jobs: set[asyncio.Task[None]] = set()
        self._uploads: set[object] = set()
        self._recordings = Places(max_files)
        self._is_aborted = False
        self.last_done_s: float | None = None
        """When the last request with a body ended, by the host's clock."""

    @property
    def n_active(self) -> int:
        """Requests with a body or a recording in work."""
        return self.n_uploads + self.n_recordings

    @property
    def n_uploads(self) -> int:
        """Uploads in work, and those that wait for a recording to end."""
        return len(self._uploads)

    @property
    def n_recordings(self) -> int:
        """Recordings in work."""
        return self._recordings.n_taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises nothing but cancellation."""
        reply = Reply(send)
        try:
            await self._answer(scope, receive, reply)
        except SttError as error:
            await reply.fail(error)
        except PeerGoneError:
            return
        except Exception as error:
            # Not its text, which may hold what was said or asked.
            logger.error("a file request failed: %s", type(error).__name__, exc_info=_place_of(error))
            await reply.fail(DefectError("the server failed"))

    # The end

    async def drain(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the requests in work; True if there are none left."""
        jobs = set(self._jobs)
        return not jobs or not (await asyncio.wait(jobs, timeout=timeout_s))[1]

    async def abort(self, timeout_s: float) -> None:
        """End what is in work: its peers get 503, or an error event."""
        self._is_aborted = True
        for job in self._jobs:
            job.cancel()
        await self.drain(timeout_s)

    # Requests

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if not scope["path"].startswith(PREFIXES):
            await reply.document("Not Found", "text/plain; charset=utf-8", 404)
            return
        entry = self._gate.admit(scope)
        if not entry.ok:
            if scope.get("client"):
                logger.warning("refused %s: %s", scope["client"][0], entry.reason)
            raise EntryError(entry)
        task = FILE_PATHS.get(entry.path)
        if task is not None:
            _check_method(scope, ("POST",))
            await self._work(task, scope, receive, reply)
        elif entry.path == MODELS_PATH or entry.path.startswith(MODELS_PATH + "/"):
            _check_method(scope, READING)
            await self._models(entry.path[len(MODELS_PATH) + 1 :], reply)
        else:
            raise NotFoundError(f"path: nothing is here; legal: {', '.join((*FILE_PATHS, MODELS_PATH))}")

    async def _models(self, name: str, reply: Reply) -> None:
        self._check_ready()
        rules = self._host.audio_rules()
        model = {
            "id": rules.models[0],
            "object": "model",
            "created": self._created_unix_s,
            "owned_by": "self-hosted",
        }
        body: dict[str, Any] = {"object": "list", "data": [model]}
        if name:
            check_model(name, rules)
            body = model
        await reply.document(json.dumps(body), audio_answers.JSON_TYPE)

    def _check_ready(self) -> None:
        error = self._host.unready()
        if error is not None:
            raise error

    async def _work(self, task: Task, scope: Scope, receive: Receive, reply: Reply) -> None:
        """A file request, in a task of its own that `abort` can end. Raises SttErrors and PeerGoneError."""
        self._check_ready()
        boundary = check_head(scope, self._limits)
        if self.n_uploads >= self._max_uploads:
            raise AtCapacityError(f"full: {self._max_uploads} uploads are in work; come back later")
        upload = object()
        self._uploads.add(upload)
        job = asyncio.create_task(self._serve_file(task, boundary, upload, receive, reply))
        self._jobs.add(job)
        try:
            await asyncio.wait({job})
        finally:
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            self._jobs.discard(job)
            self._uploads.discard(upload)
            self.last_done_s = self._host.clock.now_s()
        if job.cancelled() and self._is_aborted:
            raise DrainingError("the server is shutting down; send the file again, here later or elsewhere")
        job.result()

    async def _serve_file(self, task: Task, boundary: bytes, upload: object, receive: Receive, reply: Reply) -> None:
        async with received_form(boundary, receive, self._limits, self._host.clock) as form:
            request = parse_fields(form.fields, task, self._host.audio_rules())
            transcribing = asyncio.ensure_future(self._transcribe(upload, form, request, reply))
            leaving = asyncio.ensure_future(_disconnected(receive))
            try:
                await asyncio.wait({transcribing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not transcribing.done():
                    raise PeerGoneError
                recording = transcribing.result()
            finally:
                for part in (transcribing, leaving):
                    part.cancel()
                await asyncio.gather(transcribing, leaving, return_exceptions=True)
        # In a thread: hours of words are some 0.1 s of work, and live streams share this loop.
        if request.wants_stream:
            await reply.event(await asyncio.to_thread(audio_answers.done_event, request, recording))
            await reply.end()
        else:
            await reply.document(*await asyncio.to_thread(audio_answers.answer, request, recording))

    async def _transcribe(self, upload: object, form: Form, request: AudioRequest, reply: Reply) -> Recording:
        segments = _Segments()
        work = asyncio.ensure_future(self._in_turn(upload, form, request, segments))
        work.add_done_callback(lambda _: segments.news.set())
        try:
            if request.wants_stream:
                await self._stream(work, segments, request, reply)
            else:
                await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return work.result()

    async def _in_turn(self, upload: object, form: Form, request: AudioRequest, segments: _Segments) -> Recording:
        await self._recordings.take(self._turn_wait_s)
        self._uploads.discard(upload)
        began_s = self._host.clock.now_s()
        try:
            recording = await self._host.transcribe(form.path, request.options, segments.add)
        finally:
            # Before the answer: who has it may send the next file at once.
            self._recordings.give_back()
        took_s = self._host.clock.now_s() - began_s
        logger.info("a file: %.1f s of audio in %.1f s", recording.duration_s, took_s)
        return recording

    async def _stream(
        self, work: asyncio.Future[Recording], segments: _Segments, request: AudioRequest, reply: Reply
    ) -> None:
        """Send what comes until `work` is done; the first sign of life decides that the status is 200."""
        deltas = audio_answers.DeltaMaker(request)
        is_done = False
        while not is_done:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(segments.news.wait(), self._keep_alive_s)
            segments.news.clear()
            is_done = work.done()
            events = [event for event in map(deltas.event, segments.take()) if event is not None]
            for event in events:
                await reply.event(event)
            if not events and not is_done:
                await reply.keep_alive()


class _Segments:
    """Segments on their way to a stream; the recording they belong to holds as many anyway."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._waiting: deque[FileSegment] = deque()

    def add(self, task: Task, segment: FileSegment) -> None:
        """A segment is known."""
        self._waiting.append(segment)
        self.news.set()

    def take(self) -> list[FileSegment]:
        """All that have come since the last call."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


def _check_method(scope: Scope, allowed: tuple[str, ...]) -> None:
    if scope["method"] not in allowed:
        raise MethodError(scope["method"], ", ".join(allowed))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _place_of(error: BaseException) -> Any:
    """The traceback without the error's own text."""
    bare = type(error)
    return (Exception, Exception(bare.__name__), error.__traceback__)
