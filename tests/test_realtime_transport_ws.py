"""WebSocket connections against a real server on loopback, with a conforming and with raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from realtime.transport import ClientDisconnectedError, Limits
from realtime.transport_wire import MAX_REASON_BYTES
from realtime.transport_ws import READ_BUFFER_BYTES
from tests.fakes.loopback import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_payload,
    frame,
    handshake,
    listening,
    run,
)

MIB = 1024 * 1024


class Recorder:
    """An application that accepts, echoes sizes and texts, and writes down how it ended."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.ended: asyncio.Queue[Message] = asyncio.Queue()
        self.scopes: list[Scope] = []
        self.may_receive = asyncio.Event()
        self.may_receive.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while True:
            await self.may_receive.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ended.put_nowait(message)
                return
            data = message.get("text", message.get("bytes"))
            self.received.append(data)
            with contextlib.suppress(ClientDisconnectedError):
                await send({"type": "websocket.send", "text": data if isinstance(data, str) else str(len(data))})


def closing(code: int, reason: str = "") -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code, "reason": reason})

    return app


def test_text_and_binary_come_and_go_without_compression() -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app) as server, connect(f"ws://127.0.0.1:{server.port}/any/p%C3%A4th?a=b") as client:
            assert client.response is not None and "Sec-WebSocket-Extensions" not in client.response.headers
            await client.send("grüße")
            assert await client.recv() == "grüße"
            await client.send(b"\x00\x01\x02")
            assert await client.recv() == "3"
            await client.send([b"frag", b"men", b"ted"])
            assert await client.recv() == "10"
            await client.ping()
        scope = app.scopes[0]
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/any/päth", b"/any/p%C3%A4th", b"a=b")
        assert scope["scheme"] == "ws" and scope["client"][0] == "127.0.0.1"
        assert (await app.ended.get())["code"] == 1000

    run(scenario)


def test_a_message_of_the_maximum_size_is_taken_and_one_byte_more_is_1009() -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app) as server:
            url = f"ws://127.0.0.1:{server.port}/"
            async with connect(url) as client:
                await client.send(bytes(4 * MIB))
                assert await client.recv() == str(4 * MIB)
                # AttributeError: asyncio's, when the peer is gone in the moment of the write.
                with pytest.raises((ConnectionClosed, AttributeError)):
                    await client.send(bytes(4 * MIB + 1))
                    await client.recv()
                await client.wait_closed()
                assert client.close_code == 1009
            assert (await app.ended.get())["code"] == 1009
            raw = await RawClient.upgraded(server.port)
            half = bytes(2 * MIB)
            await raw.send(frame(BINARY, half, fin=False) + frame(CONT, half, fin=False) + frame(CONT, b"x"))
            assert await raw.close_code() == 1009
            await raw.close()

    run(scenario)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"x", masked=False), 1002),
        (frame(0x3, b"x"), 1002),
        (frame(0xB, b"x"), 1002),
        (frame(BINARY, b"x", rsv=4), 1002),
        (frame(CONT, b"x"), 1002),
        (frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, close_payload(1005)), 1002),
        (frame(CLOSE, close_payload(999)), 1002),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"x"), 1007),
        (b"\x82\xff" + struct.pack("!Q", 2**62) + b"\0\0\0\0", 1009),
        (frame(BINARY, bytes(4 * MIB + 1))[:200], 1009),
    ],
)
def test_malformed_frames_get_the_right_close_code(data: bytes, code: int) -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app) as server:
            client = await RawClient.upgraded(server.port)
            await client.send(frame(TEXT, b"before") + data)
            assert await client.close_code() == code
            assert await client.ended()
            await client.close()
            assert (await app.ended.get())["code"] == code
            assert app.received == ["before"]

    run(scenario)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 4000, 4999])
def test_the_close_code_of_the_application_arrives(code: int) -> None:
    async def scenario() -> None:
        async with listening(closing(code, "because")) as server:
            async with connect(f"ws://127.0.0.1:{server.port}/") as client:
                await client.wait_closed()
            assert (client.close_code, client.close_reason) == (code, "because")

    run(scenario)


@pytest.mark.parametrize(("code", "seen"), [(1005, 1005), (1006, 1006), (1004, 1011), (1015, 1011), (5000, 1011)])
def test_close_codes_that_no_frame_may_carry(code: int, seen: int) -> None:
    async def scenario() -> None:
        async with listening(closing(code)) as server:
            client = await RawClient.upgraded(server.port)
            assert await client.close_code() == seen
            await client.close()

    run(scenario)


