"""Bodies of file requests, byte by byte: limits, forms that are broken, slow or cut, peers that leave, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from engine.errors import AtCapacityError
from realtime.audio_errors import SlowUploadError
from realtime.audio_form import MAX_FIELD_BYTES, MAX_FIELDS, MAX_OVERHEAD_BYTES, FormLimits, _Rate
from realtime.audio_places import Places
from realtime.transport import Limits
from tests.fakes.audio_host import HELLO, MAX_FILE_BYTES, SECRET, TEXT, ScriptedHost, Served, served
from tests.fakes.loopback import RawClient, noise, run

BOUNDARY = "xYzZY"
END = f"--{BOUNDARY}--\r\n".encode()
Case = Callable[[ScriptedHost, Served], Awaitable[None]]


def n_deleted_files() -> int:
    """Open files of this process that have no name."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(link.readlink())
            found += target.endswith("(deleted)") and not target.startswith("/memfd")
    return found


def check(case: Case, host: ScriptedHost | None = None, **options: Any) -> None:
    """Run one case against a fresh interface; no file stays behind."""

    async def scenario() -> None:
        scripted = host or ScriptedHost()
        before = n_deleted_files()
        async with served(scripted, **options) as there:
            await case(scripted, there)
        assert scripted.n_working == 0 and there.api.n_active == 0
        assert n_deleted_files() == before

    run(scenario)


async def until(condition: Callable[[], bool]) -> None:
    """Wait; the scenario's own limit ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def field(name: str, value: bytes = b"value") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return head.encode() + value + b"\r\n"


def file(data: bytes, name: str = "file") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.wav"\r\n'
    return head.encode() + b"Content-Type: audio/wav\r\n\r\n" + data + b"\r\n"


def head(length: int | None, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = ["POST /v1/audio/transcriptions HTTP/1.1", "Host: x", f"Authorization: Bearer {SECRET}", size]
    return "\r\n".join([*lines, f"Content-Type: {kind}", "", ""]).encode()


def chunks(body: bytes, size: int = 10_000) -> Iterator[bytes]:
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        yield b"%x\r\n" % len(piece) + piece + b"\r\n"
    yield b"0\r\n\r\n"


async def posted(there: Served, body: bytes, *, chunked: bool = False, **more: Any) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer to one body."""
    client = await RawClient.connect(there.port)
    await client.send(head(None if chunked else len(body), **more))
    await client.send(b"".join(chunks(body)) if chunked else body)
    status, _, answer = await client.response()
    return status, json.loads(answer)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_file_and_one_byte_more(chunked: bool) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        data = noise(MAX_FILE_BYTES)
        status, _ = await posted(there, field("model", b"small") + file(data) + END, chunked=chunked)
        assert (status, host.files) == (200, [data])
        status, answer = await posted(there, file(data + b"x") + END, chunked=chunked)
        assert (status, answer["error"]["code"]) == (413, "too_big")
        assert str(MAX_FILE_BYTES) in answer["error"]["message"] and len(host.files) == 1

    check(case)


def test_a_file_beyond_one_write_arrives_whole() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        data = noise(5_000_000)
        answer = await there.client.audio.transcriptions.create(file=("a.wav", data), model="small")
        assert answer.text == TEXT and host.files == [data]

    check(case, form=FormLimits(6_000_000))


def test_a_declared_length_is_refused_before_the_body() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        await client.send(head(MAX_FILE_BYTES + MAX_OVERHEAD_BYTES + 1))
        assert (await client.response())[0] == 413

    check(case)


def test_a_body_without_end_is_refused_in_the_middle() -> None:
    """However long it says it is, and although it never ends."""

    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        await client.send(head(None))
        for piece in list(chunks(file(noise(MAX_FILE_BYTES + 50_000))))[:-2]:
            await client.send(piece)
        status, _, answer = await client.response()
        assert (status, json.loads(answer)["error"]["code"]) == (413, "too_big")

    check(case)


def test_openais_client_is_told_so_although_it_sends_on() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        with pytest.raises(openai.APIStatusError) as refused:
            await there.client.audio.transcriptions.create(file=("a.wav", noise(20_000_000)), model="small")
        assert (refused.value.status_code, refused.value.code) == (413, "too_big")

    check(case)


