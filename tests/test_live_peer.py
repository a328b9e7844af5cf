"""The unmodified client of the package whisper-live 0.10.0 against our server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.wer import word_errors
from tests.serving import DEMO, ROOT, Server, label

PEER_PYTHON = ROOT / ".venv-peer" / "bin" / "python"
SCRIPT = ROOT / "tests" / "peers" / "whisper_live_client.py"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        not (ROOT / ".venv-peer" / ".done").exists(), reason="whisper-live is not installed: make .venv-peer/.done"
    ),
]


def start(mode: str, server: Server, audio: str, folder: Path) -> subprocess.Popen[str]:
    command = [str(PEER_PYTHON), str(SCRIPT), mode, str(server.port), str(DEMO / "samples" / audio)]
    return subprocess.Popen(
        [*command, str(folder / "out.srt")], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def transcript(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=90)
    lines = [line for line in output.splitlines() if line.startswith("TRANSCRIPT ")]
    assert lines, output
    segments: list[dict[str, Any]] = json.loads(lines[-1].removeprefix("TRANSCRIPT "))
    return segments


def test_both_clients_record_every_segment(server: Server, tmp_path: Path) -> None:
    """At the same time, since the file client waits for 15 s."""
    folders = [tmp_path / "file", tmp_path / "stream"]
    for folder in folders:
        folder.mkdir()
    by_file = start("file", server, "meeting_en.wav", folders[0])
    by_stream = start("stream", server, "service_en.wav", folders[1])

    streamed = transcript(by_stream)
    assert all(segment["completed"] for segment in streamed)
    said = label("service_en.wav")["text"]
    assert word_errors(said, "".join(segment["text"] for segment in streamed)).errors == 0

    recorded = transcript(by_file)
    said = label("meeting_en.wav")["text"]
    assert word_errors(said, "".join(segment["text"] for segment in recorded)).errors == 0
    srt = (folders[0] / "out.srt").read_text(encoding="utf-8")
    cues = [block.splitlines() for block in srt.strip().split("\n\n")]
    assert [int(cue[0]) for cue in cues] == list(range(1, len(recorded) + 1))
    assert word_errors(said, " ".join(line for cue in cues for line in cue[2:])).errors == 0
    assert all(segment["completed"] for segment in recorded), "nothing was left provisional"
