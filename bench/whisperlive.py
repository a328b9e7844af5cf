"""The peer of the side-by-side benchmark: the server of whisper-live, in an environment of its own.

Knows how to start it and how its defaults read; what runs there is `bench.peer.launch`. Fairness is the
invariant: the same model directory, its own defaults for everything that is not named here, no limit on
clients or time, and a warm-up that has brought text before the first measured stream. It has its own
process group, which is gone after `stop` or with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import tempfile
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.servers import ADMITTED_CLIENTS
from engine.errors import ClientError, SttError
from engine.models import DEMO_MODEL_DIR
from engine.types import FloatArray
from realtime.client.api import LiveClient
from realtime.client.local_server import ServerFailedError
from realtime.client.messages import ClientOptions, Update

__all__ = [
    "LINGER_S",
    "PEER_DIR",
    "SAME_OUTPUT_THRESHOLDS",
    "PeerEnvironment",
    "PeerMissingError",
    "WhisperLiveServer",
    "peers",
]

ROOT = Path(__file__).parent.parent
PEER_DIR = ROOT / ".venv-peer-server"
MAKE_TARGET = ".venv-peer-server/.done"
LAUNCHER = Path(__file__).parent / "peer" / "launch.py"
WARM_UP_AUDIO = DEMO_MODEL_DIR.parent / "samples" / "hello_en.wav"

LINGER_S = 15.0
"""Its own client's wait before END_OF_AUDIO, at which the server completes nothing more."""
SAME_OUTPUT_THRESHOLDS = (1, 2, 10)
"""A last segment is completed once it was repeated unchanged more often than this; 10 is the default."""
THREADS = 1
"""Default of its own command line, and with the demo model on two cores also the faster choice."""
MAX_CONNECTION_S = 86_400
START_TIMEOUT_S = 120.0
"""Loading torch takes seconds, from a cold disk up to a minute."""
WARM_UP_TIMEOUT_S = 60.0
KEPT_BYTES = 4_000
"""Of its log, for the error that tells why it did not start."""
PRECISION = re.compile(r"Using Device=(\S+) with precision (\S+)")


class PeerMissingError(ClientError):
    """The peer's environment is absent or incomplete."""

    code = "peer_missing"


@dataclass(frozen=True)
class PeerEnvironment:
    """Where the peer lives; other values than the defaults are for tests."""

    python: Path = PEER_DIR / "bin" / "python"
    done: Path = PEER_DIR / ".done"
    launcher: Path = LAUNCHER
    warm_up_timeout_s: float = WARM_UP_TIMEOUT_S

    def check(self) -> None:
        """Raises PeerMissingError if it is not installed; `done` is written last."""
        if not (self.done.is_file() and self.python.is_file()):
            raise PeerMissingError(f"the peer is not installed, or not completely: make {MAKE_TARGET}")


@dataclass
class _Running:
    process: asyncio.subprocess.Process
    port: int
    folder: tempfile.TemporaryDirectory[str]

    @property
    def log_path(self) -> Path:
        return Path(self.folder.name) / "log"

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")


