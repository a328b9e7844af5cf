"""Children that hang, die, run out of jobs, or lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.decode import DecodeLimitError, DecodeLimits, MediaDecoder
from engine.decode_media import SOURCE_FRAMES
from engine.decode_process import MAX_JOBS_PER_CHILD
from engine.errors import BadAudioError
from tests.fakes.decoding import LONG, LONG_SAMPLES, SHORT, is_running, pid_of_next, started, wait_gone
from tests.fakes.media import HELLO, ROOT


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder(DecodeLimits(wall_s=30.0)) as fresh:
        yield fresh


def test_child_is_reused_after_success_and_after_a_refusal(decoder: MediaDecoder) -> None:
    first = pid_of_next(decoder)
    with pytest.raises(BadAudioError):
        decoder.decode(b"no audio at all")
    assert pid_of_next(decoder) == first


def test_child_is_replaced_after_a_limit(decoder: MediaDecoder) -> None:
    first = pid_of_next(decoder)
    with pytest.raises(DecodeLimitError):
        decoder.decode(LONG, max_duration_s=1.0)
    assert not is_running(first)
    assert pid_of_next(decoder) != first


def test_child_is_replaced_after_its_last_job(decoder: MediaDecoder) -> None:
    first = pid_of_next(decoder)
    for _ in range(MAX_JOBS_PER_CHILD - 2):
        decoder.decode(SHORT)
    assert pid_of_next(decoder) == first
    assert not is_running(first)
    assert pid_of_next(decoder) != first


def test_hanging_child_hits_the_wall_limit_and_is_replaced() -> None:
    with MediaDecoder(DecodeLimits(wall_s=0.5)) as decoder:
        blocks, pid = started(decoder)
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(DecodeLimitError, match=r"longer than the limit of \d"):
            list(blocks)
        assert time.monotonic() - began < 6.0  # 1 s, and 0.05 s per second that the pipe still held
        assert not is_running(pid)
        assert decoder.decode(HELLO).duration_s > 2.9


class JumpingClock:
    """The real clock, and what a test adds to it."""

    ahead_s = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self.ahead_s


def test_slow_reader_does_not_use_up_the_wall_limit() -> None:
    clock = JumpingClock()
    with MediaDecoder(DecodeLimits(wall_s=30.0, wall_per_audio_s=0.0), clock=clock) as decoder:
        total = 0
        for piece in decoder.iter_blocks(LONG):
            total += len(piece)
            clock.ahead_s += 3_600.0
        assert total == LONG_SAMPLES


def test_killed_child_costs_its_file_only(decoder: MediaDecoder) -> None:
    blocks, pid = started(decoder)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BadAudioError, match="SIGKILL"):
        list(blocks)
    assert decoder.decode(HELLO).duration_s > 2.9


def test_child_that_died_idle_costs_nobody_anything(decoder: MediaDecoder) -> None:
    pid = pid_of_next(decoder)
    os.kill(pid, signal.SIGKILL)
    assert wait_gone(pid)
    assert decoder.decode(HELLO).duration_s > 2.9


def test_processor_time_limit_reads_as_a_limit(decoder: MediaDecoder) -> None:
    blocks, pid = started(decoder)
    os.kill(pid, signal.SIGXCPU)  # what the kernel sends at RLIMIT_CPU
    with pytest.raises(DecodeLimitError, match="processor time than the limit of 750 s"):
        list(blocks)


def test_child_ignores_the_signals_of_a_terminal(decoder: MediaDecoder) -> None:
    blocks, pid = started(decoder)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert sum(map(len, blocks)) == LONG_SAMPLES - SOURCE_FRAMES
    assert os.getsid(pid) == pid


def test_child_gets_no_secrets(decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", "do-not-pass-on")
    pid = pid_of_next(decoder)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"do-not-pass-on" not in environment
    assert b"WHISPER" not in environment


def test_child_outlives_the_thread_that_asked_first(decoder: MediaDecoder) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(pid_of_next(decoder)))
    thread.start()
    thread.join()
    assert pid_of_next(decoder) == found[0]


@pytest.mark.parametrize("state", ["hung", "idle"])
def test_child_dies_with_its_parent(state: str) -> None:
    script = f"""
        import os, signal, sys, time
        from engine.decode import MediaDecoder
        from tests.fakes.decoding import pid_of_next, started
        decoder = MediaDecoder()
        if {state == "hung"}:
            blocks, pid = started(decoder)
            os.kill(pid, signal.SIGSTOP)
        else:
            pid = pid_of_next(decoder)
        print(pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        was_running = is_running(pid)
        parent.kill()
        assert was_running
        assert wait_gone(pid)


def test_parent_half_imports_no_media_library() -> None:
    script = "import engine.decode, sys; assert not {'av', 'soundfile', 'soxr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
