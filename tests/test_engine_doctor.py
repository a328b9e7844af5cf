"""engine/doctor*.py: each thing that can be amiss is found and named; nothing that crashes or hangs stops the rest.

Where a GPU would be needed, a small libcuda of our own stands in for the driver's (if there is a C compiler).
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.doctor import as_document, as_table
from engine.doctor_check import Check, ChildFailedError, Look, ask, ask_child, examine
from engine.doctor_gpu import Gpu, gpu_demand, judge, judge_driver
from engine.doctor_host import free_memory_bytes, judge_clock, judge_descriptors, judge_memory
from engine.doctor_libraries import judge_onnxruntime
from engine.doctor_model import CHECKSUMS, sum_problems
from tests.fakes.model_dirs import make_model

ROOT = Path(__file__).resolve().parent.parent
SECRET = "canary-0123456789abcdef"
SLOW = (
    "import engine.doctor_check as c, os, runpy, time; "
    "c.examine = lambda *_: (os.write(1, b'looking\\n'), time.sleep(60))"
)
"""A doctor whose looks take long."""


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in an environment of its own."""
    home = environ.pop("HOME", "/nonexistent")
    ports = {"WHISPERLIVE_PORT": "0", "HEALTH_CHECK_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", "engine.doctor", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": home, **ports, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def findings(**environ: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    done = run("--json", **environ)
    assert "Traceback" not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    found: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["name"], []).append(check)
    return done.returncode, found


# --- the whole command --------------------------------------------------------------------------------


def test_a_machine_without_a_gpu_is_well(tmp_path: Path) -> None:
    code, found = findings(WHISPER_DEVICE="cpu", HOME=str(tmp_path), WHISPER_AUTH_TOKEN=SECRET)
    failed = [check for checks in found.values() for check in checks if check["state"] == "fail"]
    assert (code, failed) == (0, [])
    for name in ("mode", "settings", "CTranslate2", "decoding", "onnxruntime", "model", "ports", "clock", "user"):
        assert found[name][0]["state"] in ("ok", "warn"), name
    assert found["driver"][0]["state"] == found["CUDA libraries"][0]["state"] == "skip"
    assert found["model cache"][0]["says"].startswith(str(tmp_path / ".cache/huggingface"))
    assert found["decoding"][0]["says"].startswith("the demo model works on cpu, int8")
    assert found["secret"][0]["says"] == "clients must show it"


def test_what_fails_together(tmp_path: Path) -> None:
    """One run for many faults: each is a finding, in words that name the variable."""
    baked = make_model(tmp_path / "baked/small.en")
    write_sums(baked)
    (baked / "config.json").write_bytes(b"[]")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        code, found = findings(
            WHISPER_DEVICE="cuda",
            RUNPOD_POD_ID="abc",
            WHISPERLIVE_PORT=port,
            WHISPERLIVE_HOST="127.0.0.1",
            BAKED_MODELS_DIR=str(tmp_path / "baked"),
            HF_HUB_OFFLINE="1",
            WHISPER_COMPUTE_TIPE="int8",
            PATH="/nonexistent",
        )
    assert code == 1
    assert found["driver"][0]["state"] == "fail" and "WHISPER_DEVICE=cuda" in found["driver"][0]["says"]
    assert "WHISPER_DEVICE: 'cuda' is not usable here" in found["CTranslate2"][0]["says"]
    assert "model" in found and found["model"][0]["says"].startswith("small.en is whole")
    assert found["checksums"][0]["says"] == "small.en: config.json differs"
    assert found["ports"][0]["says"] == f"WHISPERLIVE_PORT: {port} is in use by another program"
    assert "did you mean WHISPER_COMPUTE_TYPE?" in found["settings"][0]["says"]


def test_a_worker_lists_its_models_and_listens_nowhere(tmp_path: Path) -> None:
    mine = make_model(tmp_path / "mine")
    code, found = findings(
        WHISPER_MODE="serverless",
        WHISPER_DEVICE="cpu",
        WHISPER_MODELS=f"mine={mine},turbo",
        HF_HOME=str(tmp_path / "hf"),
    )
    assert code == 0
    assert found["ports"][0]["state"] == found["secret"][0]["state"] == "skip"
    assert [check["state"] for check in found["model"]] == ["ok", "warn"]
    assert f"downloads it into {tmp_path}/hf/hub" in found["model"][1]["says"]


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("WHISPER_MODE", "podd", "mode"),
        ("PORT_HEALTH", "http", "mode"),
        ("WHISPERLIVE_PORT", "70000", "settings"),
        ("LOG_LEVEL", "loud", "settings"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, finding: str) -> None:
    code, found = findings(WHISPER_DEVICE="cpu", **{name: value})
    says = found[finding][0]["says"]
    assert (code, found[finding][0]["state"]) == (1, "fail")
    assert name in says and value in says and "legal" in says


