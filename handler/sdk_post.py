"""Handing results, stream chunks and progress over to the platform, in place of the SDK's own functions.

The SDK's post loses a result for good when it is no strict JSON, when one connection is cut, and on any 4xx.
Here a post is tried again with growing pauses after a cut connection, 408, 429 and 5xx, up to a total time;
a result that the platform refuses is replaced by a small error, so that the caller learns of it.

A connection may be cut after the platform took the result. Then it gets the same result again, which ends the
job the same way. Knows nothing of the job but its id; logs no content.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from engine.errors import ResultNotJsonError, ResultTooLargeError

__all__ = [
    "ATTEMPT_LIMIT_S",
    "CHUNK_TOTAL_S",
    "FIRST_PAUSE_S",
    "MAX_PAUSE_S",
    "PROGRESS_LIMIT_S",
    "REFUSED",
    "RESULT_TOTAL_S",
    "SUSPECT_BYTES",
    "ResultPoster",
    "error_body",
]

RESULT_TOTAL_S = 300.0
"""How long one result is offered: what took minutes to make is worth an outage of minutes."""
CHUNK_TOTAL_S = 30.0
"""How long a stream chunk is offered: the result at the end has all of it again."""
PROGRESS_LIMIT_S = 3.0
"""What one progress post gets, once: the result waits for it."""
ATTEMPT_LIMIT_S = 90.0
"""One attempt: 8 MB take 64 s at 1 Mbit/s."""
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 15.0
"""Pauses double from one to the other, and are shortened by up to half at random."""
SUSPECT_BYTES = 1_000_000
"""The platform answers 400 to bodies over its limit, which it does not tell; a refused body below this is none."""
REFUSED = "result_refused"
"""Error code of a result that the platform does not take, whatever its reason."""
AGAIN = frozenset({408, 425, 429})

_log = logging.getLogger(__name__)


def error_body(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is posted for an answer {"error": ..., "error_code": ..., ...}: as the SDK splits it."""
    rest = {name: value for name, value in answer.items() if name != "error"}
    return {"error": answer["error"], "output": rest} if rest else {"error": answer["error"]}


def _refused(status: int, n_bytes: int) -> dict[str, Any]:
    if status == 413 or (status == 400 and n_bytes >= SUSPECT_BYTES):
        text = f"the platform refused the result of {n_bytes} bytes with {status}; set up a bucket or ask for less"
        return error_body({"error": text, "error_code": ResultTooLargeError.code, "retryable": False})
    text = f"the platform refused the result of {n_bytes} bytes with {status}"
    return error_body({"error": text, "error_code": REFUSED, "retryable": False})


class ResultPoster:
    """The SDK's `send_result` and `stream_result`, and our own progress; use it on one loop."""

    def __init__(
        self,
        done_url: str,
        stream_url: str,
        to_safe: Callable[[Any], Any],
        left_s: Callable[[], float],
        max_result_bytes: int,
        on_done: Callable[[str], None] = lambda _job_id: None,
    ) -> None:
        """The URLs hold $ID for the job; `left_s` is the time that the process has left."""
        self._done_url = done_url
        self._stream_url = stream_url
        self._to_safe = to_safe
        self._left_s = left_s
        self._max_result_bytes = max_result_bytes
        self._on_done = on_done
        self._errors: dict[str, dict[str, Any]] = {}

    def remember_error(self, job_id: str, answer: Mapping[str, Any]) -> None:
        """A streamed job failed so: the SDK keeps the text alone of it, and the result shall have the rest."""
        self._errors[job_id] = error_body(answer)

    def forget(self, job_id: str) -> None:
        """The job is over, with or without a result."""
        self._errors.pop(job_id, None)

    async def send_result(self, session: Any, job_data: Any, job: Mapping[str, Any], is_stream: bool = False) -> None:
        """As the SDK's: post the body {"output": ..., "error": ...} of a finished job; raises nothing."""
        job_id = job["id"]
        url = _url(self._done_url, job_id, is_stream)
        body = self._encode(self._errors.pop(job_id, job_data), is_stream)
        status = await self._deliver(session, url, job_id, body, RESULT_TOTAL_S)
        if 400 <= status < 500:
            _log.error("job %s: the platform refused the result of %d bytes with %d", job_id, len(body), status)
            small = self._encode(_refused(status, len(body)))
            status = await self._deliver(session, url, job_id, small, RESULT_TOTAL_S)
        if not 200 <= status < 300:
            _log.error("job %s: the result could not be handed over (last status %d)", job_id, status)
        self._on_done(job_id)

    async def stream_result(self, session: Any, job_data: Any, job: Mapping[str, Any]) -> None:
        """As the SDK's: post one chunk; one that does not arrive is part of the result all the same."""
        url = _url(self._stream_url, job["id"], False)
        status = await self._deliver(session, url, job["id"], self._encode(job_data), CHUNK_TOTAL_S)
        if not 200 <= status < 300:
            _log.warning("job %s: a stream chunk could not be handed over (last status %d)", job["id"], status)

    async def send_progress(self, session: Any, job_id: str, progress: Mapping[str, Any]) -> None:
        """Post the state of a running job, once; when this returns the post is over, one way or the other."""
        body = self._encode({"status": "IN_PROGRESS", "output": dict(progress)})
        await self._attempt(session, _url(self._done_url, job_id, False), job_id, body, PROGRESS_LIMIT_S)

    def _encode(self, job_data: Any, is_stream: bool = False) -> bytes:
        try:
            safe = self._to_safe(job_data)
            body = _bytes(safe)
            if is_stream and len(body) > self._max_result_bytes and isinstance(safe.get("output"), list):
                # The last element is the whole result; the chunks before it were streamed already.
                body = _bytes({**safe, "output": safe["output"][-1:]})
        except (ResultNotJsonError, TypeError, ValueError, RecursionError) as error:
            _log.error("a result is not JSON: %s", type(error).__name__)
            text = str(error) if isinstance(error, ResultNotJsonError) else "the result has no form in JSON"
            body = _bytes(error_body({"error": text, "error_code": ResultNotJsonError.code, "retryable": False}))
        return body

    async def _deliver(self, session: Any, url: str, job_id: str, body: bytes, total_s: float) -> int:
        """Post until the platform answers for good or the time is over; returns the last status, 0 for none."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + total_s
        attempt = 0
        while True:
            left_s = min(ends_s - loop.time(), self._left_s())
            status = await self._attempt(session, url, job_id, body, min(left_s, ATTEMPT_LIMIT_S))
            if status and status < 500 and status not in AGAIN:
                return status
            attempt += 1
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * float(2 ** min(attempt - 1, 10))) * _jitter()
            if min(ends_s - loop.time(), self._left_s()) <= pause_s:
                return status
            _log.warning("job %s: attempt %d to hand over ended with status %d; again", job_id, attempt, status)
            await asyncio.sleep(pause_s)

    async def _attempt(self, session: Any, url: str, job_id: str, body: bytes, limit_s: float) -> int:
        headers = {
            "charset": "utf-8",
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Request-ID": quote(job_id),
        }
        try:
            limit = aiohttp.ClientTimeout(total=limit_s)
            async with session.post(url, data=body, headers=headers, timeout=limit) as response:
                await response.read()
                return int(response.status)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return 0


def _url(template: str, job_id: str, is_stream: bool) -> str:
    return template.replace("$ID", quote(job_id, safe="")) + f"&isStream={'true' if is_stream else 'false'}"


def _bytes(value: Any) -> bytes:
    # Lone surrogates are no text; a reader of UTF-8 would stumble over them.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads workers, guards nothing
