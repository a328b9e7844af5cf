"""engine/child.py and engine/child_process.py: calls, errors, ties to the parent, exits; no model is loaded."""

from __future__ import annotations

import gc
import os
import queue
import signal
import socket
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest

from engine.child import EXIT_BROKEN_DEVICE, answer, is_device_broken, is_out_of_memory
from engine.child_process import EngineChild, child_environment, describe_exit
from engine.child_wire import METHODS, START_ID, ChildOptions, Reply, error_from
from engine.errors import ConfigError, EngineFailedError, EngineMemoryError, ModelUnavailableError
from engine.types import BatchResult, FileOptions, FloatArray, Handle, JobClass, WindowJob
from tests.fakes.model import FAKE_MODEL_INFO, FakeModel

LIMIT_S = 15.0


class FakeChildBackend(FakeModel):
    """What `engine.whisper.WhisperBackend` is to the child, without weights."""

    info = FAKE_MODEL_INFO

    def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        self.calls.append(("open_file", (len(samples), options)))
        return 7

    def next_segments(self, handle: Handle) -> None:
        raise EngineFailedError("the recording is not open")

    def release(self, handles: list[Handle]) -> None:
        self.calls.append(("release", handles))


def ask(backend: FakeChildBackend, method: str, argument: object) -> Reply:
    typed: Any = backend
    return answer(typed, (5, method, argument))


def job(n_frames: int = 200) -> WindowJob:
    return WindowJob("a", JobClass.PARTIAL, np.zeros((80, n_frames), np.float32), "en")


# Calls


def test_a_batch_is_decoded_in_one_call() -> None:
    message_id, is_ok, result = ask(FakeChildBackend(), "transcribe", [job(150), job(200)])
    assert (message_id, is_ok) == (5, True)
    assert isinstance(result, BatchResult)
    assert [len(each.words) for each in result.results] == [1, 2]
    assert min(result.encode_s, result.decode_s, result.align_s) >= 0  # by the machine's clock, not the fake's


def test_the_other_calls_reach_the_backend() -> None:
    backend = FakeChildBackend()
    options = FileOptions(language="en")
    assert ask(backend, "open_file", (np.zeros(10, np.float32), options)) == (5, True, 7)
    assert ask(backend, "release", [7]) == (5, True, None)
    assert backend.calls == [("open_file", (10, options)), ("release", [7])]
    assert ask(backend, "next_segments", 7) == (5, False, ("engine_failed", "the recording is not open"))


@pytest.mark.parametrize("method", ["encode", "decode", "align", "detect", "info", "__init__", ""])
def test_nothing_else_can_be_called(method: str) -> None:
    backend = FakeChildBackend()
    assert ask(backend, method, [])[1:] == (False, ("engine_failed", f"no such call: {method}"))
    assert backend.calls == []
    assert {"transcribe", "open_file", "next_segments", "release"} == METHODS


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("CUDA failed with error out of memory"), "engine_out_of_memory", "out of memory"),
        (MemoryError(), "engine_out_of_memory", "MemoryError"),
        (RuntimeError("No position encodings for positions >= 448"), "engine_failed", "positions >= 448"),
        (ValueError("a text that somebody said"), "engine_failed", "(ValueError)"),
        (RuntimeError("x" * 1_000), "engine_failed", "x" * 200),
    ],
)
def test_errors_of_a_call_go_to_its_caller(error: Exception, code: str, message: str) -> None:
    backend = FakeChildBackend()
    backend.errors["decode"] = error
    _, is_ok, value = ask(backend, "transcribe", [job()])
    assert not is_ok
    assert isinstance(value, tuple)
    assert value[0] == code
    assert message in value[1]
    assert len(value[1]) < 260
    assert "somebody" not in value[1]
    backend.errors.clear()
    assert ask(backend, "transcribe", [job()])[1]


def test_a_window_that_the_model_cannot_take_is_an_error_of_the_call() -> None:
    _, is_ok, value = ask(FakeChildBackend(), "transcribe", [job(3_001)])
    assert not is_ok
    error = error_from(value)
    assert type(error) is EngineFailedError
    assert "mel" in str(error)


@pytest.mark.parametrize("method", ["encode", "decode", "align"])
def test_after_an_out_of_memory_nothing_is_held(method: str) -> None:
    backend = FakeChildBackend()
    backend.errors[method] = RuntimeError("CUDA failed with error out of memory")
    jobs = [job()]
    alive = weakref.ref(jobs[0])
    assert not ask(backend, "transcribe", jobs)[1]
    encoded = [weakref.ref(features) for features in backend.arguments("encode")]
    backend.calls.clear()
    backend.errors.clear()
    jobs.clear()
    gc.collect()
    assert alive() is None
    assert [reference() for reference in encoded] == [None]


