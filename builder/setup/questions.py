"""The questions of the setup wizard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import AuthError, BuilderError, UsageError
from builder.setup.config import check_value

if TYPE_CHECKING:
    from builder.api.models import GpuType
    from builder.runtime import Runtime

__all__ = ["TRIES", "ask_key", "ask_settings", "cheapest"]

TRIES = 3
MIN_MEMORY_GB = 8
"""The smallest GPU that is proposed: what the default model needs, with room."""


@dataclass(frozen=True)
class Question:
    """One variable; `default` if nothing is set, `to_value` from what people type to what is written."""

    env: str
    text: str
    default: str = ""
    secret: bool = False
    to_value: Callable[[str], str] = str
    to_text: Callable[[str], str] = str


def _seconds(minutes: str) -> str:
    try:
        return str(round(float(minutes) * 60))
    except (ValueError, OverflowError):
        return minutes


def _minutes(seconds: str) -> str:
    try:
        return f"{float(seconds) / 60:g}"
    except ValueError:
        return seconds


QUESTIONS = (
    Question("RUNPOD_GPU_TYPE", "GPU types in order of preference, by commas"),
    Question("RUNPOD_CLOUD_TYPE", "cloud (SECURE, COMMUNITY, ANY)", "ANY"),
    Question("WHISPER_MODEL", "model", "small.en"),
    Question("DOCKER_HUB_USERNAME", "account at Docker Hub (empty: none)"),
    Question("DOCKER_PASSWORD", "its access token (empty: the docker client is logged in)", secret=True),
    Question("DOCKER_IMAGE", "image name", "whisper-runpod"),
    Question(
        "RUNPOD_IDLE_TIMEOUT",
        "minutes without a client after which a pod stops itself (0: never)",
        "1800",
        to_value=_seconds,
        to_text=_minutes,
    ),
    Question("BUILDER_MAX_PRICE", "most dollars an hour that a pod may cost (empty: no limit)"),
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
        if not default and question.env == "RUNPOD_GPU_TYPE":
            default = _cheapest_now(run, current)
        answer = _ask(run, question, default)
        if answer:
            answers[question.env] = answer
    return answers


def cheapest(gpus: list[GpuType]) -> tuple[str, float] | None:
    """Id and $/h of the cheapest type in stock that is large enough for the default model."""
    offers = [
        (price, gpu.id)
        for gpu in gpus
        for price in (gpu.price.secure, gpu.price.community)
        if price and gpu.memory >= MIN_MEMORY_GB and gpu.availability not in (None, "NONE")
    ]
    return (min(offers)[1], min(offers)[0]) if offers else None


def _cheapest_now(run: Runtime, current: Mapping[str, str]) -> str:
    from builder.setup.wizard import control_plane

    try:
        found = cheapest(control_plane(run, {"RUNPOD_API_KEY": current["RUNPOD_API_KEY"]}).gpu_types())
    except BuilderError as error:
        run.console.note(f"the catalog cannot be read ({error}); empty: the cheapest at each deploy")
        return ""
    if found is None:
        return ""
    run.console.note(f"the cheapest in stock now: {found[0]}, ${found[1]:.2f}/h")
    return found[0]


def _ask(run: Runtime, question: Question, default: str) -> str:
    shown = "(unchanged)" if question.secret and default else question.to_text(default)
    prompt = f"{question.text}{f' [{shown}]' if default else ''}: "
    for _ in range(TRIES):
        typed = run.console.ask(prompt, secret=question.secret).strip()
        if not typed:
            return default
        if question.secret:
            run.redactor.add(typed)
        value = question.to_value(typed)
        try:
            check_value(question.env, value)
        except UsageError as error:
            run.console.warn(str(error))
        else:
            return value
    raise UsageError(f"{question.env}: no legal answer in {TRIES} tries", hint="see: python -m builder config show")
