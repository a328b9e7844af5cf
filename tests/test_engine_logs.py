"""Nothing secret in any line, no flood, no forged line; with canary secrets through every path."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.logs import (
    MAX_TEMPLATES,
    MAX_TEXT_CHARS,
    REPEAT_WINDOW_S,
    REPEATS,
    Redactor,
    RepeatLimiter,
    configure_logging,
)

ROOT = Path(__file__).resolve().parent.parent
SECRET = "CANARY/8f+3a=\\'quoted\" one"


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    saved = (root.handlers[:], root.level, sys.excepthook, sys.unraisablehook)
    yield
    root.handlers, root.level = saved[0], saved[1]
    sys.excepthook, sys.unraisablehook = saved[2], saved[3]
    logging.captureWarnings(False)


class HandClock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        repr(SECRET),
        repr(SECRET.encode()),
        json.dumps({"a": SECRET}),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("canary", "CANARY"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_a_known_secret_is_taken_out_in_every_usual_spelling(spelled: str) -> None:
    text = Redactor([SECRET]).redact(f"before {spelled} after")
    assert "CANARY" not in text and "Q0FOQVJZ" not in text
    assert text.startswith("before ") and text.endswith(" after")


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("GET /x?token=hunter2hunter2&a=b HTTP/1.1", "GET /x?token=***&a=b HTTP/1.1"),
        ("api_key=hunter2hunter2", "api_key=***"),
        ("WHISPER_AUTH_TOKEN='hunter2hunter2'", "WHISPER_AUTH_TOKEN='***'"),
        ('{"resume_token": "hunter2hunter2", "n": 1}', '{"resume_token": "***", "n": 1}'),
        ('{\\"token\\": \\"hunter2hunter2\\"}', '{\\"token\\": \\"***\\"}'),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("authorization: hunter2hunter2", "authorization: ***"),
        ("(b'authorization', b'Bearer hunter2hunter2')", "(b'authorization', b'Bearer ***')"),
        ("Sec-WebSocket-Protocol: bearer, hunter2hunter2", "Sec-WebSocket-Protocol: bearer, ***"),
        ("wss://host/t/hunter2hunter2/v1/listen", "wss://host/t/***/v1/listen"),
        ("path '/t/hunter2hunter2'", "path '/t/***'"),
    ],
)
def test_what_stands_where_secrets_stand_is_taken_out(text: str, rest: str) -> None:
    assert Redactor().redact(text) == rest


@pytest.mark.parametrize("text", ["max_new_tokens=224", "decoded 5 tokens: 3 s", "/tmp/t.wav", "a secret is required"])
def test_innocent_text_stays_as_it_is(text: str) -> None:
    assert Redactor(["hunter2hunter2"]).redact(text) == text


@given(st.text(max_size=200))
def test_redaction_is_total_and_stable(text: str) -> None:
    redactor = Redactor(["hunter2hunter2"])
    once = redactor.redact(text + "hunter2hunter2")
    assert "hunter2hunter2" not in once
    assert redactor.redact(once) == once


@pytest.mark.parametrize("unit", ["a", "token", "'", "token=", "bearer ", "/t/"])
def test_long_text_is_cut_and_costs_little(unit: str) -> None:
    started_s = time.perf_counter()
    text = Redactor(["hunter2hunter2"]).redact(unit * 1_000_000)
    assert len(text) <= MAX_TEXT_CHARS + 4
    assert time.perf_counter() - started_s < 1.0


def test_a_secret_across_the_cut_leaves_no_part_of_itself() -> None:
    for overhang in range(1, 14):
        text = Redactor(["hunter2hunter2"]).redact("." * (MAX_TEXT_CHARS - overhang) + "hunter2hunter2" + "." * 100)
        assert "hu" not in text and len(text) <= MAX_TEXT_CHARS + 4


def test_ten_lines_of_a_template_pass_and_the_eleventh_waits_for_the_next_window() -> None:
    limiter = RepeatLimiter()
    key = ("logger", "bad json from %s")
    passed = [limiter.admit(key, number * 0.1)[0] for number in range(25)]
    assert passed == [True] * REPEATS + [False] * 15
    assert limiter.admit(key, REPEAT_WINDOW_S - 0.001) == (False, [])
    assert limiter.admit(key, REPEAT_WINDOW_S) == (True, [(key, 16)])


def test_the_count_is_told_even_if_that_template_never_comes_again() -> None:
    limiter = RepeatLimiter(repeats=1)
    for _ in range(3):
        limiter.admit(("a", "flood"), 0.0)
    assert limiter.admit(("b", "other"), 61.0) == (True, [(("a", "flood"), 2)])


def test_templates_are_bounded_and_the_oldest_is_told_early() -> None:
    limiter = RepeatLimiter(repeats=1)
    limiter.admit(("x", "first"), 0.0)
    limiter.admit(("x", "first"), 0.0)
    told = [item for number in range(MAX_TEMPLATES) for item in limiter.admit(("x", str(number)), 0.1)[1]]
    assert told == [(("x", "first"), 1)]
    assert len(limiter) == MAX_TEMPLATES


def test_a_flood_becomes_ten_lines_and_one_that_counts_the_rest(
    restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = HandClock()
    configure_logging("text", "info", clock=clock)
    for number in range(1_000):
        logging.getLogger("x").warning("bad message %d", number)
    clock.time_s = 61.0
    logging.getLogger("y").info("something else")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == REPEATS + 2
    assert lines[REPEATS].endswith("WARNING x: suppressed 990 more like: bad message %d")


def raise_with(secret: str) -> None:
    try:
        raise KeyError(f"inner token={secret}")
    except KeyError as error:
        raise ValueError(f"outer {secret}") from error


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_path_through_a_log_call_shows_the_secret(
    restored: None, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure_logging(log_format, "debug", [SECRET])
    log = logging.getLogger("engine.test")
    log.info(f"in the message {SECRET}")
    log.info("in an argument %s %r", SECRET, SECRET)
    log.info("in a mapping %(a)s", {"a": SECRET})
    log.info("in an object %s", {"headers": [(b"authorization", b"Bearer CANARY-other")], "q": "token=CANARY-other"})
    log.info("arguments that do not fit %s %s", SECRET)
    log.error(ValueError(SECRET))
    try:
        raise_with(SECRET)
    except ValueError:
        log.exception("with a traceback")
        log.info("with a stack", stack_info=True)
    logging.getLogger("uvicorn.error").warning('"WebSocket /x?token=CANARY-third" [accepted]')
    logging.getLogger("third.party").warning("/t/CANARY-fourth/v1")
    output = capsys.readouterr().err
    assert "CANARY" not in output
    for expected in ("in the message ***", "outer ***", "inner token=***", "KeyError", "cannot be shown", "/t/***/v1"):
        assert expected in output, expected


def test_json_lines_have_the_keys_of_the_seed_project(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    logging.getLogger("realtime.server").info("two\nlines and ünïcode %s", "\x1b[31m")
    try:
        raise_with("x")
    except ValueError:
        logging.getLogger("realtime.server").exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert set(first) == {"timestamp", "level", "component", "message"}
    assert (first["level"], first["component"]) == ("INFO", "realtime.server")
    assert first["message"] == "two\nlines and ünïcode \x1b[31m"
    assert "Traceback" in second["exception"]


def test_a_message_cannot_forge_a_line_of_text(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text", "info")
    logging.getLogger("x").info("uid %s", "a\r\n12:00:00 INFO    x: forged \x1b[2J\u2028")
    output = capsys.readouterr().err
    assert len(output.splitlines()) == 1 and "\x1b" not in output and "\\r\\n" in output


def test_third_party_loggers_are_quiet_even_at_debug(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text", "debug")
    for name in ("uvicorn.access", "uvicorn.error", "websockets.server", "httpx", "asyncio"):
        logging.getLogger(name).info("chatter")
    logging.getLogger("engine").debug("ours")
    output = capsys.readouterr().err
    assert "chatter" not in output and "ours" in output


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_objects_that_cannot_be_shown_do_not_raise_into_the_caller(
    restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("text", "info")
    message: Any = Unprintable()
    logging.getLogger("x").info(message)
    logging.getLogger("x").info("argument %s", Unprintable())
    assert capsys.readouterr().err.count("cannot be shown") == 2


def outcome(script: str) -> str:
    head = "import logging, sys, threading, warnings, asyncio\nfrom engine.logs import configure_logging\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script)], capture_output=True, text=True, cwd=ROOT, timeout=20
    )
    return done.stdout + done.stderr


def test_exceptions_that_nobody_caught_and_warnings_are_redacted_too() -> None:
    output = outcome(
        """
        configure_logging("text", "info", ["CANARY-1234"])
        warnings.warn("warned CANARY-1234")

        def fail():
            raise ValueError("in a thread CANARY-1234")

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

        class Unraisable:
            def __del__(self):
                raise ValueError("in a finaliser CANARY-1234")

        Unraisable()

        async def task():
            raise ValueError("in a task CANARY-1234")

        async def main():
            lost = asyncio.ensure_future(task())
            await asyncio.sleep(0)
            del lost

        asyncio.run(main())
        import gc
        gc.collect()
        raise ValueError("at the top CANARY-1234")
        """
    )
    assert "CANARY" not in output
    for where in ("warned", "in a thread", "in a finaliser", "in a task", "at the top"):
        assert f"{where} ***" in output, output


def test_a_closed_standard_error_does_not_stop_the_service() -> None:
    output = outcome(
        """
        configure_logging("text", "info")
        import os
        os.close(2)
        for _ in range(3):
            logging.getLogger("x").error("nobody hears this")
        print("still here")
        """
    )
    assert output.strip() == "still here"
