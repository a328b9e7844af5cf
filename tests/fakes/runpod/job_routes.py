"""Both sides of `https://api.runpod.ai/v2/{endpoint}` as routes: workers take jobs and post results, clients ask.

Every request of a known endpoint is written down in its queue's `journal`, without the key. Holds (long polls,
`/runsync`) are real time whatever the store's clock, since real sockets wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.fakes.runpod.job_queue import JobQueue
from tests.fakes.runpod.jobs import RefusedError

__all__ = ["JobQueue", "JobRoutes"]

LOOK_EVERY_S = 0.02
MAX_JOURNAL_CHARS = 2_000_000
MAX_READ_BYTES = 64_000_000
"""Of a body; the server's own limit does not count here."""
TOO_LARGE = "<html><head><title>400 Bad Request</title></head><body>400 Bad Request</body></html>"


class _Asked:
    """One request: its queue, its body, and the names in its path."""

    def __init__(self, request: web.Request, queue: JobQueue, body: bytes) -> None:
        self.request = request
        self.queue = queue
        self.body = body
        self.worker = request.match_info.get("worker", "")
        self.job = request.match_info.get("job", "")

    def document(self, most_bytes: int) -> dict[str, Any]:
        """The body as an object. Raises RefusedError 413, 400."""
        if len(self.body) > most_bytes:
            raise RefusedError(413, f"payload over {most_bytes} bytes")
        return _object(self.body)

    def result(self) -> dict[str, Any]:
        """A worker's body: strict JSON within the limit, or 400."""
        if len(self.body) > self.queue.rules.done_bytes:
            raise web.HTTPBadRequest(text=TOO_LARGE, content_type="text/html")
        return _object(self.body)

    def whole_number(self, name: str, default: int) -> int:
        """Of the query. Raises RefusedError 400."""
        text = self.request.query.get(name, str(default))
        if not (text.isascii() and text.isdigit()):
            raise RefusedError(400, f"{name} must be a whole number")
        return int(text)

    @property
    def is_gone(self) -> bool:
        """Whether the asker has hung up: a worker that left its poll must not be given a job."""
        transport = self.request.transport
        return transport is None or transport.is_closing()


Answer = Callable[[_Asked], Awaitable[web.Response]]


