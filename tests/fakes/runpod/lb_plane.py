"""Load-balancer endpoints on loopback: `/lb/{endpoint}/...` to one of the endpoint's workers that are ready.

As the real `https://{endpoint}.api.runpod.ai/...`: a key for everything, upgrades to WebSocket too (401), 404 for an
endpoint that is not known, 413 beyond 30 MB, 502 where the worker does not listen. A request waits for a worker to
become ready, then is refused with 503. Answers name their worker in `X-Runpod-Worker-Id`; the same header in a request
asks for that worker, and with "strict" or "strict-resume" before it for no other. Limits are real seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.proxy_relay import Relay, SilentError, end_to_end, is_upgrade

if TYPE_CHECKING:
    from tests.fakes.runpod.control_plane import ControlPlane

__all__ = ["MAX_BODY_BYTES", "LbPlane"]

MAX_BODY_BYTES = 30_000_000
WORKER_HEADER = "X-Runpod-Worker-Id"
LOOK_EVERY_S = 0.05
SHORT_WAIT_S = 0.2
"""Where time is virtual, no worker becomes ready while a request waits."""


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class LbPlane:
    """The routes. A worker gets requests once it is up and has an `address` ("127.0.0.1:port")."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.reset()

    def reset(self) -> None:
        """The usual limits."""
        self.wait_s = 120.0 if isinstance(self._plane.clock, RealPlaneClock) else SHORT_WAIT_S
        self.first_byte_s = 330.0
        self.idle_cut_s = 100.0
        self._turns = itertools.count()

    def routes(self) -> list[web.RouteDef]:
        """For the server that the plane runs in."""
        base = "/lb/{endpoint}"
        return [web.route("*", base, self._serve), web.route("*", base + "/{tail:.*}", self._serve)]

    # One request

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        endpoint_id = request.match_info["endpoint"]
        store = self._plane.endpoints
        try:
            body = await _body(request)
            self._check(request, endpoint_id)
            store.begin_request(endpoint_id)
            try:
                worker_id, address = await self._worker(request, endpoint_id)
            finally:
                store.end_request(endpoint_id)
        except _RefusedError as refusal:
            return web.json_response({"error": str(refusal)}, status=refusal.status)
        store.begin_request(endpoint_id, worker_id)
        try:
            return await self._relayed(request, endpoint_id, worker_id, address, body)
        finally:
            store.end_request(endpoint_id, worker_id)

    async def _relayed(
        self, request: web.Request, endpoint_id: str, worker_id: str, address: str, body: bytes | None
    ) -> web.StreamResponse:
        extra = {WORKER_HEADER: worker_id}
        # As it came, percent signs and all: the worker is to see what its user wrote.
        target = request.raw_path.partition(f"/lb/{endpoint_id}")[2]
        relay = Relay(
            request,
            f"{address}{target if target.startswith('/') else '/' + target}",
            _headers_in(request, endpoint_id),
            extra,
            first_byte_s=self.first_byte_s,
            idle_cut_s=self.idle_cut_s,
            body=body,
        )
        try:
            return await relay.run()
        except SilentError:
            return web.json_response({"error": "the worker took too long"}, status=524, headers=extra)
        except aiohttp.ClientError:
            return web.json_response({"error": "the worker does not answer"}, status=502, headers=extra)

    def _check(self, request: web.Request, endpoint_id: str) -> None:
        """Raises _RefusedError 401, 404."""
        word, _space, key = request.headers.get("Authorization", "").partition(" ")
        if word != "Bearer" or key != self._plane.api_key:
            raise _RefusedError(401, "missing or invalid API key")
        known = {each.id for each in self._plane.endpoints.alive() if each.type == "LOAD_BALANCER"}
        if endpoint_id not in known:
            raise _RefusedError(404, "endpoint not found")

    async def _worker(self, request: web.Request, endpoint_id: str) -> tuple[str, str]:
        """A ready worker and its address, whose turn it is. Raises _RefusedError 503 after the wait."""
        word, _space, wanted = request.headers.get(WORKER_HEADER, "").rpartition(" ")
        is_strict = word in ("strict", "strict-resume")
        ends_s = time.monotonic() + self.wait_s
        while True:
            workers = self._plane.endpoints.ready_workers(endpoint_id)
            ready = {each.id: each.address for each in workers if each.address is not None}
            if wanted in ready:
                return wanted, ready[wanted]
            if is_strict:
                raise _RefusedError(503, f"worker {wanted} is not available")
            if ready:
                names = sorted(ready)
                name = names[next(self._turns) % len(names)]
                return name, ready[name]
            if time.monotonic() >= ends_s or request.transport is None:
                raise _RefusedError(503, "no worker is ready")
            await asyncio.sleep(LOOK_EVERY_S)


async def _body(request: web.Request) -> bytes | None:
    """The whole body, None for an upgrade. Raises _RefusedError 413; even then it is read, so that the client hears."""
    if is_upgrade(request) or not request.can_read_body:
        return None
    pieces: list[bytes] = []
    n_bytes = 0
    async for piece in request.content.iter_any():
        n_bytes += len(piece)
        if n_bytes <= MAX_BODY_BYTES:
            pieces.append(piece)
    if n_bytes > MAX_BODY_BYTES:
        raise _RefusedError(413, f"payload over {MAX_BODY_BYTES} bytes")
    return b"".join(pieces)


def _headers_in(request: web.Request, endpoint_id: str) -> CIMultiDict[str]:
    """What the worker sees; the account's key goes along, as at RunPod."""
    headers = end_to_end(request.headers)
    headers["Host"] = f"{endpoint_id}.api.runpod.ai"
    headers["X-Forwarded-For"] = request.remote or "127.0.0.1"
    headers["X-Forwarded-Proto"] = "https"
    return headers
