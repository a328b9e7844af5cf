"""The image's entry point: which mode and why, what it reports, and that it really is the program afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.modes import check_ports, choose_mode, health_port, mode_variables
from engine.start_times import HANDED_ON, StartTimes, process_began_s
from tests.fakes.decoding import is_running
from tests.fakes.runpod import LocalWorker, PlaneRules, QueuePlane, worker_environ
from tests.serving import DEMO, ROOT, Server, clean_environ
from tests.test_handler_processes import family, inline, job_of

COMMAND = (sys.executable, "-u", str(ROOT / "entrypoint.py"))
QUEUE = {"RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1/job-take/$ID"}
EXIT_LIMIT_S = 8.0
START_LIMIT_S = 30.0
SMI_LINE = "NVIDIA H200, 143771 MiB, 570.86.15, 9.0"


def environ_of(folder: Path, **extra: str) -> dict[str, str]:
    """A container's: nothing of ours but what is given, caches in `folder`."""
    left_out = ("WHISPER", "PORT", "MODE_TO_RUN", "HF_", "CUDA_CACHE_PATH")
    kept = {name: value for name, value in clean_environ().items() if not name.startswith(left_out)}
    return {**kept, "HF_HOME": str(folder / "hf"), "CUDA_CACHE_PATH": str(folder / "cuda"), **extra}


