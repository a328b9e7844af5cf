"""The one table of settings: environment variables, command line, `.env.template`, README.

Each field of `Settings` is a row: its environment names, its command-line options, its default,
its bounds and its help. Precedence: command line, then environment, then `.env` in the working
directory, then the default. A wrong value raises ConfigError with the variable's name, the value
(unless it is a secret) and the legal range.

Knows nothing of models, sockets or files other than `.env` and a token file.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engine.errors import ConfigError
from engine.settings_rows import AUTO, Row, as_row, row

__all__ = ["Row", "Settings", "add_options", "env_template", "load_settings", "rows", "unknown_variables"]

LIVE_DEFAULT_IN_POD = "small.en"
"""The seed project's model: what a pod runs when nothing else is asked for."""


class Settings(BaseSettings):
    """Validated settings; secrets are `SecretStr`, whose repr shows nothing."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        # RunPod templates leave unused variables in place as empty strings; empty means unset.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    model: str | None = row(
        None,
        "WHISPER_MODEL",
        ("--model", "-m"),
        "demo, a size (small.en, turbo, large-v3, ...), a Hugging Face id or a directory "
        "(default: demo; small.en inside a RunPod pod)",
        min_length=1,
        max_length=512,
    )
    compute_type: Literal[
        "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32"
    ] = row("auto", "WHISPER_COMPUTE_TYPE", ("--compute-type",), "auto: float16 on a GPU, int8 on a CPU")
    device: Literal["auto", "cpu", "cuda"] = row(
        "auto", "WHISPER_DEVICE", ("--device",), "auto: cuda if it works, else cpu"
    )
    cpu_threads: int = row(
        0,
        "WHISPER_CPU_THREADS",
        ("--cpu-threads",),
        "threads of the engine on a CPU; 0: all cores, 1 for the demo model",
        ge=0,
        le=256,
    )
    window_pad_s: float | None = row(
        None,
        "WHISPER_WINDOW_PAD_S",
        ("--window-pad",),
        "seconds to which live windows are padded; less is faster, 30 is what Whisper was trained on "
        "(default: 30; the demo model pads by 1 s)",
        ge=0,
        le=30,
    )
    language: str | None = row(
        None,
        "WHISPER_LANGUAGE",
        ("--language",),
        "language of clients that name none (default: detect)",
        pattern=r"^[a-z]{2,3}$",
    )
    host: str | None = row(
        None, "WHISPERLIVE_HOST", ("--host",), "address to listen on (default: 127.0.0.1; 0.0.0.0 inside a pod)"
    )
    port: int = row(9090, "WHISPERLIVE_PORT", ("--port", "-p"), "WebSocket port; 0: any free one", ge=0, le=65535)
    health_port: int = row(
        9999, "HEALTH_CHECK_PORT", ("--health-port",), "health port; 0: any free one", ge=0, le=65535
    )
    max_clients: int | None = row(
        None,
        "MAX_CLIENTS",
        ("--max-clients", "--max_clients"),
        "streams at once, at most (auto: 512); what the machine was measured to keep up with counts too; more get WAIT",
        may_be_auto=True,
        ge=1,
        le=10_000,
    )
    max_connection_time_s: float | None = row(
        None,
        "MAX_CONNECTION_TIME",
        ("--max-connection-time", "--max_connection_time"),
        "seconds after which a stream is finished and closed (default: no limit)",
        ge=1,
        le=7 * 86_400,
    )
    idle_timeout_s: float = row(
        120.0, "IDLE_TIMEOUT_S", ("--idle-timeout",), "seconds without any bytes that end a stream", ge=1, le=86_400
    )
    max_backlog_s: float = row(
        10.0,
        "MAX_BACKLOG_S",
        ("--max-backlog",),
        "seconds of audio not yet decoded, per stream; beyond it the server stops reading",
        ge=1,
        le=60,
    )
    feature_threads: int | None = row(
        None,
        "FEATURE_THREADS",
        ("--feature-threads",),
        "threads that look for speech and compute spectra; 0: the serving loop does it; "
        "auto: usable cores less 2, at most 4",
        may_be_auto=True,
        ge=0,
        le=64,
    )
    engine_timeout_s: float = row(
        30.0,
        "ENGINE_TIMEOUT_S",
        ("--engine-timeout",),
        "seconds one engine call may take before its process is replaced",
        ge=0.5,
        le=600,
    )
    result_key: bool = row(
        True,
        "RESULT_KEY",
        ("--no-result-key",),
        "send segments also as `result`, with times as numbers; the option turns it off",
    )
    auth_token: SecretStr | None = row(
        None, "WHISPER_AUTH_TOKEN", (), "secret that clients must show (16 to 512 characters)"
    )
    token_file: Path | None = row(
        None, "WHISPER_AUTH_TOKEN_FILE", ("--token-file",), "file that holds the secret in its first line"
    )
    no_auth: bool = row(
        False,
        "WHISPER_NO_AUTH",
        ("--no-auth",),
        "serve without a secret beyond loopback too; one that is set counts all the same",
    )
    ssl_certfile: Path | None = row(None, "SSL_CERTFILE", ("--ssl-certfile",), "TLS certificate, PEM")
    ssl_keyfile: Path | None = row(None, "SSL_KEYFILE", ("--ssl-keyfile",), "TLS private key, PEM")
    log_format: Literal["text", "json"] = row("text", "LOG_FORMAT", ("--log-format",), "text or json")
    log_level: Literal["debug", "info", "warning", "error"] = row(
        "info", "LOG_LEVEL", ("--log-level",), "debug, info, warning or error"
    )

    @field_validator("compute_type", "device", "log_format", "log_level", mode="before")
    @classmethod
    def _fold_case(cls, value: object) -> object:
        """`INFO`, as deployments of the seed project say, is `info`."""
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("max_clients", "feature_threads", mode="before")
    @classmethod
    def _auto_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() == AUTO else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, `.env`: in this order, nothing else."""
        return init_settings, env_settings, dotenv_settings

    @property
    def in_pod(self) -> bool:
        """True inside a RunPod pod (the platform sets RUNPOD_POD_ID there)."""
        return bool(os.environ.get("RUNPOD_POD_ID"))

    @property
    def effective_model(self) -> str:
        """The model asked for, or the default of the place we run in."""
        return self.model or (LIVE_DEFAULT_IN_POD if self.in_pod else "demo")

    @property
    def effective_host(self) -> str:
        """The address asked for, or the default of the place we run in."""
        return self.host or ("0.0.0.0" if self.in_pod else "127.0.0.1")  # noqa: S104 - a pod is reached by its proxy

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can connect."""
        if self.effective_host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.effective_host).is_loopback
        except ValueError:
            return False


def rows() -> tuple[Row, ...]:
    """The settings table in order."""
    return tuple(as_row(name, field) for name, field in Settings.model_fields.items())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one option per row that has flags; absent options stay absent from the namespace."""
    for each in rows():
        if not each.flags:
            continue
        legal = f" [{each.legal}]" if each.legal and not each.is_switch else ""
        help_text = f"{each.help}{legal} ({each.env[0]})".replace("%", "%%")
        options: dict[str, Any] = {"dest": each.name, "default": argparse.SUPPRESS, "help": help_text}
        if each.is_switch:
            options |= {"action": "store_const", "const": not each.default}
        else:
            options["metavar"] = each.name.upper()
        parser.add_argument(*each.flags, **options)


