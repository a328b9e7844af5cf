"""Form fields of a file request -> what is to be done: OpenAI's fields, and a few of ours.

Every field has a type, a range and a default; an empty one counts as missing, an unknown one is ignored. What
OpenAI offers and this server cannot do (speakers, token probabilities) is refused by name, because an answer
without it would look complete. Knows no socket and no file. Invariant: `parse_fields` returns a request within
range or raises a ClientError that names the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.errors import BadInputError
from engine.languages import language_code
from engine.prompts import MAX_HINT_CHARS
from engine.recording_types import RecordingOptions, Task, VadOptions
from engine.types import SearchOptions
from realtime.audio_errors import BadFormError, ModelNotFoundError

__all__ = ["ALIASES", "FORMATS", "AudioRequest", "AudioRules", "check_model", "parse_fields"]

ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
)
"""OpenAI's names, which programs carry in their defaults: they mean the model that is loaded."""
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "tsv", "lrc")
"""OpenAI's, and two that are ours."""
GRANULARITIES = ("word", "segment")
MODES = ("fast", "accurate")
REFUSED = {
    "include": "nothing; this server has no probabilities of tokens",
    "known_speaker_names": "nothing; this server tells no speakers apart",
    "known_speaker_references": "nothing; this server tells no speakers apart",
}
MAX_VAD_MS = 60_000
"""As for live streams: two of Whisper's windows."""
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_INDEX = re.compile(r"\[\d*\]$")

Mode = Literal["fast", "accurate"]


@dataclass(frozen=True)
class AudioRules:
    """What the server offers: the loaded model under all its names, the first of which is shown."""

    models: tuple[str, ...]
    languages: tuple[str, ...]
    tasks: tuple[str, ...]
    default_language: str | None = None


@dataclass(frozen=True)
class AudioRequest:
    """One file request; `wants_words` and `wants_segments` concern formats that have a place for them."""

    task: Task
    options: RecordingOptions
    response_format: str = "json"
    wants_stream: bool = False
    wants_words: bool = False
    wants_segments: bool = True


def check_model(name: str, rules: AudioRules) -> None:
    """Raise ModelNotFoundError unless the name means the model that is loaded."""
    if name not in rules.models and name not in ALIASES:
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise ModelNotFoundError(f"the model {shown!r} is not loaded here; legal: {rules.models[0]}")


def parse_fields(fields: Sequence[tuple[str, str]], task: Task, rules: AudioRules) -> AudioRequest:
    """Read the fields of one request for `task`. Raises ClientErrors."""
    form = _Form(fields)
    check_model(form.text("model", 512) or rules.models[0], rules)
    for name, legal in REFUSED.items():
        if form.items(name):
            raise BadInputError(name, form.items(name)[0][:80], legal)
    if task not in rules.tasks:
        raise BadInputError("task", task, f"{', '.join(rules.tasks)}; the model {rules.models[0]} does not translate")
    granularities = tuple(form.one_of("timestamp_granularities", item, GRANULARITIES) for item in form.granularities)
    response_format = _response_format(form)
    options = RecordingOptions(
        mode=_mode(form),
        language=_language(form.text("language", 64), rules) or _default_language(form, rules),
        languages=tuple(_known_language("languages", item, rules) for item in form.items("languages")),
        tasks=(task,),
        search=_search(form),
        prompt=form.text("prompt", MAX_HINT_CHARS) or "",
        hotwords=_hotwords(form),
        word_timestamps="word" in granularities,
        vad=_vad(form),
    )
    return AudioRequest(
        task=task,
        options=options,
        response_format=response_format,
        wants_stream=form.flag("stream"),
        wants_words="word" in granularities,
        wants_segments="segment" in granularities or not granularities,
    )


