"""The HTTP server of the control plane on loopback, in a thread of its own: calls in, answers and faults out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from aiohttp import web

from tests.fakes.runpod.calls import Answer, Call, LogStream, Operation
from tests.fakes.runpod.logs import event

__all__ = ["ControlServer", "Outcome"]

LOOK_EVERY_S = 0.005
START_LIMIT_S = 10.0
MAX_BODY_BYTES = 16_000_000


class Outcome:
    """What to do for a call: wait, then send `answer` as `ending` says; `cut_after` breaks a log stream."""

    def __init__(self, answer: Answer, headers: dict[str, str], ending: str, cut_after: int | None = None) -> None:
        self.answer = answer
        self.headers = headers
        self.ending = ending
        self.cut_after = cut_after


Decide = Callable[[Call, Operation], Awaitable[Outcome]]


class ControlServer:
    """Serves operations by asking `decide`, and foreign routes as they are; `port` is known once it is entered."""

    def __init__(self, decide: Decide, port: int = 0) -> None:
        self.port = port
        self.log_hold_s = 0.05
        self._decide = decide
        self._operations: list[Operation] = []
        self._routes: list[web.RouteDef] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._is_up = threading.Event()

    def add_operations(self, operations: Sequence[Operation]) -> None:
        """Before the start; those that are added first win."""
        assert self._thread is None
        self._operations += operations

    def add_routes(self, routes: Sequence[web.RouteDef]) -> None:
        """aiohttp's routes, before the start: not written down, no key, no faults."""
        assert self._thread is None
        self._routes += routes

    # Life

    def __enter__(self) -> ControlServer:
        self._thread = threading.Thread(target=self._serve, name="control-plane", daemon=True)
        self._thread.start()
        assert self._is_up.wait(START_LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._stop is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_LIMIT_S)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(self._routes)
        app.add_routes([web.route(each.method, each.path, self._handler(each)) for each in self._operations])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]
        self._is_up.set()
        await self._stop.wait()
        await runner.cleanup()

    # One request

    def _handler(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            call = Call(
                request.method,
                operation.route if operation.method != "*" else f"{request.method} {request.path}",
                request.path,
                dict(request.match_info),
                dict(request.query),
                request.headers,
                await request.read(),
            )
            outcome = await self._decide(call, operation)
            return await self._send(request, outcome)

        return serve

    async def _send(self, request: web.Request, outcome: Outcome) -> web.StreamResponse:
        answer = outcome.answer
        if outcome.ending in ("close", "reset"):
            return _hang_up(request, with_reset=outcome.ending == "reset")
        headers = {**outcome.headers, **answer.headers}
        if answer.stream is not None:
            return await self._send_log(request, answer, answer.stream, headers, outcome)
        payload = answer.payload()
        if payload:
            headers["Content-Type"] = answer.content_type
        if outcome.ending == "half":
            return await _send_half(request, answer.status, payload, headers)
        return web.Response(status=answer.status, body=payload or None, headers=headers)

    async def _send_log(
        self, request: web.Request, answer: Answer, stream: LogStream, headers: dict[str, str], outcome: Outcome
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Content-Type": answer.content_type})
        loop = asyncio.get_running_loop()
        ends_s, sent, number, lines = loop.time() + self.log_hold_s, 0, stream.last_number, stream.lines
        cut_after = 0 if outcome.ending == "half" else outcome.cut_after
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            while True:
                for line in lines:
                    if cut_after is not None and sent >= cut_after:
                        return _hang_up(request, with_reset=False)
                    await response.write(event(line))
                    sent += 1
                if cut_after is not None and sent >= cut_after:
                    return _hang_up(request, with_reset=False)
                if loop.time() >= ends_s:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
                lines = stream.later(number)
                number = max([number, *(line.number for line in lines)])
            await response.write_eof()
        return response


def _hang_up(request: web.Request, *, with_reset: bool) -> web.Response:
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if with_reset and raw is not None:
            # Zero linger: the kernel sends a reset instead of an orderly end.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


async def _send_half(request: web.Request, status: int, payload: bytes, headers: dict[str, str]) -> web.StreamResponse:
    if not payload:
        return _hang_up(request, with_reset=False)
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(payload))})
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
        # What was written must be on its way before the connection ends.
        await asyncio.sleep(0.005)
    _hang_up(request, with_reset=False)
    return response
