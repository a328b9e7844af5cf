"""What peers send by mistake or malice: each case has its answer, and the others stream on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from typing import Any

import numpy as np
import pytest

from engine.wer import word_errors
from tests.serving import Peer, Server, connected, recording, streaming

HELLO = "Hello, my name is Anna."


async def _refused(server: Server, first: str | bytes) -> tuple[list[dict[str, Any]], int | None]:
    async with connected(server) as peer:
        await peer.socket.send(first)
        await peer.receive_all(10)
        return peer.messages, peer.socket.close_code


@pytest.mark.parametrize(
    ("first", "close_code", "code"),
    [
        ("{not json", 1007, "bad_json"),
        ('{"uid": NaN}', 1007, "bad_json"),
        ("[" * 5_000, 1007, "bad_json"),
        ('{"uid": "' + "x" * 20_000 + '"}', 1007, "bad_json"),
        ("[1, 2]", 1003, "bad_handshake"),
        ('"hello"', 1003, "bad_handshake"),
        (b"\x00\x01\x02\x03" * 1_000, 1003, "bad_handshake"),
        ('{"uid": 5}', 1008, "bad_input"),
        ('{"uid": "u", "use_vad": "maybe"}', 1008, "bad_input"),
        ('{"uid": "u", "send_last_n_segments": 101}', 1008, "bad_input"),
        ('{"uid": "u", "sample_rate": 7999}', 1008, "bad_input"),
        ('{"uid": "u", "audio_format": "flac"}', 1008, "bad_input"),
    ],
)
def test_bad_handshakes(server: Server, first: str | bytes, close_code: int, code: str) -> None:
    messages, closed_with = asyncio.run(_refused(server, first))
    assert closed_with == close_code
    assert [message["status"] for message in messages] == ["ERROR"]
    assert messages[0]["code"] == code
    assert messages[0]["message"]


def test_a_bad_value_is_named_with_its_legal_range(server: Server) -> None:
    messages, _ = asyncio.run(_refused(server, '{"uid": "u", "send_last_n_segments": 101}'))
    text = messages[0]["message"]
    assert "send_last_n_segments" in text and "101" in text and "100" in text


async def _hello_after(server: Server, disturb: Any) -> Peer:
    """Stream the sample while `disturb` does something odd with the same socket first."""
    async with streaming(server) as peer:
        receiving = asyncio.create_task(peer.receive_all())
        await disturb(peer)
        await peer.send_audio(recording("hello_en.wav"))
        await peer.socket.send(b"END_OF_AUDIO")
        await receiving
        return peer


def test_text_during_audio_is_answered_once_and_ignored(server: Server) -> None:
    async def chatter(peer: Peer) -> None:
        for _ in range(50):
            await peer.socket.send('{"type": "something"}')

    peer = asyncio.run(_hello_after(server, chatter))
    warnings = [message for message in peer.messages if message.get("status") == "WARNING"]
    assert sum("ignored" in message["message"] for message in warnings) == 1
    assert word_errors(HELLO, peer.text).errors == 0
    assert peer.socket.close_code == 1000


def test_frames_of_odd_length(server: Server) -> None:
    """The bytes of a sample may be cut anywhere."""

    async def run() -> Peer:
        async with streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            data = recording("hello_en.wav").astype("<f4").tobytes()
            for first in range(0, len(data), 4_097):
                await peer.socket.send(data[first : first + 4_097])
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            return peer

    assert word_errors(HELLO, asyncio.run(run()).text).errors == 0


def test_nan_and_infinity(server: Server) -> None:
    """One NaN would blind the model for a whole window."""

    async def run() -> Peer:
        async with streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            audio = recording("hello_en.wav").copy()
            audio[::4_000] = np.nan
            audio[2_000::8_000] = np.inf
            await peer.send_audio(audio)
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            return peer

    peer = asyncio.run(run())
    assert word_errors(HELLO, peer.text).errors == 0
    assert any(message.get("status") == "WARNING" for message in peer.messages)


def test_int16_declared_as_float32(server: Server) -> None:
    """The most common mistake of new clients: detected, said, and transcribed all the same."""

    async def run() -> Peer:
        async with streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            data = (recording("hello_en.wav") * 32_767).astype("<i2").tobytes()
            for first in range(0, len(data), 8_192):
                await peer.socket.send(data[first : first + 8_192])
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            return peer

    peer = asyncio.run(run())
    assert word_errors(HELLO, peer.text).errors == 0
    assert any("int16" in message.get("message", "") for message in peer.messages)


def test_a_frame_of_the_largest_size(server: Server) -> None:
    """4 MiB in one message is six times the backlog: taken in piece by piece, nothing lost."""

    async def run() -> Peer:
        async with streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            audio = np.concatenate([recording("hello_en.wav"), np.zeros(2_000_000, np.float32)]).astype("<f4")
            await peer.socket.send(audio.tobytes()[: 4 * 1024 * 1024])
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            return peer

    peer = asyncio.run(run())
    assert peer.socket.close_code == 1000
    assert word_errors(HELLO, peer.text).errors == 0


@pytest.mark.parametrize(("opcode", "payload", "code"), [(0x2, bytes(4 * 1024 * 1024 + 1), 1009), (0x1, b"\xff", 1007)])
def test_what_was_heard_before_a_refused_message_is_not_lost(
    server: Server, opcode: int, payload: bytes, code: int
) -> None:
    async def run() -> Peer:
        async with streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            await peer.send_audio(recording("hello_en.wav")[:38_000])
            peer.socket.transport.write(_frame(payload, opcode))
            await receiving
            return peer

    peer = asyncio.run(run())
    assert word_errors(HELLO, peer.text).errors == 0
    assert peer.socket.close_code == code


def test_a_giant_frame_does_not_stop_the_others(server: Server) -> None:
    """4 MiB of telephone silence is nearly 9 minutes of audio in one message: others keep their turn."""

    async def run() -> tuple[Peer, float]:
        async with streaming(server, audio_format="mulaw") as giant, streaming(server) as peer:
            receiving = asyncio.create_task(peer.receive_all())
            draining = asyncio.create_task(giant.receive_all())
            await giant.socket.send(b"\xff" * (4 * 1024 * 1024))
            slowest_s = 0.0
            for _ in range(20):
                asked_s = time.monotonic()
                await asyncio.to_thread(server.get, "/health")
                slowest_s = max(slowest_s, time.monotonic() - asked_s)
            await peer.send_audio(recording("hello_en.wav"))
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            await giant.socket.send(b"END_OF_AUDIO")
            await draining
            assert giant.socket.close_code == 1000
            return peer, slowest_s

    peer, slowest_s = asyncio.run(run())
    assert word_errors(HELLO, peer.text).errors == 0
    assert slowest_s < 1.0, "taken in at once, it held everybody up for 2.5 s"


def test_a_peer_that_vanishes_frees_its_place(server: Server) -> None:
    """Abort without a close frame, in mid-speech."""

    async def run() -> None:
        async with streaming(server) as peer:
            await peer.send_audio(recording("meeting_en.wav")[:48_000])
            peer.socket.transport.abort()
            await peer.socket.wait_closed()

    def active() -> int:
        found: int = json.loads(server.get("/status")[1])["sessions"]["active"]
        return found

    asyncio.run(run())
    server.wait_until(lambda: active() == 0, "empty", 10.0)


def test_a_peer_that_stops_reading_is_cut_and_others_go_on(server: Server) -> None:
    """Its messages would pile up for ever; after 5 s it is closed with 4003."""

    def cut() -> float:
        found = re.search(r'stt_sessions_closed_total{code="4003"} ([0-9.]+)', server.get("/metrics")[1])
        return float(found[1]) if found else 0.0

    async def deaf(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4_096)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await flood(writer)

    async def flood(writer: asyncio.StreamWriter) -> None:
        wishes = {"uid": "deaf", "language": "en", "send_last_n_segments": 100, "word_timestamps": True}
        writer.write(_frame(json.dumps(wishes).encode(), 0x1))
        audio = np.concatenate([recording("en_brisk_1.flac")] * 5).astype("<f4").tobytes()
        try:
            for first in range(0, len(audio), 64_000):
                writer.write(_frame(audio[first : first + 64_000], 0x2))
                await writer.drain()
            await asyncio.sleep(60)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def run() -> Peer:
        before = await asyncio.to_thread(cut)
        sock = socket.socket()
        disturbing = asyncio.create_task(deaf(sock))
        peer = await _hello_after(server, lambda _: asyncio.sleep(1.0))
        for _ in range(400):
            if await asyncio.to_thread(cut) > before:
                break
            await asyncio.sleep(0.1)
        disturbing.cancel()
        await asyncio.gather(disturbing, return_exceptions=True)
        assert await asyncio.to_thread(cut) == before + 1
        return peer

    assert word_errors(HELLO, asyncio.run(run()).text).errors == 0


def _frame(payload: bytes, opcode: int) -> bytes:
    """One masked client frame (RFC 6455 section 5.2), with a mask of zeros."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def test_nothing_of_this_left_a_traceback(server: Server) -> None:
    """Runs last in this file, over the log of all the cases above."""
    assert "Traceback" not in server.log()
    assert server.get("/ready")[0] == 200
