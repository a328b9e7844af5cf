"""engine/child.py and engine/child_process.py: ties to the parent, exits, errors; no model is loaded."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys

import pytest

from engine.child import is_device_broken
from engine.child_process import EngineChild, child_environment, describe_exit
from engine.child_wire import START_ID, ChildOptions, Reply, error_from
from engine.errors import ConfigError, EngineFailedError, ModelUnavailableError

LIMIT_S = 15.0


@pytest.mark.parametrize(
    ("error", "is_broken"),
    [
        (RuntimeError("CUDA failed with error an illegal memory access was encountered"), True),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA failed with error out of memory"), False),
        (RuntimeError("No position encodings are defined for positions >= 448"), False),
        (ValueError("cuda"), False),
    ],
)
def test_only_a_lost_device_needs_a_new_process(error: Exception, is_broken: bool) -> None:
    assert is_device_broken(error) is is_broken


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_config", ConfigError),
        ("no_model", ModelUnavailableError),
        ("engine_failed", EngineFailedError),
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
