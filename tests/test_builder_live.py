"""`test health`, `ws`, `e2e`, `long`, `pod`, `quality` against a real server, and the rules behind them."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from builder.checks.checks import compare, expected_text
from builder.checks.listen import Arrival, Piece, sample, samples
from builder.checks.live import check_secret
from builder.checks.long import GAP_S, Gap, LongRun, coverage, drift_s, gaps, judge, repeated_speech
from builder.checks.pad_rule import MIN_WORDS, Measured, advise, best_pad
from builder.checks.targets import Target, choose_target
from builder.clock import SystemClock
from builder.errors import UsageError
from builder.runtime import Runtime, World
from tests.builder_harness import Cli
from tests.fakes.runpod.control_plane import ControlPlane
from tests.serving import ROOT, Server, running_server

SECRET = "canary-3f9a7c51d2-canary"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli({}, tmp_path, SystemClock())


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server with a secret."""
    with running_server(ready=True, WHISPER_AUTH_TOKEN=SECRET) as started:
        yield started


def at(server: Server) -> tuple[str, ...]:
    return ("--url", server.url, "--health-url", f"http://127.0.0.1:{server.health_port}")


@pytest.mark.parametrize(
    ("given", "ws_url", "health_url"),
    [
        ({"host": "box"}, "ws://box:9090", "http://box:9999"),
        ({"host": "::1"}, "ws://[::1]:9090", "http://[::1]:9999"),
        ({"url": "https://box:1/"}, "wss://box:1", "https://box:9999"),
        ({"url": "wss://p-9090.proxy.runpod.net"}, "wss://p-9090.proxy.runpod.net", "https://p-9999.proxy.runpod.net"),
        ({"url": "ws://box", "health_url": "http://other:5"}, "ws://box", "http://other:5"),
    ],
)
def test_addresses(given: dict[str, str], ws_url: str, health_url: str, tmp_path: Path) -> None:
    target = choose_target(
        Runtime(World({}, tmp_path)),
        None,
        url=given.get("url"),
        host=given.get("host"),
        health_url=given.get("health_url"),
    )
    assert (target.ws_url, target.health_url) == (ws_url, health_url)
    assert target.http_url == "http" + ws_url[2:]


# Health


def test_health_of_a_server_that_is_well(cli: Cli, server: Server) -> None:
    done = cli.run("test", "health", *at(server), "--json")
    assert done.code == 0 and done.document["ok"]
    assert [check["name"] for check in done.document["checks"]] == ["/health", "/ready", "/status"]
    assert all(check["status"] == 200 and 0 <= check["latency_s"] < 5 for check in done.document["checks"])


def test_health_of_nobody(cli: Cli) -> None:
    done = cli.run("test", "health", "--url", "ws://127.0.0.1:9", "--health-url", "http://127.0.0.1:9", "--json")
    assert done.code == 1 and not done.document["ok"]
    assert done.problem["code"] == "check_failed" and done.problem["error"].startswith("/health: ")
    assert "(and 2 more)" in done.problem["error"]


def test_health_where_something_else_answers(cli: Cli, server: Server) -> None:
    wrong = ("--url", server.url, "--health-url", f"http://127.0.0.1:{server.port}")
    done = cli.run("test", "health", *wrong)
    assert done.code == 1 and "FAILED" in done.out and "HTTP 404" in done.err


# The secret