class WhisperLiveServer:
    """whisper-live's TranscriptionServer with one shared model; a `bench.servers.ServerUnderTest`.

    `batch` False: clients take turns at the model (its default); True: its batch mode. Batch mode refuses
    new clients when the queue wait it has measured exceeds 0.5 s, and all beyond 5 per second; `admit_all`
    lifts both, so that the load alone decides. Raises from `start`: PeerMissingError, ServerFailedError.
    """

    def __init__(
        self,
        *,
        batch: bool = False,
        same_output_threshold: int = 10,
        admit_all: bool = False,
        threads: int = THREADS,
        model: Path = DEMO_MODEL_DIR,
        peer: PeerEnvironment | None = None,
    ) -> None:
        self.name = f"WhisperLive, {'batch' if batch else 'lock'}, same output {same_output_threshold}"
        self.health_url: str | None = None
        self.options: Mapping[str, object] = {"same_output_threshold": same_output_threshold}
        self.linger_s = LINGER_S
        self.about: Mapping[str, object] = {}
        self._batch = batch
        self._admit_all = admit_all
        self._threads = threads
        self._model = model.resolve()
        self._peer = peer or PeerEnvironment()
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self._started.port}"

    @property
    def pids(self) -> Sequence[int]:
        """Its one process."""
        return (self._started.process.pid,)

    async def start(self) -> None:
        """Start and warm up; `about` then tells versions, device, precision and settings."""
        assert self._running is None, "stop() first"
        self._peer.check()
        running = self._running = await self._launch()
        try:
            await self._until_warm(running)
        except BaseException:
            await self.stop()
            raise
        self.about = {**_told(running.log()), "threads": self._threads, "batch": self._batch, **self.options}
        if self._batch:
            self.about = {**self.about, "admit_all": self._admit_all}

    async def stop(self) -> None:
        """Kill its process group: it has nothing to end in good order."""
        running, self._running = self._running, None
        if running is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        await running.process.wait()
        running.folder.cleanup()

    async def _launch(self) -> _Running:
        port = _free_port()
        folder = tempfile.TemporaryDirectory(prefix="whisperlive-")
        try:
            with (Path(folder.name) / "log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *self._command(port),
                    cwd=folder.name,
                    env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
                    # It ends when this end is closed, however this process ends.
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException:
            folder.cleanup()
            raise
        return _Running(process, port, folder)

    def _command(self, port: int) -> list[str]:
        peer = self._peer
        # -I: neither PYTHONPATH nor a folder of ours must reach its imports.
        command = [str(peer.python), "-I", str(peer.launcher), "--port", str(port), "--model", str(self._model)]
        command += ["--max-clients", str(ADMITTED_CLIENTS), "--max-connection-s", str(MAX_CONNECTION_S)]
        if self._batch:
            command.append("--batch")
            if self._admit_all:
                command += ["--batch-queue-wait-s", str(MAX_CONNECTION_S)]
                command += ["--batch-admissions-per-s", str(ADMITTED_CLIENTS)]
        return command

    async def _until_warm(self, running: _Running) -> None:
        """Until it has answered a stream with text; raises as soon as it ends instead."""
        warm = asyncio.create_task(self._warm_up(running))
        ended = asyncio.create_task(running.process.wait())
        try:
            await asyncio.wait({warm, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ServerFailedError(f"the peer ended with exit code {ended.result()}\n{_tail(running)}")
            await warm
        except asyncio.TimeoutError:
            limit_s = self._peer.warm_up_timeout_s
            raise ServerFailedError(f"the peer brought no text within {limit_s:g} s\n{_tail(running)}") from None
        except ServerFailedError:
            raise
        except SttError as error:
            raise ServerFailedError(f"the peer did not start: {error}\n{_tail(running)}") from None
        finally:
            for task in (warm, ended):
                task.cancel()
            await asyncio.gather(warm, ended, return_exceptions=True)

    async def _warm_up(self, running: _Running) -> None:
        url = f"ws://127.0.0.1:{running.port}"
        options = ClientOptions(language="en")
        async with await LiveClient.connect(url, options, connect_budget_s=START_TIMEOUT_S) as live:
            await live.send_audio(_warm_up_samples())
            await asyncio.wait_for(_first_text(live), self._peer.warm_up_timeout_s)

    @property
    def _started(self) -> _Running:
        assert self._running is not None, "start() first"
        return self._running


def peers(peer: PeerEnvironment | None = None) -> tuple[WhisperLiveServer, ...]:
    """Both modes with all SAME_OUTPUT_THRESHOLDS. Raises PeerMissingError now rather than after an hour."""
    (peer or PeerEnvironment()).check()
    return tuple(
        WhisperLiveServer(batch=batch, same_output_threshold=threshold, admit_all=True, peer=peer)
        for batch in (False, True)
        for threshold in SAME_OUTPUT_THRESHOLDS
    )


async def _first_text(live: LiveClient) -> None:
    async for event in live:
        if isinstance(event, Update):
            return
    raise live.broken()


def _warm_up_samples() -> FloatArray:
    """A few seconds of speech, since its voice activity filter lets nothing else reach the model."""
    with wave.open(str(WARM_UP_AUDIO), "rb") as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    samples: FloatArray = pcm.astype(np.float32) / np.float32(32_768)
    return samples


def _told(log: str) -> dict[str, object]:
    """What the launcher and the server say of themselves."""
    lines = [line for line in log.splitlines() if line.startswith("PEER ")]
    about: dict[str, object] = json.loads(lines[0].removeprefix("PEER ")) if lines else {}
    found = PRECISION.search(log)
    return {**about, "device": found[1], "precision": found[2]} if found else about


def _tail(running: _Running) -> str:
    return running.log()[-KEPT_BYTES:].strip()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
