"""Settings as `.env` and the environment hold them: shown, checked, got and set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.env_file import VERSION_KEY, update_env_file
from builder.errors import AuthError, NotFoundError, UsageError
from builder.image.reference import repository
from builder.redact import HIDDEN, MIN_SECRET_CHARS, is_secret_name
from builder.settings import POD_VARIABLES, ROWS, is_placeholder, read_settings
from builder.setup.old_env import import_old_env

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = [
    "Problem",
    "check_settings",
    "check_value",
    "get_setting",
    "is_secret",
    "parse_pairs",
    "set_settings",
    "show",
    "warn_of_strangers",
]

_ROWS = {row.env: row for row in ROWS}
_TEMPLATE = Path(__file__).parents[2] / ".env.template"
"""The server's settings; absent where the builder is installed without the checkout."""
_NEAR = 0.85


@dataclass(frozen=True)
class Problem:
    """Something wrong with one variable; `is_error`: verbs refuse to work with it."""

    variable: str
    says: str
    is_error: bool


def is_secret(name: str) -> bool:
    """True for variables whose value is never shown nor taken from a command line."""
    return (name in _ROWS and _ROWS[name].is_secret) or is_secret_name(name)


def check_value(name: str, value: str) -> None:
    """Raises UsageError if `value` is not legal for the variable `name`."""
    if is_secret(name) and not is_placeholder(value) and len(value.strip()) < MIN_SECRET_CHARS:
        raise UsageError(
            f"{name} is too short; legal: {MIN_SECRET_CHARS} characters and more",
            hint="a shorter one could not be kept out of messages",
        )
    settings = read_settings({}, {name: value})
    if name in ("DOCKER_HUB_USERNAME", "DOCKER_IMAGE"):
        repository(settings)


def show(environ: Mapping[str, str], env_file: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every setting: variable, value (secrets only as set or not), where it comes from, what it is for."""
    rows = []
    for row in ROWS:
        value, source = _find(row.env, environ, env_file)
        shown: Any = value if value is not None else row.default
        if row.is_secret and value is not None:
            shown = HIDDEN
        if isinstance(shown, tuple):
            shown = ",".join(shown) or None
        rows.append({"variable": row.env, "value": shown, "source": source, "help": row.help, "legal": row.legal})
    for name in POD_VARIABLES:
        value, source = _find(name, environ, env_file)
        if value is not None and name not in _ROWS:
            help_text = "handed on to the server in the pod"
            rows.append({"variable": name, "value": value, "source": source, "help": help_text, "legal": ""})
    return rows


def get_setting(name: str, environ: Mapping[str, str], env_file: Mapping[str, str]) -> dict[str, Any]:
    """One setting as `show` has it; variables of `.env` that no verb reads too. Raises NotFoundError."""
    for row in show(environ, env_file):
        if row["variable"] == name:
            return row
    if name in env_file:
        value = HIDDEN if is_secret(name) else env_file[name]
        return {"variable": name, "value": value, "source": ".env", "help": "no verb reads it", "legal": ""}
    raise NotFoundError(f"there is no setting {name}", hint="see them all: python -m builder config show")


def check_settings(environ: Mapping[str, str], env_file: Mapping[str, str]) -> list[Problem]:
    """What is wrong or missing; everything at once, not only the first."""
    problems = []
    for row in ROWS:
        value, _ = _find(row.env, environ, env_file)
        if value is None:
            continue
        try:
            check_value(row.env, value)
        except UsageError as error:
            problems.append(Problem(row.env, str(error), is_error=True))
    if not problems:
        problems.extend(_no_key(environ, env_file))
    if _find("WHISPER_AUTH_TOKEN", environ, env_file)[0] is None:
        says = "not set: deploy refuses without one, or serves anyone with --no-auth"
        problems.append(Problem("WHISPER_AUTH_TOKEN", says, is_error=False))
    problems.extend(_strangers(env_file))
    return problems


def parse_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=value` arguments. Raises UsageError for other shapes, and for secrets, which a command line would show."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if is_secret(name):
            raise UsageError(
                f"{name} is secret, and other users of this machine can read command lines",
                hint=f"set it in the environment, or run: python -m builder config set {name}",
            )
        if not equals or not name:
            raise UsageError(f"{pair!r} is not NAME=value")
        check_value(name, value)
        values[name] = value
    return values


def set_settings(run: Runtime, arguments: list[str]) -> list[str]:
    """`config set`: NAME=value ..., or the NAME of a secret, asked for or read from stdin. Returns the names.

    Raises UsageError, and what writing raises.
    """
    if not arguments:
        raise UsageError("nothing to set", hint="like: python -m builder config set WHISPER_MODEL=small.en")
    changes: dict[str, str | None] = {}
    for argument in arguments:
        if "=" not in argument and is_secret(argument):
            value = run.console.ask(f"{argument}: ", secret=True).strip()
            if not value:
                raise UsageError(f"{argument}: nothing was given", hint="type it, or pipe it in")
            run.redactor.add(value)
            check_value(argument, value)
            changes[argument] = value
        else:
            changes.update({name: value or None for name, value in parse_pairs([argument]).items()})
    warn_of_strangers(run, [name for name, value in changes.items() if value is not None])
    update_env_file(run.env_path, changes)
    return list(changes)


def warn_of_strangers(run: Runtime, names: Iterable[str]) -> None:
    """Warn of each name that neither verbs nor the server read: a limit with a typing error limits nothing."""
    template = _TEMPLATE.read_text("utf-8") if _TEMPLATE.is_file() else ""
    servers = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", template, re.MULTILINE)
    known = [*_ROWS, *POD_VARIABLES, *servers, VERSION_KEY, "RUNPOD_POD_ID"]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
            meant = f"did you mean {close[0]}?" if close else "pods get it only by deploy --set"
            run.console.warn(f"{name}: nothing here reads it; {meant}")


def _find(name: str, environ: Mapping[str, str], env_file: Mapping[str, str]) -> tuple[str | None, str]:
    for source, where in ((environ, "environment"), (env_file, ".env")):
        if name in source and not is_placeholder(source[name]):
            return source[name], where
    return None, "default"


def _no_key(environ: Mapping[str, str], env_file: Mapping[str, str]) -> list[Problem]:
    from builder.api.connect import find_key

    try:
        find_key(read_settings(environ, env_file), environ)
    except AuthError as error:
        return [Problem("RUNPOD_API_KEY", str(error), is_error=True)]
    return []


def _strangers(env_file: Mapping[str, str]) -> list[Problem]:
    known = [*_ROWS, *POD_VARIABLES, VERSION_KEY]
    fates = {fate.variable: fate for fate in import_old_env(env_file).fates}
    problems = []
    for name in env_file:
        fate = fates.get(name)
        if name in known or fate is None or fate.verdict != "kept":
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        says = f"no verb reads it; did you mean {close[0]}?" if close else fate.why
        problems.append(Problem(name, says, is_error=False))
    return problems
