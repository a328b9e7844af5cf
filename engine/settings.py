"""The one table of settings: environment variables, command line, `.env.template`, README.

Each field of `Settings` (`engine.settings_table`) is a row: its environment names, its command-line
options, its default, its bounds and its help. Precedence: command line, then environment, then `.env` in
the working directory, then the default. A wrong value raises ConfigError with the variable's name, the value
(unless it is a secret) and the legal range.

Knows nothing of models, sockets or files other than `.env` and a token file.
"""

from __future__ import annotations

import argparse
import difflib
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from engine.errors import ConfigError
from engine.settings_rows import Row, as_row
from engine.settings_table import Settings

__all__ = ["Row", "Settings", "add_options", "env_template", "load_settings", "rows", "unknown_variables"]


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
        shown = "(hidden)" if found.is_secret else repr(problem["input"])
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
