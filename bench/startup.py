"""`python -m bench.startup`: from a worker's process start to the result of its first job, ours and the other's.

Both are real workers of the RunPod SDK on one machine, one after the other: they take the same job (seconds of
speech, inline) from a queue on loopback and post its result. The other is `bench.worker_replica`, our replica of
how worker-faster_whisper starts. Same model directory, precision and threads, same environment, rounds
interleaved, after one that does not count (cold files). Exit code 1 if ours takes more than MAX_SHARE of the
other's time.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from bench.arguments import command_line
from bench.files_report import Verdict
from bench.report import document, machine_facts, write_document
from bench.resources import read_tree
from bench.startup_queue import QueuePlane
from bench.tables import number, percent, plain_table
from engine.clock import MonotonicClock
from engine.cores import usable_cores
from engine.errors import BadInputError, ServerError, SttError
from engine.hub import HuggingFaceHub
from engine.models import DEMO_MODEL_DIR, DEMO_NAME, resolve_model
from realtime.client.errors import exit_code

__all__ = ["MAX_SHARE", "Start", "StartFailedError", "first_result", "main", "verdict"]

ROOT = Path(__file__).parent.parent
OURS, OTHER = "ours", "worker-faster_whisper"
COMMANDS: Mapping[str, tuple[str, ...]] = {OURS: ("-m", "handler"), OTHER: ("-m", "bench.worker_replica")}
MAX_SHARE = 0.6
JOB_AUDIO = DEMO_MODEL_DIR.parent / "samples" / "hello_en.wav"
JOB_LANGUAGE = "en"
RESULT_LIMIT_S = 300.0
"""Loading large weights from a slow disk takes a minute or two."""
LOOK_S = 0.2
"""How often we look whether the worker is still there; a result is noted when it comes."""
STOP_LIMIT_S = 5.0
KEPT_LOG_BYTES = 2_000
MAX_ROUNDS = 100


class StartFailedError(ServerError):
    """A worker posted no usable result."""

    code = "start_failed"


@dataclass(frozen=True)
class Start:
    """One start, in seconds from the process start: the first request for a job, the result, and CPU time by then."""

    asked_s: float
    result_s: float
    cpu_s: float


def verdict(starts: Mapping[str, Sequence[Start]]) -> Verdict:
    """The goal, by medians."""
    share = _median(starts[OURS]) / _median(starts[OTHER])
    goal = f"first result after at most {percent(MAX_SHARE)} % of the other's time"
    return Verdict(goal, f"{percent(share)} %", share <= MAX_SHARE)


def first_result(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Start:
    """Start a worker (arguments of this interpreter), wait for its first result and end it.

    Raises StartFailedError.
    """
    job = {
        "id": "bench-job",
        "input": {"audio_base64": base64.b64encode(JOB_AUDIO.read_bytes()).decode(), "language": JOB_LANGUAGE},
    }
    with QueuePlane(job) as plane, tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        # An empty home: the SDK's own configuration file would win over the environment.
        own = {**plane.environment, "HOME": folder, "TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        clock = MonotonicClock()
        began_s = clock.now_s()
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**environment, **own},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            result_s, body = _wait(plane, process)
            state = read_tree([process.pid])
        except queue.Empty:
            raise StartFailedError(
                f"{name}: it ended, or had no result within {RESULT_LIMIT_S:g} s; {_tail(log)}"
            ) from None
        finally:
            _end(process)
        output = body.get("output")
        if state is None or "error" in body or not isinstance(output, dict) or not output.get("transcription"):
            raise StartFailedError(f"{name}: its result has no text; {_tail(log)}")
        asked_s = plane.first_take_s or result_s
        return Start(asked_s - began_s, result_s - began_s, state.cpu_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code."""
    args = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        if not 1 <= args.rounds <= MAX_ROUNDS:
            raise BadInputError("--rounds", args.rounds, f"1 to {MAX_ROUNDS}")
        starts = _run(args)
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    judged = verdict(starts)
    _print(starts, judged, args.model, console)
    if args.json is not None:
        conditions = {"rounds": args.rounds, "model": Path(args.model).name, "runpod": version("runpod")}
        words = command_line("bench.startup", argv if argv is not None else sys.argv[1:])
        results = {
            "starts": {name: [asdict(each) for each in found] for name, found in starts.items()},
            "verdict": asdict(judged),
        }
        write_document(args.json, document("startup", conditions, results, command=words))
    return 0 if judged.is_met or not args.verdict else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--model", default=DEMO_NAME, help="as the server's WHISPER_MODEL (default %(default)s)")
    add("--rounds", type=int, default=7, help="starts of each that count (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the result here")
    add("--no-verdict", dest="verdict", action="store_false", help="figures only; exit code 0")
    return parser