FULL = b"".join(field(f"f{number}") for number in range(MAX_FIELDS))
LONG = MAX_OVERHEAD_BYTES - 1_000


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (FULL + file(b"x") + END, 200, ""),
        (FULL + field("more") + file(b"x") + END, 400, "bad_form"),
        (field("f", b"x" * MAX_FIELD_BYTES) + file(b"x") + END, 200, ""),
        (field("f", b"x" * (MAX_FIELD_BYTES + 1)) + file(b"x") + END, 400, "bad_form"),
        (file(b"x") + END + b"x" * LONG, 200, ""),
        (file(b"x") + END + b"x" * (LONG + 1_000), 413, "too_big"),
        (file(b"x") + file(b"y") + END, 400, "bad_form"),
        (file(b"x", "other") + END, 400, "bad_input"),
        (field("model", b"small") + END, 400, "bad_input"),
        (file(b"") + END, 400, "bad_input"),
        (field("model", b"\xff") + file(b"x") + END, 400, "bad_form"),
        (field("model", b"small") + field("model", b"small") + file(b"x") + END, 400, "bad_form"),
        (file(b"x" * 5_000), 400, "bad_form"),
        (b"no form at all", 400, "bad_form"),
        (b"", 400, "bad_form"),
        (file(b"x").replace(b"Content-Type", b"X" * 5_000) + END, 400, "bad_form"),
    ],
    ids=[
        "most fields", "a field more", "longest field", "a longer one", "longest rest", "a longer rest", "two files",
        "file under another name", "no file", "empty file", "not UTF-8", "model twice", "no end", "no form",
        "no body", "long part header",
    ],
)  # fmt: skip
def test_forms_at_and_beyond_their_limits(body: bytes, status: int, code: str) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        told, answer = await posted(there, body)
        assert told == status, answer
        assert status == 200 or answer["error"]["code"] == code

    check(case)


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", f"multipart/form-data; boundary={'x' * 300}"]
)
def test_other_bodies_are_refused(kind: str) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        status, answer = await posted(there, b"{}", kind=kind)
        assert (status, answer["error"]["code"]) == (400, "bad_form")

    check(case)


@pytest.mark.parametrize("burst_bytes", [1, 50_000])
def test_a_dripping_upload_is_told_to_go(burst_bytes: int) -> None:
    """However much it sent at first."""

    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        body = file(noise(burst_bytes + 2_000))
        await client.send(head(None) + b"%x\r\n" % burst_bytes + body[:burst_bytes] + b"\r\n")
        started = time.monotonic()

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for piece in chunks(body[burst_bytes:], 5):
                    await client.send(piece)
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        status, _, answer = await client.response()
        assert (status, json.loads(answer)["error"]["code"]) == (408, "slow_upload")
        assert 0.2 < time.monotonic() - started < 1.5
        dripping.cancel()

    check(case, form=FormLimits(MAX_FILE_BYTES, grace_s=0.2, min_bytes_per_s=2_000))


def test_an_upload_at_the_least_rate_may_take_longer_than_the_grace() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        body = file(noise(4_000)) + END
        await client.send(head(len(body)))
        for at in range(0, len(body), 500):
            await client.send(body[at : at + 500])
            await asyncio.sleep(0.06)
        assert (await client.response())[0] == 200

    check(case, form=FormLimits(MAX_FILE_BYTES, grace_s=0.2, min_bytes_per_s=2_500))


def test_the_rate_at_its_limit_and_one_byte_less() -> None:
    limits = FormLimits(MAX_FILE_BYTES, grace_s=30.0, min_bytes_per_s=100, max_upload_s=100.0)
    for step, is_slow in ((100, False), (99, True)):
        rate = _Rate(limits, 5.0)
        rate.check(6.0, 1_000_000)
        for second in range(2, 31):
            rate.check(5.0 + second, 1_000_000 + (second - 1) * step)
        with pytest.raises(SlowUploadError, match="100 bytes per second") if is_slow else contextlib.nullcontext():
            rate.check(36.0, 1_000_000 + 30 * step)
    rate.check(66.0, 1_003_000 + 3_000)
    rate.check(105.0, 1_013_000)
    with pytest.raises(SlowUploadError, match="100 s"):
        rate.check(105.1, 2_000_000)


