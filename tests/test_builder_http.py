"""Manners on the wire: retries and waits, what is certainly not sent, what may have happened, where the key goes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from builder.api.http import Http, get_once, post_file
from builder.api.retries import ATTEMPTS
from builder.errors import (
    AmbiguousError,
    AuthError,
    BadAnswerError,
    BadRequestError,
    BuilderError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
    UsageError,
)
from builder.redact import Redactor
from tests.builder_scripted import KEY, Step, Wire, free_port, scripted
from tests.fakes.runpod.clock import PlaneClock

OK = Step(200, {"ok": True})
PROBLEM = {"title": "T", "status": 503, "detail": "not now"}


def get(wire: Wire, **options: Any) -> Any:
    return wire.http().request("GET", "/pods", retry="any", what="list pods", **options).json


def post(wire: Wire, retry: Any = "limits") -> Any:
    return wire.http().request("POST", "/pods", body={"name": "n"}, retry=retry, what="create pod").json


def test_the_request_is_complete_and_the_key_is_in_one_header() -> None:
    with scripted(OK) as wire:
        assert post(wire) == {"ok": True}
        (asked,) = wire.script.asked
    assert asked.headers.pop("authorization") == f"Bearer {KEY}"
    assert asked.json == {"name": "n"}
    assert asked.headers["content-type"] == "application/json"
    assert "builder" in asked.headers["user-agent"]
    assert KEY not in asked.path + str(asked.headers)


def test_reads_are_repeated_on_faults_that_pass_and_each_wait_is_told() -> None:
    steps = [Step(503, PROBLEM), Step(cut="reset"), Step(cut="close"), Step(cut="short", body={"ok": 1}), OK]
    with scripted(*steps) as wire:
        assert get(wire) == {"ok": True}
        # Half of the longest waits 0.5, 1, 2 and 4 s.
        assert wire.clock.monotonic_s() == pytest.approx(0.25 + 0.5 + 1 + 2)
    assert wire.notes[0] == "list pods: not now; trying again in 0.2 s"
    assert len(wire.notes) == 4


def test_tries_are_counted() -> None:
    with scripted(*[Step(503, PROBLEM, {"x-request-id": "req-9"})] * 9) as wire:
        with pytest.raises(ServerFaultError, match=r"list pods: not now \(tried 5 times\)") as caught:
            get(wire)
        assert len(wire.script.asked) == 5
    assert (caught.value.status, caught.value.request_id) == (503, "req-9")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_refusals_are_final(status: int) -> None:
    with scripted(Step(status, {"detail": "no"})) as wire:
        with pytest.raises(BuilderError):
            get(wire)
        assert len(wire.script.asked) == 1
    assert wire.notes == []


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "12"}, 12),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30),
        ({"RateLimit": '"minute";r=0;t=17, "hour";r=99;t=1800'}, 17),
        ({"Retry-After": "junk", "RateLimit": "junk"}, 0.25),
        ({}, 0.25),
    ],
)
def test_a_limit_is_waited_out_also_for_a_create(headers: dict[str, str], wait_s: float) -> None:
    with scripted(Step(429, {"detail": "slow down"}, headers), OK) as wire:
        assert post(wire) == {"ok": True}
    assert wire.clock.monotonic_s() == pytest.approx(wait_s)


def test_who_asks_for_too_much_patience_gets_none() -> None:
    with (
        scripted(Step(429, {"detail": "slow down"}, {"Retry-After": "61"})) as wire,
        pytest.raises(RateLimitedError, match="asks to wait 61 s"),
    ):
        get(wire)
    assert wire.clock.monotonic_s() == 0


# Sent or not


def test_a_refused_connection_is_certainly_no_create() -> None:
    wire = Wire(None)  # type: ignore[arg-type]
    http = wire.http(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NetworkError, match="create pod: no connection") as caught:
        http.request("POST", "/pods", body={}, retry="limits", what="create pod")
    assert not isinstance(caught.value, AmbiguousError)
    assert wire.notes == []


def test_an_action_is_repeated_only_while_nothing_can_have_arrived() -> None:
    wire = Wire(None)  # type: ignore[arg-type]
    http = wire.http(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NetworkError, match="tried 5 times"):
        http.request("POST", "/pods/p/action", body={}, retry="unsent")
    with scripted(Step(cut="close"), OK) as wire:
        with pytest.raises(AmbiguousError):
            post(wire, "unsent")
        assert len(wire.script.asked) == 1


@pytest.mark.parametrize(
    "step",
    [
        Step(cut="close"),
        Step(cut="reset"),
        Step(201, {"id": "p"}, cut="short"),
        Step(201, "<html>created</html>"),
        Step(201, '{"id": NaN}'),
        Step(201, "[" * 100_000),
    ],
    ids=["closed", "reset", "broken off", "html", "nan", "deep"],
)
def test_a_create_without_a_readable_answer_may_have_happened(step: Step) -> None:
    with scripted(step, OK) as wire:
        with pytest.raises(AmbiguousError, match="create pod"):
            post(wire)
        assert len(wire.script.asked) == 1


def test_a_create_that_times_out_may_have_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.api.http.READ_S", 0.05)
    with (
        scripted(Step(201, {}, before=lambda: time.sleep(0.3))) as wire,
        pytest.raises(AmbiguousError, match="in time"),
    ):
        post(wire)


def test_a_create_refused_with_a_fault_is_not_repeated() -> None:
    with scripted(Step(503, PROBLEM), OK) as wire:
        with pytest.raises(ServerFaultError):
            post(wire)
        assert len(wire.script.asked) == 1


def test_a_read_that_is_not_json_is_a_bad_answer_if_it_stays_so() -> None:
    page = Step(200, "<html>hello")
    with scripted(page, OK) as wire:
        assert get(wire) == {"ok": True}
    with scripted(*[page] * ATTEMPTS) as wire:
        with pytest.raises(BadAnswerError, match="not JSON: <html>hello"):
            get(wire)
        assert len(wire.script.asked) == ATTEMPTS


def test_an_empty_answer_is_none() -> None:
    with scripted(Step(204)) as wire:
        assert wire.http().request("DELETE", "/pods/p", retry="any").json is None


def test_answers_have_a_largest_size_and_a_longest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.api.http.MAX_ANSWER_BYTES", 1000)
    with scripted(Step(200, "x" * 5000)) as wire, pytest.raises(BadAnswerError, match="larger than"):
        get(wire)
    monkeypatch.setattr("builder.api.http.ANSWER_S", 0.2)
    with trickle() as address, pytest.raises(NetworkError, match="no answer in time"):
        client = Http(address, key="k" * 20, clock=PlaneClock(), redactor=Redactor(), note=lambda text: None)
        client.request("GET", "/", retry="unsent")
    with trickle() as address, pytest.raises(NetworkError, match="no answer in time"):
        get_once(address, timeout_s=0.2)


@contextmanager
def trickle() -> Iterator[str]:
    """A server whose header never ends: a byte now and then, so that no single read takes long."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                        for _ in range(40):
                            connection.sendall(b"x")
                            time.sleep(0.02)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_redirect_to_no_address_is_no_traceback() -> None:
    with scripted(Step(302, headers={"Location": "http://[odd"})) as wire, pytest.raises(BuilderError):
        wire.http().request("GET", "/", retry="unsent")


