"""Which key of a job's input means which field: other spellings, other workers' names, and what is not here.

Looks at keys; values only where a key alone does not tell (`task`). Invariants: a value never appears in a
warning; the number of warnings is bounded; absence, null and empty text are the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handler.fields import W_NULLABLE, W_TYPES, JobInput
from handler.tolerance import brief, fold, to_flag

__all__ = ["AUDIO_KEYS", "MAX_WARNINGS", "Keys", "is_absent", "mistyped", "read_keys", "unexpected"]

MAX_WARNINGS = 20
"""Unknown keys that get a warning each; the rest are counted."""
MAX_HINTS = 8
"""Unknown keys that are compared with the known ones: each comparison costs about 0.2 ms."""
MAX_KEY_CHARS = 64
"""Longer keys are no spellings of ours."""
SIMILARITY = 0.8
"""difflib ratio from which an unknown key counts as misspelt."""

AUDIO_KEYS = (
    "audio",
    "audio_base64",
    "audio_url",
    "audio_file",
    "file",
    "url",
    "audio_urls",
    "audio_files",
    "files",
    "urls",
)
"""Keys that hold audio, each in any of the forms that `audio` takes."""

_ALIASES = {
    "align_output": "word_timestamps",
    "beam": "beam_size",
    "format": "transcription",
    "lang": "language",
    "log_prob_threshold": "logprob_threshold",
    "model_name": "model",
    "model_size": "model",
    "output_format": "transcription",
    "prompt": "initial_prompt",
    "response_format": "transcription",
    "s3": "s3_config",
    "use_vad": "enable_vad",
    "vad": "enable_vad",
    "vad_filter": "enable_vad",
    "vad_options": "vad_parameters",
    "words": "word_timestamps",
}
"""Names that other programs have for our fields."""

_SPEAKERS = "speakers are not told apart here; ignored"
_UNNEEDED = "no access token is needed here; ignored"
_NO_MEANING = "has no meaning here; ignored"
_NOT_HERE = {
    "diarization": _SPEAKERS,
    "diarize": _SPEAKERS,
    "min_speakers": _SPEAKERS,
    "max_speakers": _SPEAKERS,
    "num_speakers": _SPEAKERS,
    "speakers": _SPEAKERS,
    "speaker_labels": _SPEAKERS,
    "speaker_samples": _SPEAKERS,
    "speaker_verification": _SPEAKERS,
    "huggingface_access_token": _UNNEEDED,
    "hf_token": _UNNEEDED,
    "language_detection_min_prob": _NO_MEANING,
    "language_detection_max_tries": _NO_MEANING,
    "vad_onset": f"{_NO_MEANING} (it belongs to another detector); see vad_parameters.threshold",
    "vad_offset": f"{_NO_MEANING} (it belongs to another detector); see vad_parameters.neg_threshold",
    "debug": "timings are always in the result; ignored",
}
_GRANULARITIES = "timestamp_granularities"
_FALLBACK = "temperature_increment_on_fallback"


@dataclass
class Keys:
    """The input by field: options to validate, audio as given, and what was remarked."""

    options: dict[str, Any] = field(default_factory=dict)
    audio: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)
    """Field to the key that it was given as, for messages."""
    unknown: list[str] = field(default_factory=list)


def is_absent(value: object) -> bool:
    """True for null and empty text, which forms send for fields that nobody filled in, and for an empty list."""
    return value is None or value == [] or (isinstance(value, str) and (not value or value.isspace()))


def unexpected(raw: Mapping[str, Any]) -> list[str]:
    """worker-faster_whisper's refusal of the keys it does not know, in its words."""
    unknown = [key for key in raw if key not in W_TYPES]
    return [f"Unexpected input. {key[:MAX_KEY_CHARS]} is not a valid input option." for key in unknown[:MAX_WARNINGS]]


