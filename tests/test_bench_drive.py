"""bench.drive and drivers against a scripted server: what is sent, what is kept, how streams end."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest

import bench.drive
from bench.audio import SharedAudio
from bench.clients import ClientPlan, RawStream
from bench.collect import collect
from bench.drive import drive, hello
from bench.drivers import PRIORITY, elevated, run_clients
from bench.playlist import Piece, Playlist
from engine.types import SAMPLE_RATE_HZ
from realtime.client.latency import GoldWord, Recording
from tests.fakes.wl_server import Script, Step, fake_server, segments

SPOKEN = Recording(Path("r.wav"), "en", 0.5, "hello", (GoldWord("hello", 0.1, 0.3),))
SOUND = np.arange(SAMPLE_RATE_HZ // 2, dtype=np.float32)
AUDIO = SharedAudio({SPOKEN: SOUND})


def plan(name: str = "client 0", chunk_samples: int = 1_600, **more: object) -> ClientPlan:
    playlist = Playlist(name, "en", (Piece(0, SPOKEN, 0, SOUND.size, range(1)),), SPOKEN.words, (("r", 0),))
    return ClientPlan(playlist, chunk_samples, **more)  # type: ignore[arg-type]


def run(script: Script, *plans: ClientPlan, token: str | None = None, drivers: int = 1) -> list[RawStream]:
    async def main() -> list[RawStream]:
        async with fake_server(script) as url:
            return await run_clients(url, token, plans, AUDIO, drivers)

    return asyncio.run(main())


def test_all_audio_arrives_and_all_frames_are_kept() -> None:
    partial, final = segments((0, 0.3, " hel", False)), segments((0, 0.3, " hello", True))
    script = Script(steps=(Step(4_800, (partial,)),), finals=(final,))
    (raw,) = run(script, plan(chunk_samples=1_000), token="secret")
    assert raw.error is None
    assert raw.sent_samples == script.samples == SOUND.size
    assert np.array_equal(np.frombuffer(b"".join(script.audio), dtype="<f4"), SOUND)
    assert script.ends == 1
    assert script.headers[0]["authorization"] == "Bearer secret"
    seen = collect(raw.frames)
    assert seen.is_ready
    assert seen.text == "hello"
    # The partial was sent once 0.3 s had come, the final after the end of the audio.
    assert raw.frames[1][0] >= raw.due_s(0.3)
    assert raw.frames[2][0] >= raw.due_s(0.5)


def test_the_handshake_has_the_language_and_further_keys() -> None:
    script = Script()
    run(script, plan(options={"same_output_threshold": 2, "use_vad": False}))
    (document,) = script.handshakes
    assert (document["language"], document["use_vad"], document["same_output_threshold"]) == ("en", False, 2)
    assert json.loads(hello(None, {}))["use_vad"] is True


def test_it_lingers_before_the_end_and_hears_what_comes() -> None:
    script = Script(steps=(Step(SOUND.size, (segments((0, 0.3, " hello", True)),)),))
    (raw,) = run(script, plan(linger_s=0.3))
    assert raw.error is None
    assert script.ends == 1
    assert collect(raw.frames).text == "hello"


def test_a_full_server_is_told() -> None:
    (raw,) = run(Script(greeting=({"status": "WAIT", "message": 2.0},), greeting_close=(1013, "full")), plan())
    assert raw.error is not None
    assert raw.sent_samples == 0
    assert collect(raw.frames).refusal is not None


def test_a_server_that_hangs_up_is_told_with_its_code() -> None:
    script = Script(steps=(Step(1_600, (segments((0, 0.1, " he", True)),), close=(1011, "internal")),))
    (raw,) = run(script, plan())
    assert raw.error == "the connection ended early (code 1011, internal)"
    assert collect(raw.frames).text == "he"


def test_a_server_that_hangs_up_while_clients_linger() -> None:
    script = Script(steps=(Step(SOUND.size, ({"message": "DISCONNECT"},), close=(1000, "")),))
    (raw,) = run(script, plan(linger_s=5.0))
    assert raw.error == "the connection ended early (code 1000)"
    assert collect(raw.frames).is_disconnected


def test_other_messages_before_ready_do_no_harm() -> None:
    ready = {"message": "SERVER_READY", "backend": "faster_whisper"}
    script = Script(greeting=({"status": "WARNING", "message": "hm"}, {"language": "en", "language_prob": 0.9}, ready))
    (raw,) = run(script, plan())
    assert raw.error is None


def test_a_server_that_never_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.drive, "READY_TIMEOUT_S", 0.05)
    (raw,) = run(Script(greeting=()), plan())
    assert raw.error == "the server did not say that it is ready"


def test_a_server_that_never_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.drive, "FINISH_TIMEOUT_S", 0.05)
    (raw,) = run(Script(never_closes=True), plan())
    assert raw.error == "the server did not close within 0.05 s after the end of the audio"


def test_a_server_that_is_not_there() -> None:
    (raw,) = asyncio.run(drive("ws://nowhere.invalid:1", None, [plan()], AUDIO))
    assert raw.error is not None
    assert "nowhere.invalid" in raw.error


def test_several_processes_give_the_same_streams_in_order() -> None:
    script = Script(finals=(segments((0, 0.3, " hello", True)),))
    made = run(script, *(plan(f"client {n}") for n in range(3)), drivers=2)
    assert [raw.name for raw in made] == ["client 0", "client 1", "client 2"]
    assert [raw.error for raw in made] == [None] * 3
    assert script.samples == 3 * SOUND.size
    assert all(raw.due_s(0.5) <= raw.frames[-1][0] for raw in made)


def test_priority_is_raised_only_meanwhile() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with elevated() as niceness:
        assert niceness in (before, min(PRIORITY, before))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
