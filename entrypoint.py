"""The image's entry point: decides the mode, says what it finds, and becomes the program of that mode.

    python -u entrypoint.py [arguments]          realtime or handler, with the arguments (engine.modes has the rule)
    python -u entrypoint.py doctor [--json]      checks of this container: GPU, libraries, model, disk, ports
    python -u entrypoint.py --help

No shell and no child: execv puts the program in the place of this process, so that the signals of the platform reach
it. A signal that comes earlier ends this one at once. Exit status here: 0 told to end, 2 settings.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    # Nothing is held yet. Without a handler a container's first process would not even hear SIGTERM.
    for _signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_signum, lambda signum, _frame: os._exit(0 if signum == signal.SIGTERM else 130))
    # Where PYTHONSAFEPATH is set, Python does not look next to its program.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import contextlib
import logging
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from engine.errors import ConfigError
from engine.logs import configure_logging
from engine.modes import Choice, check_ports, choose_mode, mode_variables
from engine.places import cache_variables, cuda_cache, model_cache
from engine.start_times import HANDED_ON, StartTimes

ROOT = Path(__file__).resolve().parent
EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130
SMI_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")
SMI_LIMIT_S = 10.0
"""Usually a second at most; with a broken driver it can hang for good."""
KILL_WAIT_S = 0.5
"""A killed process that hangs in the driver does not end; then its end is not awaited."""
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""One of them is there wherever CUDA works, also in containers that have no nvidia-smi."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a writable place where the root file system is read-only
LOW_DISK_BYTES = 200 << 20
MAX_REASON_CHARS = 200
PORT_OPTIONS = ("-p", "--port", "--health-port")
HELP = """\
usage: entrypoint.py [arguments of the program]
       entrypoint.py doctor [--json]

Starts the live server (`python -m realtime`) or the serverless worker (`python -m handler`).
WHISPER_MODE (or MODE_TO_RUN) says which: pod, serverless or lb. Without it RUNPOD_WEBHOOK_GET_JOB means serverless,
PORT_HEALTH means lb, and neither of them pod. In lb mode PORT and PORT_HEALTH name the ports.

examples:
  docker run --gpus all -p 9090:9090 -e WHISPER_AUTH_TOKEN=... IMAGE --model small.en
  docker run -e WHISPER_MODE=serverless IMAGE --test_input '{"input": {"audio": "https://example.org/talk.mp3"}}'
  docker run --gpus all IMAGE doctor

All options: `python -m realtime --help`, `python -m handler --help`. Settings come from the environment; README.md
lists them.
exit status: the program's own; 2 wrong settings
"""
log = logging.getLogger("entrypoint")


def main(argv: Sequence[str]) -> int:
    """Become the program of the mode; returns an exit status only if that does not come about."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    if argv and argv[0] == "doctor":
        _become("engine.doctor", argv[1:], {})
    _set_up_logging(os.environ)
    times = StartTimes(os.environ)
    try:
        _prepare_temporary()
        smi = _start_smi()
        choice = choose_mode(os.environ)
        _announce(choice)
        added = mode_variables(choice.mode, os.environ)
        _tell_added(choice, added)
        os.environ.update(added)
        if choice.module == "realtime" and not any(each.startswith(PORT_OPTIONS) for each in argv):
            check_ports(os.environ)
        _settle_places(os.environ)
        _report_gpu(smi, os.environ)
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_CONFIG
    times.mark("checks")
    log.info("entrypoint %s", times.as_json())
    # Not the arguments themselves: a job's audio address may hold a secret.
    log.info("starting python -m %s (%d arguments)", choice.module, len(argv))
    _become(choice.module, argv, {HANDED_ON: repr(time.monotonic())}, holds_signal=True)
    return EXIT_CONFIG


def _set_up_logging(environ: Mapping[str, str]) -> None:
    # What is no legal value here is the program's to complain about.
    level = environ.get("LOG_LEVEL", "").strip().lower()
    is_json = environ.get("LOG_FORMAT", "").strip().lower() == "json"
    legal = level if level in ("debug", "info", "warning", "error") else "info"
    configure_logging("json" if is_json else "text", legal)


