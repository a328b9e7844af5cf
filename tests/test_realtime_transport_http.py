"""HTTP connections against a real server on loopback: deadlines, sizes, malformed input, the uvicorn pin."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version

import pytest
from starlette.types import Receive, Scope, Send

from realtime.transport import Limits
from realtime.transport_base import MAX_HEAD_BYTES, render_response
from realtime.transport_http import RELIED_UPON, HttpProtocol
from tests.fakes.loopback import RawClient, listening, run

QUICK = Limits(header_timeout_s=0.3, keep_alive_s=1, body_idle_s=0.3, write_stall_s=0.3)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, without reading the request's body."""
    body = scope["method"].encode() + b" " + scope["path"].encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Uploads:
    """Reads the whole request body, after a pause if asked, and answers with its size."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.outcome: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(self.pause_s)
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.outcome.put_nowait("disconnected")
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})
        self.outcome.put_nowait(str(size))


def test_get_head_and_keep_alive() -> None:
    async def scenario() -> None:
        async with listening(hello) as server:
            client = await RawClient.connect(server.port)
            await client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            status, headers, body = await client.response()
            assert (status, body) == (200, b"GET /a") and "date" in headers and "server" not in headers
            await client.send(b"HEAD /b HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.head())[1]["content-length"] == str(len(b"HEAD /b"))
            await client.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [(await client.response())[2], (await client.response())[2]] == [b"GET /1", b"GET /2"]
            await client.close()

    run(scenario)


@pytest.mark.parametrize("pieces", [[], [b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 100], [b"\r\n"] * 100])
@pytest.mark.parametrize("after_a_request", [False, True])
def test_a_head_that_does_not_come_is_cut_at_its_deadline(pieces: list[bytes], after_a_request: bool) -> None:
    async def scenario() -> None:
        async with listening(hello, QUICK) as server:
            client = await RawClient.connect(server.port)
            if after_a_request:
                await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await client.response()
            started_s = asyncio.get_running_loop().time()
            end = asyncio.create_task(client.rest())
            for piece in pieces:
                if end.done():
                    break
                client.writer.write(piece)
                await asyncio.sleep(0.02)
            answer = await end
            elapsed_s = asyncio.get_running_loop().time() - started_s
            # Between two requests, without a byte, the keep-alive bound applies instead.
            bound_s = 1.0 if after_a_request and not pieces else 0.3
            assert bound_s - 0.05 < elapsed_s < bound_s + 0.6
            assert answer.startswith(b"HTTP/1.1 408 ") == bool(pieces)
            assert server.connections == 0
            await client.close()

    run(scenario)


def request_of_size(size: int) -> bytes:
    padding = size - len("/") - len("host") - len("x") - 4 - len("x-pad") - 4
    return b"GET / HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"y" * padding + b"\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD_BYTES, 200), (MAX_HEAD_BYTES + 1, 431)])
def test_a_head_of_the_maximum_size_is_taken_and_one_byte_more_is_431(size: int, status: int) -> None:
    async def scenario() -> None:
        async with listening(hello) as server:
            client = await RawClient.connect(server.port)
            await client.send(request_of_size(size))
            assert (await client.response())[0] == status
            await client.close()

    run(scenario)


def test_a_head_without_end_is_431_before_its_deadline() -> None:
    async def scenario() -> None:
        async with listening(hello) as server:
            client = await RawClient.connect(server.port)
            await client.send(b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES)
            assert (await client.response())[0] == 431
            assert await client.ended()
            await client.close()

    run(scenario)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\0" * 100,
    ],
)
def test_malformed_http_gets_400_and_no_traceback(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with listening(Uploads()) as server:
            client = await RawClient.connect(server.port)
            await client.send(data)
            status, _headers, _body = await client.response()
            assert status == 400
            assert await client.ended()
            await client.close()

    run(scenario)
    assert "Traceback" not in caplog.text


def test_a_body_that_stops_is_cut_and_the_application_told() -> None:
    async def scenario() -> None:
        app = Uploads()
        async with listening(app, QUICK) as server:
            client = await RawClient.connect(server.port)
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
            assert await asyncio.wait_for(app.outcome.get(), 2) == "disconnected"
            assert await client.ended()
            await client.close()

    run(scenario)


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_body_that_the_application_is_slow_to_read_is_not_cut(size: int) -> None:
    async def scenario() -> None:
        app = Uploads(pause_s=0.8)
        async with listening(app, QUICK) as server:
            client = await RawClient.connect(server.port)
            head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size
            await client.send(head + bytes(size))
            assert await asyncio.wait_for(app.outcome.get(), 5) == str(size)
            await client.close()

    run(scenario)


@pytest.mark.parametrize(
    ("limits", "is_cut"),
    [
        (replace(QUICK, discard_s=0.1), True),
        (replace(QUICK, discard_s=60.0, discard_bytes=9_999), True),
        (replace(QUICK, discard_s=60.0, discard_bytes=10_000), False),
    ],
)
@pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
def test_an_upload_that_was_answered_early_must_end_soon(limits: Limits, is_cut: bool, connection: bytes) -> None:
    async def scenario() -> None:
        async with listening(hello, limits) as server:
            client = await RawClient.connect(server.port)
            head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nContent-Length: 10001\r\n\r\n" % connection
            await client.send(head)
            assert (await client.response())[0] == 200
            end = asyncio.create_task(client.ended())
            for _ in range(10):
                if end.done():
                    break
                client.writer.write(bytes(1_000))
                await asyncio.sleep(0.02)
            await asyncio.wait({end}, timeout=0.1)
            assert end.done() == is_cut
            assert server.connections == (0 if is_cut else 1)
            with suppress(ConnectionError):  # One that was cut may be gone already.
                await client.send(b"x")
            assert await end, "in any case after its last byte: there is no second request"
            await client.close()

    run(scenario)


async def drain(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def test_a_peer_that_takes_no_byte_of_its_response_is_cut() -> None:
    ended = asyncio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.create_task(drain(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    async def scenario() -> None:
        async with listening(flood, QUICK) as server:
            client = await RawClient.connect(server.port)
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(ended.wait(), 5)
            assert server.connections == 0
            await client.close()

    run(scenario)


def test_an_application_that_fails_gives_500_and_its_target_stays_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fail":
            raise LookupError("on purpose")
        await hello(scope, receive, send)

    async def scenario() -> None:
        async with listening(app) as server:
            for path, status in (("/fail", 500), ("/fine", 200)):
                client = await RawClient.connect(server.port)
                await client.send(
                    f"GET {path}?token=CANARY-1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer CANARY-1\r\n\r\n".encode()
                )
                assert (await client.response())[0] == status
                await client.close()
            client = await RawClient.connect(server.port)
            await client.send(b"GET /?token=CANARY-1 HTTP/1.1\r\nbroken\r\n\r\n")
            assert (await client.response())[0] == 400
            await client.close()

    caplog.set_level(logging.DEBUG)
    run(scenario)
    assert "LookupError" in caplog.text and "CANARY" not in caplog.text


def test_responses_cannot_be_split_by_a_header_value() -> None:
    with pytest.raises(ValueError, match="line break"):
        render_response(401, [(b"x", b"y\r\nset-cookie: z")])


def test_a_rendered_response_keeps_given_headers_and_ends_the_connection() -> None:
    response = render_response(299, [(b"Content-Type", b"application/json")], b"{}")
    assert response.startswith(b"HTTP/1.1 299 \r\n") and response.endswith(b"connection: close\r\n\r\n{}")
    assert response.count(b"content-type") == 1 and b"content-length: 2\r\n" in response


def test_uvicorn_still_has_what_we_build_on() -> None:
    """If this fails, uvicorn has changed inside: read its httptools_impl.py before moving the pin."""

    async def scenario() -> None:
        seen: list[HttpProtocol] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            (connection,) = server._connections
            assert isinstance(connection, HttpProtocol)
            seen.append(connection)
            missing = [name for name in RELIED_UPON if not hasattr(connection, name)]
            assert missing == [], f"uvicorn {version('uvicorn')} lacks {missing}"
            # What it keeps per request, and the two flags of parts that it owns.
            assert connection.url == b"/x?y" and connection.headers == [(b"host", b"z")]
            assert connection.scope == scope and connection.cycle.response_complete is False
            assert connection.flow.read_paused is False
            assert connection in server.state.connections and isinstance(server.state.tasks, set)
            await hello(dict(scope), receive, send)

        async with listening(app) as server:
            client = await RawClient.connect(server.port)
            await client.send(b"GET /x?y HTTP/1.1\r\nHost: z\r\n\r\n")
            assert (await client.response())[0] == 200
            await client.close()
        assert len(seen) == 1 and seen[0].access_log is False

    run(scenario)
