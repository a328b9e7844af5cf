"""`python -m bench.plot FILE`: latency over the number of streams, one line per server, as a PNG.

Reads documents with ramps (`bench.ramp`, `bench.side_by_side`). Knows matplotlib (extra `bench`), nothing else does.
Invariant: only what a document holds is drawn; a run that is void is a gap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.ramp import CRITERIA, LIMIT_S
from engine.errors import BadInputError, SttError
from realtime.client.errors import exit_code

__all__ = ["draw", "main", "series"]

TITLES = {"shown": "a word is shown", "final": "a word is final"}
DPI = 120


def series(document: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[int, float | None, float | None]]]]:
    """By criterion and server: (streams, p50, p95) in seconds, ascending. Raises BadInputError."""
    try:
        return {
            criterion: {
                ramp["server"]: [_point(step, criterion) for step in ramp["steps"]] for ramp in _ramps(document)
            }
            for criterion in CRITERIA
        }
    except (KeyError, TypeError) as error:
        raise BadInputError("document", type(error).__name__, "one with ramps") from None


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture. Raises BadInputError if matplotlib is missing or the document has no ramps."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInputError("matplotlib", None, "installed: pip install '.[bench]'") from None
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(CRITERIA), sharey=True)
    for panel, (criterion, servers) in zip(panels, series(document).items(), strict=True):
        for number, (server, points) in enumerate(servers.items()):
            streams = [point[0] for point in points]
            colour = f"C{number % 10}"
            # None becomes a gap in the line.
            p50 = [float("nan") if point[1] is None else point[1] for point in points]
            p95 = [float("nan") if point[2] is None else point[2] for point in points]
            panel.plot(streams, p95, color=colour, marker="o", markersize=3, label=server)
            panel.plot(streams, p50, color=colour, linestyle=":")
        panel.axhline(LIMIT_S, color="black", linewidth=0.8)
        panel.set_title(f"Seconds until {TITLES[criterion]}: 95 % (dotted: median)")
        panel.set_xlabel("streams at once")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="x-small")
    machine = document["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, {document['made'][:10]}", fontsize="small")
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """Draw a document; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="a JSON document with ramps")
    parser.add_argument("--output", type=Path, metavar="PNG", help="default: beside FILE")
    args = parser.parse_args(argv)
    try:
        draw(_read(args.file), args.output or args.file.with_suffix(".png"))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return made
    except (OSError, ValueError) as error:
        raise BadInputError("FILE", str(path), f"a JSON document ({type(error).__name__})") from None


def _ramps(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    ramps: Sequence[Mapping[str, Any]] = document["results"]["ramps"]
    return ramps


def _point(step: Mapping[str, Any], criterion: str) -> tuple[int, float | None, float | None]:
    if step["run"] is None:
        return step["clients"], None, None
    values = step["run"]["summary"][criterion]
    return step["clients"], values["p50_s"], values["p95_s"]


if __name__ == "__main__":
    sys.exit(main())
