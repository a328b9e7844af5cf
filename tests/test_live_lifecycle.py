"""Health answers while loading, ready, full and draining; SIGTERM; secrets; start-up failures."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import websockets

from engine.wer import word_errors
from tests.serving import ROOT, Peer, clean_environ, connected, label, recording, running_server, streaming

SECRET = "canary-3f9a7c51d2"


def test_health_tells_the_truth_from_loading_to_full() -> None:
    with running_server("--max-clients", "1", ready=False) as server:
        status, body = server.get("/health")
        assert status == 200 and json.loads(body)["status"] == "healthy"
        status, body = server.get("/ready")
        loading = json.loads(body)
        assert status == 503 and loading["status"] == "not_ready" and loading["reason"]
        assert loading["whisperlive_port"] == server.port
        assert server.get("/ping", main_port=True)[0] == 204

        async def told_to_wait() -> dict[str, Any]:
            async with connected(server) as peer:
                await peer.socket.send('{"uid": "early"}')
                return await peer.receive()

        assert asyncio.run(told_to_wait())["status"] == "WAIT", "while loading"
        server.wait_ready()
        assert server.get("/ping", main_port=True)[0] == 200
        assert json.loads(server.get("/ready")[1])["status"] == "ready"

        async def full() -> tuple[dict[str, Any], dict[str, Any], int, str]:
            async with streaming(server) as peer:
                receiving = asyncio.create_task(peer.receive_all())
                await peer.send_audio(recording("hello_en.wav"))
                status = json.loads((await asyncio.to_thread(server.get, "/status"))[1])
                full_status, full_answer = await asyncio.to_thread(server.get, "/ready")
                async with connected(server) as second:
                    await second.socket.send('{"uid": "second"}')
                    wait = await second.receive()
                await peer.socket.send(b"END_OF_AUDIO")
                await receiving
                return status, wait, full_status, json.loads(full_answer)["reason"]

        status_json, wait, full_status, full_reason = asyncio.run(full())
        assert wait["status"] == "WAIT"
        assert status_json["sessions"] == {"active": 1, "max": 1, "capacity": 1, "limited_by": "places"}
        assert 0.3 <= status_json["engine"]["partial_interval_s"] <= 3.0
        assert 0.0 <= status_json["engine"]["busy_share"] <= 1.0 and "max_streams" in status_json["engine"]
        assert 0.0 <= status_json["serving"]["busy_share"]["loop"] <= 1.0
        assert {"status", "uptime_seconds", "startup_time", "whisperlive", "gpu", "environment", "timestamp"} <= set(
            status_json
        )
        assert status_json["whisperlive"] == {"ready": True, "port": server.port}
        assert full_status == 503 and "full" in full_reason
        metrics = server.get("/metrics")[1]
        ledger = {
            fate: sum(
                float(line.rsplit(" ", 1)[1])
                for line in metrics.splitlines()
                if line.startswith("stt_") and "samples" in line and fate in line.split(" ")[0]
            )
            for fate in ("received", "decoded", "silent", "refused")
        }
        assert ledger["received"] == len(recording("hello_en.wav"))
        assert ledger["received"] == ledger["decoded"] + ledger["silent"] + ledger["refused"]
        assert server.terminate() == 0


@pytest.mark.parametrize("feature_threads", ["0", "2"])
def test_sigterm_lets_finals_out_and_exits_with_0(feature_threads: str) -> None:
    with running_server("--feature-threads", feature_threads) as server:

        async def run() -> tuple[Peer, float]:
            async with streaming(server) as peer:
                receiving = asyncio.create_task(peer.receive_all())
                await peer.send_audio(recording("hello_en.wav")[:40_000], speed=2.0)
                server.process.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                await receiving
                return peer, time.monotonic() - begun

        peer, took_s = asyncio.run(run())
        assert peer.socket.close_code == 1001
        assert word_errors("Hello, my name is Anna.", peer.text).errors == 0, "all that was said was completed"
        assert server.process.wait(8) == 0
        assert took_s < 8


def test_sigterm_with_a_hanging_engine_tells_what_was_not_decoded() -> None:
    """At 7 s whoever is left gets the last decoded second, then 1001; exit 0 within 8 s all the same."""
    with running_server() as server:

        async def run() -> tuple[Peer, float]:
            async with streaming(server) as peer:
                receiving = asyncio.create_task(peer.receive_all())
                await peer.send_audio(recording("meeting_en.wav")[:32_000], speed=1.0)
                os.kill(server.engine_pid(), signal.SIGSTOP)
                await peer.send_audio(recording("meeting_en.wav")[32_000:80_000], speed=4.0)
                server.process.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                await receiving
                return peer, begun

        peer, begun = asyncio.run(run())
        assert server.process.wait(10) == 0
        assert time.monotonic() - begun < 8.5
        assert peer.socket.close_code == 1001
        warnings = [message["message"] for message in peer.messages if message.get("status") == "WARNING"]
        assert any("decoded up to" in text and "refused" in text for text in warnings)


def test_nobody_new_while_draining() -> None:
    with running_server() as server:

        async def run() -> None:
            async with streaming(server) as peer:
                await peer.send_audio(recording("hello_en.wav"))
                os.kill(server.engine_pid(), signal.SIGSTOP)
                await peer.send_audio(recording("hello_en.wav"))
                server.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.5)
                status, body = await asyncio.to_thread(server.get, "/ready")
                assert status == 503
                assert "drain" in json.loads(body)["reason"]
                with pytest.raises((OSError, websockets.InvalidStatus)):
                    async with websockets.connect(server.url):
                        pass

        asyncio.run(run())
        assert server.process.wait(10) == 0


def test_a_secret_is_asked_for_in_four_ways_and_never_shown() -> None:
    with running_server(WHISPER_AUTH_TOKEN=SECRET, LOG_LEVEL="debug", LOG_FORMAT="json") as server:

        async def attempt(path: str = "/", **options: Any) -> int:
            try:
                async with websockets.connect(server.url + path, **options) as socket:
                    await socket.send('{"uid": "a", "language": "en"}')
                    assert json.loads(await socket.recv())["message"] == "SERVER_READY"
                    await socket.send(recording("hello_en.wav").tobytes())
                    await socket.send(b"END_OF_AUDIO")
                    async for _ in socket:
                        pass
                    return 101
            except websockets.InvalidStatus as refused:
                return refused.response.status_code

        async def run() -> list[int]:
            return [
                await attempt(),
                await attempt("/?token=wrong-wrong"),
                await attempt("/t/wrong-wrong/x"),
                await attempt(f"/?token={SECRET}"),
                await attempt(f"/t/{SECRET}/x"),
                await attempt(additional_headers={"Authorization": f"Bearer {SECRET}"}),
                await attempt(subprotocols=["bearer", SECRET]),
            ]

        assert asyncio.run(run()) == [401, 401, 401, 101, 101, 101, 101]
        assert server.get("/metrics", token=SECRET)[0] == 200
        assert server.terminate() == 0
        log = server.log()
        assert SECRET not in log
        assert "Anna" not in log, "no transcript in the log"
        for line in log.splitlines():
            json.loads(line)


@pytest.mark.parametrize(
    ("arguments", "environ", "expected", "code"),
    [
        (["--host", "0.0.0.0"], {}, ["WHISPER_AUTH_TOKEN", "--token-file", "--no-auth"], 2),
        (["--port", "70000"], {}, ["--port", "70000", "65535"], 2),
        ([], {"MAX_CLIENTS": "many"}, ["MAX_CLIENTS", "many"], 2),
        (["--model", "no-such-model"], {}, ["no-such-model"], 1),
        (["--model", "/no/such/folder"], {}, ["/no/such/folder"], 1),
        (["--ssl-keyfile", "key.pem"], {}, ["--ssl-keyfile", "--ssl-certfile"], 2),
        (["--language", "xx"], {}, ["--language", "xx", "en, es"], 1),
        (["--host", "127.0.0.1"], {"RUNPOD_POD_ID": "pod"}, ["small.en"], 1),
        ([], {"WHISPER_AUTH_TOKEN": "short"}, ["WHISPER_AUTH_TOKEN"], 2),
        (["--compute-type", "float64"], {}, ["--compute-type", "float64", "float16"], 2),
    ],
)
def test_a_start_that_cannot_work_ends_with_one_line(
    arguments: list[str], environ: dict[str, str], expected: list[str], code: int
) -> None:
    command = [sys.executable, "-m", "realtime", "--health-port", "0"]
    if "--port" not in arguments:
        command += ["--port", "0"]
    result = subprocess.run(
        command + arguments,
        cwd=ROOT,
        env=clean_environ(HF_HUB_OFFLINE="1", **environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if "ERROR" in line or line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert all(text in errors[0] for text in expected), errors[0]


def test_a_port_in_use_is_one_line() -> None:
    with running_server(ready=False) as server:
        result = subprocess.run(
            [sys.executable, "-m", "realtime", "--port", str(server.port), "--health-port", "0"],
            cwd=ROOT,
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 2
        assert str(server.port) in result.stderr and "Traceback" not in result.stderr


def test_the_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    with running_server("--token-file", str(path), ready=False) as server:
        cmdline = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert SECRET.encode() not in cmdline
        server.wait_ready()

        async def run() -> int:
            try:
                async with websockets.connect(server.url):
                    return 101
            except websockets.InvalidStatus as refused:
                return refused.response.status_code

        assert asyncio.run(run()) == 401


def test_sixty_seconds_of_silence_then_a_word() -> None:
    """Idle means no bytes: a silent microphone keeps its socket, and the next first word is there."""
    import numpy as np

    with running_server() as server:

        async def run() -> Peer:
            async with streaming(server) as peer:
                receiving = asyncio.create_task(peer.receive_all())
                await peer.send_audio(np.zeros(60 * 16_000, np.float32), 0.256, 30.0)
                await peer.send_audio(recording("hello_en.wav"), 0.256, 2.0)
                await peer.socket.send(b"END_OF_AUDIO")
                await receiving
                return peer

        peer = asyncio.run(run())
        assert word_errors(label("hello_en.wav")["text"], peer.text).errors == 0
        assert 60.0 < float(peer.completed[0]["start"]) < 61.0


def test_no_bytes_for_the_idle_time_ends_the_stream() -> None:
    with running_server("--idle-timeout", "3") as server:

        async def run() -> Peer:
            async with streaming(server) as peer:
                receiving = asyncio.create_task(peer.receive_all())
                await peer.send_audio(recording("hello_en.wav"))
                await receiving
                return peer

        peer = asyncio.run(run())
        assert peer.socket.close_code == 4000
        assert word_errors(label("hello_en.wav")["text"], peer.text).errors == 0
