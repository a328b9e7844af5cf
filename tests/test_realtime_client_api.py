"""realtime.client.api against a scripted server on a real socket."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import numpy as np
import pytest

from engine.errors import BadInputError, SttError, UnauthorizedError
from realtime.client import (
    ClientOptions,
    Closed,
    ConnectError,
    Disconnect,
    Event,
    Language,
    LiveClient,
    Ready,
    RefusedError,
    Segment,
    ServerFullError,
    ServerWarning,
    StreamBrokenError,
    Update,
)
from realtime.client.api import MAX_FRAME_BYTES
from realtime.client.connect import is_loopback, retry_delays_s
from tests.fakes.wl_server import Script, Step, fake_server, segments

SECOND = np.zeros(16_000, dtype=np.float32)

HELLO = (0.12, 1.18, " Hello world.", True)
HOW = (1.4, 2.64, " How are you?", True)


def talk() -> Script:
    return Script(
        steps=(
            Step(16_000, ({"language": "en", "language_prob": 0.97}, segments((0.12, 1.02, " Hello world", False)))),
            Step(32_000, (segments(HELLO, (1.4, 2.1, " How are", False)), {"status": "WARNING", "message": "hm"})),
        ),
        finals=(segments(HELLO, (1.4, 2.64, " How are you?", False)), segments(HELLO, HOW)),
    )


async def collect(client: LiveClient) -> list[Event]:
    return [event async for event in client]


def test_a_whole_stream() -> None:
    async def main() -> None:
        script = talk()
        async with (
            fake_server(script) as url,
            await LiveClient.connect(url, ClientOptions(token="s3cret-word")) as live,
        ):
            events = asyncio.create_task(collect(live))
            for _ in range(3):
                await live.send_audio(SECOND)
            assert await live.finish() == Closed(1000, "")
            live.check_complete()
            seen = [event for event in await events if not isinstance(event, Update)]
            assert seen == [Ready("faster_whisper"), Language("en", 0.97), ServerWarning("hm"), Closed(1000, "")]
            updates = [event for event in await events if isinstance(event, Update)]
            assert [update.completed for update in updates] == [
                (),
                (Segment(*HELLO),),
                (),
                (Segment(*HOW),),
            ]
            assert [update.provisional and update.provisional.text for update in updates] == [
                " Hello world",
                " How are",
                " How are you?",
                None,
            ]
            assert [update.at_s for update in updates] == sorted(update.at_s for update in updates)
            assert live.transcript.text == "Hello world. How are you?"
            assert live.transcript.violations == 0
            assert live.sent_samples == script.samples == 48_000
            assert await live.finish() == Closed(1000, "")
        assert script.ends == 1
        assert script.headers[0]["authorization"] == "Bearer s3cret-word"
        assert script.paths == ["/"]

    asyncio.run(main())


def test_nothing_is_lost_if_nobody_iterates() -> None:
    async def main() -> None:
        many = [Step(160 * (n + 1), (segments((n, n + 1, f" w{n}", True)),)) for n in range(1_000)]
        async with fake_server(Script(steps=many)) as url, await LiveClient.connect(url) as live:
            await live.send_audio(np.zeros(160_000, dtype=np.float32))
            await live.finish()
            assert live.transcript.text.split() == [f"w{n}" for n in range(1_000)]
            texts = [s.text for event in await collect(live) if isinstance(event, Update) for s in event.completed]
            assert texts == [f" w{n}" for n in range(1_000)]

    asyncio.run(main())


def test_samples_arrive_as_they_were_and_in_bounded_frames() -> None:
    async def main() -> None:
        script = Script()
        audio = np.linspace(-1, 1, 2 * MAX_FRAME_BYTES // 4 + 1, dtype=np.float32)
        async with fake_server(script) as url, await LiveClient.connect(url) as live:
            await live.send_audio(audio)
            await live.send_audio(audio[:5].tobytes())
            await live.finish()
        assert b"".join(script.audio) == audio.tobytes() + audio[:5].tobytes()
        assert [len(frame) for frame in script.audio] == [MAX_FRAME_BYTES, MAX_FRAME_BYTES, 4, 20]

    asyncio.run(main())


@pytest.mark.parametrize("audio", [np.zeros(4), np.zeros((2, 2), dtype=np.float32), np.zeros(4, dtype=np.int16)])
def test_other_arrays_are_refused(audio: np.ndarray) -> None:
    async def main() -> None:
        async with fake_server(Script()) as url, await LiveClient.connect(url) as live:
            with pytest.raises(BadInputError, match="float32"):
                await live.send_audio(audio)

    asyncio.run(main())


def test_no_audio_after_the_end() -> None:
    async def main() -> None:
        async with fake_server(Script()) as url, await LiveClient.connect(url) as live:
            await live.finish()
            with pytest.raises(BadInputError, match="after finish"):
                await live.send_audio(SECOND)

    asyncio.run(main())


def test_sending_waits_for_a_server_that_does_not_read() -> None:
    async def main() -> None:
        script = Script(stops_reading=True)
        async with fake_server(script) as url, await LiveClient.connect(url) as live:
            audio = np.zeros(16_000 * 600, dtype=np.float32)
            sending = asyncio.create_task(live.send_audio(audio))
            before = -1
            while live.sent_samples != before:
                before = live.sent_samples
                await asyncio.wait({sending}, timeout=0.3)
            assert not sending.done()
            assert live.sent_samples < audio.size / 2
            script.released.set()
            await sending
            await live.finish()
            assert script.samples == audio.size

    asyncio.run(main())


def failure(script: Script, options: ClientOptions | None = None) -> SttError:
    """The error of a connect."""

    async def main() -> SttError:
        async with fake_server(script) as url:
            with pytest.raises(SttError) as caught:
                await LiveClient.connect(url, options, connect_budget_s=0.2, ready_timeout_s=0.5)
            return caught.value

    return asyncio.run(main())


def test_a_full_server_says_how_long() -> None:
    error = failure(Script(greeting=({"status": "WAIT", "message": 2.31},), greeting_close=(1013, "full")))
    assert isinstance(error, ServerFullError)
    assert error.minutes == 2.31
    assert "2.3 min" in str(error)


def test_a_full_server_without_wait() -> None:
    error = failure(Script(greeting=(), greeting_close=(1013, "full")))
    assert isinstance(error, ServerFullError)
    assert error.minutes is None


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_wrong_token(status: HTTPStatus) -> None:
    script = Script(http_status=[status])
    error = failure(script, ClientOptions(token="CANARY-wrong"))
    assert isinstance(error, UnauthorizedError)
    assert "CANARY" not in str(error)
    assert len(script.headers) == 1


def test_a_refusal_after_the_upgrade() -> None:
    reply = {"status": "ERROR", "message": "language: 'xx' is not allowed", "code": "bad_input"}
    error = failure(Script(greeting=(reply,), greeting_close=(1008, "bad_input")))
    assert isinstance(error, RefusedError)
    assert "language: 'xx'" in str(error)
    reply = {"status": "ERROR", "message": "no token", "code": "unauthorized"}
    assert isinstance(failure(Script(greeting=(reply,), greeting_close=(1008, ""))), UnauthorizedError)
    reply = {"status": "ERROR", "message": "Failed to load model"}
    assert isinstance(failure(Script(greeting=(reply,), greeting_close=(1011, ""))), StreamBrokenError)


def test_a_close_before_ready() -> None:
    error = failure(Script(greeting=(), greeting_close=(1001, "draining")))
    assert isinstance(error, StreamBrokenError)
    assert "code 1001 (draining)" in str(error)


def test_a_server_that_is_never_ready() -> None:
    error = failure(Script(greeting=()))
    assert isinstance(error, ConnectError)
    assert "not ready within 0.5 s" in str(error)


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.FOUND])
def test_other_http_answers_are_not_retried(status: HTTPStatus) -> None:
    script = Script(http_status=[status])
    error = failure(script)
    assert isinstance(error, ConnectError)
    assert str(status.value) in str(error)
    assert len(script.headers) == 1


def test_http_503_is_retried_until_it_passes() -> None:
    async def main() -> None:
        script, reasons = Script(http_status=[HTTPStatus.SERVICE_UNAVAILABLE]), list[str]()
        async with fake_server(script) as url, await LiveClient.connect(url, on_retry=reasons.append) as live:
            await live.finish()
        assert len(script.headers) == 2
        assert len(reasons) == 1
        assert "503" in reasons[0]

    asyncio.run(main())


def test_http_503_for_ever_is_given_up() -> None:
    error = failure(Script(http_status=[HTTPStatus.SERVICE_UNAVAILABLE] * 20))
    assert isinstance(error, ConnectError)


def test_a_server_that_comes_up_late_is_found() -> None:
    async def main() -> None:
        async with fake_server(Script()) as url:
            port = int(url.rpartition(":")[2])
        late = asyncio.Event()

        async def start_late() -> None:
            await late.wait()
            async with fake_server(Script(), port=port):
                await stop.wait()

        stop = asyncio.Event()
        server = asyncio.create_task(start_late())
        live = await LiveClient.connect(url, on_retry=lambda _: late.set())
        assert late.is_set()
        await live.close()
        stop.set()
        await server

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_there(host: str) -> None:
    async def main() -> str:
        async with fake_server(Script()) as url:
            port = url.rpartition(":")[2]
        with pytest.raises(ConnectError) as caught:
            await LiveClient.connect(f"ws://{host}:{port}/?secret=1", connect_budget_s=0.1)
        return str(caught.value)

    text = asyncio.run(main())
    assert "connection refused" in text
    assert "secret" not in text


def test_something_else_listens_there() -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectError, match="no WebSocket server"):
                await LiveClient.connect(f"ws://127.0.0.1:{port}", connect_budget_s=0)

    asyncio.run(main())


def test_delays_double_up_to_their_longest() -> None:
    delays = retry_delays_s(lambda: 0.1)
    assert [next(delays) for _ in range(6)] == pytest.approx([0.35, 0.6, 1.1, 2.1, 4.1, 4.1])


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("ws://127.0.0.1:9090", True),
        ("ws://127.9.0.1:9090", True),
        ("ws://[::1]:9090/x", True),
        ("ws://localhost:1", True),
        ("wss://pod-9090.proxy.example", False),
        ("ws://10.0.0.1:9090", False),
        ("ws://localhost.example:1", False),
    ],
)
def test_is_loopback(url: str, local: bool) -> None:
    assert is_loopback(url) is local


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(32_000, (segments(HELLO),), close=(1001, "draining")), "code 1001, draining"),
        (Step(32_000, (segments(HELLO),), close=(1011, "")), "code 1011)"),
        (Step(32_000, (segments(HELLO),), close=(1000, "")), "code 1000)"),
        (Step(32_000, (segments(HELLO),), abort=True), "code 1006"),
    ],
)
def test_a_drop_in_mid_stream_tells_how_far_the_text_reaches(step: Step, code: str) -> None:
    async def main() -> None:
        async with fake_server(Script(steps=(step,))) as url, await LiveClient.connect(url) as live:
            with pytest.raises(StreamBrokenError) as caught:
                for _ in range(1_000):
                    await live.send_audio(SECOND)
                    await asyncio.sleep(0.001)
            assert code in str(caught.value)
            assert "up to 1.2 s of" in str(caught.value)
            assert live.transcript.text == "Hello world."
            with pytest.raises(StreamBrokenError):
                live.check_complete()

    asyncio.run(main())


def test_a_disconnect_by_the_servers_rule_keeps_its_last_text() -> None:
    async def main() -> None:
        step = Step(16_000, (segments(HELLO), {"message": "DISCONNECT"}), close=(4002, "session_limit"))
        async with fake_server(Script(steps=(step,))) as url, await LiveClient.connect(url) as live:
            await live.send_audio(SECOND)
            events = await collect(live)
            assert events[-2:] == [Disconnect(), Closed(4002, "session_limit")]
            assert live.transcript.text == "Hello world."
            with pytest.raises(StreamBrokenError, match="4002"):
                live.check_complete()

    asyncio.run(main())


def test_an_error_in_mid_stream_is_what_check_complete_raises() -> None:
    async def main() -> None:
        step = Step(16_000, ({"status": "ERROR", "message": "bytes are no audio"},), close=(1008, "bad_audio"))
        async with fake_server(Script(steps=(step,))) as url, await LiveClient.connect(url) as live:
            await live.send_audio(SECOND)
            await live.finish()
            with pytest.raises(RefusedError, match="bytes are no audio"):
                live.check_complete()

    asyncio.run(main())


def test_a_server_that_never_finishes_is_left() -> None:
    async def main() -> None:
        script = Script(never_closes=True, finals=(segments(HELLO),))
        async with fake_server(script) as url, await LiveClient.connect(url) as live:
            with pytest.raises(StreamBrokenError, match="did not finish"):
                await live.finish(idle_timeout_s=0.1)
            assert live.transcript.text == "Hello world."

    asyncio.run(main())


def test_the_whole_wait_for_the_end_is_bounded() -> None:
    async def main() -> None:
        async with fake_server(Script(never_closes=True)) as url, await LiveClient.connect(url) as live:
            with pytest.raises(StreamBrokenError, match="did not finish"):
                await live.finish(idle_timeout_s=60, total_timeout_s=0.1)

    asyncio.run(main())
