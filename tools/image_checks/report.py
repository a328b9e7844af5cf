"""What the run prints: a line for each check, tables of sizes and starts in Markdown; and the JSON document."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from bench.report import document, machine_facts
from tools.image_checks.commands import say
from tools.image_checks.sizes import GB, MB, PURPOSES, Size
from tools.image_checks.starts import Starts

__all__ = ["Report", "Result", "markdown"]

MAX_STEP_CHARS = 70
LEAST_LAYER_BYTES = 1 * MB
CHECKSUM = re.compile(r"\b(?:dir|file|multi):[0-9a-f]{16,}")


@dataclass(frozen=True)
class Result:
    """A check of an image: `text` is what was seen, or what is wrong."""

    name: str
    image: str
    ok: bool
    seconds: float
    text: str


@dataclass
class Report:
    """All of a run."""

    engine: str
    base: str
    is_base_replaced: bool
    results: list[Result] = field(default_factory=list)
    builds_s: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)
    starts: dict[str, Starts] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Whether something was checked and all of it held."""
        return bool(self.results) and all(result.ok for result in self.results)

    def add(self, result: Result) -> None:
        """Keep and print."""
        self.results.append(result)
        mark = "ok  " if result.ok else "FAIL"
        say(f"{mark} {result.image:4} {result.name:12} {result.seconds:6.1f} s  {result.text}")

    def as_document(self, command: str) -> dict[str, Any]:
        """As benchmarks write theirs."""
        conditions = {"engine": self.engine, "base": self.base, "is_base_replaced": self.is_base_replaced}
        results: Mapping[str, Any] = {
            "is_ok": self.is_ok,
            "checks": [asdict(result) for result in self.results],
            "builds_s": self.builds_s,
            "sizes": {name: asdict(size) for name, size in self.sizes.items()},
            "starts": {name: asdict(starts) for name, starts in self.starts.items()},
        }
        return document("image", conditions, results, command=command)


def markdown(report: Report, *, is_short: bool) -> list[str]:
    """The README's tables."""
    machine = machine_facts()
    day = datetime.now(timezone.utc).date().isoformat()
    base = "a local Debian in the place of the real base" if report.is_base_replaced else report.base
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {report.engine}, {day}; base: {base}.", ""]
    if report.sizes:
        lines += ["| image | on disk, GB | without weights, GB | start to /ready, s | to first text, s |"]
        lines += ["| --- | ---: | ---: | ---: | ---: |"]
        lines += [_image_row(name, size, report.starts.get(name)) for name, size in report.sizes.items()]
        for name, starts in report.starts.items():
            lines += ["", *_start_lines(name, starts)]
    if not is_short:
        for name, size in report.sizes.items():
            lines += ["", *_part_table(name, size), "", *_layer_table(name, size)]
    return lines


def _image_row(name: str, size: Size, starts: Starts | None) -> str:
    times = ("-", "-") if starts is None else (f"{starts.ready_s:.2f}", f"{starts.text_s:.2f}")
    without = size.total_bytes - size.weights_bytes
    return f"| {name} | {size.total_bytes / GB:.2f} | {without / GB:.2f} | {times[0]} | {times[1]} |"


def _start_lines(name: str, starts: Starts) -> Sequence[str]:
    parts = starts.median_parts_ms()
    peer = f"{statistics.median(starts.peer_text_s):.2f} s" if starts.peer_text_s else f"not here: {starts.peer_note}"
    return [
        f"Start of {name}, medians of {len(starts.ours)}; WhisperLive's first text, without a container: {peer}.",
        "",
        "| part | ms |",
        "| --- | ---: |",
        *(f"| {part} | {amount:.0f} |" for part, amount in parts.items()),
    ]


def _part_table(name: str, size: Size) -> list[str]:
    rows = [f"| {part} | {amount / MB:.0f} | {PURPOSES.get(part, '')} |" for part, amount in size.parts]
    return [f"| {name}: what | MB | for |", "| --- | ---: | --- |", *rows]


def _layer_table(name: str, size: Size) -> list[str]:
    rows = [
        f"| {layer.size_bytes / MB:.0f} | `{_step(layer.made_by)}` |"
        for layer in size.layers
        if layer.size_bytes >= LEAST_LAYER_BYTES
    ]
    return [f"| {name}: layer, MB | made by |", "| ---: | --- |", *rows]


def _step(made_by: str) -> str:
    shorter = CHECKSUM.sub("", made_by.replace("/bin/sh -c", "").replace("#(nop)", ""))
    text = " ".join(shorter.replace("|", "/").replace("`", "'").split())
    return text if len(text) <= MAX_STEP_CHARS else text[: MAX_STEP_CHARS - 3] + "..."
