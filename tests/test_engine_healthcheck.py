"""engine/healthcheck.py: real servers, real processes, and the line and exit status that docker gets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.healthcheck import ask_health, check

ROOT = Path(__file__).resolve().parent.parent


class Health(BaseHTTPRequestHandler):
    """Answers /health with `status`."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep stderr clean."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def run(*arguments: str, **environ: str) -> tuple[int, str]:
    """The command as docker runs it: exit status and output."""
    kept = {"PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "engine.healthcheck", *arguments],
        cwd=ROOT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.parametrize("mode", ["", "pod", "lb"])
def test_a_server_that_answers_is_well(port: int, mode: str) -> None:
    assert run(HEALTH_CHECK_PORT=str(port), WHISPER_MODE=mode) == (0, f"healthy: port {port} answers\n")


def test_no_server_and_a_server_in_trouble_are_not(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = free_port()
    code, said = run(HEALTH_CHECK_PORT=str(gone))
    assert (code, said) == (1, f"unhealthy: port {gone} does not answer (Connection refused)\n")
    monkeypatch.setattr(Health, "status", 503)
    assert run(HEALTH_CHECK_PORT=str(port)) == (1, f"unhealthy: port {port} answers with status 503\n")


def test_a_server_that_hangs_is_given_up_in_time() -> None:
    """Also one that goes on sending a byte now and then."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer:
                for _ in range(40):
                    try:
                        peer.sendall(b"X")
                    except OSError:
                        return
                    time.sleep(0.25)

        threading.Thread(target=drip, daemon=True).start()
        begun_s = time.monotonic()
        assert run(HEALTH_CHECK_PORT=str(server.getsockname()[1])) == (1, "unhealthy: no answer in time\n")
        assert time.monotonic() - begun_s < 6


def test_the_port_of_the_command_line_counts(port: int, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for line in (f"--health-port\0{port}\0", f"--health-port={port}\0"):
        (tmp_path / "1/cmdline").write_text(f"python\0-m\0realtime\0{line}", encoding="utf-8")
        assert check({"HEALTH_CHECK_PORT": str(free_port())}, proc=tmp_path)[0]


def test_a_server_on_one_address_is_asked_there(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.2", 0), Health) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        environ = {"HEALTH_CHECK_PORT": str(server.server_address[1])}
        answers = [check({**environ, "WHISPERLIVE_HOST": host}, proc=tmp_path)[0] for host in ("127.0.0.2", "0.0.0.0")]
        (tmp_path / "1").mkdir()
        (tmp_path / "1/cmdline").write_text("python\0-m\0realtime\0--host\x00127.0.0.2\0", encoding="utf-8")
        answers.append(check({**environ, "WHISPERLIVE_HOST": "::"}, proc=tmp_path)[0])
        server.shutdown()
    assert answers == [True, False, True]


@pytest.mark.parametrize("port", ["0", "x", "70000"])
def test_a_port_that_cannot_be_asked(port: str) -> None:
    code, said = run(HEALTH_CHECK_PORT=port)
    assert code == 1
    assert said.startswith("HEALTH_CHECK_PORT") and "legal: 1 to 65535" in said


def test_the_worker_is_known_by_its_command_line() -> None:
    """Here it is a process with such a command line, and its parent, as with `docker run --init`."""
    worker = "import os, time; os.write(1, b'.'); time.sleep(60)  # -m"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], 'handler'])"
    direct = subprocess.Popen([sys.executable, "-c", worker, "handler"], stdout=subprocess.PIPE)
    above = subprocess.Popen([sys.executable, "-c", parent, worker], stdout=subprocess.PIPE, start_new_session=True)
    other = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE)
    started = (direct, above, other)
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.read(1)
        answers = [run("--pid", str(process.pid), WHISPER_MODE="serverless") for process in started]
    finally:
        os.killpg(above.pid, 9)
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    assert [code for code, _ in answers] == [0, 0, 1]
    assert "is not the worker" in answers[2][1]


def test_wrong_settings_and_wrong_usage() -> None:
    code, said = run(WHISPER_MODE="podd")
    assert (code, said.count("\n")) == (1, 1)
    assert "WHISPER_MODE" in said and "podd" in said
    assert run("--nonsense")[0] == 2
    assert "examples:" in run("--help")[1]


def test_the_limit_of_a_question(port: int) -> None:
    assert ask_health(port, 1.0) == (True, f"healthy: port {port} answers")
