"""The fake RunPod's proxy: what it passes on, what it refuses, and how it loses connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from yarl import URL

from tests.fakes.runpod.proxy_plane import PodPorts, ProxyPlane

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PODS = {"up": PodPorts("RUNNING", ("9090/http", "22/tcp")), "boot": PodPorts("STARTING", ("9090/http",))}


class Net:
    """A proxy, and one pod's program behind it."""

    def __init__(self, proxy: ProxyPlane, url: str) -> None:
        self.proxy = proxy
        self.url = url

    def socket(self, path: str = "/up/9090/", **options: Any) -> connect:
        return connect(f"ws{self.url[4:]}{path}", proxy=None, compression=None, **options)


@contextlib.asynccontextmanager
async def served(routes: list[web.RouteDef]) -> AsyncIterator[int]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def through(program: Handler, user: Callable[[Net], Awaitable[None]]) -> None:
    """Run `user` against `program` as port 9090 of the pods."""

    async def main() -> None:
        proxy = ProxyPlane(PODS.get)
        async with served([web.route("*", "/{path:.*}", program)]) as port, served(proxy.routes()) as proxy_port:
            for pod_id in PODS:
                proxy.register(pod_id, 9090, port)
            await asyncio.wait_for(user(Net(proxy, f"http://127.0.0.1:{proxy_port}/proxy")), 10)

    asyncio.run(main())


async def asked(url: str, method: str = "GET", **options: Any) -> tuple[int, str, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
        return answer.status, await answer.text(), answer.headers


async def mirror(request: web.Request) -> web.StreamResponse:
    body = await request.text()
    seen = {"method": request.method, "path": request.raw_path, "headers": dict(request.headers), "body": body}
    return web.json_response(seen, status=207, headers={"X-Pod": "1", "Keep-Alive": "timeout=1"})


async def echo(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=("b", "a"), max_msg_size=0)
    await socket.prepare(request)
    await socket.send_str(request.path)
    async for message in socket:
        if message.data == "bye":
            await socket.close(code=4401, message=b"the secret is wrong")
        elif message.data == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    CLOSES.append(socket.close_code)
    return socket


CLOSES: list[int | None] = []


def test_a_request_arrives_as_it_was_sent_and_so_does_the_answer() -> None:
    async def user(net: Net) -> None:
        headers = {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "X-Mine": "2", "User-Agent": "me/1"}
        async with aiohttp.ClientSession() as session:
            url = f"{net.url}/up/9090/a%2Fb?q=%20&e"
            async with session.post(URL(url, encoded=True), data="hello", headers=headers) as answer:
                seen, status, got = await answer.json(), answer.status, answer.headers
        assert (status, seen["method"], seen["path"], seen["body"]) == (207, "POST", "/a%2Fb?q=%20&e", "hello")
        assert got["X-Pod"] == "1" and got["CF-Ray"] and "Keep-Alive" not in got
        sent = seen["headers"]
        assert (sent["X-Mine"], sent["User-Agent"], sent["X-Forwarded-For"]) == ("2", "me/1", "127.0.0.1")
        assert sent["Host"] == "up-9090.proxy.runpod.net"
        assert not {"X-Hop", "Authorization", "Expect"} & set(sent)

    through(mirror, user)


def test_bodies_stream_both_ways() -> None:
    async def program(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for chunk in request.content.iter_any():
            await answer.write(chunk)
        return answer

    async def user(net: Net) -> None:
        first_back = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            await first_back.wait()
            yield b"two"

        async with aiohttp.ClientSession() as session, session.post(f"{net.url}/up/9090/", data=body()) as answer:
            assert await answer.content.readexactly(3) == b"one"
            first_back.set()
            assert await answer.read() == b"two"

    through(program, user)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/gone/9090/", 404), ("/up/9999/", 404), ("/up/22/", 404), ("/boot/9090/", 502), ("/up/9090", 207)],
)
def test_what_the_edge_answers_itself(path: str, status: int) -> None:
    async def user(net: Net) -> None:
        got, text, headers = await asked(net.url + path)
        assert (got, bool(headers["CF-Ray"])) == (status, True)
        assert status == 207 or text.startswith("<html>")

    through(mirror, user)


def test_nobody_listening_is_a_502_and_silence_a_524() -> None:
    async def program(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async def user(net: Net) -> None:
        net.proxy.first_byte_s = 0.1
        assert (await asked(f"{net.url}/up/9090/"))[0] == 524
        net.proxy.register("up", 9090, 1)
        assert (await asked(f"{net.url}/up/9090/"))[0] == 502
        with pytest.raises(websockets.InvalidStatus, match="502"):
            async with net.socket():
                pass
        net.proxy.unregister("up")
        assert (await asked(f"{net.url}/up/9090/"))[0] == 502

    through(program, user)


def test_an_answer_that_breaks_off_does_not_end_as_if_it_were_whole() -> None:
    async def program(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return answer

    async def user(net: Net) -> None:
        with pytest.raises(aiohttp.ClientError):
            await asked(f"{net.url}/up/9090/")

    through(program, user)


def test_frames_pings_and_closes_pass_both_ways() -> None:
    async def user(net: Net) -> None:
        CLOSES.clear()
        async with net.socket("/up/9090/some/path", subprotocols=["x", "a"], max_size=None) as socket:
            assert socket.subprotocol == "a"
            assert await socket.recv() == "/some/path"
            for message in ("text ✓", b"\x00\xff", b"x" * 3_000_000):
                await socket.send(message)
                assert await socket.recv() == message
            await (await socket.ping(b"are you there"))
            await socket.close(4000, "enough")
        async with net.socket() as socket:
            await socket.send("bye")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await receive_all(socket)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "the secret is wrong")
        assert CLOSES == [4000, 4401]

    through(echo, user)


def test_a_refused_handshake_reaches_the_user_whole() -> None:
    async def program(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, text="a secret is required", headers={"WWW-Authenticate": "Bearer"})

    async def user(net: Net) -> None:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with net.socket():
                pass
        answer = refused.value.response
        assert (answer.status_code, answer.body) == (401, b"a secret is required")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    through(program, user)


async def receive_all(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


def test_sockets_are_cut_without_a_close_frame() -> None:
    async def lost(socket: ClientConnection) -> None:
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await receive_all(socket)
        assert closed.value.rcvd is None

    async def user(net: Net) -> None:
        CLOSES.clear()
        net.proxy.idle_cut_s = 0.3
        async with net.socket(ping_interval=0.1) as socket:
            await socket.recv()
            await asyncio.sleep(0.6)
            await socket.send("pings count as traffic")
            assert await socket.recv() == "pings count as traffic"
        async with net.socket(ping_interval=None) as socket:
            await lost(socket)
        net.proxy.cut_after("up", frames=3)
        async with net.socket() as socket:
            await socket.send("second frame, and its echo is the third")
            await lost(socket)
        async with net.socket() as socket:
            await socket.recv()
            await socket.send("drop")
            await lost(socket)
        net.proxy.cut_share = 1.0
        async with net.socket() as socket:
            await lost(socket)
        await asyncio.sleep(0.1)
        assert CLOSES[0] == 1000 and set(CLOSES[1:]) <= {1000, 1006, None}

    through(echo, user)


def test_a_message_beyond_the_limit_closes_with_1009() -> None:
    async def user(net: Net) -> None:
        async with net.socket() as socket:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.send(b"x" * (16 * 1024 * 1024 + 1))
                await receive_all(socket)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009

    through(echo, user)
