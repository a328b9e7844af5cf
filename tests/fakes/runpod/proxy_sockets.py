"""One WebSocket through the proxy: messages, pings, pongs, close codes and reasons both ways; or a cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

__all__ = ["MAX_MESSAGE_BYTES", "RefusedUpgradeError", "SocketRelay"]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
CLOSE_S = 2.0
"""How long a peer gets to answer a close frame."""

PodSocket: TypeAlias = "aiohttp.ClientWebSocketResponse[bool]"
Side: TypeAlias = "aiohttp.ClientWebSocketResponse[bool] | web.WebSocketResponse"


class RefusedUpgradeError(Exception):
    """The pod answered the handshake with plain HTTP; this is what it said."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.headers, self.body = status, headers, body


async def _keep_refusal(answer: aiohttp.ClientResponse) -> None:
    """For a session: the client's own error for a refused handshake has no body."""
    if answer.status != 101:
        raise RefusedUpgradeError(answer.status, answer.headers, await answer.read())


class SocketRelay:
    """Both ends of one socket. `is_cut` is asked after every frame."""

    def __init__(self, request: web.Request, *, idle_cut_s: float, is_cut: Callable[[], bool]) -> None:
        self._request = request
        self._idle_cut_s = idle_cut_s
        self._is_cut = is_cut
        self._loop = asyncio.get_running_loop()
        self._moved_s = self._loop.time()
        self._is_lost = False

    async def run(self, url: URL, headers: CIMultiDict[str], extra: Mapping[str, str]) -> web.WebSocketResponse:
        """Relay until either end closes. Raises RefusedUpgradeError, aiohttp.ClientError if the pod is not there."""
        offered = headers.get("Sec-WebSocket-Protocol", "")
        protocols = [name.strip() for name in offered.split(",") if name.strip()]
        plain = CIMultiDict((k, v) for k, v in headers.items() if not k.lower().startswith("sec-websocket-"))
        async with (
            aiohttp.ClientSession(raise_for_status=_keep_refusal, skip_auto_headers=("User-Agent",)) as session,
            session.ws_connect(
                url,
                headers=plain,
                protocols=protocols,
                autoping=False,
                autoclose=False,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            ) as pod,
        ):
            user = web.WebSocketResponse(
                timeout=CLOSE_S,
                autoping=False,
                autoclose=False,
                compress=False,
                max_msg_size=MAX_MESSAGE_BYTES,
                protocols=[pod.protocol] if pod.protocol else (),
            )
            user.headers.update(extra)
            await user.prepare(self._request)
            await self._relay(user, pod)
        return user

    async def _relay(self, user: web.WebSocketResponse, pod: PodSocket) -> None:
        ways = [asyncio.ensure_future(way) for way in (self._pump(user, pod), self._pump(pod, user))]
        watch = asyncio.ensure_future(self._watch())
        is_whole = False
        try:
            # Whichever pump ends first has handed a close on, and waits for its answer; the second hears of it.
            await asyncio.wait({*ways, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not watch.done() and not self._is_lost:
                await asyncio.wait(ways, timeout=2 * CLOSE_S)
                is_whole = not self._is_lost
        finally:
            if not is_whole:
                self._cut(pod)
            for task in (*ways, watch):
                task.cancel()
            await asyncio.gather(*ways, watch, return_exceptions=True)

    async def _pump(self, source: Side, sink: Side) -> None:
        while True:
            message = await source.receive()
            self._moved_s = self._loop.time()
            if not await self._pass(message.type, message.data, sink):
                break
            if self._is_cut():
                self._is_lost = True
                return
        if message.type is WSMsgType.CLOSE:
            # A close frame without a code arrives as 0, which none may carry.
            code = message.data or 1000
            await sink.close(code=code, message=(message.extra or "").encode())
            await source.close(code=code)
        elif message.type is WSMsgType.ERROR:
            await sink.close(code=source.close_code or 1011)
        elif message.type is WSMsgType.CLOSED:
            # It went without a close frame.
            self._is_lost = True

    async def _pass(self, kind: WSMsgType, data: Any, sink: Side) -> bool:
        """Hand one frame on; False if it was the last."""
        sends: dict[WSMsgType, Callable[[Any], Awaitable[None]]] = {
            WSMsgType.TEXT: sink.send_str,
            WSMsgType.BINARY: sink.send_bytes,
            WSMsgType.PING: sink.ping,
            WSMsgType.PONG: sink.pong,
        }
        send = sends.get(kind)
        if send is None:
            return False
        # If the sink is gone, the other pump hears why.
        with contextlib.suppress(ConnectionError):
            await send(data)
        return True

    async def _watch(self) -> None:
        """Ends when no frame has passed for the idle limit."""
        left_s = self._idle_cut_s
        while left_s > 0:
            await asyncio.sleep(left_s)
            left_s = self._moved_s + self._idle_cut_s - self._loop.time()

    def _cut(self, pod: PodSocket) -> None:
        """Both connections end as when a cable is cut: no close frame."""
        if self._request.transport is not None:
            self._request.transport.abort()
        line = pod.get_extra_info("socket")
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