def test_a_signal_ends_it_at_once() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-c", f"{SLOW}; runpy.run_module('engine.doctor', run_name='__main__')"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == b"looking\n"
            process.send_signal(signum)
            assert process.wait(5) == 128 + signum and process.stderr.read() == b""


def test_usage() -> None:
    assert run("--jason").returncode == 2
    shown = run("--help")
    assert shown.returncode == 0 and "examples:" in shown.stdout


def test_colours_only_on_a_terminal_that_wants_them() -> None:
    script = "import sys; from engine.doctor import main, Look; from engine.doctor_check import Check; "
    script += "sys.exit(main([], [Look('a', lambda e: iter([Check('a', 'ok', 'fine')]))]))"

    def shown(**environ: str) -> bytes:
        above, below = pty.openpty()
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", **environ},
            stdout=below,
            check=True,
            timeout=60,
        )
        os.close(below)
        said = os.read(above, 10_000)
        os.close(above)
        return said

    assert b"\x1b[32mok" in shown()
    assert b"\x1b" not in shown(NO_COLOR="1")
    assert b"\x1b" not in shown(TERM="dumb")


def test_table_and_document() -> None:
    checks = [Check("a", "ok", "fine"), Check("b\n", "fail", "bad\x1b[2J", "do this")]
    table = as_table(checks, has_colours=False)
    assert "-> do this" in table and "1 ok, 0 to look at, 1 failed" in table and "\x1b" not in table
    assert json.loads(as_document(checks))["count"]["fail"] == 1
    assert len(as_document(checks).splitlines()) == 5


# --- looks that fail ------------------------------------------------------------------------------------


def test_a_look_that_crashes_or_hangs_is_a_finding() -> None:
    def crash(environ: Mapping[str, str]) -> Iterator[Check]:
        yield Check("first", "ok", "seen")
        raise RuntimeError("no\nluck")

    def hang(environ: Mapping[str, str]) -> Iterator[Check]:
        time.sleep(20)
        yield Check("never", "ok", "")

    def well(environ: Mapping[str, str]) -> Iterator[Check]:
        yield Check("last", "ok", environ["A"])

    found = examine([Look("c", crash), Look("h", hang, limit_s=0.2), Look("w", well)], {"A": "b"})
    assert [(check.name, check.state) for check in found] == [
        ("first", "ok"),
        ("c", "fail"),
        ("h", "fail"),
        ("last", "ok"),
    ]
    assert found[1].says == "could not be checked (RuntimeError: no luck)"
    assert found[2].says == "not done within 0.2 s"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed (SIGSEGV)"),
        ("import sys; sys.exit('x\\nno such library')", "no such library"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("import time; time.sleep(30)", "not done within 1 s"),
    ],
)
def test_a_child_that_does_not_answer(code: str, said: str) -> None:
    with pytest.raises(ChildFailedError) as caught:
        ask([sys.executable, "-c", code], limit_s=1.0)
    assert str(caught.value) == said


# --- GPU ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "cuda", "state", "said"),
    [
        ((6, 1), 12_080, "fail", "6.1: too old; legal: 7.0 and later"),
        ((7, 5), 12_000, "ok", "kernels are in the library"),
        ((8, 9), 12_000, "ok", "kernels are in the library"),
        ((9, 0), 12_070, "fail", "needs CUDA 12.8 (driver 570), the driver has 12.7"),
        ((9, 0), 12_080, "ok", "compiles its kernels at the first start"),
        ((12, 0), 13_000, "ok", "compiles its kernels at the first start"),
    ],
)
def test_gpus_and_what_the_library_was_built_for(capability: tuple[int, int], cuda: int, state: str, said: str) -> None:
    check = judge(Gpu("Some GPU", capability, 24_000), cuda)
    assert check.state == state
    assert said in check.says
    assert bool(check.remedy) is (state == "fail")