def mistyped(raw: Mapping[str, Any]) -> dict[str, str]:
    """worker-faster_whisper's refusal of values of another type, in its words, by key; numbers may be whole there."""
    faults = {}
    for key, kind in W_TYPES.items():
        if key not in raw or (raw[key] is None and key in W_NULLABLE):
            continue
        given = type(raw[key])
        # To Python a bool is an int; there it is one too, but no float.
        if not (given in (int, float) if kind is float else issubclass(given, kind)):
            faults[key] = f"{key} should be {kind} type, not {given}."
    return faults


def read_keys(raw: Mapping[str, Any]) -> Keys:
    """Sort the input by field; the field's own name goes before other spellings."""
    keys = Keys()
    later = []
    for key, value in raw.items():
        if key == _FALLBACK and value is None:
            # Everywhere else null is the default; here whisper's own meaning of None is wanted.
            value = 0
        if is_absent(value):
            continue
        if key in AUDIO_KEYS:
            keys.audio[key] = value
        elif key in JobInput.model_fields:
            keys.options[key], keys.named[key] = value, key
        else:
            later.append((key, value))
    for key, value in later:
        _read_other(keys, key, value)
    _remark_unknown(keys)
    return keys


def _read_other(keys: Keys, key: str, value: Any) -> None:
    name = _SPELLINGS.get(_plain(key)) if len(key) <= MAX_KEY_CHARS else None
    if name is None and "speaker" in key[:MAX_KEY_CHARS].lower():
        name = "speakers"
    if name is None:
        keys.unknown.append(key)
    elif name in AUDIO_KEYS:
        keys.audio.setdefault(name, value)
    elif name in _NOT_HERE:
        if value is not False:
            keys.warnings.append(f"{key}: {_NOT_HERE[name]}")
    elif name == "task":
        _read_task(keys, key, value)
    elif name == _GRANULARITIES:
        if isinstance(value, list) and "word" in value[:MAX_HINTS]:
            _put(keys, "word_timestamps", True, key)
    elif name == "return_segments":
        if not _is_on(value):
            keys.warnings.append(f"{key}: segments are always in the result")
    else:
        _put(keys, _ALIASES.get(name, name), value, key)


def _read_task(keys: Keys, key: str, value: Any) -> None:
    task = fold(value[:MAX_KEY_CHARS]) if isinstance(value, str) else ""
    if task == "translate":
        _put(keys, "translate", True, key)
    elif task != "transcribe":
        keys.warnings.append(f"{key}: neither transcribe nor translate; ignored")


def _put(keys: Keys, name: str, value: Any, key: str) -> None:
    if name in keys.options:
        keys.warnings.append(f"{key}: ignored, because {keys.named[name]} is given")
    else:
        keys.options[name], keys.named[name] = value, key


def _remark_unknown(keys: Keys) -> None:
    for number, key in enumerate(keys.unknown[:MAX_WARNINGS]):
        near = []
        if number < MAX_HINTS and len(key) <= MAX_KEY_CHARS:
            near = difflib.get_close_matches(_plain(key), _SPELLINGS, n=1, cutoff=SIMILARITY)
        hint = f"; did you mean {_SPELLINGS[near[0]]}?" if near else ""
        keys.warnings.append(f"{brief(key)}: unknown and ignored{hint}")
    if len(keys.unknown) > MAX_WARNINGS:
        keys.warnings.append(f"{len(keys.unknown) - MAX_WARNINGS} more unknown keys are ignored")


def _is_on(value: object) -> bool:
    try:
        return to_flag(value)
    except ValueError:
        return True


def _plain(key: str) -> str:
    return re.sub(r"[\s_-]", "", key.lower())


_SPELLINGS = {
    _plain(name): name
    for name in (
        *("task", _GRANULARITIES, "return_segments"),
        *_NOT_HERE,
        *_ALIASES,
        *AUDIO_KEYS,
        *JobInput.model_fields,
    )
}
"""Every known name without case, blanks, hyphens and underscores, to that name."""
