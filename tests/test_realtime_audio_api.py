"""OpenAI's own client against the HTTP interface over a scripted transcriber: shapes, fields, streams, errors."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.audio import Transcription, TranscriptionVerbose, TranslationVerbose

from engine.errors import (
    AtCapacityError,
    BadAudioError,
    BadInputError,
    DrainingError,
    EngineFailedError,
    EngineKilledError,
    SttError,
    TooBigError,
)
from engine.types import FileSegment
from realtime.audio_api import KEEP_ALIVE_S, MAX_FILES, MAX_UPLOADS, TURN_WAIT_S
from realtime.audio_errors import (
    BadFormError,
    DefectError,
    LoadingError,
    MethodError,
    ModelNotFoundError,
    NotFoundError,
    SlowUploadError,
)
from realtime.audio_fields import ALIASES, FORMATS, AudioRules
from realtime.audio_form import FormLimits
from realtime.transport_base import DEFAULT_LIMITS
from tests.fakes.audio_host import HELLO, SECRET, TEXT, ScriptedHost, Served, served
from tests.fakes.loopback import RawClient, run
from tests.serving import ROOT

FILE = ("speech.wav", b"RIFF-and-so-on")
SECTION = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8").split("## Files over HTTP")[1].split("\n## ")[0]
FIELDS = (
    "file", "model", "language", "languages", "prompt", "hotwords", "keywords", "response_format", "temperature",
    "timestamp_granularities", "stream", "chunking_strategy", "vad_filter", "mode",
)  # fmt: skip
CODES: tuple[type[SttError], ...] = (
    AtCapacityError, BadAudioError, BadFormError, BadInputError, DefectError, DrainingError, EngineFailedError,
    EngineKilledError, LoadingError, MethodError, ModelNotFoundError, NotFoundError, SlowUploadError, TooBigError,
)  # fmt: skip
Case = Callable[[ScriptedHost, Served], Awaitable[None]]


def check(case: Case, host: ScriptedHost | None = None, **options: Any) -> None:
    """Run one case against a fresh interface."""

    async def scenario() -> None:
        scripted = host or ScriptedHost()
        async with served(scripted, **options) as there:
            await case(scripted, there)
            assert scripted.n_working == 0 and there.api.n_active == 0

    run(scenario)


def test_json_with_both_clients() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        answer = await there.client.audio.transcriptions.create(file=FILE, model="whisper-1")
        assert isinstance(answer, Transcription)
        assert answer.text == TEXT
        assert answer.usage is not None and answer.usage.to_dict() == {"type": "duration", "seconds": 4}
        assert host.files == [FILE[1]], "byte by byte"

        def ask() -> Transcription:
            with there.sync() as client:
                return client.audio.transcriptions.create(file=FILE, model="small", temperature=0)

        assert (await asyncio.to_thread(ask)).text == TEXT

    check(case)


def test_verbose_json() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create = there.client.audio.transcriptions.create
        answer = await create(
            file=FILE, model="small", response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        # The client builds its types without looking; this looks.
        checked = TranscriptionVerbose.model_validate(answer.to_dict(), strict=True)
        assert checked.segments is not None and checked.words is not None
        assert (checked.language, checked.duration, checked.text) == ("spanish", 3.25, TEXT)
        assert answer.to_dict()["task"] == "transcribe"
        first = checked.segments[0].to_dict()
        assert first == {
            "id": 0, "seek": 50, "start": 0.5, "end": 1.25, "text": " Hello there.", "tokens": [5, 6],
            "temperature": 0.2, "avg_logprob": -0.25, "compression_ratio": 1.5, "no_speech_prob": 0.01,
        }  # fmt: skip
        assert [word.word for word in checked.words] == ["Hello", "there.", "Nice", "& <easy>."]
        assert checked.words[1].to_dict() == {"word": "there.", "start": 0.9, "end": 1.25}
        assert host.asked[-1].word_timestamps

        plain = await create(file=FILE, model="small", response_format="verbose_json")
        assert plain.words is None and plain.segments is not None and not host.asked[-1].word_timestamps
        words = await create(file=FILE, model="small", response_format="verbose_json", timestamp_granularities=["word"])
        assert words.words is not None and words.segments is None

    check(case)


def test_numbers_that_are_none_do_not_cost_the_answer() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        answer = await there.client.audio.transcriptions.create(
            file=FILE, model="small", response_format="verbose_json"
        )
        assert answer.segments is not None and answer.segments[0].avg_logprob == 0.0
        assert answer.to_dict()["warnings"] == ["a damaged place at 1.0 s"]

    strange = FileSegment(0.0, 1.0, " Hi.", "en", avg_logprob=float("nan"), compression_ratio=float("inf"))
    check(case, ScriptedHost([strange], warnings=("a damaged place at 1.0 s",)))


def test_the_other_formats() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create: Any = there.client.audio.transcriptions.create
        assert await create(file=FILE, model="small", response_format="text") == TEXT + "\n"
        srt = await create(file=FILE, model="small", response_format="srt")
        assert srt.startswith("1\n00:00:00,500 --> 00:00:01,250\nHello there.\n\n2\n")
        vtt = await create(file=FILE, model="small", response_format="vtt")
        assert vtt.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.250\nHello there.\n")
        assert "Nice &amp; &lt;easy&gt;." in vtt
        raw = there.client.audio.transcriptions.with_raw_response
        tsv = await raw.create(file=FILE, model="small", extra_body={"response_format": "tsv"})
        assert tsv.http_response.text.startswith("start\tend\ttext\n500\t1250\tHello there.")
        lrc = await raw.create(file=FILE, model="small", extra_body={"response_format": "lrc"})
        assert "[00:00.50]Hello there." in lrc.http_response.text
        assert lrc.headers["content-type"] == "text/plain; charset=utf-8"

    check(case)


def test_no_speech_is_an_answer() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create: Any = there.client.audio.transcriptions.create
        assert (await create(file=FILE, model="small")).text == ""
        assert (await create(file=FILE, model="small", response_format="verbose_json")).segments == []
        assert await create(file=FILE, model="small", response_format="vtt") == "WEBVTT\n"
        events = [event.to_dict() async for event in await create(file=FILE, model="small", stream=True)]
        assert events == [{"type": "transcript.text.done", "text": ""}]

    check(case, ScriptedHost(()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_translations() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create = there.client.audio.translations.create
        assert (await create(file=FILE, model="whisper-1")).text == TEXT
        assert host.asked[-1].tasks == ("translate",)
        verbose = await create(file=FILE, model="whisper-1", response_format="verbose_json", prompt="Ana")
        checked = TranslationVerbose.model_validate(verbose.to_dict(), strict=True)
        assert checked.language == "english" and verbose.to_dict()["task"] == "translate"
        assert host.asked[-1].prompt == "Ana"
        assert (await create(file=FILE, model="whisper-1", response_format="srt")).startswith("1\n")
        host.rules = AudioRules(("small.en",), ("en",), ("transcribe",))
        with pytest.raises(openai.BadRequestError, match=r"small\.en does not translate"):
            await create(file=FILE, model="whisper-1")

    check(case)


def test_every_field_reaches_the_transcriber() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        await there.client.audio.transcriptions.create(
            file=FILE,
            model="gpt-4o-transcribe",
            language="Spanish",
            prompt=" Ana, Ñandú ",
            temperature=0.4,
            keywords=["Ana", "Cusco"],
            chunking_strategy={
                "type": "server_vad", "threshold": 0.3, "prefix_padding_ms": 100, "silence_duration_ms": 700
            },
            extra_body={"mode": "accurate", "hotwords": "Lima", "unknown": "ignored"},
        )  # fmt: skip
        asked = host.asked[-1]
        assert (asked.language, asked.languages, asked.tasks) == ("es", (), ("transcribe",))
        assert (asked.mode, asked.prompt, asked.hotwords) == ("accurate", "Ana, Ñandú", "Lima, Ana, Cusco")
        assert asked.search.temperatures == (0.4,)
        assert asked.vad is not None
        assert (asked.vad.threshold, asked.vad.speech_pad_ms, asked.vad.min_silence_duration_ms) == (0.3, 100, 700)

        await there.client.audio.transcriptions.create(
            file=FILE, model="small", languages=["de", "es"], chunking_strategy="auto"
        )
        asked = host.asked[-1]
        assert (asked.language, asked.languages, asked.mode) == (None, ("de", "es"), "fast")
        assert asked.vad is not None and len(asked.search.temperatures) == 6

        await there.client.audio.transcriptions.create(
            file=FILE, model="/models/small", extra_body={"vad_filter": True}
        )
        assert host.asked[-1].vad is not None and host.asked[-1].language == "de", "the server's own default"
        await there.client.audio.transcriptions.create(file=FILE, model="small")
        assert host.asked[-1].vad is None

    check(case, ScriptedHost(rules=AudioRules(("small", "/models/small"), ("en", "es", "de"), ("transcribe",), "de")))


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"language": "xx"}, "language", "en, es, de"),
        ({"languages": ["en", "klingon"]}, "languages", "en, es, de"),
        ({"temperature": 1.01}, "temperature", "0 to 1"),
        ({"temperature": float("nan")}, "temperature", "0 to 1"),
        ({"prompt": "x" * 4097}, "prompt", "at most 4096"),
        ({"extra_body": {"hotwords": "x" * 4097}}, "hotwords", "at most 4096"),
        ({"response_format": "diarized_json"}, "response_format", "no speakers"),
        ({"response_format": "xml"}, "response_format", "json, text, srt, verbose_json, vtt"),
        ({"timestamp_granularities": ["letter"]}, "timestamp_granularities", "word, segment"),
        ({"include": ["logprobs"]}, "include", "no probabilities"),
        ({"known_speaker_names": ["Ana"]}, "known_speaker_names", "no speakers"),
        ({"chunking_strategy": "manual"}, "chunking_strategy", "server_vad"),
        ({"chunking_strategy": {"type": "other"}}, "chunking_strategy[type]", "server_vad"),
        ({"extra_body": {"chunking_strategy": "{"}}, "chunking_strategy", "server_vad"),
        ({"chunking_strategy": {"type": "server_vad", "threshold": 2}}, "chunking_strategy[threshold]", "0 to 1"),
        ({"extra_body": {"mode": "slow"}}, "mode", "fast, accurate"),
        ({"extra_body": {"vad_filter": "perhaps"}}, "vad_filter", "true or false"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str, told: str) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        with pytest.raises(openai.BadRequestError, match=told) as refused:
            await there.client.audio.transcriptions.create(file=FILE, model="small", **fields)
        assert (refused.value.param, refused.value.code) == (param, "bad_input")
        assert refused.value.type == "invalid_request_error"
        assert not host.asked

    check(case)


def test_limits_of_fields_are_legal() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        for fields in ({"prompt": "x" * 4096}, {"temperature": 1.0}, {"hotwords": "x" * 4096}):
            await there.client.audio.transcriptions.create(file=FILE, model="small", extra_body=fields)
        assert len(host.asked[0].prompt) == len(host.asked[2].hotwords) == 4096

    check(case)


def test_models() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        listed = [model async for model in there.client.models.list()]
        assert [(model.id, model.object) for model in listed] == [("small", "model")]
        for name in ("small", "/models/small", *ALIASES):
            assert (await there.client.models.retrieve(name)).id == "small"
        for ask in (
            there.client.models.retrieve("large-v3"),
            there.client.audio.transcriptions.create(file=FILE, model="large-v3"),
            there.client.audio.transcriptions.create(file=FILE, model="gpt-4o-transcribe-diarize"),
        ):
            with pytest.raises(openai.NotFoundError, match="legal: small") as refused:
                await ask
            assert refused.value.code == "model_not_found"

    check(case)


def test_a_stream_tells_segments_as_they_come() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        stream = await there.client.audio.transcriptions.create(
            file=FILE, model="small", stream=True, timestamp_granularities=["word"]
        )
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["x-accel-buffering"] == "no"
        events: list[dict[str, Any]] = []
        async for event in stream:
            if not events:
                assert host.n_working == 1, "told before the end"
            events.append(event.to_dict())
        assert [event["type"] for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
        assert events[0]["delta"] == "Hello there." and events[1]["delta"] == " Nice & <easy>."
        assert (events[0]["start"], events[0]["end"]) == (0.5, 1.25)
        assert events[0]["words"] == [
            {"word": "Hello", "start": 0.5, "end": 0.9}, {"word": "there.", "start": 0.9, "end": 1.25}
        ]  # fmt: skip
        assert events[2]["text"] == TEXT == "".join(str(event["delta"]) for event in events[:2])

    check(case, ScriptedHost(pause_s=0.05))


def test_the_last_event_has_the_document() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create: Any = there.client.audio.transcriptions.create
        for name, key in (("srt", "document"), ("verbose_json", "segments")):
            events = [e async for e in await create(file=FILE, model="small", stream=True, response_format=name)]
            done = events[-1].to_dict()
            assert done["text"] == TEXT
            assert done[key][0] == "1" if key == "document" else done[key][0]["text"] == HELLO.text

    check(case)


def test_a_stream_stays_alive_while_nothing_is_known() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        raw = there.client.audio.transcriptions.with_streaming_response
        async with raw.create(file=FILE, model="small", stream=True) as response:
            lines = [line async for line in response.iter_lines()]
        comments = [line for line in lines if line.startswith(":")]
        assert len(comments) >= 3 and lines.index(comments[0]) == 0
        stream = await there.client.audio.transcriptions.create(file=FILE, model="small", stream=True)
        assert [event.type async for event in stream][-1] == "transcript.text.done", "the client skips them"

    check(case, ScriptedHost(pause_s=0.15), keep_alive_s=0.04)


@pytest.mark.parametrize(
    ("error", "raised", "status", "code"),
    [
        (BadAudioError("no audio stream"), openai.BadRequestError, 400, "bad_audio"),
        (AtCapacityError("all media decoders have been busy"), openai.InternalServerError, 503, "full"),
        (EngineFailedError("the window failed"), openai.InternalServerError, 500, "engine_failed"),
        (EngineKilledError("the engine died"), openai.InternalServerError, 500, "engine_killed"),
        (ValueError("canary: what was said"), openai.InternalServerError, 500, "internal"),
    ],
)
def test_errors_of_the_work(
    error: Exception, raised: type[openai.APIStatusError], status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        for wants_stream in (False, True):
            host.segments = ()
            with pytest.raises(raised) as refused:
                await there.client.audio.transcriptions.create(file=FILE, model="small", stream=wants_stream)
            told = refused.value
            assert (told.status_code, told.code) == (status, code), "also of a stream that has not begun"
            assert ("retry-after" in told.response.headers) == (status == 503)
            assert (told.response.headers.get("x-should-retry") == "false") == (status == 500)
            assert "canary" not in str(told) + caplog.text and "Traceback" not in str(told)
        host.segments = (HELLO,)
        stream = await there.client.audio.transcriptions.create(file=FILE, model="small", stream=True)
        with pytest.raises(openai.APIError) as late:
            _ = [event async for event in stream]
        assert late.value.code == code

    check(case, ScriptedHost(error=error))


@pytest.mark.parametrize("refusal", [LoadingError("loading: not ready"), DrainingError("draining: bye")])
def test_no_file_while_loading_or_draining(refusal: SttError) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        for ask in (there.client.audio.transcriptions.create(file=FILE, model="small"), there.client.models.list()):
            with pytest.raises(openai.InternalServerError) as refused:
                await ask
            assert refused.value.status_code == 503 and refused.value.code == refusal.code
            assert int(refused.value.response.headers["retry-after"]) > 0

    check(case, ScriptedHost(refusal=refusal))


def test_secrets_are_asked_for_as_of_sockets() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        async with openai.AsyncOpenAI(base_url=there.base_url, api_key="wrong-wrong-wrong", max_retries=0) as stranger:
            for attempt in range(11):
                with pytest.raises(openai.APIStatusError) as refused:
                    await stranger.audio.transcriptions.create(file=FILE, model="small")
                told = refused.value
                if attempt < 10:
                    assert isinstance(told, openai.AuthenticationError) and told.code == "invalid_api_key"
                    assert told.response.headers["www-authenticate"] == "Bearer"
            assert isinstance(told, openai.RateLimitError) and "retry-after" in told.response.headers
        assert not host.asked
        listed = await there.client.models.list()
        assert listed.data, "who knows the secret gets in"

        client = await RawClient.connect(there.port)
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n"
        head += b"Expect: 100-continue\r\n\r\n"
        await client.send(head)
        status, _, body = await client.response()
        assert status == 401 and json.loads(body)["error"]["code"] == "invalid_api_key", (
            "no byte of the body was asked for"
        )

    check(case)


def test_the_secret_in_the_path() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        base_url = f"http://127.0.0.1:{there.port}/t/canary-3f9a7c51d2/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            assert (await client.audio.transcriptions.create(file=FILE, model="small")).text == TEXT

    check(case)


def test_paths_and_methods() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        for request, expected in (
            ("GET /v1/audio/transcriptions", 405),
            ("POST /v1/models", 405),
            ("GET /v1/chat/completions", 404),
            ("GET /elsewhere", 404),
        ):
            await client.send(
                f"{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-3f9a7c51d2\r\n\r\n".encode()
            )
            status, headers, body = await client.response()
            assert status == expected
            assert status != 405 or headers["allow"] in ("POST", "GET, HEAD")
            if request != "GET /elsewhere":
                assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}

    check(case)


def test_the_protocol_document_knows_the_interface() -> None:
    for name in (*ALIASES, *FORMATS, *FIELDS):
        assert f"`{name}`" in SECTION, name
    told = {each.code for each in CODES} | {"invalid_api_key", "rate_limit_exceeded"}
    rows = set(re.findall(r"^\| \d{3} \| `(\w+)`", SECTION, re.MULTILINE))
    assert rows == told
    for each in CODES:
        assert f"| {each.http_status} | `{each.code}`" in SECTION, each.code
    limits = FormLimits(1)
    assert f"in the last {limits.grace_s:g} s, less than {limits.min_bytes_per_s} bytes per second" in SECTION
    assert f"longer than {limits.max_upload_s:g} s in all" in SECTION
    assert f"After {KEEP_ALIVE_S:g} s without an event" in SECTION
    assert MAX_FILES == 4 and f"four files are at work and none of them ended within {TURN_WAIT_S:g} s" in SECTION
    assert f"{MAX_UPLOADS} uploads are coming in" in SECTION
    rest = DEFAULT_LIMITS
    assert f"for up to {rest.discard_s:g} s and {rest.discard_bytes >> 20} MiB" in SECTION
    assert f"nothing comes for {rest.body_idle_s:g} s" in SECTION


def test_the_example_of_the_protocol_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)
    assert example
    (tmp_path / "talk.mp3").write_bytes(b"x")

    async def case(host: ScriptedHost, there: Served) -> None:
        code = example[1].replace("http://127.0.0.1:9090/v1", there.base_url).replace("SECRET", SECRET)
        code = code.replace("talk.mp3", str(tmp_path / "talk.mp3"))
        await asyncio.to_thread(exec, compile(code, "PROTOCOL.md", "exec"), {})

    check(case)
    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}\n"
