"""Files made to harm: decode bombs, requests for other files and sockets, random damage."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.decode import BlockStream, DecodeLimitError, MediaDecoder
from engine.errors import BadAudioError
from tests.fakes.media import HELLO, ROOT, encoded, mp4_index, muxed, tone, tricks, without_length


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as shared:
        yield shared


@pytest.mark.parametrize("bomb", ["flac", "flac without a length", "vorbis", "opus"])
def test_decode_bomb_is_refused_in_little_memory(decoder: MediaDecoder, bomb: str) -> None:
    """Five minutes of silence in 10 to 100 KiB, against a cap of one."""
    silence = np.zeros((300 * 8_000, 1), dtype=np.float32)
    data = {
        "flac": lambda: encoded(silence, 8_000, "FLAC"),
        "flac without a length": lambda: without_length(encoded(silence, 8_000, "FLAC")),
        "vorbis": lambda: encoded(silence, 8_000, "OGG", "VORBIS"),
        "opus": lambda: encoded(silence, 8_000, "OGG", "OPUS"),
    }[bomb]()
    assert len(data) < 150_000
    began = time.monotonic()
    blocks = decoder.iter_blocks(data, max_duration_s=60.0)
    first = len(next(blocks))
    before, pid = peak_bytes(child_pid(blocks)), child_pid(blocks)
    after, total = before, first
    with pytest.raises(DecodeLimitError, match="longer than the limit of 60 s"):
        for block in blocks:
            total += len(block)
            after = max(after, peak_bytes(pid))
    assert total <= 60 * 16_000
    assert after - before < 32 << 20
    assert time.monotonic() - began < 5.0


def child_pid(blocks: BlockStream) -> int:
    assert blocks.child_pid is not None
    return blocks.child_pid


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def test_small_file_with_a_huge_index(decoder: MediaDecoder) -> None:
    for samples in (1 << 20, 1 << 25, 1 << 30):
        data = mp4_index(samples)
        assert len(data) < 700
        with pytest.raises(BadAudioError):
            decoder.decode(data)


def test_tricks_reach_no_socket_and_no_file(decoder: MediaDecoder) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        port = tcp.getsockname()[1]
        tcp.setblocking(False)
        udp.setblocking(False)
        for name, data in tricks(port).items():
            began = time.monotonic()
            with pytest.raises(BadAudioError):
                decoder.decode(data)
            assert time.monotonic() - began < 1.0, name
        with pytest.raises(BlockingIOError):
            tcp.accept()


def test_a_child_at_work_has_no_descriptor_left(decoder: MediaDecoder) -> None:
    """The kernel refuses any open or socket: each slot under the limit is taken."""
    blocks = decoder.iter_blocks(encoded(tone(60.0), 16_000))
    next(blocks)
    pid = child_pid(blocks)
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    rows = {line[:25].strip(): line[26:].split()[:2] for line in limits.splitlines()[1:]}
    assert rows["Max open files"] == ["4", "4"]
    assert sorted(entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()) == ["0", "1", "2", "3"]
    assert rows["Max core file size"] == rows["Max file size"] == rows["Max processes"] == ["0", "0"]
    assert int(rows["Max address space"][1]) < 2 << 30
    assert 0 < int(rows["Max cpu time"][0]) < 1_000
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    assert "NoNewPrivs:\t1" in status
    assert "Threads:\t1\n" in status
    blocks.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_tricks_do_not_even_try(tmp_path: Path) -> None:
    """Without the sandbox, and under strace: between the two marks there is no open, no socket."""
    files = []
    for name, data in {**tricks(9), "control": HELLO.read_bytes()}.items():
        (tmp_path / name).write_bytes(data)
        files.append(str(tmp_path / name))
    script = """
        import os, sys
        from engine.decode_child import _warm_up
        from engine.decode_media import decode_media
        from engine.decode_wire import DecodeLimits, Notes
        _warm_up()
        descriptors = [os.open(name, os.O_RDONLY) for name in sys.argv[1:]]
        refused = 0
        os.access("/mark-begin", 0)
        for fd in descriptors:
            try:
                list(decode_media(fd, DecodeLimits(), Notes()))
            except Exception:
                refused += 1
        os.access("/mark-end", 0)
        assert refused == len(descriptors) - 1, refused
    """
    log = tmp_path / "strace.log"
    command = [
        "strace",
        "-f",
        "-o",
        str(log),
        "-e",
        "trace=%file,%network,%desc",
        sys.executable,
        "-c",
        textwrap.dedent(script),
    ]
    subprocess.run([*command, *files], cwd=ROOT, check=True, timeout=60)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    begin = next(i for i, line in enumerate(lines) if "/mark-begin" in line)
    end = next(i for i, line in enumerate(lines) if "/mark-end" in line)
    calls = {line.split("(")[0].split()[-1] for line in lines[begin + 1 : end]}
    assert "pread64" in calls  # the control: strace did see the decoder at work
    assert calls <= {"pread64", "read", "lseek", "fstat", "newfstatat", "mmap", "munmap", "ioctl", "fcntl", "write"}, (
        calls
    )


def test_random_damage_is_decoded_or_refused(decoder: MediaDecoder) -> None:
    """A hundred files with seeded damage: samples or BadAudioError, nothing else, and no child too many."""
    dice = random.Random(20)
    hello = np.asarray(soundfile.read(HELLO, dtype="float32")[0][:24_000], dtype=np.float32)
    seeds = [
        encoded(hello, 16_000, kind, sub) for kind, sub in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"))
    ]
    for container, codec in (
        ("ogg", "libopus"),
        ("webm", "libopus"),
        ("mp3", "libmp3lame"),
        ("mp4", "aac"),
        ("adts", "aac"),
    ):
        seeds.append(muxed(hello, container, codec, 48_000))
    outcomes = {"decoded": 0, "refused": 0}
    for number in range(100):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(dice.choice((1, 4, 16, 64))):
            at = dice.randrange(min(len(data), dice.choice((64, 1_024, len(data)))))
            data[at] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        try:
            found = decoder.decode(bytes(data), max_duration_s=60.0)
        except BadAudioError as error:
            assert 0 < len(str(error)) <= 300
            outcomes["refused"] += 1
        else:
            assert np.isfinite(found.samples).all()
            assert float(np.abs(found.samples).max()) <= 1.0
            outcomes["decoded"] += 1
    assert min(outcomes.values()) > 10, outcomes
    assert decoder.decode(HELLO).duration_s > 2.9