def test_a_wrong_secret_is_told(cli: Cli, guarded: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("not-the-secret-at-all\n")
    done = cli.run("test", "e2e", *at(guarded), "--fast", "--token-file", str(tmp_path / "token"), "--json")
    assert done.code == 1 and "refuses the token" in done.problem["error"]
    assert "not-the-secret" not in done.out + done.err


def test_a_server_that_takes_everybody_is_found_out(server: Server, tmp_path: Path) -> None:
    run = Runtime(World({}, tmp_path), quiet=True)
    target = Target(server.url, server.url, None)
    assert [check.ok for check in check_secret(run, target)] == [True], "no secret is expected"
    checks = check_secret(run, replace(target, token=SECRET))
    assert [check.ok for check in checks] == [False, False]
    assert "set WHISPER_AUTH_TOKEN in the pod" in checks[0].detail


# A pod, through RunPod's proxy


@pytest.fixture
def deployed(cli: Cli, guarded: Server) -> Iterator[ControlPlane]:
    """`cli` has deployed a pod in which `guarded` runs."""
    with ControlPlane() as plane:
        gpu = {"id": "NVIDIA GeForce RTX 4090", "count": 1}
        body = {"name": "p", "image": "i", "gpu": gpu, "cloud": "SECURE", "ports": ["9090/http", "9999/http"]}
        made = plane.pods.create({**body, "env": {"BUILDER_ID": "b1"}})
        plane.proxy.register(made.id, 9090, guarded.port)
        plane.proxy.register(made.id, 9999, guarded.health_port)
        cli.environ.update(plane.environ(WHISPER_AUTH_TOKEN=SECRET))
        (cli.folder / ".env").write_text(f"RUNPOD_POD_ID={made.id}\n")
        yield plane


def test_pod_through_the_proxy(cli: Cli, deployed: ControlPlane, guarded: Server) -> None:
    deployed.clock.advance(60)
    done = cli.run("test", "pod", "--fast", "--json")
    assert done.code == 0, done.err
    speech = done.document["checks"][4]
    assert speech["text"] == "Hello, my name is Anna." and 0 < speech["first_text_s"] < 6
    names = ["state", "/health", "/ready", "/status", "speech", "without the secret", "with a wrong secret"]
    assert [check["name"] for check in done.document["checks"]] == [*names, "transcript", "word error rate"]
    assert done.document["address"].endswith("/9090") and done.document["pod_id"]
    assert not deployed.mutations()
    deployed.assert_no_secret(SECRET)
    assert SECRET not in done.out + done.err
    status = json.loads(guarded.get("/status")[1])
    assert status["self_stop"]["idle_s"] < 5, "the streams count as activity"


def test_ws_refused_by_a_proxy_that_finds_nobody(cli: Cli, deployed: ControlPlane) -> None:
    done = cli.run("test", "ws", "--json")
    assert done.code == 1 and "HTTP 502" in done.problem["error"] and SECRET not in done.out + done.err


def test_pod_that_does_not_run_yet(cli: Cli, deployed: ControlPlane) -> None:
    done = cli.run("test", "pod", "--json")
    assert done.code == 1 and done.problem["error"].startswith("state: PROVISIONING")
    assert "builder logs" in done.problem["hint"]


def test_quality_of_a_pod_asks_before_it_restarts(cli: Cli, deployed: ControlPlane) -> None:
    deployed.clock.advance(60)
    done = cli.run("test", "quality", "--pads", "30,10")
    assert done.code == 2 and "up to 3 times" in done.err
    assert not deployed.mutations()


@dataclass
class Ears:
    """A server over plain HTTP that notes which paths were asked with a secret, by name of host."""

    heard: list[tuple[str, str]] = field(default_factory=list)

    def serve(self) -> ThreadingHTTPServer:
        ears = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ears.heard.append((urlsplit(self.path).path, self.headers.get("Authorization", "")))
                body = b'{"status": "healthy"}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    @property
    def shown_to(self) -> list[str]:
        """Paths that saw the secret."""
        return [path for path, authorization in self.heard if authorization == f"Bearer {SECRET}"]


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    """Everything that leaves this machine over plain HTTP arrives here."""
    made = Ears()
    server = made.serve()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield made
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "where",
    [
        ("--host", "pods.example"),
        ("--url", "ws://pods.example:9090"),
        ("--url", "wss://pods.example", "--health-url", "http://pods.example:9999"),
    ],
)
def test_no_secret_leaves_this_machine_in_clear_unless_it_is_named(
    cli: Cli, ears: Ears, where: tuple[str, ...], tmp_path: Path
) -> None:
    cli.environ["WHISPER_AUTH_TOKEN"] = SECRET
    done = cli.run("test", "health", *where)
    assert len(ears.heard) == 3 and ears.shown_to == []
    assert "no secret is sent" in done.err and "--token-file" in done.err
    (tmp_path / "token").write_text(SECRET)
    named = cli.run("test", "health", *where, "--token-file", str(tmp_path / "token"))
    assert ears.shown_to == ["/status"], "what answers everybody needs no secret"
    assert "no secret is sent" not in named.err


