"""engine/file_run.py: one model call per step, over a pipeline without a model."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from engine.errors import EngineFailedError
from engine.file_run import FileRun, GatedModel
from engine.types import FileSegment

LIMIT_S = 5.0


class Model:
    """Counts its calls."""

    device = "nowhere"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def encode(self, window: int) -> int:
        self.calls.append(f"encode {window}")
        return window

    def generate(self, window: int) -> str:
        self.calls.append(f"generate {window}")
        return f" t{window}"

    def align(self, *, fail: bool) -> None:
        self.calls.append("align")
        if fail:
            raise RuntimeError("broken")

    def detect_language(self, window: int) -> str:
        self.calls.append("detect")
        return "en"


def segment(text: str) -> FileSegment:
    return FileSegment(0.0, 1.0, text, "en")


def windows(n: int) -> FileRun:
    def transcribe(model: GatedModel) -> Iterator[FileSegment]:
        for number in range(n):
            yield segment(model.generate(model.encode(number)))

    return FileRun(Model(), transcribe)


def steps(run: FileRun) -> Iterator[list[FileSegment]]:
    while (segments := run.step()) is not None:
        yield segments


def ended(run: FileRun) -> bool:
    done = threading.Event()
    for _ in range(int(LIMIT_S / 0.01)):
        if not run.is_alive:
            return True
        done.wait(0.01)
    return False


def test_each_step_makes_at_most_one_call_and_nothing_is_lost() -> None:
    model = Model()

    def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
        assert gated.device == "nowhere"
        assert gated.detect_language(0) == "en"
        for number in range(3):
            yield segment(gated.generate(gated.encode(number)))

    run = FileRun(model, transcribe)
    counts = [0]
    texts = []
    for segments in steps(run):
        counts.append(len(model.calls))
        texts += [each.text for each in segments]
    assert texts == [" t0", " t1", " t2"]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(counts))
    assert model.calls == ["detect", *(f"{call} {n}" for n in range(3) for call in ("encode", "generate"))]
    assert run.step() is None


def test_several_segments_of_one_window_come_together() -> None:
    def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
        gated.encode(0)
        yield from (segment(" a"), segment(" b"))

    run = FileRun(Model(), transcribe)
    assert [[each.text for each in segments] for segments in steps(run) if segments] == [[" a", " b"]]


def test_what_the_pipeline_raises_comes_behind_the_segments_it_found() -> None:
    def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
        gated.encode(0)
        yield segment(" a")
        gated.align(fail=True)

    run = FileRun(Model(), transcribe)
    texts = []
    with pytest.raises(RuntimeError, match="broken"):
        for segments in steps(run):
            texts += [each.text for each in segments]
    assert texts == [" a"]
    assert ended(run)


def test_a_closed_recording_makes_no_further_call() -> None:
    model = Model()

    def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
        for number in range(1_000_000):
            yield segment(gated.generate(number))

    run = FileRun(model, transcribe)
    assert run.step() is not None
    made = len(model.calls)
    run.close()
    assert ended(run)
    assert len(model.calls) == made


def test_work_that_is_no_call_holds_nobody_up_and_is_bounded() -> None:
    go_on = threading.Event()

    def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
        go_on.wait(LIMIT_S)
        gated.encode(0)
        yield segment(" late")

    run = FileRun(Model(), transcribe, max_idle_waits=2)
    assert [run.step(), run.step()] == [[], []]
    with pytest.raises(EngineFailedError, match="no progress"):
        run.step()
    go_on.set()
    assert [each.text for segments in steps(run) for each in segments] == [" late"]


def test_no_windows_no_segments() -> None:
    assert list(steps(windows(0))) == []
    assert [len(segments) for segments in steps(windows(2)) if segments] == [1, 1]
