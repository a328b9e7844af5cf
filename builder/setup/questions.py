"""The questions of the setup wizard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import AuthError, BuilderError, CapacityError, UsageError
from builder.setup.config import check_value

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["TRIES", "ask_key", "ask_settings"]

TRIES = 3
MAX_IDLE_MIN = 1440
"""The longest idle limit, as the table of settings has it in seconds."""


@dataclass(frozen=True)
class Question:
    """One variable; `to_value` makes what is written of what people type, `to_text` what is shown of what is set.

    `default` counts if nothing is set; without one `empty` says what no answer means.
    """

    env: str
    text: str
    default: str = ""
    empty: str = ""
    secret: bool = False
    to_value: Callable[[str], str] = str
    to_text: Callable[[str], str] = str


def _seconds(minutes: str) -> str:
    """Whole seconds, rounded up: 0 means never, which no other answer may become."""
    try:
        number = float(minutes)
    except ValueError:
        number = math.nan
    # Written so that NaN fails too.
    if not 0 <= number <= MAX_IDLE_MIN:
        raise UsageError(f"{minutes!r} is not allowed; legal: 0 to {MAX_IDLE_MIN} minutes")
    return str(math.ceil(round(number * 60, 6)) or int(number > 0))


def _minutes(seconds: str) -> str:
    try:
        return f"{float(seconds) / 60:g}"
    except ValueError:
        return seconds


QUESTIONS = (
    Question("RUNPOD_GPU_TYPE", "GPU types in order of preference, by commas", empty="the cheapest at each deploy"),
    Question("RUNPOD_CLOUD_TYPE", "cloud (SECURE, COMMUNITY, ANY)", "ANY"),
    Question("WHISPER_MODEL", "model", "small.en"),
    Question("DOCKER_HUB_USERNAME", "account at Docker Hub", empty="none"),
    Question("DOCKER_PASSWORD", "its access token", empty="the docker client is logged in", secret=True),
    Question("DOCKER_IMAGE", "image name", "whisper-runpod"),
    Question(
        "RUNPOD_IDLE_TIMEOUT",
        "minutes without a client after which a pod stops itself (0: never)",
        "1800",
        to_value=_seconds,
        to_text=_minutes,
    ),
    Question("BUILDER_MAX_PRICE", "most dollars an hour that a pod may cost", empty="no limit"),
)


def ask_key(run: Runtime, current: str | None) -> str:
    """The API key, tried out; an empty answer keeps `current`. Raises AuthError after TRIES refused ones."""
    from builder.setup.wizard import control_plane

    kept = " (empty: the present one)" if current else ""
    for attempt in range(1, TRIES + 1):
        key = run.console.ask(f"RunPod API key{kept}: ", secret=True).strip() or (current or "")
        run.redactor.add(key)
        if not key:
            run.console.warn("a key is needed; make one in RunPod's console: Settings, API Keys")
            continue
        try:
            control_plane(run, {"RUNPOD_API_KEY": key}).check_key()
        except AuthError as error:
            run.console.warn(f"{error} ({attempt} of {TRIES} tries)")
            continue
        except BuilderError as error:
            run.console.warn(f"the key could not be checked: {error}")
        return key
    raise AuthError(f"no valid API key in {TRIES} tries")


def ask_settings(run: Runtime, current: Mapping[str, str], *, skip: tuple[str, ...]) -> dict[str, str]:
    """The other questions; variables in `skip` are settled. Raises UsageError after TRIES illegal answers."""
    answers: dict[str, str] = {}
    for question in QUESTIONS:
        if question.env in skip:
            continue
        if question.env == "DOCKER_PASSWORD" and not {**current, **answers}.get("DOCKER_HUB_USERNAME"):
            continue
        default = current.get(question.env) or question.default
        has_catalog = question.env == "RUNPOD_GPU_TYPE" and _tell_cheapest(run, current)
        answer = _ask(run, question, default, (lambda names: _check_gpus(run, current, names)) if has_catalog else None)
        # The server here reads the same file: a default for pods would take its demo model from it.
        is_left_out = question.env == "WHISPER_MODEL" and question.env not in current and answer == question.default
        if answer and not is_left_out:
            answers[question.env] = answer
    return answers


def _tell_cheapest(run: Runtime, current: Mapping[str, str]) -> bool:
    """Say what `gpus --pick` would choose; False if the catalog cannot be read."""
    from builder.deploy.gpu_list import GpuQuery, list_gpus
    from builder.setup.wizard import as_if

    try:
        (best,) = list_gpus(as_if(run, current), GpuQuery(), is_pick=True).candidates
    except CapacityError as error:
        run.console.note(str(error))
    except BuilderError as error:
        run.console.note(f"the catalog cannot be read: {error}")
        return False
    else:
        run.console.note(f"the cheapest in stock now: {best.label}, ${best.price_per_h or 0:.2f}/h")
    return True


def _check_gpus(run: Runtime, current: Mapping[str, str], names: str) -> None:
    """Raises UsageError for a name that fits no GPU of the catalog, or several."""
    from builder.deploy.gpu_list import GpuQuery, list_gpus
    from builder.setup.wizard import as_if

    try:
        list_gpus(as_if(run, current), GpuQuery(cloud="ANY", gpu=names, is_all=True))
    except UsageError:
        raise
    except BuilderError as error:
        run.console.note(f"the names could not be checked: {error}")


def _ask(run: Runtime, question: Question, default: str, check: Callable[[str], None] | None) -> str:
    shown = "(unchanged)" if question.secret and default else question.to_text(default)
    prompt = f"{question.text} {f'[{shown}]' if default else f'(empty: {question.empty})'}: "
    for _ in range(TRIES):
        typed = run.console.ask(prompt, secret=question.secret).strip()
        if not typed:
            return default
        if question.secret:
            run.redactor.add(typed)
        try:
            value = question.to_value(typed)
            check_value(question.env, value)
            if check is not None:
                check(value)
        except UsageError as error:
            run.console.warn(str(error))
        else:
            return value
    raise UsageError(f"{question.env}: no legal answer in {TRIES} tries", hint="see: python -m builder config show")
