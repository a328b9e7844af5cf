"""Health answers over real sockets: the seed project's shapes, who may see what, a GPU that hangs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from engine.clock import Clock
from engine.metrics import Metrics
from realtime.auth import Authenticator, Gate
from realtime.gpu import CACHE_S, GPU_KEYS, GpuProbe
from realtime.health import SHOWN_VARIABLES, Snapshot, health_app, ping_route
from realtime.peers import MAX_FAILURES
from tests.fakes.loopback import RawClient, listening, run

TOKEN = "CANARY-health-secret"
AFAR = "X-Forwarded-For: 203.0.113.9"


class HandClock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s


@dataclass
class Source:
    """A server whose state the test writes."""

    state: tuple[bool, str] = (True, "the model is loaded and has decoded")
    clock: Clock = field(default_factory=HandClock)
    metrics: Metrics = field(default_factory=Metrics)

    def readiness(self) -> tuple[bool, str]:
        return self.state

    def snapshot(self) -> Snapshot:
        return Snapshot(1_700_000_000.0, 12.9, 9090, {"sessions": {"active": 1, "max": 4}})

    def render_metrics(self) -> tuple[bytes, str]:
        return self.metrics.render()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


Ask = Callable[..., Awaitable[Answer]]


def asking(scenario: Callable[[Ask], Awaitable[None]], source: Source | None = None, trusted: bool = False) -> None:
    """Run a scenario against the health application, with a function that sends one request."""

    async def main() -> None:
        gate = Gate(Authenticator(TOKEN), clock=HandClock())
        async with listening(health_app(source or Source(), gate, trusted=trusted)) as server:

            async def ask(path: str, *headers: str, method: str = "GET") -> Answer:
                client = await RawClient.connect(server.port)
                lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
                await client.send("\r\n".join(lines).encode() + b"\r\n\r\n")
                status, found = await client.head()
                return Answer(status, found, await client.reader.read())

            await scenario(ask)

    run(main)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the nvidia-smi that the server will find; it counts its runs in a file."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(script: str) -> Path:
        runs = tmp_path / "runs"
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho run >> {runs}\n{script}\n")
        tool.chmod(0o755)
        return runs

    return write


def test_health_has_the_seeds_shape() -> None:
    async def scenario(ask: Ask) -> None:
        answer = await ask("/health", AFAR)
        assert answer.status == 200 and set(answer.json) == {"status", "timestamp"}
        assert answer.json["status"] == "healthy"
        assert datetime.fromisoformat(answer.json["timestamp"]).tzinfo is not None
        assert answer.headers["cache-control"] == "no-store"

    asking(scenario)


@pytest.mark.parametrize(
    ("state", "code", "word", "ping"),
    [
        ((True, "the model is loaded"), 200, "healthy", 200),
        ((False, "loading: the engine is not ready"), 503, "starting", 204),
        ((False, "restarting: the engine is not ready"), 503, "starting", 204),
        ((False, "full: all 4 places are taken"), 503, "healthy", 200),
        ((False, "draining: the server is shutting down"), 503, "draining", 503),
        ((False, "failed: the engine is down for good"), 503, "failed", 503),
        ((False, ""), 503, "failed", 503),
    ],
)
def test_ready_status_and_ping_tell_the_same_story(state: tuple[bool, str], code: int, word: str, ping: int) -> None:
    async def scenario(ask: Ask) -> None:
        ready = await ask("/ready", AFAR)
        assert ready.status == code
        assert ready.json["status"] == ("ready" if state[0] else "not_ready")
        assert (ready.json["reason"], ready.json["whisperlive_port"]) == (state[1], 9090)
        status = (await ask("/status", AFAR)).json
        assert status["status"] == word
        assert status["whisperlive"] == {"ready": word == "healthy", "port": 9090}
        assert (await ask("/ping", AFAR)).status == ping

    asking(scenario, Source(state))


def test_status_has_the_seeds_shape_and_more(
    nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi('echo "NVIDIA A40, 46068, 1234, 44834, 41, 7"; echo "NVIDIA A40, 1, 1, 1, 1, 1"')
    for name in SHOWN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WHISPER_MODEL", "small.en")
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("HF_TOKEN", "CANARY-hub")

    async def scenario(ask: Ask) -> None:
        answer = await ask("/status")
        assert answer.status == 200 and b"CANARY" not in answer.body
        assert answer.json["gpu"] == {
            "name": "NVIDIA A40",
            "memory_total_mb": 46068,
            "memory_used_mb": 1234,
            "memory_free_mb": 44834,
            "temperature_c": 41,
            "utilization_percent": 7,
        }
        assert answer.json["environment"] == {"WHISPER_MODEL": "small.en", "WHISPER_COMPUTE_TYPE": None}
        assert answer.json["uptime_seconds"] == 12
        assert answer.json["startup_time"] == "2023-11-14T22:13:20+00:00"
        assert answer.json["sessions"] == {"active": 1, "max": 4}

    asking(scenario, trusted=True)


BEARER = f"Authorization: Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("headers", "trusted", "shown"),
    [
        ((), False, False),
        ((), True, True),
        ((AFAR,), False, False),
        ((AFAR,), True, True),
        ((AFAR, BEARER), False, True),
        ((AFAR, "Authorization: Bearer wrong"), False, False),
    ],
)
def test_from_another_machine_details_need_the_secret(headers: tuple[str, ...], trusted: bool, shown: bool) -> None:
    async def scenario(ask: Ask) -> None:
        status = await ask("/status", *headers)
        assert status.status == 200
        basics = {"status", "uptime_seconds", "startup_time", "whisperlive", "timestamp"}
        assert basics <= set(status.json)
        assert (set(status.json) > basics) is shown
        metrics = await ask("/metrics", *headers)
        assert metrics.status == (200 if shown else 401)
        assert (b"stt_sessions" in metrics.body) is shown

    asking(scenario, trusted=trusted)


def test_the_secret_may_also_come_in_the_query() -> None:
    async def scenario(ask: Ask) -> None:
        answer = await ask(f"/metrics?token={TOKEN}", AFAR)
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")

    asking(scenario)


def test_guessing_at_metrics_is_limited() -> None:
    async def scenario(ask: Ask) -> None:
        statuses = [(await ask("/metrics?token=guess", AFAR)).status for _ in range(MAX_FAILURES + 1)]
        assert statuses == [401] * MAX_FAILURES + [429]
        refused = await ask("/metrics?token=guess", AFAR)
        assert refused.status == 429 and refused.headers["retry-after"] == "60"
        assert (await ask("/metrics", AFAR, BEARER)).status == 200
        assert (await ask("/metrics", AFAR)).headers["www-authenticate"] == "Bearer"
        assert (await ask("/health", AFAR)).status == 200

    asking(scenario)


@pytest.mark.parametrize("path", ["/health", "/ready", "/status", "/metrics", "/ping"])
def test_head_is_get_without_a_body_and_other_methods_are_405(path: str) -> None:
    async def scenario(ask: Ask) -> None:
        got, head = await ask(path), await ask(path, method="HEAD")
        assert (head.status, head.body) == (got.status, b"")
        assert (await ask(path, "Content-Length: 0", method="POST")).status == 405

    asking(scenario)


@pytest.mark.parametrize("path", ["/", "/health/", "/nope", "/../status", "/%00"])
def test_unknown_paths_are_404_in_the_seeds_words(path: str) -> None:
    async def scenario(ask: Ask) -> None:
        answer = await ask(path)
        assert (answer.status, answer.json) == (404, {"error": "Not found"})

    asking(scenario)


def test_ping_can_be_mounted_on_another_application() -> None:
    async def main() -> None:
        async with listening(Starlette(routes=[ping_route(Source())])) as server:
            client = await RawClient.connect(server.port)
            await client.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.response())[0] == 200

    run(main)


def read_twice(pause_s: float, timeout_s: float = 5.0) -> tuple[dict[str, Any], dict[str, Any]]:
    async def read() -> tuple[dict[str, Any], dict[str, Any]]:
        clock = HandClock()
        probe = GpuProbe(clock, timeout_s)
        first = await probe.read()
        clock.time_s += pause_s
        return first, await probe.read()

    return asyncio.run(read())


NOTHING = dict.fromkeys(GPU_KEYS)


def test_gpu_figures_are_cached(nvidia_smi: Callable[[str], Path]) -> None:
    runs = nvidia_smi('echo "Card, 1, 2, 3, 4, 5"')
    first, second = read_twice(CACHE_S - 0.01)
    assert first == second and first["memory_total_mb"] == 1
    assert runs.read_text().count("run") == 1
    read_twice(CACHE_S)
    assert runs.read_text().count("run") == 3


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('echo "Card, [N/A], 2, 3, [Not Supported], 5"', [None, 2, 3, None, 5]),
        ('echo "rubbish"', [None] * 5),
        ('echo "Card, 1, 2, 3, 4, 5"; exit 9', [None] * 5),
        ("echo 'driver failed' >&2; exit 1", [None] * 5),
        ("", [None] * 5),
    ],
)
def test_what_a_card_does_not_tell_is_null(
    nvidia_smi: Callable[[str], Path], script: str, expected: list[int | None]
) -> None:
    nvidia_smi(script)
    first, _second = read_twice(0.0)
    assert list(first.values())[1:] == expected


def test_without_nvidia_smi_all_figures_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_twice(0.0) == (NOTHING, NOTHING)


def test_a_hanging_nvidia_smi_is_given_up_and_killed(nvidia_smi: Callable[[str], Path]) -> None:
    nvidia_smi("exec sleep 60")
    started_s = time.monotonic()
    assert read_twice(0.0, timeout_s=0.3) == (NOTHING, NOTHING)
    assert time.monotonic() - started_s < 2.0


def test_callers_during_a_run_get_the_previous_figures_at_once(nvidia_smi: Callable[[str], Path]) -> None:
    runs = nvidia_smi('sleep 0.2; echo "Card, 1, 2, 3, 4, 5"')

    async def read() -> list[dict[str, Any]]:
        probe = GpuProbe(HandClock())
        return await asyncio.gather(*[probe.read() for _ in range(5)])

    found = asyncio.run(read())
    assert found[0]["name"] == "Card" and found[1:] == [NOTHING] * 4
    assert runs.read_text().count("run") == 1
