"""OpenAI's own client against a real server with the demo model, beside live streams, to the server's end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types.audio import TranscriptionVerbose

from engine.wer import word_errors
from tests.fakes.media import encoded
from tests.serving import DEMO, Peer, Server, label, recording, running_server, streaming

SECRET = "canary-3f9a7c51d2"
MAX_UPLOAD_BYTES = 1_000_000
HELLO = DEMO / "samples" / "hello_en.wav"
MEETING = DEMO / "samples" / "meeting_en.wav"
VIAJE = DEMO / "samples" / "viaje_es.wav"


@dataclass
class Place:
    """The server of this module, its client, and what a client was told before the model was loaded."""

    server: Server
    client: openai.OpenAI
    early: openai.APIStatusError | None


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    arguments = ("--max-upload-bytes", str(MAX_UPLOAD_BYTES), "--max-audio", "60")
    with running_server(*arguments, ready=False, WHISPER_AUTH_TOKEN=SECRET, LOG_LEVEL="debug") as server:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        with openai.OpenAI(base_url=base_url, api_key=SECRET, max_retries=0) as client:
            early = None
            try:
                client.audio.transcriptions.create(file=HELLO, model="demo")
            except openai.APIStatusError as error:
                early = error
            server.wait_ready()
            yield Place(server, client, early)


def errors(name: str, text: str) -> int:
    return word_errors(label(name)["text"], text).errors


def test_loading_is_a_503(place: Place) -> None:
    assert place.early is not None and place.early.status_code == 503
    assert place.early.code == "loading" and int(place.early.response.headers["retry-after"]) > 0


def test_words_of_a_file(place: Place) -> None:
    create = place.client.audio.transcriptions.create
    answer = create(file=HELLO, model="whisper-1", language="en")
    assert errors("hello_en.wav", answer.text) == 0
    assert answer.usage is not None and answer.usage.to_dict()["seconds"] == 3
    assert errors("viaje_es.wav", create(file=VIAJE, model="demo").text) <= 2, "the language was found"
    flac = encoded(recording("hello_en.wav"), 16_000, "FLAC")
    assert errors("hello_en.wav", create(file=("a.flac", flac), model="demo", language="en").text) == 0
    accurate = create(file=HELLO, model="demo", language="en", extra_body={"mode": "accurate", "vad_filter": True})
    assert errors("hello_en.wav", accurate.text) == 0
    assert [model.id for model in place.client.models.list()] == ["demo"]


def test_verbose_json_and_subtitles(place: Place) -> None:
    create: Any = place.client.audio.transcriptions.create
    answer = create(
        file=MEETING,
        model="demo",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
    )
    checked = TranscriptionVerbose.model_validate(answer.to_dict(), strict=True)
    assert checked.language == "english" and abs(checked.duration - label("meeting_en.wav")["duration"]) < 0.1
    assert checked.words and checked.segments
    assert errors("meeting_en.wav", " ".join(word.word for word in checked.words)) == errors(
        "meeting_en.wav", checked.text
    )
    starts = [word.start for word in checked.words]
    assert starts == sorted(starts) and checked.segments[-1].end <= checked.duration
    said = label("meeting_en.wav")["segments"][0]["words"][0]
    assert abs(checked.words[0].start - said[1]) < 0.5
    srt = create(file=HELLO, model="demo", response_format="srt", language="en")
    assert srt.startswith("1\n00:00:0") and "Anna" in srt
    assert create(file=HELLO, model="demo", response_format="vtt", language="en").startswith("WEBVTT\n\n00:0")
    assert "Anna" in create(file=HELLO, model="demo", response_format="text", language="en")


def test_a_stream_tells_the_same_words(place: Place) -> None:
    create = place.client.audio.transcriptions.create
    events = list(create(file=MEETING, model="demo", stream=True, language="en"))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) >= 2 and events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text == create(file=MEETING, model="demo", language="en").text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_refused(place: Place) -> None:
    create = place.client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError) as refused:
        create(file=("a.wav", b"This is no audio at all. " * 100), model="demo")
    assert refused.value.code == "bad_audio" and "Traceback" not in str(refused.value)
    too_long = encoded(recording("hello_en.wav").repeat(21), 16_000, "FLAC")
    with pytest.raises(openai.BadRequestError, match="60 s"):
        create(file=("a.flac", too_long), model="demo")
    with pytest.raises(openai.APIStatusError) as too_big:
        create(file=("a.wav", bytes(MAX_UPLOAD_BYTES + 1)), model="demo")
    assert (too_big.value.status_code, too_big.value.code) == (413, "too_big")
    with pytest.raises(openai.BadRequestError, match="does not translate"):
        place.client.audio.translations.create(file=HELLO, model="whisper-1")
    with pytest.raises(openai.NotFoundError):
        create(file=HELLO, model="large-v3")
    with (
        openai.OpenAI(base_url=place.client.base_url, api_key="wrong-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.audio.transcriptions.create(file=HELLO, model="demo")


def test_a_live_stream_beside_two_files(place: Place) -> None:
    """Nobody loses a word."""

    async def run() -> tuple[Peer, list[str]]:
        async with (
            openai.AsyncOpenAI(base_url=place.client.base_url, api_key=SECRET, max_retries=0) as client,
            streaming(place.server, f"/t/{SECRET}/") as peer,
        ):
            receiving = asyncio.create_task(peer.receive_all())
            create = client.audio.transcriptions.create
            files = [asyncio.create_task(create(file=MEETING, model="demo", language="en")) for _ in range(2)]
            await peer.send_audio(recording("service_en.wav"), speed=5.0)
            await peer.socket.send(b"END_OF_AUDIO")
            await receiving
            return peer, [(await each).text for each in files]

    peer, texts = asyncio.run(run())
    assert errors("service_en.wav", peer.text) == 0 and not peer.violations
    alone = place.client.audio.transcriptions.create(file=MEETING, model="demo", language="en").text
    assert texts == [alone, alone]


def test_no_secret_and_no_word_in_the_log(place: Place) -> None:
    place.client.audio.transcriptions.create(file=HELLO, model="demo", language="en", prompt="canary prompt")
    log = place.server.log()
    assert "Traceback" not in log
    for hidden in (SECRET, "Anna", "canary prompt", "wrong-wrong"):
        assert hidden not in log


def test_the_server_ends_in_time_with_a_file_at_work(place: Place) -> None:
    """What can be finished is; an engine that hangs costs a 503, and no second more than streams may cost."""
    server = place.server

    def is_at_work() -> bool:
        return bool(
            json.loads(server.get("/status")[1])["files"] == {"active": 1, "max": 4, "uploads": 0, "max_uploads": 16}
        )

    async def run() -> float:
        async with openai.AsyncOpenAI(base_url=place.client.base_url, api_key=SECRET, max_retries=0) as client:
            os.kill(server.engine_pid(), signal.SIGSTOP)
            asking = asyncio.create_task(client.audio.transcriptions.create(file=MEETING, model="demo"))
            await asyncio.to_thread(server.wait_until, is_at_work, "at work", 5.0)
            server.process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            with pytest.raises(openai.InternalServerError) as refused:
                await asking
            assert (refused.value.status_code, refused.value.code) == (503, "draining")
            return begun

    begun = asyncio.run(run())
    assert server.process.wait(10) == 0
    assert time.monotonic() - begun < 8.5
