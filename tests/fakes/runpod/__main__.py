"""`python -m tests.fakes.runpod`: a RunPod of one's own, to try the builder without paying.

Prints what to export, then runs COMMAND with it, or waits for Ctrl-C. Pods are live servers and workers of endpoints
are workers with the demo model on this machine; everything runs in real time, only faster than at RunPod.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.fakes.runpod.boots import Timing
from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.local_pods import LocalPods
from tests.fakes.runpod.local_workers import LocalWorkers

TIMING = Timing(provisioning_s=1.0, starting_s=2.0, start_s=2.0)
LOG_HOLD_S = 5.0
WORKER_BOOT_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plane; returns the command's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.runpod", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --: run this against it, then end")
    options = parser.parse_args(argv)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", options.port))
        except OSError as error:
            parser.error(f"--port {options.port}: {error.strerror}")
    plane = ControlPlane(RealPlaneClock(), seed=time.time_ns(), port=options.port)
    plane.pods.timing = TIMING
    plane.log_hold_s = LOG_HOLD_S
    plane.endpoints.boot_s = WORKER_BOOT_S
    signal.signal(signal.SIGTERM, _interrupt)
    with plane, LocalPods(plane), LocalWorkers(plane):
        environ = plane.environ()
        for name, value in environ.items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        if options.command:
            return _run(options.command, environ)
        print("# copy these lines into another shell; Ctrl-C ends it", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


def _run(command: Sequence[str], environ: dict[str, str]) -> int:
    """The command's exit code as a shell has it; Ctrl-C reaches the command by itself."""
    process = subprocess.Popen(command, env={**os.environ, **environ})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
