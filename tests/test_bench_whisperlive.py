"""bench.whisperlive and bench.peer.launch, with stand-ins for the peer; with the peer itself if asked for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.peer import launch
from bench.servers import ADMITTED_CLIENTS, ServerUnderTest
from bench.whisperlive import (
    LAUNCHER,
    SAME_OUTPUT_THRESHOLDS,
    PeerEnvironment,
    PeerMissingError,
    WhisperLiveServer,
    peers,
)
from realtime.client.local_server import ServerFailedError

FAKE_LAUNCHER = Path(__file__).parent / "peers" / "fake_whisperlive.py"


@pytest.fixture
def fake(tmp_path: Path) -> PeerEnvironment:
    done = tmp_path / ".done"
    done.touch()
    return PeerEnvironment(Path(sys.executable), done, FAKE_LAUNCHER, warm_up_timeout_s=10)


def model(tmp_path: Path, behaviour: str) -> Path:
    path = tmp_path / behaviour
    path.mkdir()
    return path


def is_running(pid: int) -> bool:
    """False as well for a zombie, whose parent (init, here) is yet to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Whether it came true in time; processes need a moment to begin and to end."""
    deadline_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return condition()


def told_by(path: Path) -> dict[str, Any]:
    """What the stand-in was given."""
    told: dict[str, Any] = json.loads((path / "told").read_text())
    return told


def is_gone(path: Path) -> bool:
    """True once the child that the stand-in left is gone, and its working directory with it."""
    told = told_by(path)
    return until(lambda: not is_running(told["child"])) and not Path(told["cwd"]).exists()


def test_it_starts_warm_and_leaves_nothing_behind(fake: PeerEnvironment, tmp_path: Path) -> None:
    hearing = model(tmp_path, "hearing")
    server: ServerUnderTest = WhisperLiveServer(
        batch=True, same_output_threshold=2, threads=2, model=hearing, peer=fake
    )

    async def main() -> None:
        for _ in range(2):
            await server.start()
            (pid,) = server.pids
            assert server.url.startswith("ws://127.0.0.1:")
            assert is_running(pid) and is_running(told_by(hearing)["child"])
            await server.stop()
            assert not is_running(pid)
            assert is_gone(hearing)
            await server.stop()

    asyncio.run(main())
    told = told_by(hearing)
    limits = ["--max-clients", str(ADMITTED_CLIENTS), "--max-connection-s", "86400"]
    assert told["rest"] == [*limits, "--batch"], "its own admission unless told otherwise"
    assert told["threads"] == "2"
    assert server.options == {"same_output_threshold": 2}
    assert server.linger_s == 15
    assert isinstance(server, WhisperLiveServer)
    assert server.about == {
        "versions": {"whisper-live": "0.10.0"},
        "device": "cpu",
        "precision": "int8",
        "threads": 2,
        "batch": True,
        "admit_all": False,
        "same_output_threshold": 2,
    }


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("dying", r"(?s)ended with exit code 1\n.*no such model"),
        ("full", r"did not start: the server is full"),
        ("deaf", r"(?s)brought no text within 0.2 s\n.*PEER"),
    ],
)
def test_a_start_that_fails_is_explained_and_leaves_nothing_behind(
    behaviour: str, message: str, fake: PeerEnvironment, tmp_path: Path
) -> None:
    path = model(tmp_path, behaviour)
    environment = PeerEnvironment(fake.python, fake.done, fake.launcher, warm_up_timeout_s=0.2)
    server = WhisperLiveServer(model=path, peer=environment)
    with pytest.raises(ServerFailedError, match=message):
        asyncio.run(server.start())
    assert behaviour == "dying" or is_gone(path)


def test_a_start_that_is_cut_short_leaves_nothing_behind(fake: PeerEnvironment, tmp_path: Path) -> None:
    path = model(tmp_path, "deaf")
    server = WhisperLiveServer(model=path, peer=fake)

    async def main() -> None:
        starting = asyncio.create_task(server.start())
        assert await asyncio.to_thread(until, (path / "told").exists)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(main())
    assert is_gone(path)


def test_without_the_environment_the_error_names_what_makes_it(fake: PeerEnvironment, tmp_path: Path) -> None:
    unfinished = PeerEnvironment(fake.python, tmp_path / "never")
    absent = PeerEnvironment(tmp_path / "no-python", fake.done)
    for environment in (unfinished, absent):
        with pytest.raises(PeerMissingError, match=r"make \.venv-peer-server/\.done"):
            asyncio.run(WhisperLiveServer(peer=environment).start())
        with pytest.raises(PeerMissingError):
            peers(environment)


def test_peers_are_both_modes_with_all_thresholds(fake: PeerEnvironment) -> None:
    made = peers(fake)
    assert len({peer.name for peer in made}) == len(made) == 2 * len(SAME_OUTPUT_THRESHOLDS)
    assert {peer.options["same_output_threshold"] for peer in made} == {1, 2, 10}
    assert {peer.name.split(", ")[1] for peer in made} == {"lock", "batch"}


FAKE_PACKAGE = """
import json, threading, time
class TranscriptionServer:
    def run(self, host, **options):
        print(json.dumps({"host": host, **options}), flush=True)
        threading.Thread(target=time.sleep, args=(600,)).start()
        time.sleep(600)
