"""Why something failed, read from what RunPod, docker, CUDA and the server wrote about it.

Pure. `diagnose` knows the texts that pods really die of; what it does not know, it says None to rather than guess.
The rules stand in order of how much they explain: `no space left` beside `failed to pull image` is a full disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from builder.pods.cause_rules import RULES, Confidence, Kind, Rule

__all__ = ["Cause", "Confidence", "Kind", "diagnose"]

MAX_LINES = 5_000
"""Of a longer text the end counts: the last words are the most telling."""
MAX_LINE_CHARS = 4_000
_RANK: dict[Confidence, int] = {"high": 2, "medium": 1, "low": 0}
_HARMLESS = re.compile(
    r"""^\s*\[?(DEBUG|INFO|NOTICE|WARN|WARNING)\b   # "[INFO] ...", "WARNING: ..."
    |"(level|levelname|severity)"\s*:\s*"(debug|info|notice|warn|warning)"
    |\blevel=(debug|info|notice|warn|warning)\b
    |^[\d\-T:.,Z\s]+\[?(DEBUG|INFO|NOTICE|WARN|WARNING)\b""",
    re.IGNORECASE | re.VERBOSE,
)

_TOLD_CALMLY = ("STOPPED",)
"""Done on purpose, so that no writer calls it an error."""


@dataclass(frozen=True)
class Cause:
    """What went wrong, in one line each; `is_final`: the same again, or waiting, will not help."""

    kind: Kind
    cause: str
    remedy: str
    is_final: bool
    confidence: Confidence = "high"
    line: str = ""


def diagnose(text: str, *, is_pinned: bool = False) -> Cause | None:
    """The cause that explains most of `text` (one line or many); None if no rule knows it.

    `is_pinned`: the request named data centers; "no instances" then means "not there" (PLACEMENT). Lines that their
    writer marks as a warning or less are not taken for causes, but for what is done on purpose.
    """
    best: tuple[tuple[int, bool, int, int], Cause] | None = None
    for number, line in enumerate(text.splitlines()[-MAX_LINES:]):
        found = _diagnose_line(line[:MAX_LINE_CHARS])
        if found is None:
            continue
        place, cause = found
        weight = (_RANK[cause.confidence], cause.is_final, -place, number)
        if best is None or weight > best[0]:
            best = (weight, cause)
    if best is None:
        return None
    return _placement(best[1]) if is_pinned and best[1].kind == "CAPACITY" else best[1]


def _diagnose_line(line: str) -> tuple[int, Cause] | None:
    is_harmless = _HARMLESS.search(line) is not None
    for place, rule in enumerate(RULES):
        if is_harmless and rule.kind not in _TOLD_CALMLY:
            continue
        if rule.pattern.search(line) is not None:
            return place, _cause(rule, line)
    return None


def _cause(rule: Rule, line: str) -> Cause:
    return Cause(rule.kind, rule.cause, rule.remedy, rule.is_final, rule.confidence, " ".join(line.split()))


def _placement(cause: Cause) -> Cause:
    kind: Literal["PLACEMENT"] = "PLACEMENT"
    return replace(
        cause,
        kind=kind,
        cause="no machine of this kind is free in the data centers that were named",
        remedy="name more of them in RUNPOD_DATA_CENTERS, or none; a network volume ties a pod to its data center",
    )
