"""The live server as the worker of a load-balancer endpoint: ports, /ping, no secret of its own, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from engine.wer import word_errors
from tests.fakes.runpod.pod_process import free_port
from tests.serving import Peer, Server, recording, streaming
from tests.test_entrypoint import COMMAND, environ_of, started

PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE = 24, 10
SECRET = "canary-3f9a7c51d2"
KEY = {"Authorization": "Bearer rpa_THE_ACCOUNTS_KEY"}
"""RunPod hands it on to the worker, who does not know it."""


@contextlib.contextmanager
def worker(folder: Path, *, one_port: bool, **extra: str) -> Iterator[Server]:
    """A worker as RunPod starts it; its `health_port` is where RunPod asks /ping."""
    port, health_port, other_port = free_port(), free_port(), free_port()
    ping_port = port if one_port else health_port
    environ = {"PORT": str(port), "PORT_HEALTH": str(ping_port), "RUNPOD_ENDPOINT_ID": "ep", "WHISPER_MODEL": "demo"}
    with started(folder, **{**environ, "HEALTH_CHECK_PORT": str(other_port), **extra}) as server:
        server.port, server.health_port = port, ping_port
        yield server


def ping(server: Server) -> int | None:
    """The status, None while nobody listens."""
    try:
        status, body = server.get("/ping")
        assert (status == 204) == (not body)
        return status
    except urllib.error.URLError as error:
        assert isinstance(error.reason, ConnectionRefusedError)
        return None


async def said(server: Server, path: str) -> tuple[Peer, list[int | None]]:
    """Streams a sentence, then tells the server to end; what /ping says meanwhile."""
    async with streaming(server, path) as peer:
        receiving = asyncio.create_task(peer.receive_all())
        await peer.send_audio(recording("hello_en.wav")[:40_000], speed=2.0)
        os.kill(server.engine_pid(), signal.SIGSTOP)
        await peer.send_audio(recording("meeting_en.wav")[:32_000], speed=8.0)
        server.process.send_signal(signal.SIGTERM)
        pings = [await asyncio.to_thread(ping, server)]
        for _ in range(2):
            await asyncio.sleep(0.2)
            pings.append(await asyncio.to_thread(ping, server))
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(server.url):
                pass
        assert refused.value.response.status_code == 503 and "Retry-After" in refused.value.response.headers
        os.kill(server.engine_pid(), signal.SIGCONT)
        await receiving
        return peer, pings


@pytest.mark.parametrize("one_port", [True, False], ids=["one port", "two ports"])
def test_from_loading_to_the_end(tmp_path: Path, one_port: bool) -> None:
    with worker(tmp_path, one_port=one_port) as server:
        seen: list[int | None] = []

        def is_ready() -> bool:
            seen.append(ping(server))
            return seen[-1] == 200

        server.wait_until(is_ready, "ready")
        assert set(seen) == {None, 204, 200} and seen == sorted(seen, key=[None, 204, 200].index)
        assert "mode lb: PORT_HEALTH is set" in server.log() and "without a secret" in server.log()
        assert server.get("/ping", main_port=True)[0] == 200
        peer, pings = asyncio.run(said(server, "/any/path?at=all"))
        began_s = time.monotonic()
        assert word_errors("Hello, my name is Anna.", peer.text[: len(" Hello, my name is Anna.")]).errors == 0
        assert peer.socket.close_code == 1001
        assert set(pings) == {503}, pings
        assert server.process.wait(8) == 0 and time.monotonic() - began_s < 8.0


def test_a_secret_of_its_own_counts_all_the_same(tmp_path: Path) -> None:
    with worker(tmp_path, one_port=True, WHISPER_AUTH_TOKEN=SECRET) as server:
        server.wait_until(lambda: ping(server) == 200, "ready")

        async def attempt(path: str) -> int:
            try:
                async with websockets.connect(server.url + path, additional_headers=KEY):
                    return 101
            except websockets.InvalidStatus as refused:
                return refused.response.status_code

        assert asyncio.run(attempt("/")) == 401
        assert asyncio.run(attempt(f"/?token={SECRET}")) == 101
        assert server.terminate() == 0
        log = server.log()
        assert "with a secret" in log and SECRET not in log and "ACCOUNTS_KEY" not in log


def test_the_endpoints_port_counts_and_is_said(tmp_path: Path) -> None:
    other = str(free_port())
    with worker(tmp_path, one_port=True, WHISPERLIVE_PORT=other) as server:
        server.wait_until(lambda: ping(server) is not None, "listening")
        assert f"WHISPERLIVE_PORT={other} does not count here: the endpoint says {server.port}" in server.log()
        assert re.search(rf"listening on ws://0\.0\.0\.0:{server.port} ", server.log())
        assert server.terminate() == 0


def drop_port_capability() -> None:
    """For root, who may run the tests: as anybody else, no port below 1024."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0)


def test_a_port_that_only_root_may_have_is_said_to_be_one(tmp_path: Path) -> None:
    first_open = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first_open.exists() and int(first_open.read_text()) <= 80:
        pytest.skip("here everybody may listen on port 80")
    result = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=environ_of(tmp_path, WHISPER_MODE="lb", WHISPER_NO_AUTH="1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=drop_port_capability,
    )
    said = "port 80: Permission denied; legal: 1024 to 65535 for whoever is not root"
    assert result.returncode == 2 and said in result.stderr.splitlines()[-1]
