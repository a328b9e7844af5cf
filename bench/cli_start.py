"""`python -m bench.cli_start`: how long `python -m builder --help` takes beside an empty typer app with as many verbs.

Both are whole processes, run in turns in one run; medians and their ratio are printed. The empty app registers
functions without options, so what is compared is what the builder's own verbs, options and imports cost.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["measure"]

LIMIT = 1.5
"""The goal: at most this many times the empty app's time."""
EMPTY_APP = """\
import typer
app = typer.Typer(name="empty", no_args_is_help=True, add_completion=False)
def make(name):
    def call():
        "Do nothing."
    app.command(name)(call)
for number in range({verbs}):
    make(f"verb-{{number}}")
app()
"""


def measure(rounds: int) -> tuple[float, float, int]:
    """Median seconds of the builder's help and of the empty app's, and the number of verbs."""
    builder = [sys.executable, "-m", "builder", "--help"]
    verbs = _count_verbs()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "empty.py"
        script.write_text(EMPTY_APP.format(verbs=verbs))
        empty = [sys.executable, str(script), "--help"]
        times: dict[str, list[float]] = {"builder": [], "empty": []}
        for number in range(rounds + 1):
            for name, command in (("builder", builder), ("empty", empty)):
                began_s = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                # The first round warms the caches of bytecode and files.
                if number:
                    times[name].append(time.perf_counter() - began_s)
    return statistics.median(times["builder"]), statistics.median(times["empty"]), verbs


def _count_verbs() -> int:
    code = (
        "from builder.cli import build_app; app = build_app(); "
        "print(len(app.registered_commands) + len(app.registered_groups))"
    )
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the medians and the ratio; 1 if it is over the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.cli_start", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="runs of each (default %(default)s)")
    rounds = parser.parse_args(argv).rounds
    if rounds < 1:
        parser.error("--rounds must be positive")
    ours_s, empty_s, verbs = measure(rounds)
    print(f"python -m builder --help          {ours_s:.3f} s (median of {rounds})")
    print(f"empty typer app, {verbs} verbs        {empty_s:.3f} s")
    print(f"ratio                             {ours_s / empty_s:.2f} (goal: at most {LIMIT})")
    return 0 if ours_s <= LIMIT * empty_s else 1


if __name__ == "__main__":
    sys.exit(main())