def test_a_long_reason_is_cut_at_a_character_boundary() -> None:
    async def scenario() -> None:
        async with listening(closing(4001, "ä" * 100)) as server:
            async with connect(f"ws://127.0.0.1:{server.port}/") as client:
                await client.wait_closed()
            assert client.close_reason == "ä" * (MAX_REASON_BYTES // 2)

    run(scenario)


def test_a_peer_that_never_answers_the_close_frame_is_dropped() -> None:
    async def scenario() -> None:
        async with listening(closing(4000), Limits(close_timeout_s=0.2)) as server:
            client = await RawClient.upgraded(server.port)
            assert await client.close_code() == 4000
            assert server.connections == 1
            started_s = asyncio.get_running_loop().time()
            assert await client.ended()
            assert asyncio.get_running_loop().time() - started_s < 1.0
            await client.close()

    run(scenario)


def test_the_application_rejects_with_any_http_response() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"retry-after", b"7"), (b"content-type", b"application/json")]
        await send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b'{"code":', "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b'"full"}'})

    async def scenario() -> None:
        async with listening(app) as server:
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{server.port}/").__aenter__()
            response = caught.value.response
            assert response.status_code == 503 and response.body == b'{"code":"full"}'
            assert response.headers["Retry-After"] == "7"
            assert response.headers["Content-Type"] == "application/json"

    run(scenario)


def test_closing_before_accepting_is_403_and_returning_is_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/close":
            await send({"type": "websocket.close"})
        if scope["path"] == "/raise":
            raise LookupError("on purpose")

    async def scenario() -> None:
        async with listening(app) as server:
            for path, status in (("/close", 403), ("/raise", 500), ("/return", 500)):
                client = await RawClient.connect(server.port)
                await client.send(handshake(path))
                assert (await client.response())[0] == status
                assert await client.ended()
                await client.close()

    run(scenario)
    assert "LookupError" in caplog.text


def test_an_application_that_fails_later_gives_1011_and_one_that_returns_gives_1000() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        if scope["path"] == "/raise":
            raise LookupError("on purpose")

    async def scenario() -> None:
        async with listening(app) as server:
            for path, code in (("/raise", 1011), ("/return", 1000)):
                client = await RawClient.upgraded(server.port, path)
                assert await client.close_code() == code
                await client.close()

    run(scenario)


def test_the_application_chooses_subprotocol_and_headers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["subprotocols"] == ["bearer", "x"]
        await send({"type": "websocket.accept", "subprotocol": "bearer", "headers": [(b"x-session", b"7")]})

    async def scenario() -> None:
        async with listening(app) as server:
            offered = [Subprotocol("bearer"), Subprotocol("x")]
            async with connect(f"ws://127.0.0.1:{server.port}/", subprotocols=offered) as client:
                assert client.subprotocol == "bearer"
                assert client.response is not None and client.response.headers["X-Session"] == "7"

    run(scenario)


def test_bytes_sent_behind_the_handshake_are_not_lost() -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app) as server:
            client = await RawClient.connect(server.port)
            await client.send(handshake() + frame(TEXT, b"early") + frame(TEXT, b"bird")[:4])
            assert (await client.head())[0] == 101
            await client.send(frame(TEXT, b"bird")[4:])
            assert [await client.read_frame(), await client.read_frame()] == [(TEXT, b"early"), (TEXT, b"bird")]
            await client.close()

    run(scenario)


def test_a_full_queue_stops_reading_and_loses_nothing() -> None:
    async def scenario() -> None:
        app = Recorder()
        app.may_receive.clear()
        limits = Limits(queue_messages=4, ping_interval_s=0.05, ping_timeout_s=0.1)
        async with listening(app, limits) as server, connect(f"ws://127.0.0.1:{server.port}/") as client:
            payload = bytes(32 * 1024)
            flood = asyncio.create_task(send_all(client, [payload] * 400))
            # Many times the pong deadline: reading stands still, and that is not held against the peer.
            await asyncio.sleep(0.6)
            assert not flood.done(), "12 MiB went out although nobody read"
            assert app.received == []
            app.may_receive.set()
            await flood
            for _ in range(400):
                assert await client.recv() == str(len(payload))
            assert len(app.received) == 400

    run(scenario)


async def send_all(client: Any, payloads: list[bytes]) -> None:
    for payload in payloads:
        await client.send(payload)