def run(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environ_of(folder, **extra),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def started(folder: Path, *arguments: str, **extra: str) -> Iterator[Server]:
    """The entry point as a process that goes on; a test waits for what it needs."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".log") as log:
        environ = environ_of(folder, **extra)
        process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            yield Server(process, log)
        finally:
            process.kill()
            process.wait()


def tool(folder: Path, name: str, text: str) -> str:
    """A PATH on which `name` is a shell script of that text."""
    path = folder / "tools" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"{path.parent}{os.pathsep}{os.environ['PATH']}"


# The rule


@pytest.mark.parametrize(
    ("environ", "mode", "reason"),
    [
        ({}, "pod", "none of"),
        ({"WHISPER_MODE": "", "RUNPOD_WEBHOOK_GET_JOB": "", "PORT_HEALTH": ""}, "pod", "none of"),
        (QUEUE, "serverless", "RUNPOD_WEBHOOK_GET_JOB"),
        ({"PORT_HEALTH": "80"}, "lb", "PORT_HEALTH"),
        ({**QUEUE, "PORT_HEALTH": "80"}, "serverless", "RUNPOD_WEBHOOK_GET_JOB"),
        ({**QUEUE, "WHISPER_MODE": " Pod "}, "pod", "WHISPER_MODE"),
        ({"PORT_HEALTH": "80", "MODE_TO_RUN": "serverless"}, "serverless", "MODE_TO_RUN"),
        ({"WHISPER_MODE": "lb"}, "lb", "WHISPER_MODE"),
        ({"WHISPER_MODE": "realtime", "MODE_TO_RUN": "pod"}, "pod", "WHISPER_MODE"),
        ({"MODE_TO_RUN": "handler"}, "serverless", "MODE_TO_RUN"),
    ],
)
def test_the_mode_is_what_is_asked_for_or_what_the_platform_shows(
    environ: dict[str, str], mode: str, reason: str
) -> None:
    choice = choose_mode(environ)
    assert choice.mode == mode and reason in choice.reason
    assert choice.module == ("handler" if mode == "serverless" else "realtime")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"WHISPER_MODE": "both"}, ["WHISPER_MODE", "'both'", "pod, serverless, lb"]),
        ({"MODE_TO_RUN": "x" * 500}, ["MODE_TO_RUN", "'xxx", "pod, serverless, lb"]),
        ({"WHISPER_MODE": "pod", "MODE_TO_RUN": "serverless"}, ["WHISPER_MODE=pod", "MODE_TO_RUN=serverless", "legal"]),
    ],
)
def test_a_wrong_mode_is_named(environ: dict[str, str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as failure:
        choose_mode(environ)
    assert all(each in str(failure.value) for each in said) and len(str(failure.value)) < 250


def test_a_load_balancers_ports_become_the_servers() -> None:
    endpoint = {"RUNPOD_ENDPOINT_ID": "ep"}
    open_to_all = {"WHISPERLIVE_HOST": "0.0.0.0", "WHISPER_NO_AUTH": "1"}
    assert mode_variables("lb", endpoint) == {"WHISPERLIVE_PORT": "80", **open_to_all}
    one = mode_variables("lb", {"PORT": "8080", "PORT_HEALTH": "8080", **endpoint})
    assert one == {"WHISPERLIVE_PORT": "8080", **open_to_all}
    two = mode_variables("lb", {"PORT": "8080", "PORT_HEALTH": "8081"})
    assert (two["WHISPERLIVE_PORT"], two["HEALTH_CHECK_PORT"]) == ("8080", "8081")
    for name in ("WHISPER_AUTH_TOKEN", "WHISPER_AUTH_TOKEN_FILE", "WHISPER_NO_AUTH"):
        assert "WHISPER_NO_AUTH" not in mode_variables("lb", {name: "0", **endpoint})
    # Only RunPod's balancer asks for a key; a pod with a stray variable has none.
    for outside in ({}, {"RUNPOD_POD_ID": "p", "PORT_HEALTH": "80"}, {"RUNPOD_ENDPOINT_ID": " "}):
        assert "WHISPER_NO_AUTH" not in mode_variables("lb", outside)
    assert "WHISPERLIVE_HOST" not in mode_variables("lb", {"WHISPERLIVE_HOST": "::"})
    assert mode_variables("pod", {"PORT": "x"}) == mode_variables("serverless", {"PORT": "x"}) == {}
    for bad in ("0", "65536", "80a", "-1", "１", "9" * 5000):
        with pytest.raises(ConfigError, match=r"PORT_HEALTH: .* is not allowed; legal: 1 to 65535"):
            mode_variables("lb", {"PORT_HEALTH": bad})


def test_two_ports_must_be_two() -> None:
    for fine in (
        {},
        {"WHISPERLIVE_PORT": "0", "HEALTH_CHECK_PORT": "0"},
        {"WHISPERLIVE_PORT": "many"},
        {"WHISPERLIVE_PORT": "9" * 5000},
    ):
        check_ports(fine)
    with pytest.raises(ConfigError, match="WHISPERLIVE_PORT and HEALTH_CHECK_PORT are both 9999"):
        check_ports({"WHISPERLIVE_PORT": "9999"})


def test_where_health_answers() -> None:
    assert (health_port({}), health_port({"HEALTH_CHECK_PORT": "9998"}), health_port(QUEUE)) == (9999, 9998, None)
    assert health_port({"PORT": "80", "PORT_HEALTH": "81"}) == 81
    assert health_port({"PORT": "80", "PORT_HEALTH": "80"}) == 9999


def test_a_start_is_told_in_parts() -> None:
    began_s = process_began_s()
    assert began_s is not None and began_s < time.monotonic()
    environ = {HANDED_ON: repr(began_s + 0.1), "KEPT": "1"}
    times = StartTimes(environ)
    times.mark("imports")
    parts = json.loads(times.as_json())
    assert list(parts) == ["entrypoint_ms", "interpreter_ms", "imports_ms", "total_ms"] and environ == {"KEPT": "1"}
    assert parts["entrypoint_ms"] in range(95, 106)
    assert abs(sum(parts.values()) - 2 * parts["total_ms"]) <= 3
    # Another process's, or nobody's.
    for foreign in (repr(began_s - 60), "1e99", "soon"):
        assert "entrypoint_ms" not in json.loads(StartTimes({HANDED_ON: foreign}).as_json())


# The program


def test_it_loads_nothing_heavy() -> None:
    code = "import entrypoint, sys; print(sorted({'asyncio', 'numpy', 'pydantic', 'starlette'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"WHISPER_MODE": "worker"}, "WHISPER_MODE: 'worker' is not allowed; legal: pod, serverless, lb"),
        ({"WHISPERLIVE_PORT": "9999"}, "WHISPERLIVE_PORT and HEALTH_CHECK_PORT are both 9999; legal: two"),
        ({"PORT_HEALTH": "http"}, "PORT_HEALTH: 'http' is not allowed; legal: 1 to 65535"),
        ({"MAX_CLIENTS": "many"}, "error: MAX_CLIENTS: 'many' is not allowed; legal: auto or 1 to 10000"),
        ({"RUNPOD_POD_ID": "p", "PORT_HEALTH": "8081"}, "set WHISPER_AUTH_TOKEN or --token-file, or say --no-auth"),
        ({"WHISPERLIVE_HOST": "0.0.0.0"}, "set WHISPER_AUTH_TOKEN or --token-file, or say --no-auth"),
    ],
)
def test_wrong_settings_end_it_with_one_line_and_2(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    result = run(tmp_path, **environ)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr


def test_a_gpu_that_is_demanded_must_be_there(tmp_path: Path) -> None:
    path = tool(tmp_path, "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    if any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg"))):
        pytest.skip("this machine has a GPU")
    result = run(tmp_path, WHISPER_DEVICE="cuda", PATH=path)
    assert result.returncode == 2
    assert "WHISPER_DEVICE: 'cuda' is not usable here: no NVIDIA GPU" in result.stderr.splitlines()[-1]
    assert "'NVIDIA-SMI has failed: no driver' (exit status 9)" in result.stderr


def test_a_job_given_as_argument_is_done_and_the_banner_says_what_there_is(tmp_path: Path) -> None:
    path = tool(tmp_path, "nvidia-smi", f"test $# = 2 && echo '{SMI_LINE}'")
    job = {"input": {"audio_base64": inline(DEMO / "samples" / "hello_en.wav"), "model": "demo"}}
    extra = {"WHISPER_MODE": "serverless", "WHISPER_MODEL": "demo", "LOG_FORMAT": "json", "PATH": path}
    result = run(tmp_path, "--test_input", json.dumps(job), **extra)
    assert result.returncode == 0, result.stderr
    assert "'transcription': 'Hello, my name is Anna.'" in result.stdout
    told = [json.loads(line) for line in result.stderr.splitlines()]
    banner = [line["message"] for line in told if line["component"] == "entrypoint"]
    for expected in (
        r"whisper-runpod \d.*, python 3\.\d+\.\d+",
        r"mode serverless: WHISPER_MODE says so",
        rf"cache of models: {re.escape(str(tmp_path / 'hf'))} .*",
        rf"cache of compiled kernels: {re.escape(str(tmp_path / 'cuda'))} .*",
        r"GPU 0: NVIDIA H200, 143771 MiB, driver 570\.86\.15, compute capability 9\.0",
        r"starting python -m handler \(2 arguments\)",
    ):
        assert any(re.fullmatch(expected, message) for message in banner), (expected, banner)
    assert "audio_base64" not in result.stderr and "WHISPER_MODE is no setting" not in result.stderr


def test_help_and_doctor_need_no_mode(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help", WHISPER_MODE="nonsense")
    assert shown.returncode == 0 and "doctor [--json]" in shown.stdout
    checked = run(tmp_path, "doctor", "--json")
    assert checked.returncode in (0, 1), checked.stderr
    json.loads(checked.stdout)


def test_a_model_that_cannot_be_had_is_named_with_the_places_looked_at(tmp_path: Path) -> None:
    result = run(tmp_path, "--port", "0", "--health-port", "0", WHISPER_MODEL="small.en", HF_HUB_OFFLINE="1")
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "model 'small.en'" in last and str(tmp_path / "hf") in last and "/models/small.en" in last


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0", "--health-port", "0") as first:
        first.wait_until(lambda: re.search(r"ws://[^:]+:(\d+)", first.log()), "listening")
        found = re.search(r"ws://[^:]+:(\d+)", first.log())
        assert found
        result = run(tmp_path, "--port", found[1], "--health-port", "0")
        said = f"host 127.0.0.1, port {found[1]}: Address already in use; legal: a free address"
        assert result.returncode == 2 and said in result.stderr.splitlines()[-1]


# Signals


def test_the_server_takes_its_place_and_ends_on_sigterm_with_its_engine(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0", "--health-port", "0") as server:
        server.wait_until(lambda: "realtime.server: start {" in server.log(), "ready")
        assert b"-m\0realtime\0--port" in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        found = re.search(r"start (\{.*\})", server.log())
        assert found
        parts = json.loads(found[1])
        names = ("entrypoint_ms", "interpreter_ms", "imports_ms", "listening_ms", "engine_ms", "total_ms")
        assert tuple(parts) == names and all(parts[name] > 0 for name in names)
        everyone = family(server.process.pid)
        assert len(everyone) == 2
        began_s = time.monotonic()
        assert server.terminate() == 0 and time.monotonic() - began_s < EXIT_LIMIT_S
        assert not any(map(is_running, everyone))


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_worker_ends_on_sigterm_with_its_engine(tmp_path: Path, is_busy: bool) -> None:
    with QueuePlane(rules=PlaneRules(hold_s=90.0)) as plane:
        environ = worker_environ(plane, WHISPER_MODEL="demo", HF_HOME=str(tmp_path), CUDA_CACHE_PATH=str(tmp_path))
        with LocalWorker(COMMAND, environ) as worker:
            hello = plane.submit({"audio_base64": inline(DEMO / "samples" / "hello_en.wav")})
            assert plane.wait(hello, START_LIMIT_S).output["transcription"] == "Hello, my name is Anna."
            assert "mode serverless: RUNPOD_WEBHOOK_GET_JOB is set" in worker.log()
            everyone = family(worker.process.pid)
            assert len(everyone) >= 3  # the worker, its heartbeat and its engine
            if is_busy:
                job_id = plane.submit(job_of("speech/en_brisk_1.flac", times=20))
                plane.wait_until(lambda: plane.job(job_id).status == "IN_PROGRESS", "running", START_LIMIT_S)
            status, took_s = worker.terminate()
            assert (status, took_s < EXIT_LIMIT_S) == (0, True), took_s
            plane.wait_until(lambda: not any(map(is_running, everyone)), "all of them gone", 2.0)
            if is_busy:
                assert plane.job(job_id).output["error_code"] == "draining"


def test_a_signal_during_the_checks_ends_it_at_once(tmp_path: Path) -> None:
    path = tool(tmp_path, "nvidia-smi", f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 60")
    for signum, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        (tmp_path / "pid").unlink(missing_ok=True)
        with started(tmp_path, PATH=path) as server:
            server.wait_until(lambda: (tmp_path / "pid").exists(), "looking for the GPU")
            began_s = time.monotonic()
            server.process.send_signal(signum)
            assert server.process.wait(5) == status and time.monotonic() - began_s < 2.0
            assert "Traceback" not in server.log()
            time.sleep(0.1)
            assert not is_running(int((tmp_path / "pid").read_text()))


def is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"-m\0handler\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_process_1_hears_sigterm_in_a_local_job_too(tmp_path: Path) -> None:
    """As `docker stop` sends it: nothing but a handler of its own ends the first process of a container."""
    inside = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process can be number 1 here")
    job = {"input": {"audio_base64": inline(DEMO / "samples" / "hello_en.wav")}}
    environ = environ_of(tmp_path, WHISPER_MODE="serverless", WHISPER_MODEL="demo")
    command = [*inside, *COMMAND, "--test_input", json.dumps(job)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as up:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not (workers := [each for each in family(up.pid) - {up.pid} if is_worker(each)]):
            assert time.monotonic() < deadline_s and up.poll() is None
            time.sleep(0.01)
        os.kill(workers[0], signal.SIGTERM)
        assert up.wait(5) == 128 + signal.SIGTERM


def test_a_signal_between_the_two_programs_is_not_lost(tmp_path: Path) -> None:
    """The server's interpreter starts slowly here; what comes meanwhile is held until it can be heard."""
    site = tmp_path / "site"
    site.mkdir()
    slow = (
        "import sys, time, pathlib\nif 'realtime' in sys.orig_argv:\n    pathlib.Path('begun').touch(); time.sleep(1)\n"
    )
    (site / "sitecustomize.py").write_text(slow)
    with started(tmp_path, "--port", "0", "--health-port", "0", PYTHONPATH=str(site)) as server:
        server.wait_until(lambda: (tmp_path / "begun").exists(), "started")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        assert server.process.wait(5) == 0
        assert "listening" not in server.log()