# The key


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with scripted(OK) as other, scripted(Step(status, "", {"Location": f"{other.script.url}/?token={KEY}"})) as wire:
        with pytest.raises(BadAnswerError, match=r"redirect to 127\.0\.0\.1"):
            get(wire)
        assert other.script.asked == []


def test_netrc_and_proxies_of_the_environment_do_not_touch_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login thief password loot\ndefault login x password y\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with scripted(OK) as proxy, scripted(OK, OK) as wire:
        monkeypatch.setenv("HTTP_PROXY", proxy.script.url)
        monkeypatch.setenv("http_proxy", proxy.script.url)
        get(wire)
        get_once(wire.script.url, timeout_s=5)
        assert proxy.script.asked == []
        first, second = wire.script.asked
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in second.headers


def test_netrc_is_not_asked_where_proxies_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also for addresses that are not loopback, where the environment's proxies count."""
    (tmp_path / "netrc").write_text("default login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with scripted(OK) as proxy:
        monkeypatch.setenv("http_proxy", proxy.script.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert get_once("http://pod.invalid/health", timeout_s=5).status == 200
        (asked,) = proxy.script.asked
    assert asked.path == "http://pod.invalid/health"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "base", ["http://api.runpod.io/v2", "ftp://x", "api.runpod.io", "https://u:p@x/v2", "https://x/?k=1", "http://[::1"]
)
def test_a_key_is_never_handed_to_an_unsafe_address(base: str) -> None:
    with pytest.raises(UsageError, match="a key goes to https"):
        Wire(None).http(base)  # type: ignore[arg-type]


LEAKS = {
    "unauthorized": [Step(401, {"detail": f"bad key {KEY}"})],
    "rejected": [Step(422, {"detail": "x", "errors": [f"$.env: {KEY}"]})],
    "page": [Step(502, f"<title>Bearer {KEY}</title>")] * 5,
    "limited": [Step(429, {"detail": KEY}, {"Retry-After": "1"})] * 5,
    "not json": [Step(200, f"key={KEY}")],
    "redirect": [Step(302, "", {"Location": f"http://x/?k={KEY}"})],
    "reset": [Step(cut="reset")] * 5,
    "closed": [Step(cut="close")] * 5,
    "short": [Step(200, KEY, cut="short")] * 5,
    "unreachable": [],
}


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("retry", ["any", "limits"])
def test_no_failure_tells_the_key(name: str, retry: Any) -> None:
    with scripted(*LEAKS[name]) as wire:
        base = None if LEAKS[name] else f"http://127.0.0.1:{free_port()}"
        with pytest.raises(BuilderError) as caught:
            wire.http(base).request("POST", "/pods", body={}, retry=retry)
    told = f"{caught.value} {caught.value!r} {caught.value.hint} {vars(caught.value)} {wire.notes}"
    assert KEY not in told
    assert caught.value.__suppress_context__ or caught.value.__cause__ is None


def test_a_secret_in_a_body_is_hidden_once_announced() -> None:
    with scripted(Step(422, {"detail": "password 'hunter2hunter2' is weak"})) as wire:
        http = wire.http()
        http.hide("hunter2hunter2")
        with pytest.raises(BadRequestError, match=r"password '\[hidden\]' is weak"):
            http.request("POST", "/registries", body={}, retry="limits")


# Streams


def test_lines_come_as_they_are_sent() -> None:
    chunks = [b"data: a\n", b"\nda", b"ta: b\n\n"]
    with scripted(Step(chunks=chunks)) as wire:
        found = list(wire.http().stream_lines("/logs", {"tail": 2}, {"Last-Event-ID": "7"}, None))
        (asked,) = wire.script.asked
    assert found == ["data: a", "", "data: b", ""]
    assert asked.path == "/logs?tail=2"
    assert (asked.headers["last-event-id"], asked.headers["accept"]) == ("7", "text/event-stream")


def test_opening_a_stream_is_repeated_and_refusals_are_told() -> None:
    with scripted(Step(503, PROBLEM), Step(chunks=[b"data: a\n\n"])) as wire:
        assert next(wire.http().stream_lines("/logs", idle_s=1.0)) == "data: a"
    with scripted(Step(404, {"detail": "no pod"})) as wire, pytest.raises(NotFoundError, match="no pod"):
        next(wire.http().stream_lines("/logs"))


def test_a_stream_that_breaks_says_so() -> None:
    with scripted(Step(chunks=[b"data: a\n\n"], cut="short")) as wire:
        stream = wire.http().stream_lines("/logs", what="read the log")
        assert next(stream) == "data: a"
        with pytest.raises(NetworkError, match="read the log: the connection broke"):
            list(stream)


def test_a_stream_that_has_only_comments_to_tell_ends() -> None:
    def quiet() -> Iterator[bytes]:
        yield b"data: a\n\n"
        for _ in range(30):
            time.sleep(0.05)
            yield b": still here\n"

    with scripted(Step(chunks=quiet())) as wire:
        started_s = time.monotonic()
        found = list(wire.http().stream_lines("/logs", idle_s=0.2))
        assert time.monotonic() - started_s < 1
    assert found[:2] == ["data: a", ""]
    assert all(line.startswith(":") for line in found[2:])


def test_a_stream_that_is_silent_ends() -> None:
    def silent() -> Iterator[bytes]:
        yield b"data: a\n\n"
        time.sleep(0.5)

    with scripted(Step(chunks=silent())) as wire:
        started_s = time.monotonic()
        assert list(wire.http().stream_lines("/logs", idle_s=0.1)) == ["data: a", ""]
        assert time.monotonic() - started_s < 0.4


# Pods


def test_a_probe_tells_whatever_the_pod_says() -> None:
    with scripted(Step(200, {"status": "ok"}), Step(502, "<html>"), Step(302, "", {"Location": "/x"})) as wire:
        well = get_once(f"{wire.script.url}/health", timeout_s=5, headers={"Authorization": "Bearer token-of-pod"})
        assert (well.status, well.body) == (200, {"status": "ok"})
        assert 0 < well.latency_s < 5
        assert wire.script.asked[0].headers["authorization"] == "Bearer token-of-pod"
        bad = get_once(wire.script.url, timeout_s=5)
        assert (bad.status, bad.body, bad.text) == (502, None, "<html>")
        assert get_once(wire.script.url, timeout_s=5).status == 302


def test_a_probe_that_gets_no_answer_is_a_network_error() -> None:
    with pytest.raises(NetworkError, match="no connection"):
        get_once(f"http://127.0.0.1:{free_port()}/", timeout_s=5)
    with scripted(Step(200, {}, before=lambda: time.sleep(0.3))) as wire, pytest.raises(NetworkError, match="in time"):
        get_once(wire.script.url, timeout_s=0.05)


def test_files_are_uploaded(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"RIFFdata")
    with scripted(Step(200, {"text": "hi"})) as wire:
        answer = post_file(f"{wire.script.url}/v1", clip, {"model": "whisper-1"}, timeout_s=5)
        (asked,) = wire.script.asked
    assert answer.body == {"text": "hi"}
    assert asked.headers["content-type"].startswith("multipart/form-data")
    assert b"RIFFdata" in asked.body and b'name="model"' in asked.body and b'filename="clip.wav"' in asked.body
    with pytest.raises(NotFoundError, match=r"gone\.wav: No such file"):
        post_file("http://127.0.0.1:1/", tmp_path / "gone.wav", {}, timeout_s=1)


def test_a_refused_key_is_told_as_such() -> None:
    refusal = Step(401, {"title": "Unauthorized", "status": 401, "detail": "invalid token"})
    with scripted(refusal) as wire, pytest.raises(AuthError, match="list pods: invalid token"):
        get(wire)


@pytest.mark.parametrize(
    "step",
    [
        Step(400, {"detail": "y" * 485 + f" {KEY}"}),
        Step(200, {"errors": [{"message": "y" * 485 + f" {KEY}"}]}),
        Step(200, "z" * 60 + f" {KEY}"),
        Step(403, f"<title>{'z' * 100} {KEY}</title>"),
        Step(404, {"detail": "no"}, {"X-Request-Id": "r" * 85 + KEY}),
    ],
    ids=["detail", "graphql", "not json", "page", "request id"],
)
def test_secrets_are_taken_out_before_a_text_is_cut(step: Step) -> None:
    with scripted(step) as wire:
        try:
            told = wire.http().request("POST", "/pods", body={}, retry="limits").text
        except BuilderError as error:
            told = f"{error} {error.request_id}"
    assert KEY[:8] not in told
