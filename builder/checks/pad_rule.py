"""Which WHISPER_WINDOW_PAD_S follows from what was measured. Pure.

Live windows are padded to 30 s, which Whisper was trained on; less is faster and may cost words. The file path of the
same server always has the full length, so its text is what the live path could reach. The rule:

* The *gap* is what the live path loses: its word error rate less that of the file path, against the true text; or,
  if that is not known, the word error rate of the live text against the file text.
* A gap counts if it is over 2 points and over one word: less is chance.
* No gap: keep the setting. (At 30 s a smaller one would be faster: measure it with `--pads 30,10`.)
* A gap with less than 30 s: set 30.
* A gap with 30 s: keep it; padding is not what is wrong.
* Of several settings that were measured: the smallest whose gap is within 2 points and one word of the least gap.

Fewer than 100 words decide nothing: the advice is then marked as unsure, and the pod keeps its setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FULL_PAD_S", "MIN_WORDS", "Advice", "Measured", "advise", "best_pad"]

FULL_PAD_S = 30.0
POINTS = 0.02
MIN_WORDS = 100
"""About 40 s of speech: one word is then a point."""


@dataclass(frozen=True)
class Measured:
    """One setting (None: the server does not tell), and word error rates, 0 to 1; None: no true text is known.

    `words`: in the text that the live path was compared with.
    """

    pad_s: float | None
    words: int
    live_vs_file: float
    live: float | None = None
    file: float | None = None

    @property
    def gap(self) -> float:
        """What the live path loses; negative if it is the better one."""
        return self.live_vs_file if self.live is None or self.file is None else self.live - self.file

    @property
    def chance(self) -> float:
        """A difference that means nothing."""
        return max(POINTS, 1.0 / max(1, self.words))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        rates = {"live_vs_file": self.live_vs_file, "live": self.live, "file": self.file, "gap": self.gap}
        rounded = {f"wer_{name}" if name != "gap" else name: _rounded(rate) for name, rate in rates.items()}
        return {"window_pad_s": self.pad_s, "words": self.words, **rounded}


@dataclass(frozen=True)
class Advice:
    """`pad_s`: what WHISPER_WINDOW_PAD_S should be; None: as it is."""

    pad_s: float | None
    why: str
    is_sure: bool


def advise(measured: Measured) -> Advice:
    """What follows from one measurement."""
    is_sure = measured.words >= MIN_WORDS
    if measured.gap <= measured.chance:
        faster = "; a smaller one would be faster, measure it with --pads 30,10"
        is_full = measured.pad_s == FULL_PAD_S
        return Advice(None, "live text is as good as file text: keep it" + (faster if is_full else ""), is_sure)
    lost = f"the live path loses {measured.gap:.1%} of the words"
    if measured.pad_s is None or measured.pad_s >= FULL_PAD_S:
        return Advice(None, f"{lost}, and not by padding: see the server's load, the language and --use-vad", is_sure)
    return Advice(FULL_PAD_S, f"{lost}: set it to 30", is_sure)


def best_pad(measured: Sequence[Measured]) -> Advice:
    """What follows from several settings (each with a `pad_s`, at least one)."""
    least = min(each.gap for each in measured)
    good = [each for each in measured if each.gap <= least + each.chance and each.pad_s is not None]
    chosen = min(good, key=lambda each: each.pad_s or 0.0)
    tried = ", ".join(f"{each.pad_s:g} s: {each.gap:+.1%}" for each in measured)
    why = f"the smallest of those that lose no more words than the best ({tried})"
    return Advice(chosen.pad_s, why, all(each.words >= MIN_WORDS for each in measured))


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 4)