def test_the_secret_goes_to_a_pod_that_has_it_or_is_ours(cli: Cli, deployed: ControlPlane, tmp_path: Path) -> None:
    (pod,) = deployed.pods.list()

    def token() -> str | None:
        world = World(cli.environ, tmp_path, clock=SystemClock(), stdout=io.StringIO(), stderr=io.StringIO())
        return choose_target(Runtime(world), pod.id).token

    assert token() == SECRET, "ours"
    pod.env.clear()
    assert token() is None, "somebody else's"
    done = cli.run("test", "health", pod.id)
    assert "no secret is sent to pod" in done.err and "not made by the builder" in done.err
    pod.env["WHISPER_AUTH_TOKEN"] = "its-own-secret-0123456789"
    assert token() == "its-own-secret-0123456789"
    deployed.faults.expire_key()
    assert token() is None, "nobody says whose it is"
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "pod.json").write_text(json.dumps({"pod_id": pod.id}))
    assert token() == SECRET, "deployed from here"


@pytest.mark.parametrize("ports", [{"ws_port": "", "health_port": "x"}, {"ws_port": [1], "health_port": 10**9}])
def test_ports_that_are_none_are_those_of_the_settings(
    cli: Cli, deployed: ControlPlane, ports: dict[str, object], tmp_path: Path
) -> None:
    (pod,) = deployed.pods.list()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "pod.json").write_text(json.dumps({"pod_id": pod.id, **ports}))
    target = choose_target(Runtime(World(cli.environ, tmp_path)), None)
    assert target.ws_url.endswith("/9090") and target.health_url.endswith("/9999")


# Words


def test_e2e_counts_words_and_writes_a_report(cli: Cli, server: Server, tmp_path: Path) -> None:
    done = cli.run("test", "e2e", *at(server), "--fast", "--report", str(tmp_path / "out"), "--json")
    assert done.code == 0, done.err
    transcript, words = done.document["checks"]
    assert words["name"] == "word error rate" and words["wer"] <= 0.15
    assert json.loads((tmp_path / "out/e2e.json").read_text()) == done.document
    assert (tmp_path / "out/e2e.txt").read_text().strip() == transcript["text"]


