"""The queue plane as a real HTTP server on loopback, in a thread of its own.

Worker side and client side of `https://api.runpod.ai/v2/{endpoint}` for one endpoint; every request is written down
in `journal`. Use it as a context manager; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from aiohttp import web

from engine.clock import Clock
from tests.fakes.runpod.job_routes import JobQueue, JobRoutes
from tests.fakes.runpod.jobs import PlaneRules

__all__ = ["QueuePlane"]


class QueuePlane(JobQueue):
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
        super().__init__(endpoint, rules=rules, clock=clock, worker_key=worker_key, tag="")
        self.api_key = api_key
        self.port = 0
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
        app = web.Application()
        routes = JobRoutes(lambda name: self if name == self.endpoint else None, lambda key: key == self.api_key)
        app.add_routes(routes.routes("/v2"))
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
        """Of the endpoint."""
        return f"{self.base_url}/{self.endpoint}"