"""


@pytest.fixture
def fake_package(tmp_path: Path) -> Path:
    """A `whisper_live` whose server says what it was given and then never returns."""
    package = tmp_path / "site" / "whisper_live"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "server.py").write_text(FAKE_PACKAGE)
    for name in launch.PACKAGES:
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    return package.parent


def launched(site: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """What the launcher says, what the server is given, and the exit code once standard input has ended."""
    fixed = ("--port", "9", "--model", "/m", "--max-clients", "7", "--max-connection-s", "8")
    with subprocess.Popen(
        [sys.executable, str(LAUNCHER), *fixed, *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        told, given = process.stdout.readline(), process.stdout.readline()
        assert process.poll() is None
        process.stdin.close()
        code = process.wait(20)
    assert told.startswith(launch.ABOUT)
    return json.loads(told.removeprefix(launch.ABOUT)), json.loads(given), code


def test_the_launcher_gives_the_package_what_was_asked_for_and_ends_with_its_input(fake_package: Path) -> None:
    plain = {
        "host": "127.0.0.1",
        "port": 9,
        "backend": "faster_whisper",
        "faster_whisper_custom_model_path": "/m",
        "single_model": True,
        "max_clients": 7,
        "max_connection_time": 8,
        "batch_enabled": False,
    }
    told, given, code = launched(fake_package)
    assert told["versions"] == dict.fromkeys(launch.PACKAGES, "1.2")
    assert given == plain, "nothing else: the rest is the package's own default"
    assert code == 0

    _, given, code = launched(
        fake_package, "--batch", "--batch-queue-wait-s", "9.5", "--batch-admissions-per-s", "1000"
    )
    lifted = {"batch_max_queue_wait_s": 9.5, "batch_max_admissions_per_s": 1000.0}
    assert given == {**plain, "batch_enabled": True, **lifted}
    assert code == 0


def test_the_launcher_takes_every_command_that_is_given(
    fake: PeerEnvironment, fake_package: Path, tmp_path: Path
) -> None:
    """The commands of WhisperLiveServer, as the real launcher understands them."""
    hearing = model(tmp_path, "hearing")
    server = WhisperLiveServer(batch=True, admit_all=True, model=hearing, peer=fake)

    async def main() -> None:
        await server.start()
        await server.stop()

    asyncio.run(main())
    rest = told_by(hearing)["rest"]
    args = launch._parser().parse_args(["--port", "1", "--model", "m", *rest])
    assert args.batch and args.batch_queue_wait_s >= 3600 and args.batch_admissions_per_s == ADMITTED_CLIENTS


@pytest.mark.peer
@pytest.mark.skipif(not os.environ.get("RUN_PEER_SERVER"), reason="takes 10 s: set RUN_PEER_SERVER=1")
@pytest.mark.parametrize("batch", [False, True])
def test_the_peer_itself_starts_warm(batch: bool) -> None:
    server = WhisperLiveServer(batch=batch)

    async def main() -> None:
        await server.start()
        (pid,) = server.pids
        await server.stop()
        assert not is_running(pid)

    asyncio.run(main())
    assert isinstance(server.about["versions"], dict)
    assert server.about["versions"]["whisper-live"] == "0.10.0"
    assert server.about["precision"] in ("int8", "float16", "float32")