def _run(args: argparse.Namespace) -> dict[str, list[Start]]:
    directory = resolve_model(args.model, environ=os.environ, hub=HuggingFaceHub()).path
    environment = _environment(args.model, directory)
    starts: dict[str, list[Start]] = {name: [] for name in COMMANDS}
    for number_of_round in range(args.rounds + 1):
        for name in list(COMMANDS) if number_of_round % 2 else list(COMMANDS)[::-1]:
            start = first_result(name, COMMANDS[name], environment)
            print(f"round {number_of_round}: {name} {start.result_s:.2f} s, CPU {start.cpu_s:.2f} s", file=sys.stderr)
            if number_of_round:
                starts[name].append(start)
    return starts


def _environment(model: str, directory: Path) -> dict[str, str]:
    """One for both; each reads what it knows."""
    # The demo model's matrices are too small to share among threads.
    threads = str(1 if model == DEMO_NAME else usable_cores())
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "WHISPER"))},
        "WHISPER_MODEL": str(directory),
        "REPLICA_MODEL_DIR": str(directory),
        "OMP_NUM_THREADS": threads,
        "WHISPER_CPU_THREADS": threads,
        # The SDK's checks ask a public server and a GPU, which a machine need not have; results are no log lines.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "RUNPOD_DEBUG_LEVEL": "INFO",
    }


def _wait(plane: QueuePlane, process: subprocess.Popen[bytes]) -> tuple[float, dict[str, Any]]:
    """The result; raises queue.Empty when the worker ended without one, or after RESULT_LIMIT_S."""
    clock = MonotonicClock()
    end_s = clock.now_s() + RESULT_LIMIT_S
    while process.poll() is None and clock.now_s() < end_s:
        with contextlib.suppress(queue.Empty):
            return plane.result(LOOK_S)
    # What it posted as its last act is there by now.
    return plane.result(LOOK_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the worker's group: kindly, then by force; the SDK's heartbeat would outlive its worker."""
    for signal_number, limit_s in ((signal.SIGTERM, STOP_LIMIT_S), (signal.SIGKILL, STOP_LIMIT_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - KEPT_LOG_BYTES))
    return f"end of its log: {log.read().decode(errors='replace').strip()}"


def _median(starts: Sequence[Start]) -> float:
    return statistics.median(each.result_s for each in starts)


def _print(starts: Mapping[str, Sequence[Start]], judged: Verdict, model: str, console: Console) -> None:
    machine: Mapping[str, Any] = machine_facts()
    table = plain_table(
        ("from process start, medians", "asks for a job, s", "result, s", "fastest", "slowest", "CPU s")
    )
    for name, found in starts.items():
        results_s = [each.result_s for each in found]
        table.add_row(
            name,
            number(statistics.median(each.asked_s for each in found)),
            number(statistics.median(results_s)),
            number(min(results_s)),
            number(max(results_s)),
            number(statistics.median(each.cpu_s for each in found)),
        )
    console.print(f"{machine['cpu']}, {machine['cores']} cores; model {model}; runpod {version('runpod')}.")
    console.print(table)
    console.print(f"{'[green]met[/]' if judged.is_met else '[red]MISSED[/]'}: {judged.goal}: {judged.text}")


if __name__ == "__main__":
    sys.exit(main())
