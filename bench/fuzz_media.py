"""Damaged media files against the decoder: `python -m bench.fuzz_media --count 2000 --seed 1`.

Each file must end as audio or as a refusal within its time, and after each one a good file must decode to the very
same samples as before. A file that breaks this is saved, and the exit status is 1. Needs a checkout: the files
come from `tests.fakes.media_mutants`, the same ones for the same seed. Progress goes to stderr, the sums to stdout.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.tables import number, percent, plain_table
from engine.decode import DecodedAudio, MediaDecoder
from engine.errors import SttError
from tests.fakes.media import HELLO
from tests.fakes.media_mutants import FUZZ_LIMITS, Judged, Mutant, judge, mutant

__all__ = ["Findings", "fuzz", "main"]

MAX_COUNT = 10_000_000
SHOWN_SLOWEST = 5
MAX_FAILURES = 20
"""Then it ends: what goes wrong that often is one thing."""
TOLD_EVERY_S = 5.0


@dataclass
class Findings:
    """What came of the files: counts by outcome, (seconds, name) of the slowest, and what must not be."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, one: Mutant, judged: Judged) -> None:
        """Count one file."""
        self.outcomes[judged.outcome or "a failure"] += 1
        self.slowest = sorted([*self.slowest, (judged.took_s, one.name)], reverse=True)[:SHOWN_SLOWEST]
        if judged.problem is not None:
            self.failures.append((one.name, judged.problem))


def fuzz(decoder: MediaDecoder, count: int, seed: int, save: Path, *, first: int = 0) -> Findings:
    """Judge `count` files; those that fail are written into `save`, which is made when it is needed."""
    findings = Findings()
    good = HELLO.read_bytes()
    expected = decoder.decode(good)
    told_s = began_s = time.monotonic()
    for done in range(1, count + 1):
        one = mutant(seed, first + done - 1)
        n_failures = len(findings.failures)
        findings.add(one, judge(decoder, one.data))
        changed = _change(decoder, good, expected)
        if changed is not None:
            findings.failures.append((one.name, changed))
        if len(findings.failures) > n_failures:
            save.mkdir(parents=True, exist_ok=True)
            (save / one.name).write_bytes(one.data)
        if len(findings.failures) >= MAX_FAILURES:
            break
        if time.monotonic() - told_s >= TOLD_EVERY_S or done == count:
            told_s = time.monotonic()
            print(f"{done} of {count} files, {told_s - began_s:.0f} s", file=sys.stderr)
    return findings


def _change(decoder: MediaDecoder, good: bytes, expected: DecodedAudio) -> str | None:
    """What is different about the good file now; None if nothing."""
    try:
        found = decoder.decode(good)
    except SttError as error:
        return f"the good file after it: {error}"
    if not np.array_equal(found.samples, expected.samples) or found.warnings != expected.warnings:
        return "the good file after it decodes to something else"
    return None


def _print(findings: Findings, took_s: float, console: Console) -> None:
    total = sum(findings.outcomes.values())
    console.print(f"{total} files in {took_s:.1f} s")
    table = plain_table(("outcome", "files", "%"))
    for outcome, count in findings.outcomes.most_common():
        table.add_row(outcome, str(count), percent(count / total))
    console.print(table)
    slow = plain_table(("slowest", "s"))
    for seconds, name in findings.slowest:
        slow.add_row(name, number(seconds))
    console.print(slow)
    for name, problem in findings.failures:
        console.print(f"FAILED {name}: {problem}", markup=False, soft_wrap=True)


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{count} is not allowed; legal: 1 to {MAX_COUNT}")
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_media", description="damaged files for the decoder")
    parser.add_argument("--count", type=_count, default=2_000, help="files (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other files (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first file (default %(default)s)")
    parser.add_argument(
        "--save", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="where files that fail are kept"
    )
    options = parser.parse_args(argv)
    began_s = time.monotonic()
    with MediaDecoder(FUZZ_LIMITS) as decoder:
        findings = fuzz(decoder, options.count, options.seed, options.save, first=options.first)
    _print(findings, time.monotonic() - began_s, Console())
    return 1 if findings.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