class JobRoutes:
    """`lookup` finds an endpoint's queue, None if there is none; `api_key_ok` judges a client's key.

    `lookup` is called before each look at a queue, without its lock: simulated workers may do their share in it.
    Workers show their queue's own key, raw; clients theirs, raw or as Bearer.
    """

    def __init__(self, lookup: Callable[[str], JobQueue | None], api_key_ok: Callable[[str], bool]) -> None:
        self._lookup = lookup
        self._api_key_ok = api_key_ok

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """For a server: `{prefix}/{endpoint}/run` and so on."""
        rows: list[tuple[str, str, str, bool, Answer]] = [
            ("GET", "/job-take/{worker}", "job-take", True, self._take),
            ("GET", "/job-take-batch/{worker}", "job-take", True, self._take_batch),
            ("GET", "/job-stop/{worker}", "job-stop", True, self._stops),
            ("GET", "/ping/{worker}", "ping", True, self._ping),
            ("POST", "/job-done/{worker}/{job}", "job-done", True, self._done),
            ("POST", "/job-stream/{worker}/{job}", "job-stream", True, self._chunk),
            ("POST", "/run", "run", False, self._run),
            ("POST", "/runsync", "runsync", False, self._runsync),
            ("GET", "/status/{job}", "status", False, self._status),
            ("POST", "/status/{job}", "status", False, self._status),
            ("GET", "/stream/{job}", "stream", False, self._stream),
            ("POST", "/stream/{job}", "stream", False, self._stream),
            ("POST", "/cancel/{job}", "cancel", False, self._cancel),
            ("POST", "/retry/{job}", "retry", False, self._retry),
            ("POST", "/purge-queue", "purge-queue", False, self._purge),
            ("GET", "/health", "health", False, self._health),
            ("GET", "/requests", "requests", False, self._requests),
        ]
        return [
            web.route(method, f"{prefix}/{{endpoint}}{path}", self._wrapped(route, is_worker, answer))
            for method, path, route, is_worker, answer in rows
        ]

    # What is the same for all

    def _wrapped(self, route: str, is_worker: bool, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            body = await _read(request)
            queue = self._lookup(request.match_info["endpoint"])
            if queue is None:
                known = is_worker or self._api_key_ok(_key(request))
                return _refusal(RefusedError(404, "endpoint not found") if known else RefusedError(401, "unauthorized"))
            entry = _entry(route, request, body)
            with queue.lock:
                queue.journal.append(entry)
            right = _key(request) == queue.worker_key if is_worker else self._api_key_ok(_key(request))
            response = await self._faulty(route, right, answer, _Asked(request, queue, body))
            entry["status"] = response.status
            return response

        return serve

    async def _faulty(self, route: str, right: bool, answer: Answer, asked: _Asked) -> web.Response:
        fault = asked.queue.faults.next(route)
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.delay_s)
        if fault is not None and fault.kind == "status":
            return web.Response(status=fault.status, text=fault.body, content_type="text/html")
        if fault is None or fault.kind != "cut":
            response = await self._authorised(right, answer, asked)
            if fault is not None and fault.kind == "late":
                await asyncio.sleep(fault.delay_s)
            if fault is None or fault.kind in ("delay", "late"):
                return response
        if asked.request.transport is not None:
            asked.request.transport.abort()
        return web.Response(status=500)

    async def _authorised(self, right: bool, answer: Answer, asked: _Asked) -> web.Response:
        if not right:
            return _refusal(RefusedError(401, "unauthorized"))
        try:
            return await answer(asked)
        except RefusedError as error:
            return _refusal(error)

    # Worker side

    async def _take(self, asked: _Asked) -> web.Response:
        jobs = await self._held(asked, lambda: asked.queue.store.take(asked.worker, 1))
        return web.json_response(jobs[0]) if jobs else web.Response(status=204)

    async def _take_batch(self, asked: _Asked) -> web.Response:
        most = asked.whole_number("batch_size", 1)
        jobs = await self._held(asked, lambda: asked.queue.store.take(asked.worker, most))
        return web.json_response(jobs) if jobs else web.Response(status=204)

    async def _stops(self, asked: _Asked) -> web.Response:
        stops = await self._held(asked, lambda: asked.queue.store.stops(asked.worker))
        return web.json_response({"jobsToStop": stops}) if stops else web.Response(status=204)

    async def _ping(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            asked.queue.store.ping(asked.worker, dict(asked.request.query))
        return web.Response(status=200)

    async def _done(self, asked: _Asked) -> web.Response:
        body = asked.result()
        with asked.queue.lock:
            asked.queue.store.done(asked.worker, asked.job, body)
        return web.Response(status=200)

    async def _chunk(self, asked: _Asked) -> web.Response:
        body = asked.result()
        with asked.queue.lock:
            asked.queue.store.chunk(asked.worker, asked.job, body)
        return web.Response(status=200)

    async def _held(self, asked: _Asked, look: Callable[[], list[Any]]) -> list[Any]:
        """What `look` finds, or nothing at the end of the hold or once the asker or the endpoint is gone."""
        ends_s = time.monotonic() + asked.queue.rules.hold_s
        while not asked.is_gone:
            with asked.queue.lock:
                found = look()
            if found or time.monotonic() >= ends_s:
                return found
            await asyncio.sleep(LOOK_EVERY_S)
            if self._lookup(asked.queue.endpoint) is not asked.queue:
                break
        return []

    # Client side

    async def _run(self, asked: _Asked) -> web.Response:
        body = asked.document(asked.queue.rules.run_bytes)
        with asked.queue.lock:
            job = asked.queue.store.submit(body)
        return web.json_response({"id": job.id, "status": job.status})

    async def _runsync(self, asked: _Asked) -> web.Response:
        queue = asked.queue
        body = asked.document(queue.rules.runsync_bytes)
        wait_ms = asked.whole_number("wait", 90_000)
        if not 1_000 <= wait_ms <= 300_000:
            raise RefusedError(400, "wait must be 1000 to 300000")
        with queue.lock:
            job = queue.store.submit(body, is_sync=True)
        ends_s = time.monotonic() + min(wait_ms / 1000, queue.rules.sync_hold_s)
        while not job.is_over and time.monotonic() < ends_s:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._lookup(queue.endpoint) is not queue:
                raise RefusedError(404, "endpoint not found")
            with queue.lock:
                queue.store.sweep()
        return web.json_response(job.shown() if job.is_over else {"id": job.id, "status": job.status})

    async def _status(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            return web.json_response(asked.queue.store.job(asked.job).shown())

    async def _stream(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            job = asked.queue.store.job(asked.job)
            chunks, job.chunks = job.chunks, []
        return web.json_response({"status": job.status, "stream": chunks})

    async def _cancel(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            job = asked.queue.store.cancel(asked.job)
        return web.json_response({"id": job.id, "status": job.status})

    async def _retry(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            job = asked.queue.store.retry(asked.job)
        return web.json_response({"id": job.id, "status": job.status})

    async def _purge(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            return web.json_response({"removed": asked.queue.store.purge(), "status": "completed"})

    async def _health(self, asked: _Asked) -> web.Response:
        return web.json_response(asked.queue.health())

    async def _requests(self, asked: _Asked) -> web.Response:
        with asked.queue.lock:
            asked.queue.store.sweep()
            shown = [{"id": job.id, "status": job.status} for job in asked.queue.store.jobs.values()]
        return web.json_response({"requests": shown})


async def _read(request: web.Request) -> bytes:
    """The body; what is beyond the limit is read too, so that the client hears the answer, but not kept."""
    pieces: list[bytes] = []
    n_bytes = 0
    async for piece in request.content.iter_any():
        n_bytes += len(piece)
        if n_bytes <= MAX_READ_BYTES:
            pieces.append(piece)
    return b"".join(pieces)


def _key(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _entry(route: str, request: web.Request, body: bytes) -> dict[str, Any]:
    return {
        "at_s": time.monotonic(),
        "route": route,
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "worker": request.match_info.get("worker"),
        "job_id": request.match_info.get("job"),
        "headers": {name: value for name, value in request.headers.items() if name.lower() != "authorization"},
        "body": body.decode("utf-8", "replace")[:MAX_JOURNAL_CHARS],
        "status": None,
    }


def _refusal(error: RefusedError) -> web.Response:
    return web.json_response({"error": str(error)}, status=error.status)


def _object(raw: bytes) -> dict[str, Any]:
    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=no_constant)
    except ValueError as error:
        raise RefusedError(400, f"invalid JSON: {type(error).__name__}") from None
    if not isinstance(body, dict):
        raise RefusedError(400, "not an object")
    return body
