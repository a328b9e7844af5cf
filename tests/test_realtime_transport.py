"""The listener: caps, draining, TLS, signals, running out of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from engine.errors import ConfigError
from realtime.transport import OVERFLOW, RETRY_AFTER_S, Limits, serve
from tests.fakes.loopback import CLOSE, TEXT, RawClient, frame, handshake, listening, run

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ROOT = Path(__file__).resolve().parent.parent


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 2 s")


def test_port_zero_is_any_free_port_and_a_taken_one_is_a_clear_error() -> None:
    async def scenario() -> None:
        async with listening(echo) as server:
            assert server.port > 0
            with pytest.raises(ConfigError, match=rf"127\.0\.0\.1, port {server.port}: Address already in use"):
                await serve(echo, "127.0.0.1", server.port)
        with pytest.raises(ConfigError, match=r"no-such-host\.invalid"):
            await serve(echo, "no-such-host.invalid", 0)

    run(scenario)


def test_a_host_name_listens_on_all_its_addresses() -> None:
    async def scenario() -> None:
        server = await serve(echo, "localhost", 0)
        client = await RawClient.connect(server.port)
        await client.send(GET)
        assert (await client.response())[2] == b"ok"
        await client.close()
        await server.aclose(0.0)

    run(scenario)


def test_connections_at_the_cap_are_served_and_the_next_gets_503() -> None:
    async def scenario() -> None:
        async with listening(echo, Limits(connections=2)) as server:
            first = await RawClient.upgraded(server.port)
            second = await RawClient.upgraded(server.port)
            for request in (GET, handshake("/?token=x")):
                third = await RawClient.connect(server.port)
                await third.send(request)
                status, headers, _body = await third.response()
                assert (status, headers["retry-after"]) == (503, str(RETRY_AFTER_S))
                assert await third.ended()
                await third.close()
            await second.send(frame(CLOSE))
            await second.close_code()
            await second.close()
            await eventually(lambda: server.connections == 1)
            fourth = await RawClient.upgraded(server.port)
            for client in (first, fourth):
                await client.send(frame(TEXT, b"alive"))
                assert await client.read_frame() == (TEXT, b"alive")
                await client.close()

    run(scenario)


def test_half_open_connections_take_no_place_from_those_who_ask() -> None:
    async def scenario() -> None:
        async with listening(echo, Limits(connections=1, half_open=50)) as server:
            half = [await RawClient.connect(server.port) for _ in range(20)]
            live = await RawClient.upgraded(server.port)
            refused = await RawClient.connect(server.port)
            await refused.send(GET)
            assert (await refused.response())[0] == 503
            await live.send(frame(TEXT, b"alive"))
            assert await live.read_frame() == (TEXT, b"alive")
            assert not any(client.reader.at_eof() for client in half)

    run(scenario)


def test_the_oldest_half_open_connection_gives_way_to_the_newest() -> None:
    async def scenario() -> None:
        async with listening(echo, Limits(half_open=3)) as server:
            live = await RawClient.upgraded(server.port)
            half = []
            for _ in range(3):
                half.append(await RawClient.connect(server.port))
                await half[-1].send(b"GET / HT")
                await asyncio.sleep(0.02)
            assert server.connections == 4
            newest = await RawClient.connect(server.port)
            await newest.send(GET)
            assert (await newest.response())[0] == 200
            assert await half[0].ended()
            await half[1].send(b"TP/1.1\r\nHost: x\r\n\r\n")
            assert (await half[1].response())[0] == 200
            await live.send(frame(TEXT, b"alive"))
            assert await live.read_frame() == (TEXT, b"alive")
            for client in [*half, newest, live]:
                await client.close()

    run(scenario)


def test_stop_accepting_refuses_the_new_and_leaves_open_websockets_alone() -> None:
    async def scenario() -> None:
        async with listening(echo) as server:
            live = await RawClient.upgraded(server.port)
            waiting = [await RawClient.connect(server.port) for _ in range(2)]
            for client in waiting:
                await client.send(GET)
                await client.response()
            server.stop_accepting()
            server.stop_accepting()
            with pytest.raises(ConnectionRefusedError):
                await RawClient.connect(server.port)
            for client, request in zip(waiting, (GET, handshake()), strict=True):
                await client.send(request)
                status, headers, _body = await client.response()
                assert (status, headers["retry-after"]) == (503, str(RETRY_AFTER_S))
                assert await client.ended()
                await client.close()
            await live.send(frame(TEXT, b"alive"))
            assert await live.read_frame() == (TEXT, b"alive")
            await live.close()

    run(scenario)


def test_aclose_waits_for_connections_that_end_in_time() -> None:
    async def scenario() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        idle = await RawClient.connect(server.port)
        live = await RawClient.upgraded(server.port)
        closing = asyncio.create_task(server.aclose(5.0))
        assert await idle.ended()
        await live.send(frame(TEXT, b"last"))
        assert await live.read_frame() == (TEXT, b"last")
        assert not closing.done()
        await live.send(frame(CLOSE))
        assert await live.close_code() == 1005
        await live.close()
        await asyncio.wait_for(closing, 1.0)
        await server.aclose(5.0)
        await idle.close()

    run(scenario)


def test_aclose_drops_what_does_not_end_and_cancels_what_hangs() -> None:
    ends: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ends.append(f"{(await receive())['code']}")
        if scope["path"] == "/hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

    async def scenario() -> None:
        server = await serve(app, "127.0.0.1", 0)
        clients = [await RawClient.upgraded(server.port, path) for path in ("/", "/hang")]
        started_s = asyncio.get_running_loop().time()
        await server.aclose(0.2)
        assert 0.2 <= asyncio.get_running_loop().time() - started_s < 2.0
        assert ends == ["1006", "1006", "cancelled"] and server.connections == 0
        for client in clients:
            assert await client.close_code() == 1006
            await client.close()

    run(scenario)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]  # noqa: RUF005
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key


def with_tls(
    certificate: tuple[Path, Path], scenario: Callable[[int, ssl.SSLContext], Awaitable[None]], limits: Limits
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    trust.check_hostname = False

    async def main() -> None:
        async with listening(echo, limits, ssl_certfile=certificate[0], ssl_keyfile=certificate[1]) as server:
            await scenario(server.port, trust)
            await eventually(lambda: server.connections == 0)

    run(main)
    gc.collect()


# Python 3.10's TLS transports warn after a handshake that failed, whoever failed it.
tls = pytest.mark.filterwarnings("ignore:unclosed transport <asyncio.sslproto:ResourceWarning")


@tls
def test_tls_serves_sockets_and_requests(certificate: tuple[Path, Path]) -> None:
    async def scenario(port: int, trust: ssl.SSLContext) -> None:
        async with connect(f"wss://127.0.0.1:{port}/", ssl=trust) as client:
            text = "long enough for many records " * 20_000
            await client.send(text)
            assert await client.recv() == text
        assert client.close_code == 1000
        http = await RawClient.connect(port, ssl=trust)
        await http.send(GET)
        assert (await http.response())[2] == b"ok"
        await http.close()
        raw = await RawClient.upgraded(port, ssl=trust)
        await raw.send(frame(0x3, b"bad opcode"))
        assert await raw.close_code() == 1002
        await raw.close()

    with_tls(certificate, scenario, Limits(close_timeout_s=0.3))


@tls
def test_tls_handshakes_have_a_deadline_and_rubbish_is_dropped(certificate: tuple[Path, Path]) -> None:
    async def scenario(port: int, trust: ssl.SSLContext) -> None:
        started_s = asyncio.get_running_loop().time()
        silent = await RawClient.connect(port)
        half = await RawClient.connect(port)
        await half.send(b"\x16\x03\x01\x02\x00")
        idle = await RawClient.connect(port, ssl=trust)
        plain = await RawClient.connect(port)
        await plain.send(GET)
        for client in (plain, silent, half, idle):
            assert await client.ended()
            await client.close()
        assert asyncio.get_running_loop().time() - started_s < 2.0

    with_tls(certificate, scenario, Limits(header_timeout_s=0.4))


@tls
def test_half_open_tls_connections_are_thinned_out_too(certificate: tuple[Path, Path]) -> None:
    async def scenario(port: int, trust: ssl.SSLContext) -> None:
        half = []
        for _ in range(3):
            half.append(await RawClient.connect(port))
            await half[-1].send(b"\x16\x03\x01")
            await asyncio.sleep(0.02)
        async with connect(f"wss://127.0.0.1:{port}/", ssl=trust) as client:
            await client.send("through")
            assert await client.recv() == "through"
        assert await half[0].ended()
        for one in half:
            await one.close()

    with_tls(certificate, scenario, Limits(half_open=3))


@tls
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not wait for a TLS peer's goodbye")
def test_refused_tls_peers_that_say_no_goodbye_are_bounded(certificate: tuple[Path, Path]) -> None:
    def ask(port: int, trust: ssl.SSLContext) -> ssl.SSLSocket:
        peer = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)))
        peer.sendall(GET)
        return peer

    async def main() -> None:
        limits = Limits(connections=1, half_open=1)
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        trust.check_hostname = False
        async with listening(echo, limits, ssl_certfile=certificate[0], ssl_keyfile=certificate[1]) as server:
            peers = [await asyncio.to_thread(ask, server.port, trust) for _ in range(2 + OVERFLOW)]
            await eventually(lambda: server.connections == 2 + OVERFLOW)
            extra = await RawClient.connect(server.port)
            assert await extra.ended()
            assert server.connections == 2 + OVERFLOW
            for peer in peers:
                peer.close()
            await eventually(lambda: server.connections == 0)

    run(main)


def test_a_certificate_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "cert.pem"
    broken.write_text("no certificate")

    async def scenario() -> None:
        for path in (broken, tmp_path / "missing.pem"):
            with pytest.raises(ConfigError, match=r"ssl_certfile .*legal: a PEM certificate"):
                await serve(echo, "127.0.0.1", 0, ssl_certfile=path)

    run(scenario)


DRAINING_SERVER = """
    import asyncio, signal, sys
    from realtime.transport import serve

    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

        async def app(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await stop.wait()
            await asyncio.sleep(0.2)
            await send({"type": "websocket.send", "text": "the last words"})
            await send({"type": "websocket.close", "code": 1001})

        server = await serve(app, "127.0.0.1", 0)
        sys.stdout.write(f"{server.port}\\n")
        sys.stdout.flush()
        await stop.wait()
        server.stop_accepting()
        await server.aclose(5.0)

    asyncio.run(main())
"""

STARVED_SERVER = """
    import asyncio, resource, sys
    from realtime.transport import serve

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def main():
        server = await serve(app, "127.0.0.1", 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
        sys.stdout.write(f"{server.port}\\n")
        sys.stdout.flush()
        await asyncio.sleep(60)

    asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def a_process(script: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def port_of(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    return int(await process.stdout.readline())


def test_a_process_that_drains_on_sigterm_sends_its_finals_and_exits_0() -> None:
    async def scenario() -> None:
        async with a_process(DRAINING_SERVER) as process:
            port = await port_of(process)
            async with connect(f"ws://127.0.0.1:{port}/") as client:
                process.send_signal(signal.SIGTERM)
                assert await client.recv() == "the last words"
                await client.wait_closed()
                assert client.close_code == 1001
            assert await asyncio.wait_for(process.wait(), 5) == 0
            assert process.stderr is not None and await process.stderr.read() == b""

    run(scenario)


def test_a_process_out_of_file_descriptors_recovers() -> None:
    async def scenario() -> None:
        async with a_process(STARVED_SERVER) as process:
            port = await port_of(process)
            clients = [await RawClient.connect(port) for _ in range(40)]
            await asyncio.sleep(0.2)
            for client in clients:
                await client.close()
            client = await RawClient.connect(port)
            await client.send(GET)
            assert (await asyncio.wait_for(client.response(), 5))[2] == b"ok"
            await client.close()
            process.kill()
            assert process.stderr is not None
            log = (await process.stderr.read()).decode()
            assert "cannot accept connections" in log and "Traceback" not in log

    run(scenario)
