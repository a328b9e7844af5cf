"""Writes `.env`: asks at a terminal, or takes options, the environment and the shell project's `.env`.

What is there stays unless it is answered anew: unknown variables, comments, and everything about a pod that runs.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.env_file import VERSION_KEY, apply_changes, parse_env, read_env_file, shell_doubts
from builder.errors import AuthError, BuilderError, NotFoundError, UsageError
from builder.settings import ROWS, is_placeholder, read_settings
from builder.setup.config import check_value, warn_of_strangers
from builder.setup.old_env import Import, import_old_env
from builder.setup.questions import ask_key, ask_settings
from builder.state import write_private

if TYPE_CHECKING:
    from builder.api.control_plane import ControlPlane
    from builder.runtime import Runtime

__all__ = ["ASKED", "DEFAULT_IDLE_STOP_S", "Wishes", "as_if", "control_plane", "set_up"]

DEFAULT_IDLE_STOP_S = 1800
MAX_KEY_FILE_BYTES = 4096
MAX_BACKUPS_A_SECOND = 100
ASKED = (
    "RUNPOD_API_KEY",
    "RUNPOD_GPU_TYPE",
    "RUNPOD_CLOUD_TYPE",
    "WHISPER_MODEL",
    "DOCKER_HUB_USERNAME",
    "DOCKER_PASSWORD",
    "DOCKER_IMAGE",
    "DOCKER_TAG",
    "RUNPOD_IDLE_TIMEOUT",
    "BUILDER_MAX_PRICE",
    "WHISPER_AUTH_TOKEN",
)
"""What the wizard asks for or makes, and what a setup without questions takes over from the environment."""


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for; `given` are checked NAME=value pairs."""

    ask: bool
    given: Mapping[str, str]
    old_file: Path | None = None
    key_file: Path | None = None
    yes: bool = False


def set_up(run: Runtime, wishes: Wishes) -> dict[str, Any]:
    """Do it; returns what was done. Raises AuthError without a valid key, UsageError, and what writing raises."""
    if wishes.ask and not run.console.is_interactive:
        raise UsageError("nobody can be asked here", hint="add --non-interactive, and give the key by RUNPOD_API_KEY")
    warn_of_strangers(run, wishes.given)
    old_text, imported = _import(run, wishes)
    # Read and checked as a whole first: a file that cannot be understood is not rewritten.
    present = read_env_file(run.env_path)
    text = run.env_path.read_bytes().decode("utf-8-sig") if run.env_path.exists() else None
    values = {**present, **imported.values}
    changes: dict[str, str | None] = dict(imported.changes) if text is None else dict(imported.values)
    known = {name: value for name, value in values.items() if not is_placeholder(value)}
    answers = _answers(run, wishes, known)
    token_is_new = _complete(known, answers)
    changes |= answers
    read_settings({}, {**known, **answers})
    if wishes.ask and text is not None:
        run.console.confirm(f"Change {run.env_path}?", yes=wishes.yes)
    backup = _write(run, text, old_text, changes)
    return {
        "env_file": str(run.env_path),
        "backup": str(backup) if backup else None,
        "set": sorted(name for name, value in changes.items() if value is not None and present.get(name) != value),
        "imported": [vars(fate) for fate in imported.fates],
        "token_is_new": token_is_new,
        "next": _next_steps({**known, **answers}),
    }


def control_plane(run: Runtime, values: Mapping[str, str]) -> ControlPlane:
    """RunPod's API with a key that is not in `.env` yet. Raises AuthError, UsageError."""
    return as_if(run, values).api


def as_if(run: Runtime, values: Mapping[str, str]) -> Runtime:
    """`run` with settings that are not in `.env` yet. Raises UsageError."""
    known = {row.env for row in ROWS}
    given = {name: value for name, value in values.items() if name in known}
    # These win over the environment: the user has just named them.
    settings = read_settings({**run.environ, **given}, run.env_file)
    other = copy(run)
    for made_with_settings in ("api", "graphql"):
        vars(other).pop(made_with_settings, None)
    other.settings = settings
    return other


def _import(run: Runtime, wishes: Wishes) -> tuple[str | None, Import]:
    if wishes.old_file is None:
        return None, Import({}, {}, ())
    path = run.folder / wishes.old_file
    if not path.is_file():
        raise NotFoundError(f"there is no {path}", hint="name the .env of the shell project")
    old = read_env_file(path)
    _hide(run, old)
    alive = _pod_is_alive(run, old)
    text = path.read_bytes().decode("utf-8-sig")
    return text, import_old_env(old, pod_is_alive=alive, doubts=shell_doubts(text, str(path)))


