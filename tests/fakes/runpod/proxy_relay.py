"""One request through a proxy to a server on loopback, and its answer back: plain HTTP, or a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.fakes.runpod.proxy_sockets import RefusedUpgradeError, SocketRelay

__all__ = ["Relay", "SilentError", "end_to_end", "is_upgrade"]

CHUNK_BYTES = 65_536
# Those that concern one connection only (RFC 9110), and those that the proxy itself answers or sets.
OWN_HEADERS = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "expect", "host"),
    )
)
NO_DEFAULTS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class SilentError(Exception):
    """No first byte of an answer within the limit."""


@dataclass
class Relay:
    """Where to: `target` is "127.0.0.1:port/path", `headers` what the server sees, `extra` what answers get.

    `body` replaces the request's own, which else is handed on as it comes.
    """

    request: web.Request
    target: str
    headers: CIMultiDict[str]
    extra: Mapping[str, str]
    first_byte_s: float
    idle_cut_s: float
    is_cut: Callable[[], bool] = lambda: False
    body: bytes | None = None

    async def run(self) -> web.StreamResponse:
        """Raises SilentError, and aiohttp.ClientError if the server is not there or goes before it says anything."""
        if is_upgrade(self.request):
            return await self._socket(URL(f"ws://{self.target}", encoded=True))
        return await self._http(URL(f"http://{self.target}", encoded=True))

    async def _http(self, url: URL) -> web.StreamResponse:
        upload = _Upload(self.request)
        async with aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=NO_DEFAULTS, timeout=aiohttp.ClientTimeout(total=None)
        ) as session:

            async def ask() -> aiohttp.ClientResponse:
                coming = upload.chunks() if self.request.can_read_body else None
                data = coming if self.body is None else io.BytesIO(self.body)
                return await session.request(
                    self.request.method, url, headers=self.headers, data=data, allow_redirects=False
                )

            async with await self._first_byte(asyncio.ensure_future(ask()), upload) as answer:
                return await self._hand_back(answer)

    async def _first_byte(
        self, asking: asyncio.Task[aiohttp.ClientResponse], upload: _Upload
    ) -> aiohttp.ClientResponse:
        """The answer's head. Raises SilentError if it takes too long after the question's last byte."""
        loop = asyncio.get_running_loop()
        try:
            while not asking.done():
                left_s = upload.moved_s + self.first_byte_s - loop.time()
                if left_s <= 0:
                    raise SilentError
                await asyncio.wait({asking}, timeout=left_s)
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
                    await asking

    async def _hand_back(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        self._headers_out(response, answer.headers)
        await response.prepare(self.request)
        try:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                await response.write(chunk)
        except aiohttp.ClientError:
            # The server died in the middle: so does the answer, rather than end as if it were whole.
            if self.request.transport is not None:
                self.request.transport.abort()
            return response
        await response.write_eof()
        return response

    async def _socket(self, url: URL) -> web.StreamResponse:
        relay = SocketRelay(self.request, idle_cut_s=self.idle_cut_s, is_cut=self.is_cut)
        try:
            return await relay.run(url, self.headers, self.extra)
        except RefusedUpgradeError as refusal:
            response = web.Response(status=refusal.status, body=refusal.body)
            self._headers_out(response, refusal.headers, without=("content-length",))
            return response

    def _headers_out(self, response: web.StreamResponse, given: Mapping[str, str], without: Sequence[str] = ()) -> None:
        for name, value in end_to_end(given).items():
            if name.lower() not in without:
                response.headers.add(name, value)
        response.headers.update(self.extra)


class _Upload:
    """A question's body on its way; `moved_s` is when its last piece came (loop time)."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self.moved_s = self._loop.time()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces."""
        async for chunk in self._content.iter_chunked(CHUNK_BYTES):
            self.moved_s = self._loop.time()
            yield chunk
        self.moved_s = self._loop.time()


def is_upgrade(request: web.Request) -> bool:
    """Whether the request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that a proxy passes on."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in OWN_HEADERS | named)