def test_e2e_fails_on_other_words(cli: Cli, server: Server, tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("Something else was said here.")
    hello = str(sample("hello_en.wav")[0])
    said = str(tmp_path / "said.txt")
    done = cli.run("test", "e2e", *at(server), "--fast", "--audio", hello, "--expect", said, "--json")
    assert done.code == 1 and done.document["checks"][1]["wer"] > 0.15
    assert done.problem["error"].startswith("word error rate: ")


def test_pod_stops_at_what_is_wrong(cli: Cli) -> None:
    done = cli.run("test", "pod", "--url", "ws://127.0.0.1:9", "--health-url", "http://127.0.0.1:9", "--json")
    assert done.code == 1
    assert [check["name"] for check in done.document["checks"]] == ["/health", "/ready", "/status"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("e2e", "--audio", "absent.wav"), "no such file"),
        (("health", "abc", "--url", "ws://h:1"), "give one server"),
        (("health", "--url", "ftp://h"), "is no address"),
        (("health", "--url", "ws://h:1/?token=abcdefgh"), "must not hold a secret"),
        (("health", "--url", "ws://h:1", "--token-file", "absent"), "--token-file absent"),
        (("quality", "--pads", "30"), "--pads 30: legal"),
        (("quality", "--pads", "30,31"), "legal"),
    ],
)
def test_wrong_usage(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli.run("test", *words)
    assert (done.code, done.out) == (2, "") and said in done.err and "abcdefgh" not in done.err


def test_a_file_that_is_no_audio(cli: Cli, server: Server, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    assert cli.run("test", "long", *at(server), "--audio", "text.wav").code == 2


# Long


def test_long(cli: Cli, server: Server) -> None:
    done = cli.run("test", "long", *at(server), "--minutes", "0.2", "--speed", "30", "--json")
    assert done.code == 0, done.err
    assert done.document["coverage"] > 0.9 and done.document["reconnects"] == []
    assert done.document["audio_s"] == 12.0


def test_long_goes_on_where_the_server_ends_a_stream(cli: Cli) -> None:
    with running_server("--max-connection-time", "1") as server:
        done = cli.run("test", "long", *at(server), "--minutes", "0.3", "--speed", "14", "--json")
    assert done.code == 0, done.err
    assert done.document["reconnects"] and done.document["coverage"] > 0.8


def test_repeated_speech_is_as_long_as_asked(tmp_path: Path) -> None:
    repeated_speech(tmp_path / "speech.wav", 0.75)
    with wave.open(str(tmp_path / "speech.wav"), "rb") as reader:
        assert reader.getnframes() == 45 * 16_000


def test_gaps_and_coverage() -> None:
    pieces = (Piece(1.0, 9.0, "a"), Piece(9.0 + GAP_S, 20.0, "b"), Piece(31.0, 40.0, "c"))
    assert gaps(pieces, 47.0) == [Gap(20.0, 31.0), Gap(40.0, 47.0)]
    assert coverage(pieces, 47.0) == pytest.approx(1 - 18 / 47)
    assert coverage((), 10.0) == 0.0 and coverage((), 0.0) == 0.0


def test_drift() -> None:
    steady = [Arrival(end_s / 2 + 0.7, end_s) for end_s in range(2, 40, 2)]
    assert drift_s(steady, 2.0) == pytest.approx(0.0)
    falling = [Arrival(end_s, end_s) for end_s in range(2, 40, 2)]
    assert drift_s(falling, 2.0) == pytest.approx(15.0)
    assert drift_s(steady[:7], 2.0) is None


def test_judgement_of_a_long_run() -> None:
    pieces = tuple(Piece(at_s, at_s + 2.0, "word") for at_s in range(0, 100, 2))
    late = tuple(Arrival(float(end_s), float(end_s)) for end_s in range(2, 100, 2))
    checks, figures = judge(LongRun(100.0, 2.0, pieces, late), 0.8)
    assert [check.ok for check in checks] == [True, True, False] and figures["drift_s"] > 10
    checks, figures = judge(LongRun(200.0, 2.0, pieces, late, (50.0,), "it broke"), 0.8)
    assert [check.ok for check in checks] == [False, False, True]
    assert figures["gaps"] == [{"start_s": 100.0, "end_s": 200.0}] and figures["drift_s"] is None


# Quality


def test_quality_compares_both_paths(cli: Cli, server: Server) -> None:
    done = cli.run("test", "quality", *at(server), "--speed", "20", "--json")
    assert done.code == 0, done.err
    [measured] = done.document["measured"]
    assert measured["window_pad_s"] == 0.0 and measured["wer_live_vs_file"] <= 0.15
    assert done.document["setting"] is None and not done.document["is_sure"]
    assert done.document["texts"].keys() == {"file", "live"}


def test_quality_needs_a_pod_to_change_settings(cli: Cli, server: Server) -> None:
    done = cli.run("test", "quality", *at(server), "--pads", "30,10", "--yes")
    assert done.code == 3 and "this is no pod" in done.err


@pytest.mark.parametrize(
    ("measured", "pad_s"),
    [
        (Measured(30.0, 500, 0.02), None),
        (Measured(10.0, 500, 0.021), 30.0),
        (Measured(30.0, 500, 0.30), None),
        (Measured(None, 500, 0.30), None),
        # Against the true text, what the file path has wrong too is no fault of the live path.
        (Measured(10.0, 500, 0.30, live=0.11, file=0.10), None),
        (Measured(10.0, 500, 0.01, live=0.15, file=0.10), 30.0),
        # One word of twenty is chance.
        (Measured(10.0, 20, 0.05), None),
    ],
)
def test_advice(measured: Measured, pad_s: float | None) -> None:
    advice = advise(measured)
    assert advice.pad_s == pad_s and advice.is_sure == (measured.words >= MIN_WORDS)


def test_the_smallest_setting_that_costs_nothing() -> None:
    pads = [Measured(30.0, 500, 0.03), Measured(10.0, 500, 0.049), Measured(5.0, 500, 0.2)]
    assert best_pad(pads).pad_s == 10.0
    assert "30 s: +3.0%, 10 s: +4.9%, 5 s: +20.0%" in best_pad(pads).why
    assert best_pad([Measured(30.0, 500, 0.0), Measured(10.0, 500, 0.1)]).pad_s == 30.0


def test_what_is_shipped() -> None:
    assert all(path.is_file() and text for path, text in samples())
    assert sample()[0].is_relative_to(ROOT)


def test_texts_that_are_too_long_to_compare() -> None:
    with pytest.raises(UsageError, match="too many to compare"):
        compare("word " * 10_001, "word " * 10_001)


def test_expected_text_is_a_file_or_itself(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        expected_text(str(tmp_path / "said.txt"))
    for text in ("what was said", "long " * 1_000, "nul\0"):
        assert expected_text(text) == text
