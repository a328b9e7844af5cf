"""How long windows are made, and how much text may stand before live ones, for a kind of model.

Pure: constants with the measurements behind them, and the rule by which a setting replaces them.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.types import FRAMES_PER_SECOND, MAX_FRAMES, ModelInfo

__all__ = ["WindowGeometry", "window_geometry"]

DEMO_TAIL_FRAMES = 100
"""Silence behind a window for the demo model. Measured on its labelled speech, beam 1: one-sentence
windows 2.3 -> 0.1 % word errors, windows cut in a word 112 -> 8 %; padding to 10 s or 30 s gains
nothing more (0.2 %, 3.6 %) and costs up to 6 times the work."""
DEMO_BUCKET_FRAMES = 100
"""Measured on 360 windows of 2 to 8 s, cut in mid-speech: buckets of 50, 100 and 200 frames make the same
errors (7.3, 7.0, 7.0 %; loops in 7 of 360 each); encoding takes 10.6, 10.8 and 13.1 ms per window, and half as
many lengths as at 50 means larger batches."""
DEMO_FILE_WINDOW_S = 7.5
"""Longest window of a recording for the demo model, which has heard little that is longer. Measured on its 15
labelled recordings, cut at pauses, beam 5: of 885 words 4 are wrong with windows of up to 6.5 s and 7 s, 3 at
7.5 s, 10 at 8 s, 8 at 10 s, 21 at 12 s, 33 at 15 s, 60 at 28 s (faster-whisper's own pipeline: 22). The same
joined in random orders, 3540 words: 42 at 6 s, 35 at 7 s, 17 at 7.5 s, 64 at 8 s, 63 at 10 s, 59 at 12 s."""
FILE_WINDOW_S = 30.0
"""Real weights were trained on this, and it costs them no more than a shorter window."""
SHORT_TAIL_FRAMES = 300
"""Silence behind a window where real weights, trained on 30 s, are given less."""


class WindowGeometry(NamedTuple):
    """The fields of `engine.types.ModelInfo` of the same names."""

    pad_frames: int
    tail_frames: int
    bucket_frames: int
    context_lengths: tuple[int, ...]
    file_window_s: float


def window_geometry(*, is_demo: bool, window_pad_s: float | None) -> WindowGeometry:
    """The geometry of a model's windows.

    `window_pad_s` is the length to which they are padded. None is the model's own: 30 s for real weights, which
    were trained on nothing else; none for the demo model, which gets 1 s of silence behind each window. Less
    than 30 s for real weights means the window and 3 s of silence, at least that length.
    """
    pad_frames = 0 if is_demo else MAX_FRAMES
    if window_pad_s is not None:
        pad_frames = min(MAX_FRAMES, round(window_pad_s * FRAMES_PER_SECOND))
    if is_demo:
        # It has hardly seen previous text: a long one wrecks what it writes.
        return WindowGeometry(pad_frames, DEMO_TAIL_FRAMES, DEMO_BUCKET_FRAMES, (0,), DEMO_FILE_WINDOW_S)
    tail_frames = SHORT_TAIL_FRAMES if pad_frames < MAX_FRAMES else 0
    return WindowGeometry(pad_frames, tail_frames, ModelInfo.bucket_frames, ModelInfo.context_lengths, FILE_WINDOW_S)