def test_a_peer_that_stays_silent_while_we_read_is_cut_and_a_living_one_is_not() -> None:
    async def scenario() -> None:
        app = Recorder()
        limits = Limits(ping_interval_s=0.1, ping_timeout_s=0.2, close_timeout_s=0.2)
        async with listening(app, limits) as server:
            dead = await RawClient.upgraded(server.port)
            async with connect(f"ws://127.0.0.1:{server.port}/") as living:
                started_s = asyncio.get_running_loop().time()
                assert await dead.close_code() == 1011
                assert 0.25 < asyncio.get_running_loop().time() - started_s < 1.0
                assert (await app.ended.get())["code"] == 1011
                await asyncio.sleep(0.5)
                await living.send("still here")
                assert await living.recv() == "still here"
            await dead.close()

    run(scenario)


def test_a_peer_that_died_while_we_did_not_read_is_cut_once_we_read_again() -> None:
    async def scenario() -> None:
        app = Recorder()
        app.may_receive.clear()
        limits = Limits(queue_messages=1, ping_interval_s=0.05, ping_timeout_s=0.1, close_timeout_s=0.1)
        async with listening(app, limits) as server:
            client = await RawClient.upgraded(server.port)
            await client.send(frame(TEXT, b"last words"))
            await asyncio.sleep(0.5)
            assert server.connections == 1
            app.may_receive.set()
            assert (await app.ended.get())["code"] == 1011
            assert app.received == ["last words"]
            await client.close()

    run(scenario)


@pytest.mark.parametrize("kind", ["dribbled", "fragmented", "half a header"])
def test_an_incomplete_message_is_cut_at_its_deadline(kind: str) -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app, Limits(message_timeout_s=0.3)) as server:
            client = await RawClient.upgraded(server.port)
            started_s = asyncio.get_running_loop().time()
            code = asyncio.create_task(client.close_code())
            pieces = {
                "dribbled": [bytes([byte]) for byte in frame(BINARY, bytes(500))],
                "fragmented": [frame(BINARY, b"x", fin=False), *[frame(CONT, b"x", fin=False) + frame(PING)] * 500],
                "half a header": [b"\x82"],
            }[kind]
            for piece in pieces:
                if code.done():
                    break
                with contextlib.suppress(ConnectionError):
                    await client.send(piece)
                await asyncio.sleep(0.02)
            assert await code == 1008
            assert 0.25 < asyncio.get_running_loop().time() - started_s < 1.0
            assert (await app.ended.get())["code"] == 1008
            await client.close()

    run(scenario)


def test_messages_that_complete_may_straddle_reads_for_ever() -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app, Limits(message_timeout_s=0.2)) as server:
            client = await RawClient.upgraded(server.port)
            one = frame(TEXT, b"word")
            await client.send(one[:3])
            for _ in range(25):
                await asyncio.sleep(0.02)
                await client.send(one[3:] + one[:3])
            await client.send(one[3:])
            for _ in range(26):
                assert await client.read_frame() == (TEXT, b"word")
            await client.close()

    run(scenario)


def test_time_in_which_we_do_not_read_does_not_count_against_a_message() -> None:
    async def scenario() -> None:
        app = Recorder()
        app.may_receive.clear()
        async with listening(app, Limits(message_timeout_s=0.2, queue_messages=1)) as server:
            client = await RawClient.upgraded(server.port)
            await client.send(frame(TEXT, b"first") + frame(TEXT, b"second")[:5])
            await asyncio.sleep(0.5)
            app.may_receive.set()
            await client.send(frame(TEXT, b"second")[5:])
            assert [await client.read_frame(), await client.read_frame()] == [(TEXT, b"first"), (TEXT, b"second")]
            await client.close()

    run(scenario)


def test_send_waits_for_a_slow_reader_and_close_does_not() -> None:
    outcome: dict[str, Any] = {}
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sent = 0
        try:
            while sent < 64 * MIB:
                await asyncio.wait_for(send({"type": "websocket.send", "bytes": bytes(16 * 1024)}), 0.3)
                sent += 16 * 1024
        except asyncio.TimeoutError:
            outcome["sent"] = sent
            await send({"type": "websocket.close", "code": 4003})
            with pytest.raises(ClientDisconnectedError):
                await send({"type": "websocket.send", "bytes": b"late"})
            outcome["after"] = (await receive())["code"]
        done.set()

    async def scenario() -> None:
        async with listening(app, Limits(close_timeout_s=0.2)) as server:
            client = await RawClient.upgraded(server.port)
            await asyncio.wait_for(done.wait(), 10)
            # What the kernel buffers on loopback is a few MiB; beyond it the application was told.
            assert outcome["sent"] < 32 * MIB
            assert outcome["after"] == 4003
            await client.close()

    run(scenario)


