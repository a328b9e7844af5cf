"""The engine process is killed, or hangs, while four peers speak: no word and no socket is lost."""

from __future__ import annotations

import asyncio
import os
import signal

from engine.wer import word_errors
from tests.serving import Peer, Server, label, recording, running_server, streaming

NAMES = ("meeting_en.wav", "service_en.wav", "viaje_es.wav", "en_nonstop.flac")
SPEED = 4.0


async def _four_streams(server: Server, fault: asyncio.Event) -> list[Peer]:
    async def one(name: str) -> Peer:
        async with streaming(server, language=label(name)["language"]) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            await peer.send_audio(recording(name), 0.1, SPEED)
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            assert peer.socket.close_code == 1000
            return peer

    tasks = [asyncio.create_task(one(name)) for name in NAMES]
    await asyncio.sleep(1.2)
    fault.set()
    return list(await asyncio.gather(*tasks))


async def _with_fault(server: Server, signum: int) -> tuple[list[Peer], list[int]]:
    fault = asyncio.Event()
    statuses: list[int] = []

    async def strike() -> None:
        await fault.wait()
        os.kill(server.engine_pid(), signum)
        for _ in range(200):
            statuses.append((await asyncio.to_thread(server.get, "/ready"))[0])
            if statuses[-1] == 200 and 503 in statuses:
                return
            await asyncio.sleep(0.05)

    striking = asyncio.create_task(strike())
    peers = await _four_streams(server, fault)
    await striking
    return peers, statuses


def _check(peers: list[Peer], statuses: list[int]) -> None:
    for name, peer in zip(NAMES, peers, strict=True):
        errors = word_errors(label(name)["text"], peer.text)
        assert errors.errors <= (3 if name == "en_nonstop.flac" else 0), (name, peer.text)
        assert errors.deletions <= 1, (name, peer.text)
        assert peer.violations == []
        assert not any("could not be decoded" in str(message) for message in peer.messages)
    assert 503 in statuses, "not ready while there is no engine"
    assert statuses[-1] == 200, "and ready again with the next one"


def test_engine_killed_in_the_middle_of_four_streams() -> None:
    with running_server() as server:
        before = server.engine_pid()
        peers, statuses = asyncio.run(_with_fault(server, signal.SIGKILL))
        _check(peers, statuses)
        assert server.engine_pid() != before
        assert server.terminate() == 0


def test_engine_hangs_in_the_middle_of_four_streams() -> None:
    """SIGSTOP: the process lives, but answers nothing."""
    with running_server("--engine-timeout", "1.5") as server:
        before = server.engine_pid()
        peers, statuses = asyncio.run(_with_fault(server, signal.SIGSTOP))
        _check(peers, statuses)
        assert server.engine_pid() != before
        assert server.terminate() == 0


def test_an_engine_that_keeps_dying_ends_the_server_with_70() -> None:
    with running_server() as server:
        for _ in range(4):
            old = server.engine_pid()
            os.kill(old, signal.SIGKILL)

            def replaced(old: int = old) -> bool:
                if server.process.poll() is not None:
                    return True
                try:
                    return server.engine_pid() != old and server.get("/ready")[0] == 200
                except (AssertionError, OSError):
                    return False

            if server.process.poll() is None:
                try:
                    server.wait_until(replaced, "replaced")
                except AssertionError:
                    break
        assert server.process.wait(20) == 70
        assert "Traceback" not in server.log()
