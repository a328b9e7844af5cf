"""`python -m realtime.client` against a scripted server on a real socket, as a process where signals matter."""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import sys
import threading
import time
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias

import pytest

from realtime.client.cli import _surroundings, main
from tests.fakes.wl_server import Script, Step, fake_server, segments

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "engine" / "demo_model" / "samples"
HELLO = str(SAMPLES / "hello_en.wav")
HOLA = str(SAMPLES / "hola_es.wav")

FIRST = (0.12, 1.18, " Hello world.", True)
SECOND = (1.4, 2.64, " How are you?", True)


@dataclass(frozen=True)
class Outcome:
    """How a run ended and what it printed."""

    code: int
    out: str
    err: str


def talk() -> Script:
    return Script(
        steps=(Step(16_000, (segments(FIRST), {"status": "WARNING", "message": "hm"})),),
        finals=(segments(FIRST, SECOND),),
    )


Run: TypeAlias = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this thread, with the server in another."""

    def go(script: Script, *arguments: str, **environ: str) -> Outcome:
        urls: queue.Queue[str] = queue.Queue()
        done = threading.Event()

        async def serve() -> None:
            async with fake_server(script) as url:
                urls.put(url)
                await asyncio.to_thread(done.wait)

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            code = main([urls.get(timeout=10), *arguments], environ)
        finally:
            done.set()
            thread.join()
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return go


def run_process(
    script: Script, *arguments: str, meanwhile: Callable[[asyncio.subprocess.Process], Awaitable[None]]
) -> Outcome:
    """Runs the command line as a process, and `meanwhile` beside it."""

    async def go() -> Outcome:
        async with fake_server(script) as url:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.client", url, *arguments),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            await meanwhile(process)
            out, err = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode is not None
            return Outcome(process.returncode, out.decode(), err.decode())

    return asyncio.run(go())


def test_a_pipe_gets_lines_of_text_and_warnings_go_elsewhere(run: Run) -> None:
    script = talk()
    assert run(script, "--fast", HELLO, WHISPER_AUTH_TOKEN="s3cret-word") == Outcome(
        0, "Hello world.\nHow are you?\n", "warning: hm\n"
    )
    assert script.samples == 46_753
    assert script.headers[0]["authorization"] == "Bearer s3cret-word"


def test_real_time_takes_as_long_as_the_recording(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "second.wav"
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, 16_000, 16_000, "NONE", ""))
        file.writeframes(bytes(2 * 16_000))

    begin_s = time.monotonic()
    assert run(Script(), "-q", str(target)).code == 0
    assert 1.0 <= time.monotonic() - begin_s < 3


def test_json_lines(run: Run) -> None:
    outcome = run(talk(), HELLO, "--fast", "--json")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["type"] for line in lines] == ["ready", "update", "warning", "update", "closed"]
    assert lines[3]["completed"] == [{"start": 1.4, "end": 2.64, "text": " How are you?"}]
    assert outcome.err == ""


def test_a_document_on_standard_output_stands_alone(run: Run) -> None:
    outcome = run(talk(), "--fast", HELLO, "--format", "srt", "-q")
    assert outcome == Outcome(
        0,
        "1\n00:00:00,120 --> 00:00:01,180\nHello world.\n\n2\n00:00:01,400 --> 00:00:02,640\nHow are you?\n",
        "",
    )


def test_several_files_one_connection_and_one_document_each(run: Run, tmp_path: Path) -> None:
    script = talk()
    outcome = run(script, "--fast", "-q", HELLO, HOLA, "--output-dir", str(tmp_path), "--format", "json")
    assert outcome == Outcome(0, "", "")
    assert len(script.handshakes) == 2
    document = json.loads((tmp_path / "hello_en.json").read_text())
    assert document["text"] == "Hello world. How are you?"
    assert document["duration"] == 2.922
    assert (tmp_path / "hola_es.json").exists()


def test_an_unreadable_file_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio at all")
    script = talk()
    outcome = run(script, "--fast", "-q", str(bad), HELLO, "--output-dir", str(tmp_path))
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {bad}: ")
    assert (tmp_path / "hello_en.txt").read_text() == "Hello world.\nHow are you?\n"
    assert len(script.handshakes) == 1


def test_a_broken_stream_says_how_far_it_came_and_keeps_the_text(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    script = Script(steps=(Step(16_000, (segments(FIRST),), close=(1011, "internal")),))
    outcome = run(script, "--fast", HELLO, "-o", str(target))
    assert outcome.code == 1
    assert "code 1011, internal): text received up to 1.2 s of" in outcome.err
    assert outcome.err.count("\n") == 1
    assert target.read_text() == "Hello world.\n"


def test_a_document_that_cannot_be_written_is_an_error(run: Run) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    outcome = run(talk(), "--fast", "-q", HELLO, "-o", "/dev/full")
    assert outcome == Outcome(2, "", "error: /dev/full: No space left on device\n")


def test_changed_text_is_reported(run: Run) -> None:
    script = Script(finals=(segments(FIRST), segments((0.12, 1.18, " Hallo world.", True))))
    outcome = run(script, "--fast", HELLO)
    assert outcome == Outcome(0, "Hello world.\n", "warning: the server changed completed text 1 times\n")


def test_a_warning_that_comes_twice_is_shown_once(run: Run) -> None:
    greeting = {"message": "SERVER_READY", "backend": "faster_whisper", "warnings": ["model: not offered"]}
    repeated = {"status": "WARNING", "message": "model: not offered"}
    outcome = run(Script(greeting=(greeting, repeated), finals=(segments(FIRST),)), "--fast", HELLO)
    assert outcome == Outcome(0, "Hello world.\n", "warning: model: not offered\n")


def test_a_full_server(run: Run) -> None:
    script = Script(greeting=({"status": "WAIT", "message": 2.31},), greeting_close=(1013, "full"))
    outcome = run(script, HELLO, HOLA, "--fast")
    assert outcome.code == 5
    assert "full; it expects a free place in 2.3 min" in outcome.err
    assert len(script.handshakes) == 1


def test_a_wrong_token_is_never_shown(run: Run) -> None:
    outcome = run(Script(http_status=[HTTPStatus.UNAUTHORIZED]), HELLO, WHISPER_AUTH_TOKEN="CANARY-wrong")
    assert outcome.code == 4
    assert "HTTP 401" in outcome.err
    assert "CANARY" not in outcome.err + outcome.out


def test_a_refused_option(run: Run) -> None:
    reply = {"status": "ERROR", "message": "initial_prompt: too long", "code": "bad_input"}
    outcome = run(Script(greeting=(reply,), greeting_close=(1008, "bad_input")), HELLO)
    assert outcome == Outcome(2, "", "error: the server refused: initial_prompt: too long\n")


def test_ctrl_c_ends_the_audio_and_waits_for_the_last_words() -> None:
    script = talk()

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        await script.until(lambda: script.samples >= 16_000)
        process.send_signal(signal.SIGINT)

    assert run_process(script, HELLO, meanwhile=interrupt) == Outcome(
        130, "Hello world.\nHow are you?\n", "warning: hm\n"
    )
    assert script.ends == 1
    assert script.samples < 40_000


def test_a_second_ctrl_c_ends_at_once() -> None:
    script = Script(never_closes=True)

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        await script.until(lambda: bool(script.audio))
        process.send_signal(signal.SIGINT)
        await script.until(lambda: bool(script.ends))
        process.send_signal(signal.SIGINT)

    assert run_process(script, HELLO, meanwhile=interrupt) == Outcome(130, "", "")


def test_ctrl_c_before_the_server_is_ready_ends_at_once() -> None:
    script = Script(greeting=())

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        await script.until(lambda: bool(script.handshakes))
        process.send_signal(signal.SIGINT)

    assert run_process(script, HELLO, meanwhile=interrupt) == Outcome(130, "", "")


def test_a_reader_that_leaves_is_no_traceback() -> None:
    script = talk()

    async def leave(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]

    outcome = run_process(script, "--fast", HELLO, meanwhile=leave)
    assert (outcome.code, outcome.out) == (1, "")


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.wav"], {}) == 2
    assert capsys.readouterr().err == "error: nowhere.wav: no such file\n"
    assert main([], {}) == 2
    assert "--mic" in capsys.readouterr().err


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit codes:" in text


def test_importing_the_client_loads_no_engine(run: Run) -> None:
    heavy = "ctranslate2 faster_whisper onnxruntime soundfile av sounddevice pydantic uvicorn starlette"
    code = f"import sys, realtime.client.cli; print([m for m in {heavy.split()!r} if m in sys.modules])"

    async def go() -> bytes:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0]

    assert asyncio.run(go()) == b"[]\n"


def test_the_secret_of_the_folder_is_used_where_the_environment_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WHISPER_AUTH_TOKEN", raising=False)
    assert not _surroundings()["WHISPER_AUTH_TOKEN"]
    (tmp_path / ".env").write_text("WHISPER_MODEL=turbo\nWHISPER_AUTH_TOKEN='0123456789abcdef'\n")
    assert _surroundings()["WHISPER_AUTH_TOKEN"] == "0123456789abcdef"
    assert "WHISPER_MODEL" not in _surroundings()
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", "another-secret-word")
    assert _surroundings()["WHISPER_AUTH_TOKEN"] == "another-secret-word"