def test_no_upload_takes_longer_than_it_may() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        await client.send(head(None))
        answer = asyncio.create_task(client.response())
        with contextlib.suppress(ConnectionError):
            for piece in chunks(file(noise(90_000)), 1_000):
                if answer.done():
                    break
                await client.send(piece)
                await asyncio.sleep(0.02)
        status, _, told = await answer
        assert (status, json.loads(told)["error"]["code"]) == (408, "slow_upload")

    check(case, form=FormLimits(MAX_FILE_BYTES, grace_s=0.1, min_bytes_per_s=1, max_upload_s=0.3))


@pytest.mark.parametrize("closes", [False, True])
def test_a_slow_upload_without_the_secret_reads_its_status(closes: bool) -> None:
    """OpenAI's clients, and others, read nothing before all is sent."""

    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        body = file(noise(5_000)) + END
        start = head(len(body)).replace(SECRET.encode(), b"wrong-wrong")
        await client.send(start.replace(b"Host: x", b"Host: x\r\nConnection: close") if closes else start)
        for at in range(0, len(body), 500):
            await client.send(body[at : at + 500])
            await asyncio.sleep(0.03)
        status, _, told = await client.response()
        assert (status, json.loads(told)["error"]["code"]) == (401, "invalid_api_key")
        if not closes:
            await client.send(head(len(body)) + body)
            assert (await client.response())[0] == 200, "the connection can be used on"
        else:
            assert await client.reader.read() == b""

    check(case, limits=Limits(header_timeout_s=0.15, keep_alive_s=1, body_idle_s=0.4))


def test_a_stalled_upload_gives_its_place_back() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        await client.send(head(1_000) + file(b"x")[:50])
        assert await client.ended()
        await until(lambda: there.api.n_active == 0)
        assert (await there.client.audio.transcriptions.create(file=("a", b"x"), model="small")).text == TEXT

    check(case, limits=Limits(body_idle_s=0.2), max_uploads=1)


@pytest.mark.parametrize("wants_stream", [b"false", b"true"])
def test_work_ends_when_the_peer_leaves(wants_stream: bytes) -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        body = field("stream", wants_stream) + file(b"x") + END
        await client.send(head(len(body)) + body)
        await host.began.wait()
        await client.close()
        await asyncio.wait_for(host.ended.wait(), 1.0)
        assert (await there.client.models.list()).data

    check(case, ScriptedHost(stays=True), max_files=1)


def test_a_peer_that_leaves_in_its_upload() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        await client.send(head(1_000) + file(b"x")[:50])
        await until(lambda: there.api.n_active == 1)
        await client.close()
        await until(lambda: there.api.n_active == 0)
        assert not host.asked

    check(case)


def test_one_file_more_than_there_are_places() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create = there.client.audio.transcriptions.create
        first = [asyncio.create_task(create(file=("a", b"x"), model="small")) for _ in range(2)]
        await until(lambda: there.api.n_active == 2)
        with pytest.raises(openai.InternalServerError) as refused:
            await create(file=("a", b"x"), model="small")
        assert (refused.value.status_code, refused.value.code) == (503, "full")
        assert int(refused.value.response.headers["retry-after"]) > 0
        assert [(await each).text for each in first] == [TEXT, TEXT]
        for _ in range(5):
            assert (await create(file=("a", b"x"), model="small")).text == TEXT, "no place is lost"

    check(case, ScriptedHost(pause_s=0.1), max_files=2, turn_wait_s=0.05)


def test_a_finished_upload_waits_for_its_turn() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        create = there.client.audio.transcriptions.create
        three = [asyncio.create_task(create(file=("a", b"x"), model="small")) for _ in range(3)]
        await until(lambda: (there.api.n_recordings, there.api.n_uploads) == (1, 2))
        raw = there.client.audio.transcriptions.with_streaming_response
        async with raw.create(file=("a", b"x"), model="small", stream=True) as response:
            lines = [line async for line in response.iter_lines()]
        assert lines[0].startswith(":"), "a stream stays alive meanwhile"
        assert [(await each).text for each in three] == [TEXT] * 3
        assert len(host.asked) == 4

    check(case, ScriptedHost(pause_s=0.05), max_files=1, keep_alive_s=0.03)