def test_a_peer_that_pings_but_does_not_read_makes_no_output_grow() -> None:
    blocked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                await asyncio.wait_for(send({"type": "websocket.send", "bytes": bytes(64 * 1024)}), 0.2)
        blocked.set()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def scenario() -> None:
        async with listening(app) as server:
            client = await RawClient.upgraded(server.port)
            await blocked.wait()
            (connection,) = server._connections
            transport = connection._transport  # type: ignore[attr-defined]
            before = transport.get_write_buffer_size()
            assert before > 0
            for number in range(20_000):
                await client.send(frame(PING, b"%d" % number))
            wire = connection._wire  # type: ignore[attr-defined]
            for _ in range(500):
                if (wire._late_pong or b"").endswith(b"19999"):
                    break
                await asyncio.sleep(0.01)
            assert transport.get_write_buffer_size() <= before + READ_BUFFER_BYTES
            # Once it reads again it gets what was queued, and the latest pong alone.
            pongs: list[bytes] = []
            while not pongs:
                opcode, payload = await client.read_frame()
                pongs += [payload] if opcode == PONG else []
            assert pongs == [b"19999"]
            await client.close()

    run(scenario)


def test_a_flood_of_empty_frames_does_not_stop_the_loop() -> None:
    async def scenario() -> None:
        app = Recorder()
        loop = asyncio.get_running_loop()
        async with listening(app) as server:
            client = await RawClient.upgraded(server.port)
            await client.send(frame(BINARY, b"", fin=False) + frame(CONT, b"", fin=False) * 100_000 + frame(CONT, b"x"))
            worst_s, answer = 0.0, asyncio.create_task(client.read_frame())
            while not answer.done():
                started_s = loop.time()
                await asyncio.sleep(0)
                worst_s = max(worst_s, loop.time() - started_s)
            assert await answer == (TEXT, b"1")
            assert worst_s < 0.5, f"one turn of the loop took {worst_s:.3f} s"
            await client.close()

    run(scenario)


def test_what_arrived_before_the_peer_left_still_reaches_the_application() -> None:
    async def scenario() -> None:
        app = Recorder()
        app.may_receive.clear()
        async with listening(app) as server:
            client = await RawClient.upgraded(server.port)
            await client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(20)) + frame(CLOSE))
            assert await client.close_code() == 1005
            await client.close()
            app.may_receive.set()
            assert (await app.ended.get())["code"] == 1005
            assert app.received == [str(number) for number in range(20)]

    run(scenario)


@pytest.mark.parametrize("how", ["reset", "end of stream"])
def test_a_peer_that_vanishes_is_1006(how: str) -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app) as server:
            client = await RawClient.upgraded(server.port)
            if how == "reset":
                client.writer.transport.abort()
            else:
                client.writer.write_eof()
            assert (await app.ended.get())["code"] == 1006
            await client.close()

    run(scenario)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (handshake().replace(b"Version: 13", b"Version: 8"), {400}),
        (handshake().replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), {400}),
        (handshake().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), {400}),
        (handshake().replace(b"GET", b"POST"), {400}),
        (handshake("/\xff"), {400}),
        (handshake("/", *[f"X-{number}: y" for number in range(200)]), {400, 431}),
        (handshake("/", "X-Long: " + "y" * 10_000), {400, 431}),
    ],
)
def test_bad_handshakes_are_refused_without_the_application(head: bytes, status: set[int]) -> None:
    async def scenario() -> None:
        app = Recorder()
        async with listening(app) as server:
            client = await RawClient.connect(server.port)
            await client.send(head)
            assert (await client.head())[0] in status
            assert await client.ended()
            await client.close()
            assert app.scopes == []

    run(scenario)


def test_no_log_line_holds_a_request_target_a_header_or_a_payload(caplog: pytest.LogCaptureFixture) -> None:
    canary = "CANARY-5f2d"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/reject":
            await send({"type": "websocket.close"})
            return
        await Recorder()(scope, receive, send)

    async def scenario() -> None:
        async with listening(app) as server:
            for path in ("/ok", "/reject"):
                client = await RawClient.connect(server.port)
                await client.send(handshake(f"{path}?token={canary}", f"Authorization: Bearer {canary}"))
                await client.head()
                if path == "/ok":
                    await client.send(frame(TEXT, canary.encode()))
                    await client.read_frame()
                    await client.send(frame(TEXT, canary.encode() + b"\xff"))
                    assert await client.close_code() == 1007
                await client.close()

    caplog.set_level(logging.DEBUG)
    logging.getLogger("realtime.transport").setLevel(logging.DEBUG)
    run(scenario)
    assert canary not in caplog.text
