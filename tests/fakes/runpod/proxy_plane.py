"""RunPod's proxy on loopback: `/proxy/{pod}/{port}/...` to the local port that stands for that port of the pod.

As the real one (user, Cloudflare, RunPod's balancer, pod): asks for no key, answers 404 for a pod or a port that is
not known, 502 while nobody listens, 524 if the pod stays silent, and drops WebSockets that are quiet for 100 s, or
just like that, without a close frame. Limits are real seconds, since real sockets wait; tests shorten them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.fakes.runpod.proxy_sockets import RefusedUpgradeError, SocketRelay

__all__ = ["PodPorts", "ProxyPlane"]

CHUNK_BYTES = 65_536
# Those that concern one connection only (RFC 9110), and those that the proxy itself answers or sets.
OWN_HEADERS = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "expect", "host"),
    )
)
NO_DEFAULTS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
Asking: TypeAlias = "asyncio.Task[aiohttp.ClientResponse]"
PAGES = {404: "Not Found", 502: "Bad gateway", 524: "A timeout occurred"}


@dataclass(frozen=True)
class PodPorts:
    """What the proxy has to know of a pod: its status, and its ports as declared ("9090/http")."""

    status: str
    ports: Sequence[str]


class _SilentError(Exception):
    """No first byte of an answer within the limit."""


class ProxyPlane:
    """The routes of the proxy, and what goes wrong with them; methods may be called from any thread.

    `look` says how a pod is (None: unknown). `cut_share` is the probability that a WebSocket is cut at a frame, by a
    seeded generator.
    """

    def __init__(self, look: Callable[[str], PodPorts | None], *, seed: int = 0) -> None:
        self._look = look
        self._lock = threading.Lock()
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """No ports, and the usual limits."""
        with self._lock:
            self.idle_cut_s = 100.0
            self.first_byte_s = 100.0
            self.cut_share = 0.0
            self._cuts, self._rays = random.Random(seed), random.Random(seed)
            self._local: dict[tuple[str, int], int] = {}
            self._frames_left: dict[str, int] = {}

    def register(self, pod_id: str, port: int, local_port: int) -> None:
        """From now on the pod's `port` is 127.0.0.1:`local_port`."""
        with self._lock:
            self._local[pod_id, port] = local_port

    def unregister(self, pod_id: str) -> None:
        """Nothing of the pod listens any more."""
        with self._lock:
            self._local = {key: local for key, local in self._local.items() if key[0] != pod_id}

    def cut_after(self, pod_id: str, *, frames: int) -> None:
        """Cut one WebSocket of the pod, once `frames` more frames (of any kind, both ways) have passed."""
        with self._lock:
            self._frames_left[pod_id] = frames

    def routes(self) -> list[web.RouteDef]:
        """For the server that the plane runs in."""
        base = r"/proxy/{pod}/{port:\d{1,5}}"
        return [web.route("*", base, self._serve), web.route("*", base + "/{tail:.*}", self._serve)]

    # One request

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        pod_id, port = request.match_info["pod"], request.match_info["port"]
        pod = self._look(pod_id)
        if pod is None or f"{port}/http" not in pod.ports:
            return self._page(404)
        with self._lock:
            local_port = self._local.get((pod_id, int(port)))
        if pod.status != "RUNNING" or local_port is None:
            return self._page(502)
        # As it came, percent signs and all: the pod is to see what its user wrote.
        target = request.raw_path.partition(f"/proxy/{pod_id}/{port}")[2]
        url = f"127.0.0.1:{local_port}{target if target.startswith('/') else '/' + target}"
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._relay_socket(request, URL(f"ws://{url}", encoded=True))
            return await self._relay_http(request, URL(f"http://{url}", encoded=True))
        except _SilentError:
            return self._page(524)
        except aiohttp.ClientError:
            # Nobody there, or gone before it said anything.
            return self._page(502)

    async def _relay_http(self, request: web.Request, url: URL) -> web.StreamResponse:
        upload = _Upload(request)
        async with aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=NO_DEFAULTS, timeout=aiohttp.ClientTimeout(total=None)
        ) as session:

            async def ask() -> aiohttp.ClientResponse:
                headers, body = self._headers_in(request), upload.chunks() if request.can_read_body else None
                return await session.request(request.method, url, headers=headers, data=body, allow_redirects=False)

            async with await self._first_byte(asyncio.ensure_future(ask()), upload) as answer:
                return await self._hand_back(request, answer)

    async def _first_byte(
        self, asking: asyncio.Task[aiohttp.ClientResponse], upload: _Upload
    ) -> aiohttp.ClientResponse:
        """The answer's head. Raises _SilentError if it takes too long after the question's last byte."""
        loop = asyncio.get_running_loop()
        try:
            while not asking.done():
                left_s = upload.moved_s + self.first_byte_s - loop.time()
                if left_s <= 0:
                    raise _SilentError
                await asyncio.wait({asking}, timeout=left_s)
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
                    await asking

    async def _hand_back(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        self._headers_out(response, answer.headers)
        await response.prepare(request)
        try:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                await response.write(chunk)
        except aiohttp.ClientError:
            # The pod died in the middle: so does the answer, rather than end as if it were whole.
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response

    async def _relay_socket(self, request: web.Request, url: URL) -> web.StreamResponse:
        pod_id = request.match_info["pod"]
        relay = SocketRelay(request, idle_cut_s=self.idle_cut_s, is_cut=lambda: self._is_cut(pod_id))
        try:
            return await relay.run(url, self._headers_in(request), {"CF-Ray": self._ray()})
        except RefusedUpgradeError as refusal:
            response = web.Response(status=refusal.status, body=refusal.body)
            self._headers_out(response, refusal.headers, without=("content-length",))
            return response

    def _is_cut(self, pod_id: str) -> bool:
        """Whether the socket that has just passed a frame of the pod is to be cut now."""
        with self._lock:
            left = self._frames_left.pop(pod_id, None)
            if left is not None and left > 1:
                self._frames_left[pod_id] = left - 1
            return left == 1 or (self.cut_share > 0 and self._cuts.random() < self.cut_share)

    # Headers and pages

    def _headers_in(self, request: web.Request) -> CIMultiDict[str]:
        """What the pod sees: its own address, who asks, and whatever the user sent."""
        headers = _end_to_end(request.headers)
        headers["Host"] = f"{request.match_info['pod']}-{request.match_info['port']}.proxy.runpod.net"
        before, peer = request.headers.get("X-Forwarded-For"), request.remote or "127.0.0.1"
        headers["X-Forwarded-For"] = f"{before}, {peer}" if before else peer
        headers["X-Forwarded-Proto"] = "https"
        headers["CF-Ray"] = self._ray()
        return headers

    def _headers_out(self, response: web.StreamResponse, given: Mapping[str, str], without: Sequence[str] = ()) -> None:
        for name, value in _end_to_end(given).items():
            if name.lower() not in without:
                response.headers.add(name, value)
        response.headers["CF-Ray"] = self._ray()

    def _ray(self) -> str:
        with self._lock:
            return f"{self._rays.getrandbits(64):016x}-TST"

    def _page(self, status: int) -> web.Response:
        """HTML, as the edge answers."""
        text = f"<html><head><title>{status} {PAGES[status]}</title></head><body>{PAGES[status]}</body></html>"
        return web.Response(status=status, text=text, content_type="text/html", headers={"CF-Ray": self._ray()})


class _Upload:
    """A question's body on its way; `moved_s` is when its last piece came (loop time)."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self.moved_s = self._loop.time()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._content.iter_chunked(CHUNK_BYTES):
            self.moved_s = self._loop.time()
            yield chunk
        self.moved_s = self._loop.time()


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that a proxy passes on."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in OWN_HEADERS | named)