class _Form:
    """The fields by name; lists may be written `name[]`, `name[0]`, or as `name` several times."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            if value.strip():
                self._values.setdefault(_INDEX.sub("", name), []).append(value)

    @property
    def granularities(self) -> list[str]:
        """What is asked for in `timestamp_granularities`."""
        return self.items("timestamp_granularities")

    def items(self, name: str) -> list[str]:
        """All values of a list."""
        return self._values.get(name, [])

    def text(self, name: str, most: int) -> str | None:
        """The value of a field that may be there once."""
        values = self.items(name)
        if len(values) > 1:
            raise BadFormError(f"the field {name!r} is there {len(values)} times; once is enough")
        if values and len(values[0]) > most:
            raise BadInputError(name, f"{len(values[0])} characters", f"at most {most} characters")
        return values[0].strip() if values else None

    def flag(self, name: str) -> bool:
        """A boolean that is false by default."""
        value = (self.text(name, 64) or FALSE[0]).lower()
        if value not in TRUE + FALSE:
            raise BadInputError(name, value, "true or false")
        return value in TRUE

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`, both included."""
        value = self.text(name, 64)
        return None if value is None else _number(name, value, low, high)

    def one_of(self, name: str, value: str, legal: tuple[str, ...]) -> str:
        """`value` if it is legal."""
        if value not in legal:
            raise BadInputError(name, value, ", ".join(legal))
        return value


def _response_format(form: _Form) -> str:
    value = form.text("response_format", 64) or FORMATS[0]
    if value == "diarized_json":
        raise BadInputError("response_format", value, f"{', '.join(FORMATS)}; this server tells no speakers apart")
    return form.one_of("response_format", value, FORMATS)


def _mode(form: _Form) -> Mode:
    return "accurate" if form.one_of("mode", form.text("mode", 64) or MODES[0], MODES) == "accurate" else "fast"


def _language(value: str | None, rules: AudioRules) -> str | None:
    return None if value is None else _known_language("language", value, rules)


def _default_language(form: _Form, rules: AudioRules) -> str | None:
    # Whoever names a choice wants it detected among them.
    return None if form.items("languages") else rules.default_language


def _known_language(name: str, value: str, rules: AudioRules) -> str:
    code = language_code(value)
    if code is None or code not in rules.languages:
        raise BadInputError(name, value, ", ".join(rules.languages))
    return code


def _search(form: _Form) -> SearchOptions:
    temperature = form.number("temperature", 0.0, 1.0)
    # At 0 the temperature rises by itself where a text is not believed, as OpenAI's does.
    return replace(SearchOptions(), temperatures=(temperature,)) if temperature else SearchOptions()


def _hotwords(form: _Form) -> str:
    words = ", ".join([*form.items("hotwords"), *form.items("keywords")])
    if len(words) > MAX_HINT_CHARS:
        raise BadInputError("hotwords", f"{len(words)} characters", f"at most {MAX_HINT_CHARS} characters")
    return words


def _vad(form: _Form) -> VadOptions | None:
    name = "chunking_strategy"
    strategy = form.text(name, 1_024)
    raw: dict[str, Any] = {}
    for key in ("type", "threshold", "prefix_padding_ms", "silence_duration_ms"):
        value = form.text(f"{name}[{key}]", 64)
        if value is not None:
            raw[key] = value
    if strategy is not None and strategy.startswith("{"):
        raw = _json_object(name, strategy)
    elif strategy not in (None, "auto"):
        raise BadInputError(name, strategy, "auto, or an object of type server_vad")
    if raw and raw.get("type") != "server_vad":
        raise BadInputError(f"{name}[type]", raw.get("type"), "server_vad")
    if not raw and strategy is None and not form.flag("vad_filter"):
        return None
    plain = VadOptions()
    threshold = _number(f"{name}[threshold]", raw.get("threshold", plain.threshold), 0.0, 1.0)
    padding_ms = _number(f"{name}[prefix_padding_ms]", raw.get("prefix_padding_ms", plain.speech_pad_ms), 0, MAX_VAD_MS)
    silence = raw.get("silence_duration_ms", plain.min_silence_duration_ms)
    silence_ms = _number(f"{name}[silence_duration_ms]", silence, 0, MAX_VAD_MS)
    return VadOptions(threshold=threshold, speech_pad_ms=round(padding_ms), min_silence_duration_ms=round(silence_ms))


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadInputError(name, text, "auto, or an object of type server_vad")
    return value


def _number(name: str, value: object, low: float, high: float) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise BadInputError(name, value, f"a number from {low:g} to {high:g}")
    return number
