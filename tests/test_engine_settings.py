"""The settings table: every row from every source, its bounds, its secrets and its documentation."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.settings import (
    MAX_TOKEN_CHARS,
    MIN_TOKEN_CHARS,
    Row,
    Settings,
    add_options,
    env_template,
    load_settings,
    rows,
    unknown_variables,
)

ROOT = Path(__file__).parent.parent
SECRET = "correct-horse-battery"

LEGAL: dict[str, tuple[str, Any]] = {
    "mode": ("lb", "lb"),
    "model": ("small.en", "small.en"),
    "compute_type": ("int8", "int8"),
    "device": ("cpu", "cpu"),
    "cpu_threads": ("3", 3),
    "window_pad_s": ("1.5", 1.5),
    "language": ("de", "de"),
    "host": ("::1", "::1"),
    "port": ("8000", 8000),
    "health_port": ("8001", 8001),
    "max_clients": ("7", 7),
    "max_connection_time_s": ("600", 600.0),
    "idle_timeout_s": ("30", 30.0),
    "idle_stop_min": ("30", 30.0),
    "deadline": ("2026-01-31T13:00:00+01:00", datetime(2026, 1, 31, 12, tzinfo=timezone.utc)),
    "max_backlog_s": ("20", 20.0),
    "feature_threads": ("2", 2),
    "engine_timeout_s": ("5", 5.0),
    "result_key": ("0", False),
    "token_file": ("TOKEN_FILE", "TOKEN_FILE"),
    "no_auth": ("1", True),
    "ssl_certfile": ("cert.pem", Path("cert.pem")),
    "ssl_keyfile": ("key.pem", Path("key.pem")),
    "max_upload_bytes": ("5000", 5_000),
    "max_audio_s": ("60", 60.0),
    "models": ("base,turbo=/models/turbo", "base,turbo=/models/turbo"),
    "max_loaded_models": ("2", 2),
    "concurrency": ("2", 2),
    "handler_stream": ("1", True),
    "strict_compat": ("1", True),
    "max_download_bytes": ("5000", 5_000),
    "download_timeout_s": ("20", 20.0),
    "allow_private_urls": ("1", True),
    "max_result_bytes": ("20000", 20_000),
    "bucket_endpoint_url": ("https://s3.example.org", "https://s3.example.org"),
    "bucket_name": ("transcripts", "transcripts"),
    "log_format": ("json", "json"),
    "log_level": ("debug", "debug"),
}
"""Row -> (text that is not the default, the value it means)."""

BOUNDS: dict[str, tuple[float, float, float, float]] = {
    "cpu_threads": (0, 256, -1, 257),
    "window_pad_s": (0, 30, -0.001, 30.001),
    "port": (0, 65_535, -1, 65_536),
    "health_port": (0, 65_535, -1, 65_536),
    "max_clients": (1, 10_000, 0, 10_001),
    "max_connection_time_s": (1, 604_800, 0.999, 604_800.001),
    "idle_timeout_s": (1, 86_400, 0.999, 86_400.001),
    "idle_stop_min": (0.05, 1_440, 0.0499, 1_440.001),
    "max_backlog_s": (1, 60, 0.999, 60.001),
    "feature_threads": (0, 64, -1, 65),
    "engine_timeout_s": (0.5, 600, 0.499, 600.001),
    "max_upload_bytes": (1_000, 10_737_418_240, 999, 10_737_418_241),
    "max_audio_s": (1, 86_400, 0.999, 86_400.001),
    "max_loaded_models": (1, 8, 0, 9),
    "concurrency": (1, 32, 0, 33),
    "max_download_bytes": (1_000, 10_737_418_240, 999, 10_737_418_241),
    "download_timeout_s": (1, 3_600, 0.999, 3_600.001),
    "max_result_bytes": (10_000, 20_000_000, 9_999, 20_000_001),
}
"""Row -> (least, greatest, just too small, just too great)."""

AUTO = ("max_clients", "feature_threads")
"""Rows for which `auto` is legal, too."""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting in the environment, no `.env` in the working directory."""
    for row in rows():
        for name in row.env:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RUNPOD_POD_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    yield


def row_named(name: str) -> Row:
    return next(row for row in rows() if row.name == name)


