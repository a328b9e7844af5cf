"""The rows of the settings table: environment names, command-line options, defaults, bounds, help.

Rows without options belong to the serverless worker, which has no command line, or hold secrets. How rows are
read, explained and printed is the business of `engine.settings`.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engine.settings_rows import AUTO, row

__all__ = ["LIVE_DEFAULT_IN_POD", "Settings"]

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

    mode: str | None = row(
        None,
        ("WHISPER_MODE", "MODE_TO_RUN"),
        (),
        "image: what it starts: pod, serverless or lb (default: as RunPod's variables show, else pod)",
    )
    model: str | None = row(
        None,
        "WHISPER_MODEL",
        ("--model", "-m"),
        "demo, a size (small.en, turbo, large-v3, ...), a Hugging Face id or a directory "
        "(default: demo; in a RunPod pod small.en, in a worker base)",
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
    idle_stop_min: float | None = row(
        None,
        "POD_IDLE_STOP_MIN",
        ("--idle-stop",),
        "minutes without a stream or file after which the pod stops itself, loading gets 30 more "
        "(default: never; outside a pod the process ends)",
        ge=0.05,
        le=1_440,
    )
    deadline: datetime | None = row(
        None,
        "POD_DEADLINE",
        ("--deadline",),
        "time at which the pod stops itself, clients or not (default: never; outside a pod the process ends)",
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
    max_upload_bytes: int = row(
        536_870_912,
        "MAX_UPLOAD_BYTES",
        ("--max-upload-bytes",),
        "largest file that POST /v1/audio/transcriptions takes",
        ge=1_000,
        le=10_737_418_240,
    )
    max_audio_s: float = row(
        14_400.0,
        "MAX_AUDIO_S",
        ("--max-audio",),
        "longest recording in seconds, for jobs and uploads",
        ge=1,
        le=86_400,
    )
    models: str | None = row(
        None,
        "WHISPER_MODELS",
        (),
        "worker: models that a job may name: `name` or `name=directory`, by commas (default: WHISPER_MODEL alone)",
        max_length=4_096,
    )
    max_loaded_models: int = row(
        1, "MAX_LOADED_MODELS", (), "worker: models kept in memory at once; the least recently used goes", ge=1, le=8
    )
    concurrency: int = row(
        4, "CONCURRENCY", (), "worker: jobs in flight; downloads and decoding overlap the model's work", ge=1, le=32
    )
    handler_stream: bool = row(
        False, "HANDLER_STREAM", (), "worker: stream segments to /stream; the last element is the full result"
    )
    strict_compat: bool = row(
        False, "STRICT_COMPAT", (), "worker: exactly worker-faster_whisper's keys, and its refusal of unknown fields"
    )
    max_download_bytes: int = row(
        1_073_741_824,
        "MAX_DOWNLOAD_BYTES",
        (),
        "worker: largest file fetched from a URL, or given as base64",
        ge=1_000,
        le=10_737_418_240,
    )
    download_timeout_s: float = row(
        300.0, "DOWNLOAD_TIMEOUT_S", (), "worker: seconds a download may take in all", ge=1, le=3_600
    )
    allow_private_urls: bool = row(
        False,
        ("ALLOW_PRIVATE_DOWNLOAD_URLS", "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS"),
        (),
        "worker: fetch from private and loopback addresses and over plain http redirects too",
    )
    max_result_bytes: int = row(
        8_000_000,
        "MAX_RESULT_BYTES",
        (),
        "worker: largest result handed to the platform; larger ones are uploaded or shrunk",
        ge=10_000,
        le=20_000_000,
    )
    bucket_endpoint_url: str | None = row(
        None, "BUCKET_ENDPOINT_URL", (), "worker: S3-compatible store for large results and s3:// audio", max_length=512
    )
    bucket_name: str | None = row(None, "BUCKET_NAME", (), "worker: its bucket", max_length=63)
    bucket_access_key_id: SecretStr | None = row(None, "BUCKET_ACCESS_KEY_ID", (), "worker: its key id")
    bucket_secret_access_key: SecretStr | None = row(None, "BUCKET_SECRET_ACCESS_KEY", (), "worker: its key")
    log_format: Literal["text", "json"] = row("text", "LOG_FORMAT", ("--log-format",), "text or json")
    log_level: Literal["debug", "info", "warning", "error"] = row(
        "info", "LOG_LEVEL", ("--log-level",), "debug, info, warning or error"
    )

    @field_validator("compute_type", "device", "log_format", "log_level", mode="before")
    @classmethod
    def _fold_case(cls, value: object) -> object:
        """`INFO`, as deployments of the seed project say, is `info`."""
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("deadline", mode="before")
    @classmethod
    def _is_written_out(cls, value: object) -> object:
        """A bare number would be seconds since 1970, and a time without a zone anybody's guess."""
        if isinstance(value, str) and "T" not in value.strip().upper()[:11]:
            raise ValueError("no date and time")
        return value

    @field_validator("deadline")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("no zone")
        return value.astimezone(timezone.utc)

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
        """True inside a RunPod pod or worker (the platform sets RUNPOD_POD_ID there)."""
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
