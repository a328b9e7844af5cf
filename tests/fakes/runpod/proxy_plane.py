"""RunPod's proxy on loopback: `/proxy/{pod}/{port}/...` to the local port that stands for that port of the pod.

As the real one (user, Cloudflare, RunPod's balancer, pod): asks for no key, answers 404 for a pod or a port that is
not known, 502 while nobody listens, 524 if the pod stays silent, and drops WebSockets that are quiet for 100 s, or
just like that, without a close frame. Limits are real seconds, since real sockets wait; tests shorten them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from tests.fakes.runpod.proxy_relay import Relay, SilentError, end_to_end

__all__ = ["PodPorts", "ProxyPlane"]

PAGES = {404: "Not Found", 502: "Bad gateway", 524: "A timeout occurred"}


@dataclass(frozen=True)
class PodPorts:
    """What the proxy has to know of a pod: its status, and its ports as declared ("9090/http")."""

    status: str
    ports: Sequence[str]


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
        relay = Relay(
            request,
            f"127.0.0.1:{local_port}{target if target.startswith('/') else '/' + target}",
            self._headers_in(request),
            {"CF-Ray": self._ray()},
            first_byte_s=self.first_byte_s,
            idle_cut_s=self.idle_cut_s,
            is_cut=lambda: self._is_cut(pod_id),
        )
        try:
            return await relay.run()
        except SilentError:
            return self._page(524)
        except aiohttp.ClientError:
            # Nobody there, or gone before it said anything.
            return self._page(502)

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
        headers = end_to_end(request.headers)
        headers["Host"] = f"{request.match_info['pod']}-{request.match_info['port']}.proxy.runpod.net"
        before, peer = request.headers.get("X-Forwarded-For"), request.remote or "127.0.0.1"
        headers["X-Forwarded-For"] = f"{before}, {peer}" if before else peer
        headers["X-Forwarded-Proto"] = "https"
        headers["CF-Ray"] = self._ray()
        return headers

    def _ray(self) -> str:
        with self._lock:
            return f"{self._rays.getrandbits(64):016x}-TST"

    def _page(self, status: int) -> web.Response:
        """HTML, as the edge answers."""
        text = f"<html><head><title>{status} {PAGES[status]}</title></head><body>{PAGES[status]}</body></html>"
        return web.Response(status=status, text=text, content_type="text/html", headers={"CF-Ray": self._ray()})