def test_a_lost_device_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    backend = FakeChildBackend()
    backend.errors["encode"] = RuntimeError("CUDA failed with error an illegal memory access was encountered")
    with pytest.raises(SystemExit) as left:
        ask(backend, "transcribe", [job()])
    assert left.value.code == EXIT_BROKEN_DEVICE


# Errors


@pytest.mark.parametrize(
    ("error", "is_broken", "is_memory"),
    [
        (RuntimeError("CUDA failed with error an illegal memory access was encountered"), True, False),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), True, False),
        (RuntimeError("CUDA failed with error out of memory"), False, True),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"), False, True),
        (RuntimeError("mkl_malloc: failed to allocate memory"), False, True),
        (RuntimeError("std::bad_alloc: cudaErrorMemoryAllocation: out of memory"), False, True),
        (RuntimeError("No position encodings are defined for positions >= 448"), False, False),
        (MemoryError("std::bad_alloc"), False, True),
        (MemoryError(), False, True),
        (ValueError("cuda out of memory"), False, False),
    ],
)
def test_only_a_lost_device_needs_a_new_process(error: Exception, is_broken: bool, is_memory: bool) -> None:
    assert is_device_broken(error) is is_broken
    assert is_out_of_memory(error) is is_memory


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_config", ConfigError),
        ("no_model", ModelUnavailableError),
        ("engine_failed", EngineFailedError),
        ("engine_out_of_memory", EngineMemoryError),
        ("bad_input", EngineFailedError),
        ("never heard of", EngineFailedError),
    ],
)
def test_errors_keep_their_class_on_the_way(code: str, kind: type[Exception]) -> None:
    error = error_from((code, "why"))
    assert type(error) is kind
    assert str(error) == "why"


def test_exits_are_described() -> None:
    assert describe_exit(-9) == "signal SIGKILL"
    assert describe_exit(-64) in ("signal SIGRTMAX", "signal 64")
    assert describe_exit(-120) == "signal 120"
    assert describe_exit(71) == "exit status 71"


def test_the_environment_keeps_settings_drops_secrets_and_bounds_threads() -> None:
    names = ("WHISPER_AUTH_TOKEN", "RUNPOD_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD")
    given = dict.fromkeys(names, "secret") | {"HF_HOME": "/cache", "HF_TOKEN": "hub", "PYTHONPATH": "/mine"}
    environment = child_environment(given, 3)
    assert "secret" not in environment.values()
    assert (environment["HF_HOME"], environment["HF_TOKEN"]) == ("/cache", "hub")
    assert environment["PYTHONPATH"].endswith(os.pathsep + "/mine")
    assert (environment["OMP_NUM_THREADS"], environment["OPENBLAS_NUM_THREADS"]) == ("3", "1")
    assert int(child_environment({}, 0)["OMP_NUM_THREADS"]) >= 1
    assert os.pathsep not in child_environment({}, 0)["PYTHONPATH"]


# Processes


def child_command(fd: int, parent_pid: int) -> list[str]:
    return [sys.executable, "-m", "engine.child", str(fd), str(parent_pid)]


def test_a_child_whose_parent_has_hung_up_ends() -> None:
    ours, theirs = socket.socketpair()
    with theirs, subprocess.Popen(child_command(theirs.fileno(), os.getpid()), pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ours.close()
        assert process.wait(LIMIT_S) == 0


def test_a_child_of_another_parent_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = child_command(theirs.fileno(), os.getpid() + 1)
        assert subprocess.run(command, pass_fds=[theirs.fileno()], timeout=LIMIT_S, check=False).returncode == 0


def test_the_parent_hears_of_a_failed_start_then_of_the_end_and_nothing_remains() -> None:
    replies: queue.Queue[Reply] = queue.Queue()
    exits: queue.Queue[int] = queue.Queue()
    options = ChildOptions(model="/nonexistent/model", log_format="json")
    child = EngineChild(options, child_environment(os.environ, 1), replies.put, exits.put)
    message_id, is_ok, value = replies.get(timeout=LIMIT_S)
    assert (message_id, is_ok) == (START_ID, False)
    assert isinstance(value, tuple)
    assert "/nonexistent/model" in value[1]
    assert exits.get(timeout=LIMIT_S) == 0
    assert child.join(LIMIT_S)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert replies.empty()
    assert exits.empty()
    child.kill()  # of no effect, and no error


def test_a_killed_child_is_reaped_and_its_exit_told_once() -> None:
    exits: queue.Queue[int] = queue.Queue()
    environment = child_environment(os.environ, 1)
    child = EngineChild(ChildOptions(model="demo"), environment, lambda reply: None, exits.put)
    child.kill()
    assert exits.get(timeout=LIMIT_S) == -signal.SIGKILL
    assert child.join(LIMIT_S)
    assert exits.empty()