def _pod_is_alive(run: Runtime, old: Mapping[str, str]) -> bool | None:
    pod_id = old.get("RUNPOD_POD_ID", "")
    if is_placeholder(pod_id):
        return None
    try:
        control_plane(run, {k: v for k, v in old.items() if k == "RUNPOD_API_KEY" and not is_placeholder(v)}).get_pod(
            pod_id
        )
    except NotFoundError:
        return False
    except BuilderError:
        return None
    return True


def _hide(run: Runtime, values: Mapping[str, str]) -> None:
    for row in ROWS:
        if row.is_secret:
            run.redactor.add(values.get(row.env))


def _answers(run: Runtime, wishes: Wishes, known: Mapping[str, str]) -> dict[str, str]:
    """What is new: from the environment, the key's file, options, and the user, each winning over those before."""
    answers = {
        name: run.environ[name] for name in ASKED if name in run.environ and not is_placeholder(run.environ[name])
    }
    if wishes.key_file is not None:
        answers["RUNPOD_API_KEY"] = _read_key(run.folder / wishes.key_file)
    answers |= wishes.given
    for name, value in answers.items():
        check_value(name, value)
    _hide(run, {**known, **answers})
    if wishes.ask:
        current = {**known, **answers}
        answers["RUNPOD_API_KEY"] = ask_key(run, current.get("RUNPOD_API_KEY"))
        answers |= ask_settings(run, {**current, **answers}, skip=tuple(wishes.given))
    else:
        _check_key(run, {**known, **answers})
    return answers


def _check_key(run: Runtime, values: Mapping[str, str]) -> None:
    try:
        control_plane(run, values).check_key()
    except AuthError as error:
        hint = "make one in RunPod's console (Settings, API Keys); set RUNPOD_API_KEY, or use --api-key-file FILE"
        raise type(error)(str(error), hint=hint, status=error.status, request_id=error.request_id) from None
    except BuilderError as error:
        run.console.warn(f"the API key could not be checked: {error}")


def _read_key(path: Path) -> str:
    try:
        with path.open("rb") as file:
            key = file.read(MAX_KEY_FILE_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not plain text"
        raise UsageError(f"--api-key-file {path}: {why}", hint="a file with nothing but the key") from None
    if not key or any(letter.isspace() for letter in key):
        raise UsageError(f"--api-key-file {path} holds no key", hint="a file with nothing but the key")
    return key


def _complete(known: Mapping[str, str], answers: dict[str, str]) -> bool:
    """Add what is made rather than asked; True if the token is new."""
    if "RUNPOD_IDLE_TIMEOUT" not in known:
        answers.setdefault("RUNPOD_IDLE_TIMEOUT", str(DEFAULT_IDLE_STOP_S))
    if "WHISPER_AUTH_TOKEN" in known or "WHISPER_AUTH_TOKEN" in answers:
        return False
    answers["WHISPER_AUTH_TOKEN"] = secrets.token_hex(16)
    return True


def _write(run: Runtime, text: str | None, old_text: str | None, changes: dict[str, str | None]) -> Path | None:
    path = run.env_path.resolve()
    basis = text if text is not None else old_text or ""
    if text is not None:
        # Its own count goes on, whatever the imported file says.
        changes.pop(VERSION_KEY, None)
    changed = apply_changes(basis, changes, str(path))
    _hide(run, parse_env(changed))
    if changed == text:
        path.chmod(0o600)
        return None
    backup = None
    if text is not None:
        backup = _backup_path(path, run.clock.unix_s())
        write_private(backup, text)
    write_private(path, changed)
    return backup


def _backup_path(path: Path, now_s: float) -> Path:
    from datetime import datetime, timezone

    stamp = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    for count in range(1, MAX_BACKUPS_A_SECOND):
        candidate = path.with_name(f"{path.name}.backup-{stamp}" + (f"-{count}" if count > 1 else ""))
        if not candidate.exists():
            return candidate
    raise UsageError(f"there are {MAX_BACKUPS_A_SECOND} backups of this second beside {path}", hint="remove some")


def _next_steps(values: Mapping[str, str]) -> list[str]:
    steps = ["python -m builder doctor"]
    if not values.get("DOCKER_TAG"):
        steps += ["python -m builder build", "python -m builder push"]
    return [*steps, "python -m builder plan", "python -m builder deploy"]
