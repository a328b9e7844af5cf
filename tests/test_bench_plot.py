"""bench.plot: the picture holds what the document holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.plot import main, series

pytest.importorskip("matplotlib")


def step(clients: int, shown: tuple[float, float] | None) -> dict[str, Any]:
    if shown is None:
        return {"clients": clients, "run": None}
    values = {"p50_s": shown[0], "p95_s": shown[1]}
    return {"clients": clients, "run": {"summary": {"shown": values, "final": {"p50_s": 1.0, "p95_s": None}}}}


DOCUMENT = {
    "made": "2026-01-02T00:00:00+00:00",
    "machine": {"cpu": "a CPU", "cores": 2},
    "results": {
        "ramps": [
            {"server": "ours", "steps": [step(4, (0.2, 0.5)), step(8, (0.4, 1.0)), step(16, None)]},
            {"server": "peer", "steps": [step(4, (2.0, 9.0))]},
        ]
    },
}


def test_series_by_criterion_and_server() -> None:
    made = series(DOCUMENT)
    assert made["shown"] == {"ours": [(4, 0.2, 0.5), (8, 0.4, 1.0), (16, None, None)], "peer": [(4, 2.0, 9.0)]}
    assert made["final"]["peer"] == [(4, 1.0, None)]


def test_a_picture_is_written_beside_the_document(tmp_path: Path) -> None:
    path = tmp_path / "ramp.json"
    path.write_text(json.dumps(DOCUMENT))
    assert main([str(path)]) == 0
    assert (tmp_path / "ramp.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["", "{}", '{"results": {"ramps": [{}]}}', '{"results": []}'])
def test_other_files_are_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert "not allowed; legal:" in capsys.readouterr().err
