"""realtime.client.local_server and realtime.demo with the real server."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from engine.errors import UnauthorizedError
from realtime import demo
from realtime.client import ClientOptions, LiveClient
from realtime.client.local_server import KEPT_LINES, MAX_LINE_CHARS, ServerFailedError, local_server
from tests.test_realtime_client_cli import HELLO, ROOT


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_starts_whatever_the_callers_environment_says_and_stops_cleanly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WHISPERLIVE_PORT=none\n")
    for name, value in (("WHISPER_MODEL", "large-v3"), ("RUNPOD_POD_ID", "x"), ("MAX_CLIENTS", "none")):
        monkeypatch.setenv(name, value)

    async def main() -> None:
        reasons: list[str] = []
        async with local_server({"WHISPER_AUTH_TOKEN": "CANARY-secret-0001"}) as server:
            assert await server.wait_ready(on_status=reasons.append) > 0
            assert reasons
            with pytest.raises(UnauthorizedError):
                await LiveClient.connect(server.url)
            async with await LiveClient.connect(server.url, ClientOptions(token="CANARY-secret-0001")) as live:
                await live.finish()
                live.check_complete()
            stopped = await server.stop()
            assert stopped.is_clean
            assert await server.stop() is stopped
            assert server.log
            assert "CANARY" not in server.log
        assert not is_alive(server.pid)

    asyncio.run(main())


def test_a_server_that_cannot_start_is_explained_by_its_own_words() -> None:
    async def main() -> None:
        async with local_server({"MAX_CLIENTS": "none"}) as server:
            with pytest.raises(ServerFailedError, match=r"(?s)exit code [1-9].*MAX_CLIENTS"):
                await server.wait_ready()

    asyncio.run(main())


def test_waiting_is_bounded_and_leaving_ends_the_server() -> None:
    async def main() -> None:
        async with local_server() as server:
            with pytest.raises(ServerFailedError, match="not ready within 0 s"):
                await server.wait_ready(timeout_s=0)
            assert is_alive(server.pid)
        assert not is_alive(server.pid)
        assert len(server.log.splitlines()) <= KEPT_LINES
        assert all(len(line) <= MAX_LINE_CHARS for line in server.log.splitlines())

    asyncio.run(main())


def test_the_demo_hears_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--sample", "hello_en", "--speed", "2"]) == 0
    text = capsys.readouterr().out
    assert "Hello, my name is Anna." in text
    assert "word error rate  0.0 % of 5 words" in text
    assert "exit code 0" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--sample", "nowhere"], "meeting_en.wav"),
        (["--speed", str(demo.MAX_SPEED + 0.1)], "0.25 to 20"),
        (["--speed", str(demo.MIN_SPEED - 0.01)], "0.25 to 20"),
        (["--speed", "nan"], "0.25 to 20"),
    ],
)
def test_the_demo_refuses_what_it_cannot_do(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(arguments) == 1
    assert text in capsys.readouterr().out


def test_the_command_line_transcribes_with_the_real_server(tmp_path: Path) -> None:
    target = tmp_path / "hello.srt"

    async def main() -> int:
        async with local_server() as server:
            await server.wait_ready()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.client", server.url, "--fast", "-q", HELLO, "-o", str(target)),
                cwd=ROOT,
            )
            return await asyncio.wait_for(process.wait(), 30)

    assert asyncio.run(main()) == 0
    assert target.read_text().splitlines()[2] == "Hello, my name is Anna."
