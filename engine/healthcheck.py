"""`python -m engine.healthcheck`: is this container well? For an image's HEALTHCHECK, without curl.

The live server is asked for /health, on loopback unless it listens on one address only; the serverless worker listens
nowhere, so there the container's first process has to be it. Prints one line. Exit status: 0 well, 1 not, 2 wrong
usage.

Runs every half minute, so it imports little and never lasts longer than its limit.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import ConfigError
from engine.modes import choose_mode, health_port

__all__ = ["check", "main"]

LIMIT_S = 5.0
"""docker's limit on the command is the same; a little before it we say why."""
MARGIN_S = 0.5
HEALTH_OPTION, HOST_OPTION = "--health-port", "--host"
LOOPBACK = "127.0.0.1"
EVERYWHERE = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - addresses that mean all of them
WORKER = "handler"
"""What the worker's command line has: `python -m handler`."""
EXAMPLES = """\
examples:
  python -m engine.healthcheck                 in the image
  HEALTH_CHECK_PORT=9000 python -m engine.healthcheck
  WHISPER_MODE=serverless python -m engine.healthcheck --pid 4711

exit status: 0 well, 1 not, 2 wrong usage
"""


def check(environ: Mapping[str, str], pid: int = 1, proc: Path = Path("/proc")) -> tuple[bool, str]:
    """True if well, and a line that says so, or what is wrong; `pid` is the program to look at."""
    try:
        mode = choose_mode(environ).mode
        port = health_port(environ)
    except ConfigError as error:
        return False, str(error)
    command = _command_line(proc, pid)
    if mode == "serverless":
        family = [command, *(_command_line(proc, child) for child in _children(proc, pid))]
        # With `docker run --init` the worker is the first process's child.
        if any(WORKER in line for line in family):
            return True, f"healthy: process {pid} is the worker"
        return False, f"unhealthy: process {pid} is not the worker, or not yet"
    asked = _option(command, HEALTH_OPTION)
    if asked is not None and asked.isascii() and asked.isdecimal():
        port = int(asked)
    if port is None:
        return False, "HEALTH_CHECK_PORT is no port; legal: 1 to 65535"
    host = _option(command, HOST_OPTION)
    return ask_health(port, host=environ.get("WHISPERLIVE_HOST", "") if host is None else host)


def ask_health(port: int, limit_s: float = LIMIT_S - MARGIN_S, host: str = "") -> tuple[bool, str]:
    """Ask a server that listens on `host` for /health. The limit is one for each step of the exchange."""
    if not 1 <= port <= 65_535:
        return False, f"HEALTH_CHECK_PORT: {port} cannot be asked; legal: 1 to 65535"
    # Not urllib, which would ask a proxy of the environment.
    host = host.strip()
    connection = http.client.HTTPConnection(EVERYWHERE.get(host, host), port, timeout=limit_s)
    try:
        connection.request("GET", "/health", headers={"User-Agent": "healthcheck"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return False, f"unhealthy: port {port} does not answer ({reason})"
    finally:
        connection.close()
    if status == http.client.OK:
        return True, f"healthy: port {port} answers"
    return False, f"unhealthy: port {port} answers with status {status}"


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print a line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.healthcheck",
        description="Is the server or worker of this container well?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pid", type=int, default=1, help="process to look at instead of the container's first one")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S - MARGIN_S)
    is_well, says = check(os.environ, options.pid)
    sys.stdout.write(f"{says}\n")
    return 0 if is_well else 1


def _give_up(signum: int, frame: object) -> None:
    # os._exit: whatever hangs must not hold up the end.
    os.write(1, b"unhealthy: no answer in time\n")
    os._exit(1)


def _command_line(proc: Path, pid: int) -> list[str]:
    try:
        text = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return [part for part in text.split("\0") if part]


def _children(proc: Path, pid: int) -> list[int]:
    try:
        text = (proc / str(pid) / "task" / str(pid) / "children").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return []
    return [int(part) for part in text.split() if part.isdecimal()]


def _option(command: Sequence[str], name: str) -> str | None:
    for index, part in enumerate(command):
        if part.startswith(f"{name}="):
            return part.partition("=")[2]
        if part == name and index + 1 < len(command):
            return command[index + 1]
    return None


if __name__ == "__main__":
    raise SystemExit(main())