def load_settings(options: Mapping[str, Any] | None = None, env_file: str | Path | None = ".env") -> Settings:
    """Read, validate and complete the settings.

    `options` maps row names to values from the command line. Raises ConfigError.
    """
    given = {name: value for name, value in (options or {}).items() if name in Settings.model_fields}
    try:
        settings = Settings(_env_file=env_file, **_by_alias(given))  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(_explain(error, given)) from None
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        # Otherwise whoever asks for TLS would get none.
        raise ConfigError("--ssl-keyfile (SSL_KEYFILE): a key alone makes no TLS; give --ssl-certfile too")
    return _with_token(settings)


def _by_alias(given: Mapping[str, Any]) -> dict[str, Any]:
    first_alias = {each.name: each.env[0] for each in rows()}
    return {first_alias[name]: value for name, value in given.items()}


def _explain(error: ValidationError, given: Mapping[str, Any]) -> str:
    table = {alias: each for each in rows() for alias in (*each.env, each.name)}
    lines = []
    for problem in error.errors():
        found = table.get(str(problem["loc"][0])) if problem["loc"] else None
        if found is None:
            lines.append(str(problem["msg"]))
            continue
        where = found.flags[0] if found.name in given and found.flags else str(problem["loc"][0])
        shown = "(hidden)" if found.name == "auth_token" else repr(problem["input"])
        legal = found.legal or str(problem["msg"]).lower()
        lines.append(f"{where}: {shown} is not allowed; legal: {legal}")
    return "; ".join(lines)


MIN_TOKEN_CHARS = 16
"""A random secret of this length cannot be guessed over a network, however fast it is tried."""
MAX_TOKEN_CHARS = 512
"""A token must fit into a URL path segment and a header line."""


def _with_token(settings: Settings) -> Settings:
    token = settings.auth_token.get_secret_value().strip() if settings.auth_token else None
    source = "WHISPER_AUTH_TOKEN"
    if settings.token_file is not None:
        source = f"token file {settings.token_file}"
        token = _read_token_file(settings.token_file)
    if token is not None:
        if not MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable():
            raise ConfigError(
                f"{source}: the secret (hidden) is not allowed; "
                f"legal: {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} printable ASCII characters"
            )
        return settings.model_copy(update={"auth_token": SecretStr(token)})
    if not settings.is_loopback and not settings.no_auth:
        raise ConfigError(
            f"{settings.effective_host} can be reached by others, and no secret is set: "
            "set WHISPER_AUTH_TOKEN or --token-file, or say --no-auth"
        )
    return settings


def _read_token_file(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"token file {path}: writable by others; run chmod 600 on it")
        with path.open(encoding="utf-8") as file:
            return file.readline(MAX_TOKEN_CHARS + 2).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"token file {path}: {reason}") from None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Warnings for WHISPER_* variables that no row knows, with the nearest name."""
    known = [name for each in rows() for name in each.env]
    warnings = []
    for name in sorted(environ):
        if name.startswith(("WHISPER_", "WHISPERLIVE_")) and name not in known:
            # The names share their beginnings, so that much likeness means nothing.
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{name} is no setting{hint}")
    return warnings


def env_template() -> str:
    """The text of `.env.template`, generated from the table."""
    lines = ["# Copy to .env and uncomment what you need. Made by `make env-template`; do not edit.", ""]
    for each in rows():
        legal = f" ({each.legal})" if each.legal else ""
        lines.append(f"# {each.help}{legal}")
        lines.append(f"#{each.env[0]}={each.default_text}")
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m engine.settings`: print `.env.template`."""
    import sys

    sys.stdout.write(env_template())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
