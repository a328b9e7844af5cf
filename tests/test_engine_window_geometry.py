"""engine/window_geometry.py: how long windows are made."""

from __future__ import annotations

import pytest

from engine.types import MAX_FRAMES
from engine.window_geometry import window_geometry


@pytest.mark.parametrize(
    ("is_demo", "window_pad_s", "geometry"),
    [
        (True, None, (0, 100, 100)),
        (True, 2.5, (250, 100, 100)),
        (True, 30.0, (MAX_FRAMES, 100, 100)),
        (False, None, (MAX_FRAMES, 0, 200)),
        (False, 30.0, (MAX_FRAMES, 0, 200)),
        (False, 29.99, (2_999, 300, 200)),
        (False, 10.0, (1_000, 300, 200)),
        (False, 0.0, (0, 300, 200)),
    ],
)
def test_how_long_windows_are_made(is_demo: bool, window_pad_s: float | None, geometry: tuple[int, int, int]) -> None:
    made = window_geometry(is_demo=is_demo, window_pad_s=window_pad_s)
    assert (made.pad_frames, made.tail_frames, made.bucket_frames) == geometry
    assert made.file_window_s == (7.5 if is_demo else 30.0)
    assert made.context_lengths == ((0,) if is_demo else (0, 32, 96))