def test_who_leaves_while_it_waits_takes_no_turn() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        body = file(b"x") + END
        first, second = await RawClient.connect(there.port), await RawClient.connect(there.port)
        await first.send(head(len(body)) + body)
        await host.began.wait()
        await second.send(head(len(body)) + body)
        await until(lambda: there.api.n_uploads == 1)
        await second.close()
        await until(lambda: there.api.n_uploads == 0)
        await first.close()
        await until(lambda: there.api.n_recordings == 0)
        assert len(host.asked) == 1

    check(case, ScriptedHost(stays=True), max_files=1)


def test_one_upload_more_than_there_are_places() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        slow = [await RawClient.connect(there.port) for _ in range(2)]
        for client in slow:
            await client.send(head(1_000) + file(b"x")[:50])
        await until(lambda: there.api.n_uploads == 2)
        with pytest.raises(openai.InternalServerError) as refused:
            await there.client.audio.transcriptions.create(file=("a", b"x"), model="small")
        assert (refused.value.status_code, refused.value.code) == (503, "full")
        await slow[0].close()
        await until(lambda: there.api.n_uploads == 1)
        answer = await there.client.audio.transcriptions.create(file=("a", b"x"), model="small")
        assert answer.text == TEXT, "a slow upload takes no place from recordings"

    check(case, max_files=1, max_uploads=2)


def test_places_go_by_arrival_and_are_not_lost() -> None:
    async def scenario() -> None:
        places = Places(1)
        await places.take(0.0)
        with pytest.raises(AtCapacityError, match="1 files are in work"):
            await places.take(0.01)
        waiting = [asyncio.create_task(places.take(5.0)) for _ in range(3)]
        await asyncio.sleep(0)
        places.give_back()
        waiting[0].cancel()  # it has its turn and does not know yet
        await asyncio.wait({waiting[1]}, timeout=5.0)
        assert waiting[0].cancelled() and waiting[1].done() and not waiting[2].done()
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        places.give_back()
        assert places.n_taken == 0
        await places.take(0.0)

    run(scenario)


def test_the_end_lets_a_file_finish() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        asking = asyncio.create_task(there.client.audio.transcriptions.create(file=("a", b"x"), model="small"))
        await host.began.wait()
        assert await there.api.drain(5.0)
        assert (await asking).text == TEXT

    check(case, ScriptedHost(pause_s=0.1))


def test_the_end_waits_and_then_says_so() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        assert await there.api.drain(0.0), "nothing in work"
        create = there.client.audio.transcriptions.create
        plain = asyncio.create_task(create(file=("a", b"x"), model="small"))
        stream = await create(file=("a", b"x"), model="small", stream=True)
        events = []

        async def read() -> None:
            async for event in stream:
                events.append(event)

        reading = asyncio.create_task(read())
        await until(lambda: len(host.asked) == 2 and bool(events))
        assert not await there.api.drain(0.05), "both are still at work"
        await there.api.abort(0.5)
        with pytest.raises(openai.InternalServerError) as refused:
            await plain
        assert (refused.value.status_code, refused.value.code) == (503, "draining")
        with pytest.raises(openai.APIError) as late:
            await reading
        assert late.value.code == "draining" and len(events) == 1

    check(case, ScriptedHost((HELLO,), stays=True))


def test_the_end_ends_uploads_too() -> None:
    async def case(host: ScriptedHost, there: Served) -> None:
        client = await RawClient.connect(there.port)
        await client.send(head(1_000) + file(b"x")[:50])
        await until(lambda: there.api.n_active == 1)
        await there.api.abort(0.5)
        status, headers, answer = await client.response()
        assert (status, json.loads(answer)["error"]["code"]) == (503, "draining") and headers["retry-after"]

    check(case)