def from_options(*args: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return load_settings(vars(parser.parse_args(args)))


def token_file(folder: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_tests_know_every_row() -> None:
    secrets = {"auth_token", "bucket_access_key_id", "bucket_secret_access_key"}
    assert {row.name for row in rows() if row.is_secret} == secrets
    assert set(LEGAL) | secrets == {row.name for row in rows()}
    numbers = {row.name for row in rows() if isinstance(row.default, (int, float)) and not row.is_switch}
    assert set(BOUNDS) == numbers | {"max_connection_time_s", "window_pad_s", "idle_stop_min", *AUTO}
    assert set(AUTO) == {row.name for row in rows() if row.may_be_auto}


def legal(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[str, object]:
    """A legal text for a row and the value it stands for, with what the row needs beside it."""
    if name == "ssl_keyfile":
        monkeypatch.setenv("SSL_CERTFILE", "cert.pem")
    if name == "token_file":
        path = token_file(folder)
        return str(path), path
    return LEGAL[name]


@pytest.mark.parametrize("name", LEGAL)
def test_every_row_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, value = legal(name, monkeypatch, tmp_path)
    assert getattr(load_settings(), name) == row_named(name).default
    monkeypatch.setenv(row_named(name).env[0], text)
    assert getattr(load_settings(), name) == value != row_named(name).default


WITHOUT_OPTIONS = {row.name for row in rows() if not row.flags}
"""Secrets, and what belongs to the worker, which has no command line."""


def test_only_the_worker_and_secrets_have_no_options() -> None:
    for name in WITHOUT_OPTIONS:
        assert row_named(name).is_secret or row_named(name).help.startswith(("worker: ", "image: ")), name


@pytest.mark.parametrize("name", [name for name in LEGAL if name not in WITHOUT_OPTIONS])
def test_every_row_from_the_command_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, value = legal(name, monkeypatch, tmp_path)
    row = row_named(name)
    for flag in row.flags:
        settings = from_options(flag) if row.is_switch else from_options(flag, text)
        assert getattr(settings, name) == value


@pytest.mark.parametrize("name", LEGAL)
def test_every_row_from_a_dotenv_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, value = legal(name, monkeypatch, tmp_path)
    (tmp_path / ".env").write_text(f"{row_named(name).env[0]}={text}\nUNRELATED=1\n", encoding="utf-8")
    assert getattr(load_settings(), name) == value
    assert getattr(load_settings(env_file=None), name) == row_named(name).default


def test_the_secret_has_no_option() -> None:
    assert row_named("auth_token").flags == ()
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert "WHISPER_AUTH_TOKEN)" not in parser.format_help()


def test_help_names_variable_and_range() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = " ".join(parser.format_help().split())
    assert "more get WAIT [auto or 1 to 10000] (MAX_CLIENTS)" in text
    assert "seconds without any bytes that end a stream [1 to 86400] (IDLE_TIMEOUT_S)" in text


def test_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings().max_clients is None
    (tmp_path / ".env").write_text("MAX_CLIENTS=5\nWHISPERLIVE_PORT=5\n", encoding="utf-8")
    assert load_settings().max_clients == 5
    monkeypatch.setenv("MAX_CLIENTS", "6")
    assert load_settings().max_clients == 6
    assert from_options("--max-clients", "7").max_clients == 7
    assert load_settings().port == 5


def test_empty_variables_are_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for row in rows():
        monkeypatch.setenv(row.env[0], "")
    assert load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]
    (tmp_path / ".env").write_text("MAX_CLIENTS=5\n", encoding="utf-8")
    assert load_settings().max_clients == 5


def plain(number: float) -> str:
    return f"{number:.15g}"


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_named(name)
    least, greatest, too_small, too_great = BOUNDS[name]
    for value in (least, greatest):
        monkeypatch.setenv(row.env[0], plain(value))
        assert getattr(load_settings(), name) == value
    for wrong in (str(too_small), str(too_great), "nan", "inf", "many"):
        monkeypatch.setenv(row.env[0], wrong)
        with pytest.raises(ConfigError) as caught:
            load_settings()
        legal = f"{'auto or ' if name in AUTO else ''}{plain(least)} to {plain(greatest)}"
        assert str(caught.value) == f"{row.env[0]}: {wrong!r} is not allowed; legal: {legal}"


@pytest.mark.parametrize("name", AUTO)
def test_auto_takes_back_a_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_named(name)
    assert row.default_text == "auto"
    monkeypatch.setenv(row.env[0], "1")
    assert getattr(load_settings(), name) == 1
    for text in ("auto", "AUTO", " Auto "):
        assert getattr(from_options(row.flags[0], text), name) is None
    monkeypatch.setenv(row.env[0], "automatic")
    with pytest.raises(ConfigError, match="'automatic' is not allowed; legal: auto or"):
        load_settings()


def test_defaults_as_people_write_them() -> None:
    texts = {row.name: row.default_text for row in rows()}
    shown = ("model", "max_clients", "result_key", "no_auth", "engine_timeout_s", "port", "log_level")
    assert [texts[name] for name in shown] == ["", "auto", "1", "0", "30", "9090", "info"]


@pytest.mark.parametrize(
    ("variable", "wrong", "legal"),
    [
        ("WHISPER_DEVICE", "tpu", "auto, cpu, cuda"),
        ("LOG_FORMAT", "xml", "text, json"),
        ("LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("RESULT_KEY", "perhaps", "1 or 0"),
        ("WHISPER_NO_AUTH", "2", "1 or 0"),
        ("POD_DEADLINE", "tomorrow", "a time with its zone, as 2026-01-31T12:00:00Z"),
        ("POD_DEADLINE", "1800000000", "a time with its zone, as 2026-01-31T12:00:00Z"),
        ("POD_DEADLINE", "2026-01-31T12:00:00", "a time with its zone, as 2026-01-31T12:00:00Z"),
        ("WHISPER_LANGUAGE", "english", "string should match pattern '^[a-z]{2,3}$'"),
        ("WHISPER_MODEL", "m" * 513, "string should have at most 512 characters"),
    ],
)
def test_illegal_choices(variable: str, wrong: str, legal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert str(caught.value) == f"{variable}: {wrong!r} is not allowed; legal: {legal}"


def test_the_longest_model_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_MODEL", "m" * 512)
    assert load_settings().model == "m" * 512


def test_choices_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    # Deployments of the seed project say LOG_LEVEL=INFO.
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    monkeypatch.setenv("WHISPER_COMPUTE_TYPE", " Float16 ")
    assert (load_settings().log_level, load_settings().compute_type) == ("warning", "float16")


def test_an_illegal_option_is_named_as_it_was_given() -> None:
    with pytest.raises(ConfigError, match=r"^--max-clients: '0' is not allowed; legal: auto or 1 to 10000$"):
        from_options("--max_clients", "0")


def test_all_mistakes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CLIENTS", "0")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(ConfigError, match=r"^MAX_CLIENTS: .*; LOG_FORMAT: .*$"):
        load_settings()


@pytest.mark.parametrize("length", [MIN_TOKEN_CHARS, MAX_TOKEN_CHARS])
def test_token_lengths(length: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", "s" * length)
    token = load_settings().auth_token
    assert token is not None
    assert token.get_secret_value() == "s" * length
    monkeypatch.delenv("WHISPER_AUTH_TOKEN")
    token = from_options("--token-file", str(token_file(tmp_path, "t" * length))).auth_token
    assert token is not None
    assert token.get_secret_value() == "t" * length


WRONG_TOKENS = [
    "geheim7geheim15",
    "g" * 513,
    "geheim\tgeheimgeheim",
    "gehéimgeheimgeheim",
    "geheim\x00geheimgeheim",
    " geheim ",
]


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
def test_illegal_secrets_are_never_shown(wrong: str, tmp_path: Path) -> None:
    """Neither from the environment (through `.env`, which can hold what an environment cannot) nor from a file."""
    (tmp_path / ".env").write_text(f'WHISPER_AUTH_TOKEN="{wrong}"\nMAX_CLIENTS=5\n', encoding="utf-8")
    path = token_file(tmp_path, wrong + "\n")
    for args in ((), ("--token-file", str(path))):
        with pytest.raises(ConfigError) as caught:
            from_options(*args)
        message = f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r}"
        assert "g" * 100 not in message
        assert "eheim" not in message
        assert "16 to 512 printable ASCII characters" in message
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_secret_is_not_shown_beside_another_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", SECRET)
    monkeypatch.setenv("MAX_CLIENTS", "0")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert SECRET not in f"{caught.value}"
    monkeypatch.setenv("MAX_CLIENTS", "1")
    assert SECRET not in f"{load_settings()} {load_settings()!r}"


def test_the_token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", "other-secret")
    path = token_file(tmp_path, f"  {SECRET}  \nsecond line\n")
    token = from_options("--token-file", str(path)).auth_token
    assert token is not None
    assert token.get_secret_value() == SECRET


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o644])
def test_legal_modes_of_a_token_file(mode: int, tmp_path: Path) -> None:
    assert from_options("--token-file", str(token_file(tmp_path, mode=mode))).auth_token is not None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_token_file_that_others_can_write(mode: int, tmp_path: Path) -> None:
    path = token_file(tmp_path, mode=mode)
    with pytest.raises(ConfigError) as caught:
        from_options("--token-file", str(path))
    assert str(caught.value) == f"token file {path}: writable by others; run chmod 600 on it"


def test_token_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    for name, reason in [
        ("missing", "No such file or directory"),
        (".", "Is a directory"),
        ("binary", "not UTF-8 text"),
        ("empty", r"16 to 512 printable ASCII"),
    ]:
        with pytest.raises(ConfigError, match=rf"^token file .*{reason}"):
            from_options("--token-file", str(tmp_path / name))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_secret(host: str) -> None:
    assert from_options("--host", host).auth_token is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_beyond_loopback_needs_a_secret_or_a_word(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options("--host", host)
    for way_out in ("WHISPER_AUTH_TOKEN", "--token-file", "--no-auth", host):
        assert way_out in str(caught.value)
    assert from_options("--host", host, "--no-auth").no_auth
    assert from_options("--host", host, "--token-file", str(token_file(tmp_path))).auth_token
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", "")
    with pytest.raises(ConfigError, match="no secret is set"):
        from_options("--host", host)
    monkeypatch.setenv("WHISPER_AUTH_TOKEN", SECRET)
    assert from_options("--host", host).auth_token


def test_defaults_depend_on_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    here = load_settings()
    assert (here.in_pod, here.effective_model, here.effective_host, here.is_loopback) == (
        False,
        "demo",
        "127.0.0.1",
        True,
    )
    monkeypatch.setenv("RUNPOD_POD_ID", "abc")
    with pytest.raises(ConfigError, match=r"^0\.0\.0\.0 can be reached by others"):
        load_settings()
    there = from_options("--no-auth")
    assert (there.in_pod, there.effective_model, there.effective_host) == (True, "small.en", "0.0.0.0")
    assert from_options("--no-auth", "--model", "turbo").effective_model == "turbo"


def test_unknown_variables_are_named_with_a_hint() -> None:
    environ = {
        "WHISPER_MDOEL": "x",
        "WHISPERLIVE_PROT": "1",
        "WHISPER_XYZZY_PLUGH": "1",
        "WHISPER_MODEL": "demo",
        "PATH": "/bin",
    }
    assert unknown_variables(environ) == [
        "WHISPERLIVE_PROT is no setting; did you mean WHISPERLIVE_PORT?",
        "WHISPER_MDOEL is no setting; did you mean WHISPER_MODEL?",
        "WHISPER_XYZZY_PLUGH is no setting",
    ]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


def test_the_shipped_template_is_the_table() -> None:
    assert (ROOT / ".env.template").read_text(encoding="utf-8") == env_template()


def test_the_template_as_it_is_and_uncommented(tmp_path: Path) -> None:
    """Both mean the defaults."""
    (tmp_path / ".env").write_text(env_template(), encoding="utf-8")
    assert load_settings() == load_settings(env_file=None)
    lines = env_template().splitlines()
    assert sum(line.startswith("#") and "=" in line.split(" ")[0] for line in lines) == len(rows())
    uncommented = [line[1:] if line.startswith("#") and "=" in line.split(" ")[0] else line for line in lines]
    (tmp_path / ".env").write_text("\n".join(uncommented), encoding="utf-8")
    assert load_settings() == load_settings(env_file=None)


def test_the_template_is_printed() -> None:
    command = [sys.executable, "-m", "engine.settings"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True)
    assert done.stdout == env_template()


def test_a_key_without_a_certificate_is_no_tls() -> None:
    with pytest.raises(ConfigError, match=r"--ssl-keyfile .*--ssl-certfile"):
        from_options("--ssl-keyfile", "key.pem")
    assert from_options("--ssl-keyfile", "key.pem", "--ssl-certfile", "both.pem").ssl_keyfile == Path("key.pem")