def _become(module: str, argv: Sequence[str], extra: Mapping[str, str], *, holds_signal: bool = False) -> None:
    """Put `python -m module` in the place of this process, from any working directory.

    `holds_signal`: a SIGTERM from now on waits until the module, which must know that, has its own handler.
    """
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # The working directory may hold modules with any name.
    environ = {**os.environ, **extra, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"}
    if holds_signal:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    logging.shutdown()
    os.execve(sys.executable, [sys.executable, "-u", "-m", module, *argv], environ)


def _announce(choice: Choice) -> None:
    log.info("whisper-runpod %s, python %s", _version(), platform.python_version())
    log.info("mode %s: %s", choice.mode, choice.reason)


def _version() -> str:
    """Of the source this file belongs to, else of the installed package."""
    with contextlib.suppress(OSError):
        found = re.search(r'(?m)^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        if found:
            return found[1]
    # Slow to import, therefore second.
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("whisper-runpod")
    return "(unknown version)"


def _tell_added(choice: Choice, added: Mapping[str, str]) -> None:
    if not added:
        return
    for name in ("WHISPERLIVE_PORT", "HEALTH_CHECK_PORT"):
        if name in added and os.environ.get(name) not in (None, "", added[name]):
            log.warning("%s=%s does not count here: the endpoint says %s", name, os.environ[name], added[name])
    log.info("mode %s sets %s", choice.mode, ", ".join(f"{name}={value}" for name, value in added.items()))


# Places


def _prepare_temporary() -> None:
    """Find a directory for temporary files; raises ConfigError if there is none, or every disk is full."""
    try:
        tempfile.gettempdir()
        return
    except FileNotFoundError:
        pass
    tempfile.tempdir = None
    os.environ["TMPDIR"] = SHARED_MEMORY
    try:
        # It is tried out there, too; a read-only container has it writable.
        if tempfile.gettempdir() == SHARED_MEMORY:
            log.warning(
                "temporary files go to %s, for want of another place; mount one, as --tmpfs /tmp", SHARED_MEMORY
            )
            return
    except FileNotFoundError:
        pass
    raise ConfigError("TMPDIR: no writable place for temporary files, or its disk is full; mount one, as --tmpfs /tmp")


def _settle_places(environ: MutableMapping[str, str]) -> None:
    models, kernels = model_cache(environ), cuda_cache(environ)
    environ.update(cache_variables(environ))
    for what, place in (("models", models), ("compiled kernels", kernels)):
        kept = "kept" if place.is_persistent else "lost with the container"
        level = logging.INFO if place.is_writable else logging.WARNING
        log.log(level, "cache of %s: %s (%s; %s)", what, place.path, place.reason, kept)
    for where in dict.fromkeys((tempfile.gettempdir(), str(models.path), str(kernels.path))):
        _warn_of_full_disk(where)


def _warn_of_full_disk(where: str) -> None:
    with contextlib.suppress(OSError):
        free_bytes = shutil.disk_usage(where).free
        if free_bytes < LOW_DISK_BYTES:
            log.warning("only %d MB free at %s", free_bytes >> 20, where)


# The GPU


def _start_smi() -> subprocess.Popen[str] | None:
    command = ("nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader")
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError:
        return None

    def leave(signum: int, _frame: object) -> None:
        process.kill()
        os._exit(0 if signum == signal.SIGTERM else EXIT_INTERRUPTED)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)
    return process


def _report_gpu(smi: subprocess.Popen[str] | None, environ: Mapping[str, str]) -> None:
    """Say which GPUs there are; raises ConfigError if one is demanded and there is none."""
    began_s = time.monotonic()
    gpus, problem = _read_smi(smi)
    if smi is not None:
        log.info("waited %d ms for nvidia-smi", round((time.monotonic() - began_s) * 1000))
    for index, fields in enumerate(gpus):
        log.info("GPU %d: %s, %s, driver %s, compute capability %s", index, *fields)
    if gpus:
        return
    if any(map(os.path.exists, GPU_DEVICES)):
        # It may work all the same: a container can have the GPU without its tools.
        log.warning("no report on the GPU: %s", problem)
        return
    log.info("no NVIDIA GPU: %s", problem)
    if environ.get("WHISPER_DEVICE", "").strip().lower() == "cuda":
        raise ConfigError(f"WHISPER_DEVICE: 'cuda' is not usable here: no NVIDIA GPU ({problem}); legal: cpu, auto")


def _read_smi(smi: subprocess.Popen[str] | None) -> tuple[list[list[str]], str]:
    """The fields of each GPU, or why there are none."""
    if smi is None:
        return [], "nvidia-smi cannot be run"
    try:
        output, _ = smi.communicate(timeout=SMI_LIMIT_S)
    except subprocess.TimeoutExpired:
        smi.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            smi.communicate(timeout=KILL_WAIT_S)
        return [], f"nvidia-smi did not answer within {SMI_LIMIT_S:g} s; the driver may hang"
    lines = [[text.strip() for text in line.split(",")] for line in output.splitlines()]
    gpus = [fields for fields in lines if len(fields) == len(SMI_FIELDS)]
    if smi.returncode == 0 and gpus:
        return gpus, ""
    said = output.strip().split("\n")[0][:MAX_REASON_CHARS] or "nothing"
    return [], f"nvidia-smi says {said!r} (exit status {smi.returncode})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
