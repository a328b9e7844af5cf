"""engine/owner.py with real children and the demo model: crashes, hangs, signals, starts that fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.clock import MonotonicClock
from engine.errors import (
    AtCapacityError,
    ConfigError,
    DrainingError,
    EngineFailedError,
    EngineRestartError,
    ModelUnavailableError,
)
from engine.owner import MAX_OUTSTANDING, EngineOwner, EngineState
from engine.restarts import RestartPolicy
from engine.service import EngineService
from engine.settings import load_settings
from engine.types import FileOptions, JobClass, WindowJob, WindowResult
from tests.fakes.demo_audio import Sample, log_mel, plain_words, samples

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine child is a POSIX process")

LIMIT_S = 30.0
"""For one test; a start of the child takes 1 s on an idle machine."""
HANG_TIMEOUT_S = 1.5
"""The engine timeout of tests that let a child hang: 10 times a busy machine's longest call."""

Body = Callable[[EngineOwner, EngineService], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def running(policy: RestartPolicy | None = None, **options: Any) -> AsyncIterator[EngineOwner]:
    owner = EngineOwner(load_settings({"model": "demo", **options}, None), MonotonicClock(), policy)
    owner.start()
    try:
        yield owner
    finally:
        await owner.stop()
        pid = owner.pid
        assert pid is None or not is_running(pid)


def drive(body: Body, policy: RestartPolicy | None = None, **options: Any) -> None:
    async def session() -> None:
        async with running(policy, **options) as owner:
            await owner.wait_ready()
            service = EngineService(owner, MonotonicClock())
            service.start()
            await body(owner, service)
            await service.stop()

    asyncio.run(asyncio.wait_for(session(), LIMIT_S))


def is_running(pid: int) -> bool:
    """False for no process and for one that is dead but not yet reaped by whoever inherited it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def until_gone(pid: int, limit_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + limit_s
    while is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not is_running(pid)


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again: what another process does sets no event here."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def pid_of(owner: EngineOwner) -> int:
    assert owner.pid is not None
    return owner.pid


def window(sample: Sample, job_class: JobClass = JobClass.FINAL, stream: str = "a") -> WindowJob:
    return WindowJob(stream=stream, job_class=job_class, mel=log_mel(sample.audio), language=sample.language)


def heard(result: WindowResult) -> list[str]:
    return plain_words("".join(word.text for word in result.words))


HELLO = samples()[0]


# The model behind it


def test_the_shipped_samples_are_transcribed_to_the_letter() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        assert owner.state is EngineState.READY
        assert owner.info.languages == ("en", "es")
        assert (owner.info.name, owner.info.is_demo, owner.info.n_mels) == ("demo", True, 80)
        for sample in samples():
            for job_class in JobClass:
                job = WindowJob("s", job_class, log_mel(sample.audio), None)
                result = await service.transcribe_window(job)
                assert heard(result) == plain_words(sample.text)
                assert result.language == sample.language
                assert result.language_probs[0][0] == sample.language
        stats = service.stats()
        assert stats.is_ready
        assert stats.classes[JobClass.FINAL].done == 6

    drive(body)


def test_a_recording_goes_through_and_live_windows_get_in_between() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        meeting = samples()[1]
        order: list[str] = []

        async def live() -> None:
            assert heard(await service.transcribe_window(window(HELLO))) == plain_words(HELLO.text)
            order.append("live")

        tasks: list[asyncio.Task[None]] = []
        text = ""
        # Three windows of 30 s: the live job arrives with the first segment and must not wait for the last.
        long_audio = np.concatenate([meeting.audio, np.zeros(20 * 16_000, np.float32)] * 3)
        options = FileOptions(language="en", word_timestamps=True)
        async for segment in service.transcribe_file(long_audio, options):
            assert segment.words[0].start_s < segment.words[-1].end_s <= len(long_audio) / 16_000
            text += segment.text
            if not tasks:
                tasks.append(asyncio.create_task(live()))
        order.append("file")
        await asyncio.gather(*tasks)
        assert order == ["live", "file"]
        assert plain_words(text)[: len(plain_words(meeting.text))] == plain_words(meeting.text)

    drive(body)


def test_a_call_that_fails_is_answered_and_the_child_goes_on() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        pid = pid_of(owner)
        wrong = WindowJob("s", JobClass.FINAL, np.zeros((3, 10), np.float32), "en")
        with pytest.raises(EngineFailedError, match=r"mel: \(3, 10\) is not allowed"):
            await owner.transcribe([wrong])
        with pytest.raises(EngineFailedError, match="differ"):
            await owner.transcribe([window(HELLO, JobClass.FINAL), window(HELLO, JobClass.PARTIAL)])
        with pytest.raises(EngineFailedError, match="not open"):
            await owner.next_segments((1 << 32) + 999)
        for method in ("__init__", "encode"):
            with pytest.raises(EngineFailedError, match="no such call"):
                await owner.call(method, None)
        assert heard(await service.transcribe_window(window(HELLO))) == plain_words(HELLO.text)
        assert (pid_of(owner), owner.restarts) == (pid, 0)

    drive(body)


def test_a_batch_goes_there_and_back_in_one_call() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        chosen = [sample for sample in samples() if sample.language == "en"]
        jobs = [
            WindowJob(f"s{index}", JobClass.PARTIAL, log_mel(sample.audio)[:, :220], None if index % 2 else "en")
            for index, sample in enumerate(chosen)
        ]
        batch = await owner.transcribe(jobs)
        assert (batch.frames, batch.padding_frames) == (len(jobs) * 400, len(jobs) * 180)
        assert min(batch.encode_s, batch.decode_s, batch.align_s, batch.tokens) > 0
        for job, together in zip(jobs, batch.results, strict=True):
            [alone] = (await owner.transcribe([job])).results
            assert together == alone

    drive(body)


def test_the_padding_of_windows_is_a_setting() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        assert owner.info.pad_frames == 450
        assert (await owner.transcribe([window(HELLO)])).frames == 450

    drive(body, window_pad_s=4.5)


# Crashes and hangs


def test_killed_in_the_middle_of_a_call_the_job_is_decoded_by_the_next_child() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        pid = pid_of(owner)
        handle = await owner.open_file(np.zeros(16_000, np.float32), FileOptions(language="en"))
        os.kill(pid, signal.SIGSTOP)  # so that the call is surely inside when the child dies
        task = asyncio.create_task(service.transcribe_window(window(HELLO)))
        await until(lambda: service.stats().classes[JobClass.FINAL].waiting == 0)
        os.kill(pid, signal.SIGKILL)
        assert heard(await task) == plain_words(HELLO.text)
        assert owner.restarts == 1
        assert pid_of(owner) != pid
        assert not is_running(pid)
        with pytest.raises(EngineRestartError, match="gone"):
            await owner.next_segments(handle)
        assert owner.state is EngineState.READY

    drive(body)


def test_a_child_that_hangs_is_replaced_within_the_deadline() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        pid = pid_of(owner)
        os.kill(pid, signal.SIGSTOP)
        task = asyncio.create_task(service.transcribe_window(window(HELLO)))
        began_s = time.monotonic()
        await until(lambda: owner.state is not EngineState.READY)
        waited_s = time.monotonic() - began_s
        assert HANG_TIMEOUT_S * 0.9 < waited_s < HANG_TIMEOUT_S + 2.0
        assert owner.state is EngineState.RESTARTING
        assert not service.stats().is_ready
        assert heard(await task) == plain_words(HELLO.text)
        assert until_gone(pid)
        assert owner.restarts == 1

    drive(body, engine_timeout_s=HANG_TIMEOUT_S)


def test_a_child_that_dies_idle_is_replaced_before_anybody_asks() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        os.kill(pid_of(owner), signal.SIGSEGV)
        await until(lambda: owner.restarts == 1)
        await owner.wait_ready()
        assert owner.state is EngineState.READY

    drive(body)


def test_more_deaths_than_the_policy_grants_are_fatal() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        for expected in (1, 2, 3):
            os.kill(pid_of(owner), signal.SIGKILL)  # the second and third while they load
            await until(lambda expected=expected: owner.restarts == expected)  # type: ignore[misc]
            assert owner.state is EngineState.RESTARTING
        task = asyncio.create_task(service.transcribe_window(window(HELLO)))
        os.kill(pid_of(owner), signal.SIGKILL)
        assert "keeps failing" in await owner.wait_fatal()
        assert (owner.state, owner.restarts) == (EngineState.FATAL, 3)
        with pytest.raises(EngineFailedError, match="keeps failing"):
            await task
        with pytest.raises(EngineFailedError, match="keeps failing"):
            await owner.wait_ready()

    drive(body)


def test_signals_meant_for_the_server_do_not_end_the_child() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        pid = pid_of(owner)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert heard(await service.transcribe_window(window(HELLO))) == plain_words(HELLO.text)
        assert (pid_of(owner), owner.restarts) == (pid, 0)

    drive(body)


def test_a_full_pipe_does_not_block_the_event_loop_and_calls_are_bounded() -> None:
    async def body(owner: EngineOwner, service: EngineService) -> None:
        os.kill(pid_of(owner), signal.SIGSTOP)
        big = asyncio.create_task(owner.open_file(np.zeros(4_000_000, np.float32), FileOptions(language="en")))
        small = [asyncio.create_task(owner.release([])) for _ in range(MAX_OUTSTANDING - 1)]
        await asyncio.sleep(0)
        began_s = time.monotonic()
        with pytest.raises(AtCapacityError, match=str(MAX_OUTSTANDING)):
            await owner.release([])
        assert time.monotonic() - began_s < 1.0
        os.kill(pid_of(owner), signal.SIGCONT)
        await asyncio.gather(*small)
        await owner.release([await big])
        assert owner.restarts == 0

    drive(body)


# Starts and ends


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "no-such-model"}, (ConfigError, ModelUnavailableError), "no-such-model"),
        (
            {"compute_type": "float16", "device": "cpu"},
            ConfigError,
            "WHISPER_COMPUTE_TYPE.*float16.*legal: auto, .*int8",
        ),
    ],
)
def test_a_model_that_cannot_be_had_is_one_clear_error(options: Any, error: Any, message: str) -> None:
    async def body() -> None:
        async with running(**options) as owner:
            with pytest.raises(error, match=message) as caught:
                await owner.wait_ready()
            assert "\n" not in str(caught.value)
            assert (owner.state, owner.restarts) == (EngineState.FATAL, 0)
            assert await owner.wait_fatal() == str(caught.value)
            with pytest.raises(ModelUnavailableError):
                _ = owner.info

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))


def test_a_gpu_that_was_asked_for_and_is_not_there_is_no_cpu() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")

    async def body() -> None:
        async with running(device="cuda") as owner:
            with pytest.raises(ConfigError, match=r"WHISPER_DEVICE.*no NVIDIA GPU"):
                await owner.wait_ready()

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))


def test_a_child_that_dies_during_the_first_start_ends_it_at_once() -> None:
    async def body() -> None:
        async with running() as owner:
            os.kill(pid_of(owner), signal.SIGKILL)
            with pytest.raises(ModelUnavailableError, match="SIGKILL while loading 'demo'"):
                await owner.wait_ready()
            assert owner.restarts == 0

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))


def test_a_first_start_that_hangs_ends_at_its_limit() -> None:
    async def body() -> None:
        owner = EngineOwner(load_settings({"model": "demo"}, None), MonotonicClock(), start_limits_s=(0.2, 60.0))
        owner.start()
        os.kill(pid_of(owner), signal.SIGSTOP)
        with pytest.raises(ModelUnavailableError, match=r"not ready within 0\.2 s"):
            await owner.wait_ready()
        assert until_gone(pid_of(owner))
        await owner.stop()

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))


def test_a_later_start_that_hangs_is_a_restart_more() -> None:
    async def body() -> None:
        owner = EngineOwner(load_settings({"model": "demo"}, None), MonotonicClock(), start_limits_s=(60.0, 5.0))
        owner.start()
        await owner.wait_ready()
        os.kill(pid_of(owner), signal.SIGKILL)
        await until(lambda: owner.restarts == 1)
        os.kill(pid_of(owner), signal.SIGSTOP)
        await until(lambda: owner.restarts == 2)
        await owner.wait_ready()
        await owner.stop()

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))


def test_stop_ends_waiting_calls_and_the_child_at_any_time() -> None:
    async def body() -> None:
        async with running() as owner:
            pid = pid_of(owner)
            waiting = asyncio.create_task(owner.release([]))
            await asyncio.sleep(0)
            await owner.stop()  # while it is loading
            for call in (waiting, owner.release([]), owner.wait_ready()):
                with pytest.raises(DrainingError):
                    await call
            assert owner.state is EngineState.STOPPED
            assert not is_running(pid)
            await owner.stop()

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))


# The parent as a process of its own

PARENT = textwrap.dedent(
    """
    import asyncio, sys
    from engine.clock import MonotonicClock
    from engine.owner import EngineOwner
    from engine.service import EngineService
    from engine.settings import load_settings
    from engine.types import JobClass, WindowJob
    from tests.fakes.demo_audio import log_mel, samples

    async def main():
        owner = EngineOwner(load_settings({"model": "demo", "log_level": "debug"}, None), MonotonicClock())
        owner.start()
        if sys.argv[1] == "loading":
            print(owner.pid, flush=True)
            await asyncio.Event().wait()
        await owner.wait_ready()
        service = EngineService(owner, MonotonicClock())
        service.start()
        hello = samples()[0]
        await service.transcribe_window(WindowJob("s", JobClass.FINAL, log_mel(hello.audio), None))
        heavy = [name for name in sys.modules if name.split(".")[0] in ("ctranslate2", "faster_whisper", "torch")]
        print(owner.pid, *heavy, flush=True)
        if sys.argv[1] == "wait":
            await asyncio.Event().wait()
        await service.stop()
        await owner.stop()

    asyncio.run(main())
    """
)


def parent_command(how: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", PARENT, how]


def test_the_parent_loads_no_model_library_and_nothing_said_is_logged() -> None:
    secret = "not-for-children-1234"
    env = {**os.environ, "WHISPER_AUTH_TOKEN": secret}
    done = subprocess.run(
        parent_command("stop"), capture_output=True, text=True, timeout=LIMIT_S, check=False, env=env, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, "only the child's pid, no module"
    assert "is ready on cpu" in done.stderr
    for word in ("hello", "Anna", secret):
        assert word.lower() not in done.stderr.lower()


@pytest.mark.parametrize("how", ["wait", "loading"])
def test_a_parent_that_is_killed_takes_its_child_along(how: str) -> None:
    with subprocess.Popen(parent_command(how), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        assert is_running(pid)
        parent.kill()
        assert until_gone(pid)


def test_the_child_inherits_no_secret() -> None:
    async def body() -> None:
        environ = {**os.environ, "WHISPER_AUTH_TOKEN": "not-for-children-1234", "HARMLESS": "yes"}
        owner = EngineOwner(load_settings({"model": "demo"}, None), MonotonicClock(), environ=environ)
        owner.start()
        try:
            await owner.wait_ready()
            inherited = environment_of(pid_of(owner))
        finally:
            await owner.stop()
        assert b"HARMLESS=yes" in inherited
        assert b"not-for-children" not in inherited

    asyncio.run(asyncio.wait_for(body(), LIMIT_S))
