"""The queue plane as a real HTTP server on loopback, in a thread of its own.

Worker side and client side of `https://api.runpod.ai/v2/{endpoint}`; every request is written down in
`journal`. Use it as a context manager; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from aiohttp import web

from engine.clock import Clock, MonotonicClock
from tests.fakes.runpod.faults import Faults
from tests.fakes.runpod.jobs import Job, JobStore, PlaneRules, RefusedError

__all__ = ["QueuePlane"]

LOOK_EVERY_S = 0.02
MAX_JOURNAL_CHARS = 2_000_000
TOO_LARGE = "<html><head><title>400 Bad Request</title></head><body>400 Bad Request</body></html>"
Answer = Callable[[web.Request], Awaitable[web.Response]]


class QueuePlane:
    """One endpoint's queue; `store` is its state, `faults` what goes wrong, `journal` what was asked."""

    def __init__(
        self,
        endpoint: str = "ep",
        *,
        api_key: str = "client-key",
        worker_key: str = "worker-key",
        rules: PlaneRules | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.api_key = api_key
        self.worker_key = worker_key
        self.rules = rules or PlaneRules()
        self.store = JobStore(clock or MonotonicClock(), self.rules)
        self.faults = Faults()
        self.journal: list[dict[str, Any]] = []
        self.port = 0
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="queue-plane", daemon=True)
        self._is_up = threading.Event()
        self._stop = asyncio.Event()

    # Life

    def __enter__(self) -> QueuePlane:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        app = web.Application(client_max_size=64_000_000)
        app.add_routes(self._routes())
        # A worker that hangs up its poll must not be given a job.
        server = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        self.port = server.addresses[0][1]
        self._is_up.set()
        await self._stop.wait()
        await server.cleanup()

    # For tests

    @property
    def base_url(self) -> str:
        """What clients call their base: the endpoint's name follows."""
        return f"http://127.0.0.1:{self.port}/v2"

    @property
    def url(self) -> str:
        return f"{self.base_url}/{self.endpoint}"

    def submit(self, job_input: Any, **extra: Any) -> str:
        """Queue a job as a client's /run would; returns its id."""
        with self._lock:
            return self.store.submit({"input": job_input, **extra}).id

    def job(self, job_id: str) -> Job:
        with self._lock:
            return self.store.job(job_id)

    def cancel(self, job_id: str) -> None:
        with self._lock:
            self.store.cancel(job_id)

    def wait(self, job_id: str, limit_s: float = 10.0) -> Job:
        """Wait until the job is over."""
        self.wait_until(lambda: self.job(job_id).is_over, f"{job_id} over", limit_s)
        return self.job(job_id)

    def wait_until(self, condition: Callable[[], object], what: str, limit_s: float = 10.0) -> None:
        ends_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < ends_s, f"not {what} within {limit_s} s"
            time.sleep(LOOK_EVERY_S / 2)

    def requests(self, route: str, job_id: str | None = None) -> list[dict[str, Any]]:
        """The journal's entries of a route, and of a job."""
        with self._lock:
            entries = list(self.journal)
        return [each for each in entries if each["route"] == route and job_id in (None, each["job_id"])]

    # Routes

    def _routes(self) -> list[web.RouteDef]:
        base = f"/v2/{self.endpoint}"
        worker, client = self.worker_key, self.api_key
        rows: list[tuple[str, str, str, str, Answer]] = [
            ("GET", "/job-take/{worker}", "job-take", worker, self._take),
            ("GET", "/job-take-batch/{worker}", "job-take", worker, self._take_batch),
            ("GET", "/job-stop/{worker}", "job-stop", worker, self._stops),
            ("GET", "/ping/{worker}", "ping", worker, self._ping),
            ("POST", "/job-done/{worker}/{job}", "job-done", worker, self._done),
            ("POST", "/job-stream/{worker}/{job}", "job-stream", worker, self._chunk),
            ("POST", "/run", "run", client, self._run),
            ("POST", "/runsync", "runsync", client, self._runsync),
            ("GET", "/status/{job}", "status", client, self._status),
            ("POST", "/status/{job}", "status", client, self._status),
            ("GET", "/stream/{job}", "stream", client, self._stream),
            ("POST", "/stream/{job}", "stream", client, self._stream),
            ("POST", "/cancel/{job}", "cancel", client, self._cancel),
            ("POST", "/retry/{job}", "retry", client, self._retry),
            ("POST", "/purge-queue", "purge-queue", client, self._purge),
            ("GET", "/health", "health", client, self._health),
            ("GET", "/requests", "requests", client, self._requests),
        ]
        return [
            web.route(method, base + path, self._wrapped(route, key, answer))
            for method, path, route, key, answer in rows
        ]

    def _wrapped(self, route: str, key: str, answer: Answer) -> Answer:
        async def serve(request: web.Request) -> web.Response:
            body = (await request.read()).decode("utf-8", "replace")
            entry = {
                "at_s": time.monotonic(),
                "route": route,
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "worker": request.match_info.get("worker"),
                "job_id": request.match_info.get("job"),
                "headers": {name: value for name, value in request.headers.items() if name != "Authorization"},
                "body": body[:MAX_JOURNAL_CHARS],
                "status": None,
            }
            with self._lock:
                self.journal.append(entry)
            response = await self._faulty(route, key, answer, request)
            entry["status"] = response.status
            return response

        return serve

    async def _faulty(self, route: str, key: str, answer: Answer, request: web.Request) -> web.Response:
        fault = self.faults.next(route)
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.delay_s)
        if fault is not None and fault.kind == "status":
            return web.Response(status=fault.status, text=fault.body, content_type="text/html")
        if fault is None or fault.kind != "cut":
            response = await self._authorised(key, answer, request)
            if fault is not None and fault.kind == "late":
                await asyncio.sleep(fault.delay_s)
            if fault is None or fault.kind in ("delay", "late"):
                return response
        assert request.transport is not None
        request.transport.abort()
        return web.Response(status=500)

    async def _authorised(self, key: str, answer: Answer, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") != key:
            return web.json_response({"error": "unauthorized"}, status=401)
        try:
            return await answer(request)
        except RefusedError as error:
            return web.json_response({"error": str(error)}, status=error.status)

    # Worker side

    async def _take(self, request: web.Request) -> web.Response:
        jobs = await self._held(lambda: self.store.take(request.match_info["worker"], 1))
        return web.json_response(jobs[0]) if jobs else web.Response(status=204)

    async def _take_batch(self, request: web.Request) -> web.Response:
        most = int(request.query["batch_size"])
        jobs = await self._held(lambda: self.store.take(request.match_info["worker"], most))
        return web.json_response(jobs) if jobs else web.Response(status=204)

    async def _stops(self, request: web.Request) -> web.Response:
        stops = await self._held(lambda: self.store.stops(request.match_info["worker"]))
        return web.json_response({"jobsToStop": stops}) if stops else web.Response(status=204)

    async def _held(self, look: Callable[[], list[Any]]) -> list[Any]:
        ends_s = self._loop.time() + self.rules.hold_s
        while True:
            with self._lock:
                found = look()
            if found or self._loop.time() >= ends_s:
                return found
            await asyncio.sleep(LOOK_EVERY_S)

    async def _ping(self, request: web.Request) -> web.Response:
        with self._lock:
            self.store.ping(request.match_info["worker"], dict(request.query))
        return web.Response(status=200)

    async def _done(self, request: web.Request) -> web.Response:
        body = await _posted(request, self.rules.done_bytes)
        with self._lock:
            self.store.done(request.match_info["worker"], request.match_info["job"], body)
        return web.Response(status=200)

    async def _chunk(self, request: web.Request) -> web.Response:
        body = await _posted(request, self.rules.done_bytes)
        with self._lock:
            self.store.chunk(request.match_info["worker"], request.match_info["job"], body)
        return web.Response(status=200)

    # Client side

    async def _run(self, request: web.Request) -> web.Response:
        body = await _asked(request, self.rules.run_bytes)
        with self._lock:
            job = self.store.submit(body)
        return web.json_response({"id": job.id, "status": job.status})

    async def _runsync(self, request: web.Request) -> web.Response:
        body = await _asked(request, self.rules.runsync_bytes)
        wait_ms = int(request.query.get("wait", "90000"))
        if not 1_000 <= wait_ms <= 300_000:
            raise RefusedError(400, "wait must be 1000 to 300000")
        with self._lock:
            job = self.store.submit(body, is_sync=True)
        ends_s = self._loop.time() + wait_ms / 1000
        while not job.is_over and self._loop.time() < ends_s:
            await asyncio.sleep(LOOK_EVERY_S)
            with self._lock:
                self.store.sweep()
        return web.json_response(job.shown() if job.is_over else {"id": job.id, "status": job.status})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self.job(request.match_info["job"]).shown())

    async def _stream(self, request: web.Request) -> web.Response:
        with self._lock:
            job = self.store.job(request.match_info["job"])
            chunks, job.chunks = job.chunks, []
        return web.json_response({"status": job.status, "stream": chunks})

    async def _cancel(self, request: web.Request) -> web.Response:
        with self._lock:
            job = self.store.cancel(request.match_info["job"])
        return web.json_response({"id": job.id, "status": job.status})

    async def _retry(self, request: web.Request) -> web.Response:
        with self._lock:
            job = self.store.retry(request.match_info["job"])
        return web.json_response({"id": job.id, "status": job.status})

    async def _purge(self, request: web.Request) -> web.Response:
        with self._lock:
            return web.json_response({"removed": self.store.purge(), "status": "completed"})

    async def _health(self, request: web.Request) -> web.Response:
        with self._lock:
            return web.json_response(self.store.health())

    async def _requests(self, request: web.Request) -> web.Response:
        with self._lock:
            self.store.sweep()
            shown = [{"id": job.id, "status": job.status} for job in self.store.jobs.values()]
        return web.json_response({"requests": shown})


async def _posted(request: web.Request, most_bytes: int) -> dict[str, Any]:
    """A worker's body: strict JSON within the limit, or 400."""
    raw = await request.read()
    if len(raw) > most_bytes:
        raise web.HTTPBadRequest(text=TOO_LARGE, content_type="text/html")
    return _object(raw)


async def _asked(request: web.Request, most_bytes: int) -> dict[str, Any]:
    raw = await request.read()
    if len(raw) > most_bytes:
        raise RefusedError(413, f"payload over {most_bytes} bytes")
    return _object(raw)


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