@pytest.mark.parametrize(
    ("environ", "demand"),
    [
        ({}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, None),
        ({"RUNPOD_GPU_COUNT": "0"}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-1"}, "NVIDIA_VISIBLE_DEVICES=GPU-1"),
        ({"RUNPOD_GPU_COUNT": "2"}, "RUNPOD_GPU_COUNT=2"),
        ({"WHISPER_DEVICE": "CUDA"}, "WHISPER_DEVICE=cuda"),
    ],
)
def test_who_says_that_there_should_be_a_gpu(environ: dict[str, str], demand: str | None) -> None:
    assert gpu_demand(environ) == demand


ABSENT = {"problem": "libcuda.so.1 is not there", "is_absent": True}
BROKEN = {"problem": "cuInit fails with error 803", "is_absent": False}
SMI = [{"name": "L4", "compute_cap": "8.9", "driver_version": "550.54", "memory.total": "23034"}]


@pytest.mark.parametrize(
    ("cuda", "smi", "demand", "state", "said"),
    [
        (ABSENT, [], None, "warn", "CPU only"),
        (ABSENT, [], "RUNPOD_GPU_COUNT=1", "fail", "but RUNPOD_GPU_COUNT=1"),
        (ABSENT, SMI, None, "fail", "nvidia-smi shows driver 550.54, but CUDA does not work"),
        (BROKEN, SMI, None, "fail", "error 803"),
        ({"problem": None, "version": 11_080}, SMI, None, "fail", "CUDA 11.8 is too old"),
        ({"problem": None, "version": 12_040}, SMI, None, "ok", "driver 550.54, CUDA 12.4"),
        ({"problem": None, "version": 12_040}, [], None, "warn", "(version unknown), CUDA 12.4"),
    ],
)
def test_drivers(cuda: dict[str, Any], smi: list[dict[str, str]], demand: str | None, state: str, said: str) -> None:
    check = judge_driver(cuda, smi, None if smi else "nvidia-smi is not there", demand)
    assert check.state == state and said in check.says


LIBCUDA = r"""
#include <string.h>
int cuInit(unsigned f) { return 0; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "NVIDIA H200", n); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = 150000000000ULL; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : a == 76 ? 0 : -1; return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_driver_is_asked_by_its_own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cuda.c").write_text(LIBCUDA, encoding="utf-8")
    command = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "cuda.c")]
    subprocess.run(command, check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    answer = ask_child("cuda")
    assert answer["version"] == 12_060
    assert answer["devices"] == [{"name": "NVIDIA H200", "capability": [9, 0], "bytes": 150_000_000_000}]


# --- libraries, models, host ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "providers", "works", "state"),
    [
        ({"onnxruntime": "1.32"}, ["CPUExecutionProvider"], True, "ok"),
        ({"onnxruntime-gpu": "1.26"}, ["CUDAExecutionProvider", "CPUExecutionProvider"], True, "ok"),
        ({"onnxruntime-gpu": "1.26"}, ["CPUExecutionProvider"], True, "fail"),
        ({"onnxruntime": "1.32", "onnxruntime-gpu": "1.26"}, ["CUDAExecutionProvider"], True, "fail"),
        ({"onnxruntime": "1.32"}, ["CPUExecutionProvider"], False, "fail"),
    ],
)
def test_one_onnxruntime(installed: dict[str, str], providers: list[str], works: bool, state: str) -> None:
    assert judge_onnxruntime(installed, providers, works).state == state


def write_sums(path: Path) -> None:
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in sorted(path.iterdir())]
    (path / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_checksums(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    write_sums(model)
    assert sum_problems(model) == []
    content = bytearray((model / "model.bin").read_bytes())
    content[-1] ^= 1
    (model / "model.bin").write_bytes(content)
    (model / "config.json").unlink()
    assert sum_problems(model) == ["config.json cannot be read (No such file or directory)", "model.bin differs"]
    (model / CHECKSUMS).write_text(f"{'0' * 64}  ../secret\n{'0' * 64}  /etc/passwd\nnonsense\n", encoding="utf-8")
    problems = sum_problems(model)
    assert len(problems) == 4 and problems[-1] == "model.bin is not listed"


def test_the_clock() -> None:
    assert judge_clock(0.0).state == "fail"
    assert judge_clock(1_790_000_000.0).state == "ok"


def test_memory_is_what_the_container_may_take(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8000000 kB\n", encoding="ascii")
    assert free_memory_bytes(tmp_path) == 8_000_000 << 10
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1000000000\n", encoding="ascii")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("600000000\n", encoding="ascii")
    assert free_memory_bytes(tmp_path) == 400_000_000
    # Read files give way.
    (tmp_path / "sys/fs/cgroup/memory.stat").write_text("anon 9\ninactive_file 250000000\n", encoding="ascii")
    assert free_memory_bytes(tmp_path) == 650_000_000
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n", encoding="ascii")
    assert free_memory_bytes(tmp_path) == 8_000_000 << 10
    assert [judge_memory(each).state for each in (None, 10**8, 2 * 10**9, 10**10)] == ["skip", "fail", "warn", "ok"]


def test_file_descriptors() -> None:
    assert [judge_descriptors(limit).state for limit in (64, 1_024, 65_536, -1)] == ["fail", "warn", "ok", "ok"]
