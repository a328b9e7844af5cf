"""Children that lie on the pipe, or do not come up."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from engine.decode import DecodeLimitError, MediaDecoder
from engine.decode_wire import (
    BLOCK,
    BLOCK_SAMPLES,
    END,
    FAILED,
    MAX_FRAME_BYTES,
    MAX_WARNINGS,
    READY,
    Notes,
    pack_frame,
)
from engine.errors import BadAudioError, EngineFailedError
from tests.fakes.decoding import SHORT


def scripted(frames: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MediaDecoder:
    """A decoder whose children say READY, take one job, send `frames` and end."""
    program = tmp_path / "liar"
    body = f"""\
        #!{sys.executable}
        import socket
        pipe = socket.socket(fileno=0)
        pipe.sendall({pack_frame(READY)!r})
        socket.recv_fds(pipe, 65536, 1)
        pipe.sendall(open({str(tmp_path / "frames")!r}, "rb").read())
    """
    program.write_text(textwrap.dedent(body), encoding="utf-8")
    program.chmod(0o700)
    (tmp_path / "frames").write_bytes(frames)
    monkeypatch.setattr(sys, "executable", str(program))
    return MediaDecoder()


def block(samples: int) -> bytes:
    return pack_frame(BLOCK, bytes(4 * samples))


def summary(**changes: object) -> bytes:
    fields = {"container": "wav", "codec": "pcm", "duration_s": 1.0, "warnings": [], **changes}
    return pack_frame(END, json.dumps(fields).encode())


@pytest.mark.parametrize(
    "frames",
    [
        b"",
        b"B",
        block(10)[:-1],
        pack_frame(BLOCK),
        pack_frame(BLOCK, bytes(7)),
        pack_frame(BLOCK, bytes(MAX_FRAME_BYTES + 4)),
        pack_frame(b"?", b"what"),
        pack_frame(END, b"no json"),
        pack_frame(END, b"[]"),
        summary(duration_s="long"),
        summary(warnings=1),
        summary(duration_s=10**400),
        pack_frame(END, b"[" * 100_000),
        pack_frame(FAILED, b"{}"),
        pack_frame(FAILED, b"\xff"),
    ],
)
def test_nonsense_from_a_child_is_bad_audio(frames: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        scripted(frames, tmp_path, monkeypatch) as decoder,
        pytest.raises(BadAudioError, match="ended its decoder process"),
    ):
        decoder.decode(SHORT)


def test_largest_frame_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(block(BLOCK_SAMPLES) + summary(), tmp_path, monkeypatch) as decoder:
        assert len(decoder.decode(SHORT).samples) == BLOCK_SAMPLES == MAX_FRAME_BYTES // 4


@pytest.mark.parametrize(("samples", "is_over"), [(32_000, False), (32_001, True)])
def test_child_that_sends_too_much(
    samples: int, is_over: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child counts exactly; the parent allows its resampler one second, and no sample more."""
    with scripted(block(samples) + summary(), tmp_path, monkeypatch) as decoder:
        if is_over:
            with pytest.raises(DecodeLimitError, match="longer than the limit of 1 s"):
                decoder.decode(SHORT, max_duration_s=1.0)
        else:
            assert len(decoder.decode(SHORT, max_duration_s=1.0).samples) == samples


def test_message_of_a_child_is_kept_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = pack_frame(FAILED, json.dumps({"message": "x" * 9_999, "is_limit": False}).encode())
    with scripted(refusal, tmp_path, monkeypatch) as decoder, pytest.raises(BadAudioError) as caught:
        decoder.decode(SHORT)
    assert str(caught.value) == "x" * 300


def test_warnings_of_a_child_are_kept_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = summary(warnings=["y" * 9_999] * (MAX_WARNINGS + 1))
    with scripted(block(1) + many, tmp_path, monkeypatch) as decoder:
        assert decoder.decode(SHORT).warnings == ("y" * 300,) * MAX_WARNINGS


def test_notes_keep_the_first_warnings() -> None:
    notes = Notes()
    for number in [*range(MAX_WARNINGS + 1), 0]:
        notes.warn(str(number))
    assert notes.warnings == [str(number) for number in range(MAX_WARNINGS)]


def test_child_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with MediaDecoder() as decoder, pytest.raises(EngineFailedError, match="did not start: No such file"):
        decoder.decode(SHORT)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("import socket, sys; sys.path.insert(0, '.'); socket.socket(fileno=0).sendall(b'E' + bytes(4))", "protocol"),
    ],
)
def test_child_that_starts_wrong(code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "broken"
    program.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with MediaDecoder() as decoder, pytest.raises(EngineFailedError, match=reason):
        decoder.decode(SHORT)


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "soundfile.py").write_text("raise ImportError('libsndfile is not here')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with MediaDecoder() as decoder, pytest.raises(EngineFailedError, match="libsndfile is not here"):
        decoder.decode(SHORT)
